import cleanfid.fid
import mpmath
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from evaluation.frechet import (
    Moments,
    Reference,
    distance,
    distance_of_features,
    gaussian,
    leave_out_distances,
    leave_out_distances_from,
)


def features(n, d, seed, shift=0.0, scale=1.0):
    """Correlated features with a power-law spectrum, as networks have."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(d, d)) * np.arange(1, d + 1) ** -0.7
    return (scale * random.normal(size=(n, d)) @ mixing.T + shift).astype(np.float32)


def test_diagonal_gaussians_by_hand():
    # |m1-m2|^2 = 1 + 4; sum (s1 - s2)^2 = (1-3)^2 + (2-5)^2
    value = distance([0, 0], np.diag([1.0, 4.0]), [1, 2], np.diag([9.0, 25.0]))
    assert value == pytest.approx(5 + 4 + 9, rel=1e-12)


def test_gaussians_that_do_not_commute():
    # With orthogonal U: S1 = U diag(a) U^T, S2 = c S1 gives tr S1 (1 - sqrt c)^2; a general pair by scipy's sqrtm.
    a, b = np.cov(features(60, 8, 1).T), np.cov(features(60, 8, 2).T)
    assert distance(np.zeros(8), a, np.zeros(8), 4 * a) == pytest.approx(np.trace(a), rel=1e-12)
    root = sqrtm(a.astype(np.float64) @ b).real
    expected = np.trace(a) + np.trace(b) - 2 * np.trace(root)
    assert distance(np.zeros(8), a, np.zeros(8), b) == pytest.approx(expected, rel=1e-9)


def test_singular_covariance_takes_the_eigenvalue_route():
    one = np.diag([2.0, 0.0, 0.0])
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(one)
    assert distance(np.zeros(3), one, np.zeros(3), np.eye(3)) == pytest.approx(2 + 3 - 2 * np.sqrt(2), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(40, 64), (64, 64), (65, 64), (300, 64)])
def test_identical_sets_are_at_zero_and_never_below(n, d):
    x = features(n, d, 3)
    assert distance_of_features(x, x) == 0 == distance(*gaussian(x), *gaussian(x))
    assert 0 <= distance_of_features(x, x[::-1]) < 1e-6 * np.trace(gaussian(x)[1])


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # clean-fid's, not ours
def test_many_samples_agree_with_torch_fidelity_and_clean_fid():
    x, y = features(500, 48, 4).astype(np.float64), features(500, 48, 5, shift=0.1, scale=1.2).astype(np.float64)
    value = distance_of_features(x, y)
    theirs = [fid_features_to_statistics(torch.from_numpy(part)) for part in (x, y)]
    assert value == pytest.approx(
        fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"], rel=1e-9
    )
    reference = cleanfid.fid.frechet_distance(theirs[0]["mu"], theirs[0]["sigma"], theirs[1]["mu"], theirs[1]["sigma"])
    assert value == pytest.approx(reference, rel=1e-8)


def test_few_samples_agree_with_exact_arithmetic():
    x, y = features(6, 10, 6).astype(np.float64), features(5, 10, 7, shift=0.2).astype(np.float64)
    value = distance_of_features(x, y)
    with mpmath.workdps(60):

        def exact(z):
            z = mpmath.matrix(z.tolist())
            mean = [mpmath.fsum(z[:, j]) / z.rows for j in range(z.cols)]
            centred = mpmath.matrix(z.rows, z.cols)
            for i in range(z.rows):
                for j in range(z.cols):
                    centred[i, j] = z[i, j] - mean[j]
            return mean, centred / mpmath.sqrt(z.rows - 1)

        (mean_x, a), (mean_y, b) = exact(x), exact(y)
        cross = a * b.T
        root = mpmath.fsum(mpmath.sqrt(abs(v)) for v in mpmath.eigsy(cross.T * cross, eigvals_only=True))
        traces = mpmath.fsum(v * v for v in a) + mpmath.fsum(v * v for v in b)
        means = mpmath.fsum((p - q) ** 2 for p, q in zip(mean_x, mean_y, strict=True))
        expected = float(means + traces - 2 * root)
    assert value == pytest.approx(expected, rel=1e-12)
    # The covariance route loses digits on singular matrices, but must tell the same story.
    assert distance(*gaussian(x), *gaussian(y)) == pytest.approx(expected, rel=1e-5)


def test_many_samples_agree_with_exact_arithmetic():
    """Full covariances of a steep spectrum, by the eigenvalues of S1 S2 in 60 digits."""
    x, y = features(40, 10, 14).astype(np.float64), features(50, 10, 15, shift=0.1, scale=1.1).astype(np.float64)
    steep = 10.0 ** -np.arange(0, 5, 0.5)
    (mean_x, a), (mean_y, b) = gaussian(x * steep), gaussian(y * steep)
    with mpmath.workdps(60):
        factor = mpmath.cholesky(mpmath.matrix(a.tolist()))
        product = factor.T * mpmath.matrix(b.tolist()) * factor
        root = mpmath.fsum(mpmath.sqrt(v) for v in mpmath.eigsy(product, eigvals_only=True))
        means = mpmath.fsum((mpmath.mpf(p) - mpmath.mpf(q)) ** 2 for p, q in zip(mean_x, mean_y, strict=True))
        traces = mpmath.fsum(np.diag(a).tolist()) + mpmath.fsum(np.diag(b).tolist())
        expected = float(means + traces - 2 * root)
    assert distance_of_features(x * steep, y * steep) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [100, 500])
def test_inception_wide_features_of_few_samples(n):
    """S2 = c^2 S1, where the truth is |shift|^2 + (1 - c)^2 tr S1: with n < 2048 other tools lose digits or fail."""
    x = features(n, 2048, 16).astype(np.float64)
    truth = 2048 * 0.01**2 + 0.05**2 * gaussian(x)[1].trace()
    y = 1.05 * (x - x.mean(axis=0)) + x.mean(axis=0) + 0.01
    assert distance_of_features(x, y) == pytest.approx(truth, rel=1e-9)
    # a reference of many, of which the same is true of a rotated x
    assert distance_of_features(x, x + 0.01) == pytest.approx(2048 * 0.01**2, rel=1e-9)


@pytest.mark.parametrize("n", [30, 200])
def test_a_reference_is_factored_once_for_all(n):
    x, y = features(n, 50, 17).astype(np.float64), features(300, 50, 18, shift=0.2).astype(np.float64)
    reference = Reference(*gaussian(y))
    value = distance_of_features(x, y)
    assert reference.distance_of_features(x) == pytest.approx(value, rel=1e-9)
    factor = reference.factor
    assert np.allclose(factor @ factor.T, reference.covariance, rtol=1e-12)
    assert reference.distance(*gaussian(y)) == 0 and reference.factor is factor
    blocks = np.random.default_rng(0).integers(0, 5, size=n)
    values, sizes = leave_out_distances_from(reference, x, blocks)
    assert sizes.sum() == n
    assert values == pytest.approx([distance_of_features(x[blocks != b], y) for b in range(5)], rel=1e-9)
    with pytest.raises(ValueError, match="two pictures must remain"):
        leave_out_distances_from(reference, x, np.zeros(n))


@pytest.mark.parametrize("n", [30, 200])
def test_symmetric_and_unmoved_by_shift_and_rotation(n):
    x, y = features(n, 50, 8).astype(np.float64), features(n, 50, 9, scale=1.5).astype(np.float64)
    value = distance_of_features(x, y)
    assert value == pytest.approx(distance_of_features(y, x), rel=1e-9)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(50, 50)))[0]
    assert value == pytest.approx(distance_of_features(x @ rotation + 7, y @ rotation + 7), rel=1e-9)


@pytest.mark.parametrize("n", [60, 400])
def test_leaving_blocks_out_is_computing_without_them(n):
    x, y = features(n, 64, 10), features(n, 64, 11, shift=0.3)
    blocks = np.random.default_rng(0).integers(0, 6, size=n)
    values, sizes = leave_out_distances(x, y, blocks)
    assert sizes.tolist() == [int((blocks == b).sum()) for b in range(6)]
    expected = [distance_of_features(x[blocks != b], y[blocks != b]) for b in range(6)]
    assert values == pytest.approx(expected, rel=1e-7)


def test_moments_subtract():
    x = features(50, 5, 12)
    mean, covariance = (Moments.of(x) - Moments.of(x[:20])).gaussian()
    assert mean == pytest.approx(x[20:].mean(axis=0, dtype=np.float64))
    assert covariance == pytest.approx(np.cov(x[20:].astype(np.float64).T), abs=1e-9)


def test_bad_features_are_refused():
    x = features(10, 4, 13)
    with pytest.raises(ValueError, match="NaN"):
        distance_of_features(np.where(x == x[0, 0], np.nan, x), x)
    with pytest.raises(ValueError, match="one width"):
        distance_of_features(x, x[:, :3])
    with pytest.raises(ValueError, match="two samples"):
        distance_of_features(x[:1], x)
    with pytest.raises(ValueError, match="equal N"):
        leave_out_distances(x, x[:9], np.zeros(10))
    with pytest.raises(ValueError, match="too few"):
        leave_out_distances(x, x, np.zeros(10))
