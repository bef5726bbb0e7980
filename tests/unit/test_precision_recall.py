import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch_fidelity.metric_prc import prc_features_to_metric

from evaluation import precision_recall
from evaluation.precision_recall import precision_recall_density_coverage, squared_radii


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks each way, the last ones cut."""
    monkeypatch.setattr(precision_recall, "ROWS", 37)
    monkeypatch.setattr(precision_recall, "COLUMNS", 53)


def features(n, seed, shift=0.0, scale=1.0, d=8):
    return (scale * np.random.default_rng(seed).normal(size=(n, d)) + shift).astype(np.float32)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.7, 0.6), (4.0, 1.0), (0.0, 0.1)])
def test_precision_and_recall_are_torch_fidelitys(shift, scale):
    generated, real = features(150, 1, shift, scale), features(210, 2)
    scores = precision_recall_density_coverage(generated, real)
    theirs = prc_features_to_metric(torch.from_numpy(generated), torch.from_numpy(real), verbose=False)
    assert scores["precision"].mean() == pytest.approx(theirs["precision"], abs=1e-7)
    assert scores["recall"].mean() == pytest.approx(theirs["recall"], abs=1e-7)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.7, 0.6), (4.0, 1.0)])
def test_density_and_coverage_by_neighbours_of_sklearn(shift, scale):
    generated, real = features(150, 3, shift, scale), features(210, 4)
    radii = NearestNeighbors(n_neighbors=6).fit(real).kneighbors(real)[0][:, 5]
    assert np.sqrt(squared_radii(real, 5)[0]) == pytest.approx(radii, rel=1e-5)
    distances = np.linalg.norm(generated[:, None].astype(np.float64) - real[None], axis=2)
    scores = precision_recall_density_coverage(generated, real)
    within = distances <= radii
    assert scores["density"] == pytest.approx(within.sum(axis=1) / 5)
    assert np.array_equal(scores["coverage"], within.any(axis=0))


def test_equal_sets_and_distant_ones():
    x = features(80, 5)
    same = precision_recall_density_coverage(x, x)
    assert all(same[name].mean() == 1 for name in ("precision", "recall", "coverage"))
    # each picture is in its own manifold, and in those of the others that have it among their five
    assert same["density"].mean() == pytest.approx(6 / 5)
    apart = precision_recall_density_coverage(x, x + 100)
    assert all(apart[name].max() == 0 for name in apart)


def test_bad_sets_are_refused():
    x = features(20, 6)
    with pytest.raises(ValueError, match="no 5-th neighbour"):
        precision_recall_density_coverage(x[:5], x)
    with pytest.raises(ValueError, match="one width"):
        precision_recall_density_coverage(x, x[:, :3])
    with pytest.raises(ValueError, match="NaN"):
        precision_recall_density_coverage(x * np.nan, x)
