import pytest
import tiny_study


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
