"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) of two sets of features.

A picture lies in a set's manifold if it is no farther from one of its pictures than that one's k-th nearest neighbour.
Distances are computed in float64 a block at a time: 30,000 pictures never make a matrix of 30,000 x 30,000.
"""

from collections.abc import Iterator

import numpy as np

K_PRECISION_RECALL, K_DENSITY_COVERAGE = 3, 5  # as in the two papers
ROWS, COLUMNS = 1024, 4096


def squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Blocks of squared Euclidean distances of features (n, D) and (m, D), row by row: (rows, columns, block)."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    squares_x, squares_y = (x**2).sum(axis=1), (y**2).sum(axis=1)
    for top in range(0, len(x), ROWS):
        rows = slice(top, min(top + ROWS, len(x)))
        for left in range(0, len(y), COLUMNS):
            columns = slice(left, min(left + COLUMNS, len(y)))
            block = squares_x[rows, None] + squares_y[None, columns] - 2 * (x[rows] @ y[columns].T)
            yield rows, columns, block.clip(0, out=block)


def squared_radii(x: np.ndarray, *ks: int) -> list[np.ndarray]:
    """Squared distance (n,) of each of the features (n, D) to its k-th nearest neighbour, for each k.

    Raises ValueError unless n > k.
    """
    most = max(ks) + 1  # each is its own nearest
    if len(x) < most:
        raise ValueError(f"{len(x)} pictures have no {max(ks)}-th neighbour")
    nearest = np.full((len(x), most), np.inf)
    for rows, _, block in squared_distances(x, x):
        both = np.concatenate([nearest[rows], block], axis=1)
        nearest[rows] = np.partition(both, most - 1, axis=1)[:, :most]
    nearest.sort(axis=1)
    return [nearest[:, k] for k in ks]


def precision_recall_density_coverage(generated: np.ndarray, real: np.ndarray) -> dict[str, np.ndarray]:
    """Per picture, float64: the four scores are the means of these.

    `precision` and `density` have a number for each of the generated features (n, D), `recall` and `coverage` for
    each of the real (m, D). All are 0 or 1 but the density, which counts manifolds of real pictures in fifths.
    Raises ValueError for differing widths, non-finite features, or fewer than six pictures in a set.
    """
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1]:
        raise ValueError(f"two sets of features of one width needed, got {generated.shape} and {real.shape}")
    if not (np.isfinite(generated).all() and np.isfinite(real).all()):
        raise ValueError("features hold NaN or infinity")
    real_3, real_5 = squared_radii(real, K_PRECISION_RECALL, K_DENSITY_COVERAGE)
    generated_3, _ = squared_radii(generated, K_PRECISION_RECALL, K_DENSITY_COVERAGE)
    precision, density = np.zeros(len(generated)), np.zeros(len(generated))
    recall, coverage = np.zeros(len(real)), np.zeros(len(real))
    for rows, columns, block in squared_distances(generated, real):
        precision[rows] = np.maximum(precision[rows], (block <= real_3[columns]).any(axis=1))
        density[rows] += (block <= real_5[columns]).sum(axis=1) / K_DENSITY_COVERAGE
        recall[columns] = np.maximum(recall[columns], (block <= generated_3[rows, None]).any(axis=0))
        coverage[columns] = np.maximum(coverage[columns], (block <= real_5[columns]).any(axis=0))
    return {"precision": precision, "recall": recall, "density": density, "coverage": coverage}
