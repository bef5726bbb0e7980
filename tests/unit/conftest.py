import cluster_runs
import pytest
import tiny_study
import torch


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """Folder of a tiny study with data, Stage A and its latents."""
    folder = tmp_path_factory.mktemp("study")
    tiny_study.build(folder)
    return folder


@pytest.fixture(scope="session")
def trained(study):
    """The same study with every stage trained."""
    tiny_study.finish(study)
    return study


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Folder of tar shards, and of what a training on them builds on."""
    folder = tmp_path_factory.mktemp("cluster")
    cluster_runs.build(folder)
    return folder


@pytest.fixture
def on_the_cpu(monkeypatch):
    """Where bits are compared, which GPUs do not promise."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
