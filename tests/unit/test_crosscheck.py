"""Our Inception metrics against torch-fidelity and clean-fid on real photographs, under one file of random weights."""

import json
from dataclasses import dataclass
from pathlib import Path

import crops
import numpy as np
import pytest
import random_inception
import torch

from evaluation import crosscheck
from evaluation.crosscheck import (
    MATCHING,
    clean_fid_features,
    clean_fid_values,
    our_values,
    torch_fidelity_features,
    torch_fidelity_values,
)
from evaluation.features import extract
from evaluation.images import iter_images
from evaluation.inception import Inception

# what the packages call has been deprecated since
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit:FutureWarning",
    "ignore:The parameter 'pretrained':UserWarning",
    "ignore:Arguments other than:UserWarning",
)
LEGACY = [tool for tool in MATCHING if tool != "torch-fidelity"]


@dataclass
class Computed:
    """Features by tool, and ours by preprocessing, of the same crops; with logits where there are any."""

    theirs: dict[str, tuple[np.ndarray, np.ndarray | None]]
    ours: dict[str, tuple[np.ndarray, np.ndarray]]


def compute(folder: Path, count: int, changed: int) -> Computed:
    shard = crops.write_crops(folder / "crops.zip", count, changed=changed)
    weights = random_inception.write(folder)
    extractor = Inception(weights)
    extractor.batch_size = min(extractor.batch_size, count)
    ours = {name: extract(iter_images([shard]), extractor, name)[1:] for name in dict.fromkeys(MATCHING.values())}
    theirs = {tool: (clean_fid_features([shard], weights, tool.split()[1]), None) for tool in LEGACY}
    return Computed({"torch-fidelity": torch_fidelity_features([shard], weights), **theirs}, ours)


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Computed:
    return compute(tmp_path_factory.mktemp("few"), 4, 0)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Computed:
    return compute(tmp_path_factory.mktemp("many"), 2500, 400)


@pytest.mark.parametrize("tool", MATCHING)
def test_features_of_photographs(few, tool):
    theirs, logits = few.theirs[tool]
    ours, our_logits = few.ours[MATCHING[tool]]
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
    if logits is not None:
        assert np.abs(our_logits - logits).max() <= 1e-5 * np.abs(logits).max()


def test_resizes_differ_more_than_the_tools_do(few):
    names = list(few.ours)
    for a, b in zip(names, names[1:], strict=False):
        assert np.abs(few.ours[a][0] - few.ours[b][0]).max() > 1e-3 * np.abs(few.ours[a][0]).max()


def test_values_of_one_set_of_features():
    random = np.random.default_rng(0)
    fake, real = (random.normal(size=(300, 32)).clip(0).astype(np.float32) for _ in range(2))
    fake += 0.3
    logits = random.normal(scale=2, size=(300, 40)).astype(np.float32)
    mine = our_values(fake, real, logits)
    # both sum means in float32
    assert torch_fidelity_values(fake, real, logits) == pytest.approx(mine, rel=1e-5)
    assert clean_fid_values(fake, real)["fid"] == pytest.approx(mine["fid"], rel=1e-5)


@pytest.mark.crosscheck
@pytest.mark.parametrize("tool", MATCHING)
def test_values_of_2500_crops(many, tool):
    """Two sets of 2,100, more than the 2,048 features: 1,700 crops are in both, 400 changed ones in the first alone."""
    theirs, logits = many.theirs[tool]
    ours, our_logits = many.ours[MATCHING[tool]]
    mine = our_values(ours[:2100], ours[400:], our_logits[:2100])
    if tool == "torch-fidelity":
        values = torch_fidelity_values(theirs[:2100], theirs[400:], logits[:2100])
        assert crosscheck.subset_size(2100, 2100) == 1000 and set(values) == set(mine)
    else:
        values = clean_fid_values(theirs[:2100], theirs[400:])
    print(tool, {key: (mine[key], value) for key, value in values.items()})
    assert values == pytest.approx({key: mine[key] for key in values}, rel=1e-5)


@pytest.mark.crosscheck
def test_the_program_says_all_of_it(tmp_path):
    shards = [crops.write_crops(tmp_path / f"{seed}.zip", 12, seed) for seed in (0, 1)]
    weights = random_inception.write(tmp_path)
    out = tmp_path / "crosscheck.json"
    before = torch.hub.get_dir()
    crosscheck.main(
        ["--images", str(shards[0]), "--reference", str(shards[1]), "--weights", str(weights), "--out", str(out)]
    )
    record = json.loads(out.read_text())
    assert set(record["tools"]) == set(MATCHING) and record["n"] == record["reference_n"] == 12
    assert record["kid"]["subset_size"] == 12 and torch.hub.get_dir() == before
    for tool in record["tools"].values():
        assert tool["values"]["fid"] == pytest.approx(record["ours"][tool["preprocessing"]]["fid"], rel=1e-2)
    differences = record["tools"]["torch-fidelity"]["relative_difference"]
    del differences["kid_std"]  # each subset is all twelve pictures, and what is left of the spread is rounding
    assert max(differences.values()) < 1e-2


def test_what_breaks_in_a_package_is_kept(tmp_path, monkeypatch):
    shard = crops.write_crops(tmp_path / "crops.zip", 20)
    features = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    monkeypatch.setattr(crosscheck, "extract", lambda *_: (None, features, features))
    monkeypatch.setattr(crosscheck, "torch_fidelity_features", lambda *_: (features, features))

    def broken(*_):
        raise TypeError("sqrtm() got an unexpected keyword argument 'disp'")

    monkeypatch.setattr(crosscheck, "clean_fid_features", broken)
    record = crosscheck.crosscheck([shard], [shard], random_inception.write(tmp_path))
    assert record["tools"]["clean-fid clean"]["values"] is None
    assert record["tools"]["clean-fid clean"]["error"].startswith("TypeError: sqrtm()")
    assert record["tools"]["torch-fidelity"]["values"]["is"] == pytest.approx(record["ours"]["tf1-299"]["is"])
