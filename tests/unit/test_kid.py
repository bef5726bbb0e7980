import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel
from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric

from evaluation import kid as module
from evaluation.kid import kernel, kid, kid_of_subsets, leave_out_kids, leave_out_kids_from, mmd2


def features(n, seed, shift=0.0, d=24):
    return (np.random.default_rng(seed).normal(size=(n, d)).clip(0) + shift).astype(np.float32)


def test_kernel_agrees_with_sklearn():
    x, y = features(7, 1).astype(np.float64), features(5, 2).astype(np.float64)
    assert kernel(x, y) == pytest.approx(polynomial_kernel(x, y, degree=3, coef0=1), rel=1e-12)


def test_estimate_agrees_with_torch_fidelity():
    x, y = features(120, 3).astype(np.float64), features(120, 4, shift=0.2).astype(np.float64)
    settings = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    expected = kernel_mmd(x, y, kid_kernel="poly", **settings)
    assert mmd2(x, y) == pytest.approx(expected, rel=1e-10)
    value, protocol = kid(x, y, seed=0)
    assert value == mmd2(x, y) and protocol == {"subset_size": 120, "subsets": 1}


def test_subsets_estimate_the_same_as_torch_fidelity(monkeypatch):
    monkeypatch.setattr(module, "SUBSET_SIZE", 50)
    x, y = features(300, 5).astype(np.float64), features(300, 6, shift=0.3).astype(np.float64)
    value, protocol = kid(x, y, seed=1)
    assert protocol == {"subset_size": 50, "subsets": 100}
    theirs = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=100, kid_subset_size=50, kid_kernel="poly", verbose=False
    )
    error = theirs["kernel_inception_distance_std"] / 10
    assert abs(value - theirs["kernel_inception_distance_mean"]) < 4 * error
    assert value == kid(x, y, seed=1)[0] != kid(x, y, seed=2)[0]


@pytest.mark.parametrize(("n", "m", "size"), [(300, 300, 50), (70, 200, 70), (1200, 1100, 1000)])
def test_subsets_of_torch_fidelity_are_the_same(n, m, size):
    x, y = features(n, 9).astype(np.float64), features(m, 10, shift=0.1).astype(np.float64)
    subsets = 100 if size < 1000 else 3
    estimates = kid_of_subsets(x, y, size=size, subsets=subsets)
    theirs = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subset_size=size, kid_subsets=subsets, verbose=False
    )
    assert estimates.mean() == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert estimates.std() == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)
    with pytest.raises(ValueError, match=f"subsets of {max(n, m) + 1} need as many"):
        kid_of_subsets(x, y, size=max(n, m) + 1)


def test_blocks_leave_alone_where_the_reference_stays_whole(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 32)
    x, y = features(90, 11), features(70, 12, shift=0.1)
    blocks = np.random.default_rng(0).integers(0, 5, size=90)
    estimates, whole, sizes = leave_out_kids_from(y, x, blocks)
    assert whole == pytest.approx(mmd2(x, y), rel=1e-10) and sizes.sum() == 90
    assert estimates == pytest.approx([mmd2(x[blocks != b], y) for b in range(5)], rel=1e-9)
    with pytest.raises(ValueError, match="two pictures must remain"):
        leave_out_kids_from(y, x, np.zeros(90))


def test_unbiased_around_zero_for_one_distribution():
    values = [mmd2(features(40, 100 + i), features(40, 900 + i)) for i in range(60)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(60)


def test_leaving_blocks_out_is_computing_without_them():
    x, y = features(90, 7), features(90, 8, shift=0.1)
    blocks = np.random.default_rng(0).integers(0, 5, size=90)
    estimates, whole, sizes = leave_out_kids(x, y, blocks)
    assert whole == pytest.approx(mmd2(x, y), rel=1e-10)
    assert sizes.sum() == 90
    assert estimates == pytest.approx([mmd2(x[blocks != b], y[blocks != b]) for b in range(5)], rel=1e-9)


def test_unequal_and_too_few_are_refused():
    with pytest.raises(ValueError, match="equal N"):
        kid(features(9, 1), features(8, 1), seed=0)
    with pytest.raises(ValueError, match="two features"):
        mmd2(features(1, 1), features(5, 1))
    with pytest.raises(ValueError, match="too few"):
        leave_out_kids(features(9, 1), features(9, 2), np.zeros(9))
