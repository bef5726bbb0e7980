"""Frechet distance between two Gaussians (Heusel et al. 2018; the paper's FID, section 4 and Appendix B).

All in float64: in float32 the distance of identical sets comes out negative and a small one several times too large.
The trace of the matrix root is taken without forming the root: tr((S1 S2)^1/2) is the nuclear norm of A1 A2^T for any
A1, A2 with S = A^T A. Few samples (N <= D) give A directly, many give it by Cholesky.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Count, sum (D,) and second moment X^T X (D, D) of samples: they add and subtract, so a block can be left out."""

    n: int
    total: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Moments":
        """Moments of features (n, D) in float64."""
        features = np.asarray(features, dtype=np.float64)
        return cls(len(features), features.sum(axis=0), features.T @ features)

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(self.n - other.n, self.total - other.total, self.scatter - other.scatter)

    def gaussian(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (D,) and unbiased covariance (D, D)."""
        mean = self.total / self.n
        return mean, (self.scatter - self.n * np.outer(mean, mean)) / (self.n - 1)


def gaussian(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D) in float64 of features (n, D), n >= 2."""
    features = _checked(features)
    mean = features.mean(axis=0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


@dataclass(frozen=True)
class Reference:
    """A Gaussian with mean (D,) and covariance (D, D) that several others are compared with: it is factored once."""

    mean: np.ndarray
    covariance: np.ndarray

    @cached_property
    def factor(self) -> np.ndarray:
        """A matrix (D, D) whose product with its own transpose is the covariance."""
        try:
            return np.linalg.cholesky(self.covariance)
        except np.linalg.LinAlgError:
            values, vectors = np.linalg.eigh(self.covariance)
            return vectors * np.sqrt(values.clip(0))

    def distance(self, mean: np.ndarray, covariance: np.ndarray) -> float:
        """Squared Frechet distance from the Gaussian with that mean and covariance; 0 from itself, never negative."""
        if np.array_equal(self.mean, mean) and np.array_equal(self.covariance, covariance):
            return 0.0
        # Symmetric and similar to S1 S2, so that eigvalsh applies: three times faster than eigvals and never complex.
        eigenvalues = np.linalg.eigvalsh(self.factor.T @ covariance @ self.factor)
        root = np.sqrt(eigenvalues.clip(0)).sum()
        return _assemble(self.mean - mean, np.trace(self.covariance), np.trace(covariance), root)

    def distance_of_features(self, features: np.ndarray) -> float:
        """The same from the Gaussian of features (n, D), n of 2 or more; with n <= D their covariance is not built."""
        features = _checked(features)
        n, width = features.shape
        if n > width:
            return self.distance(*gaussian(features))
        mean = features.mean(axis=0)
        scaled = (features - mean) / np.sqrt(n - 1)
        root = np.linalg.svd(scaled @ self.factor, compute_uv=False).sum()
        return _assemble(self.mean - mean, np.trace(self.covariance), (scaled**2).sum(), root)


def distance(mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray) -> float:
    """Squared Frechet distance of two Gaussians with means (D,) and covariances (D, D); never negative.

    Where the features themselves are at hand and n <= D, `distance_of_features` is exact and faster.
    """
    mean1, mean2 = np.asarray(mean1, dtype=np.float64), np.asarray(mean2, dtype=np.float64)
    covariance1, covariance2 = np.asarray(covariance1, dtype=np.float64), np.asarray(covariance2, dtype=np.float64)
    return Reference(mean1, covariance1).distance(mean2, covariance2)


def distance_of_features(features1: np.ndarray, features2: np.ndarray) -> float:
    """Squared Frechet distance of two sets of features (n1, D) and (n2, D); n of 2 or more, any size beside D.

    With n <= D the covariances are singular: the nuclear norm of the centred cross-product (n1, n2) then replaces
    the matrix root. Raises ValueError for differing widths, fewer than two samples or non-finite features.
    """
    features1, features2 = _checked_pair(features1, features2)
    if np.array_equal(features1, features2):
        return 0.0
    if min(len(features1), len(features2)) > features1.shape[1]:
        return distance(*gaussian(features1), *gaussian(features2))
    mean1, mean2 = features1.mean(axis=0), features2.mean(axis=0)
    scaled1 = (features1 - mean1) / np.sqrt(len(features1) - 1)
    scaled2 = (features2 - mean2) / np.sqrt(len(features2) - 1)
    root = np.linalg.svd(scaled1 @ scaled2.T, compute_uv=False).sum()
    return _assemble(mean1 - mean2, (scaled1**2).sum(), (scaled2**2).sum(), root)


def leave_out_distances(
    features1: np.ndarray, features2: np.ndarray, blocks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances without each block of samples, for `intervals.block_jackknife`.

    Features (n, D) and (n, D) of the same pictures in the same order, `blocks` (n,) the block of each. Returns
    (distances, sizes), one entry for each block that holds a picture. A block's pictures leave both sets.
    """
    features1, features2 = _checked_pair(features1, features2)
    if not len(features1) == len(features2) == len(blocks):
        raise ValueError(f"equal N needed, got {len(features1)}, {len(features2)} features and {len(blocks)} blocks")
    labels, sizes = np.unique(blocks, return_counts=True)
    if len(blocks) - sizes.max() < 2:
        raise ValueError(f"{len(blocks)} pictures are too few to leave a block out: two must remain")
    # The distance does not change with a common shift, and the moments of centred features lose no digits.
    shift = features1.mean(axis=0)
    features1, features2 = features1 - shift, features2 - shift
    few = len(blocks) <= features1.shape[1]
    leave_out = _leave_out_by_gram if few else _leave_out_by_moments
    return np.array(leave_out(features1, features2, [blocks == label for label in labels])), sizes


def leave_out_distances_from(
    reference: Reference, features: np.ndarray, blocks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of features (n, D) without each block from a reference that stays whole: (distances, sizes).

    For references of other pictures than the prompts', such as all of a data set, and for imported statistics.
    """
    features = _checked(features)
    labels, sizes = np.unique(blocks, return_counts=True)
    n, width = features.shape
    if len(blocks) != n or n - sizes.max() < 2:
        raise ValueError(f"{n} features and {len(blocks)} blocks: two pictures must remain without any block")
    shift = features.mean(axis=0)
    whole = Moments.of(features - shift)
    distances = []
    for label, size in zip(labels, sizes, strict=True):
        if n - size <= width:
            distances.append(reference.distance_of_features(features[blocks != label]))
            continue
        mean, covariance = (whole - Moments.of(features[blocks == label] - shift)).gaussian()
        distances.append(reference.distance(mean + shift, covariance))
    return np.array(distances), sizes


def _leave_out_by_gram(features1: np.ndarray, features2: np.ndarray, members: list[np.ndarray]) -> list[float]:
    """The cross-product is built once; leaving a block out deletes rows and columns and centres again."""
    cross = features1 @ features2.T
    squares1, squares2 = (features1**2).sum(axis=1), (features2**2).sum(axis=1)
    total1, total2 = features1.sum(axis=0), features2.sum(axis=0)
    distances = []
    for block in members:
        keep = ~block
        n = int(keep.sum())
        mean1 = (total1 - features1[block].sum(axis=0)) / n
        mean2 = (total2 - features2[block].sum(axis=0)) / n
        part = cross[np.ix_(keep, keep)]
        part = part - part.mean(axis=0) - part.mean(axis=1, keepdims=True) + part.mean()
        root = np.linalg.svd(part, compute_uv=False).sum() / (n - 1)
        trace1 = (squares1[keep].sum() - n * mean1 @ mean1) / (n - 1)
        trace2 = (squares2[keep].sum() - n * mean2 @ mean2) / (n - 1)
        distances.append(_assemble(mean1 - mean2, trace1, trace2, root))
    return distances


def _leave_out_by_moments(features1: np.ndarray, features2: np.ndarray, members: list[np.ndarray]) -> list[float]:
    whole1, whole2 = Moments.of(features1), Moments.of(features2)
    return [
        distance(
            *(whole1 - Moments.of(features1[block])).gaussian(), *(whole2 - Moments.of(features2[block])).gaussian()
        )
        for block in members
    ]


def _assemble(difference: np.ndarray, trace1: float, trace2: float, root: float) -> float:
    return max(0.0, float(difference @ difference + trace1 + trace2 - 2 * root))


def _checked(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features (n, D) of two samples or more needed, got an array of shape {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("features hold NaN or infinity")
    return features


def _checked_pair(features1: np.ndarray, features2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features1, features2 = _checked(features1), _checked(features2)
    if features1.shape[1] != features2.shape[1]:
        raise ValueError(f"features of one width needed, got {features1.shape[1]} and {features2.shape[1]}")
    return features1, features2
