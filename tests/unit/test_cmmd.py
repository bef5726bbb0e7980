"""CMMD against the published formula written out, and its jackknife against leaving blocks out."""

import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from evaluation import cmmd
from evaluation.features import FeatureSet, write_features
from evaluation.intervals import block_jackknife, blocks_of


def embeddings(n: int, seed: int, shift: float = 0.0, width: int = 32) -> np.ndarray:
    """Rows of length 1, float32, scattered about a direction that `shift` turns."""
    rows = np.random.default_rng(seed).normal(size=(n, width)) + 2
    rows[:, 0] += shift
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def published(x: np.ndarray, y: np.ndarray) -> float:
    """The mean of all kernels within and between the sets, by SciPy's distances."""
    kernels = [np.exp(-cdist(a, b, "sqeuclidean") / (2 * 10**2)).mean() for a, b in ((x, x), (y, y), (x, y))]
    return 1000 * (kernels[0] + kernels[1] - 2 * kernels[2])


@pytest.mark.parametrize("n, m", [(300, 300), (170, 400), (5, 1)])
def test_value_is_the_published_formula(n, m, monkeypatch):
    monkeypatch.setattr(cmmd, "ROWS", 64)
    x, y = embeddings(n, 0), embeddings(m, 1, shift=1.5)
    expected = published(x.astype(np.float64), y.astype(np.float64))
    assert expected > 0.01
    # what is left of the formula's ones, 1000 times the rounding of 1, is its own error
    assert cmmd.cmmd(x, y) == pytest.approx(expected, abs=1e-11)
    assert cmmd.cmmd(y, x) == pytest.approx(cmmd.cmmd(x, y), rel=1e-12)


def test_a_set_has_no_distance_from_itself():
    x = embeddings(200, 0)
    assert cmmd.cmmd(x, x) < 1e-15 and cmmd.cmmd(x, x[::-1]) < 1e-15
    assert cmmd.cmmd(x, embeddings(200, 3)) > 1e-5


@pytest.mark.parametrize("paired", [True, False])
def test_leaving_a_block_out_is_computing_without_it(paired):
    x, y = embeddings(150, 0), embeddings(150, 1, shift=1.0)
    blocks = blocks_of([f"p{i}" for i in range(150)])
    value, estimates, sizes = cmmd.leave_out_cmmds(x, y, blocks, blocks if paired else None)
    assert value == pytest.approx(published(x.astype(np.float64), y.astype(np.float64)), abs=1e-11)
    for label, estimate, size in zip(np.unique(blocks), estimates, sizes, strict=True):
        kept = blocks != label
        assert estimate == pytest.approx(cmmd.cmmd(x[kept], y[kept] if paired else y), rel=1e-9)
        assert size == (~kept).sum()


def test_the_interval_covers_the_spread_of_sets():
    """Of sets drawn anew, about 95 % of the intervals should hold the mean of all; at 100 sets, 88 is 3 deviations."""
    sets = [(embeddings(200, 2 * i + 10), embeddings(200, 2 * i + 11, shift=1.0)) for i in range(100)]
    blocks = np.arange(200) % 20
    found = [cmmd.leave_out_cmmds(x, y, blocks, blocks) for x, y in sets]
    truth = np.mean([value for value, _, _ in found])
    intervals = [block_jackknife(*values) for values in found]
    assert 88 <= sum(low <= truth <= high for low, high in intervals) <= 100
    width = np.mean([high - low for low, high in intervals])
    assert width == pytest.approx(2 * 2.09 * np.std([value for value, _, _ in found]), rel=0.3)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"one width needed, got \(3, 8\) and \(3, 9\)"):
        cmmd.cmmd(np.ones((3, 8)), np.ones((3, 9)))
    with pytest.raises(ValueError, match=r"got \(0, 8\) and \(3, 8\)"):
        cmmd.cmmd(np.ones((0, 8)), np.ones((3, 8)))


def feature_file(path, ids, features, network="clip-l14-336"):
    key = {"images_sha256": f"of {path.name}", "extractor": {"name": network, "sha256": "0" * 64}}
    key |= {"preprocessing": "square-crop-336", "versions": {"torch": "2"}}
    write_features(path, FeatureSet(list(ids), features, np.zeros((len(features), 0), np.float32), key))
    return str(path)


def test_program(tmp_path):
    ids = [f"p{i}" for i in range(60)]
    x, y = embeddings(60, 0), embeddings(60, 1, shift=1.0)
    ours = feature_file(tmp_path / "ours.npz", ids, x)
    arguments = ["--model", "wuerstchen", "--prompts", "coco-30k", "--seed", "0", "--out", str(tmp_path / "out.json")]

    def run(reference):
        cmmd.main(["--features", ours, "--reference", reference, *arguments])
        return json.loads((tmp_path / "out.json").read_text())

    same = run(feature_file(tmp_path / "same.npz", ids[::-1], y[::-1]))  # matched by id, not by place
    keys = "schema metric protocol model prompts value interval interval_method n seed images_sha256 reference_sha256"
    assert set(same) >= {*keys.split(), "extractor", "preprocessing", "versions"}
    assert same["metric"] == "cmmd" and same["n"] == same["n_reference"] == 60
    assert same["value"] == pytest.approx(cmmd.cmmd(x, y), rel=1e-9)
    assert 0 <= same["interval"][0] < same["value"] < same["interval"][1]
    assert same["protocol"].endswith("against the real pictures of the same ids")

    other = run(feature_file(tmp_path / "other.npz", [f"q{i}" for i in range(60)], y))
    assert other["value"] == pytest.approx(same["value"], rel=1e-9)
    assert other["protocol"].endswith("against 60 other pictures, held fixed")
    assert other["interval"] != same["interval"]

    with pytest.raises(SystemExit, match="other.npz: extractor is"):
        run(feature_file(tmp_path / "other.npz", ids, y, network="dinov2"))
    ours = feature_file(tmp_path / "ours.npz", ids, x, network="dinov2")
    assert run(str(tmp_path / "other.npz"))["metric"] == "mmd-rbf-dinov2"  # no name that is another's
