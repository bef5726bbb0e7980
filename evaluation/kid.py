"""Kernel distance KID: unbiased squared MMD with the cubic polynomial kernel (Binkowski et al. 2018), in float64."""

import numpy as np

from wuerstchen.seeds import derive

SUBSET_SIZE = 1000
SUBSETS = 100
CHUNK = 2048  # rows of a reference whose kernel is evaluated at once


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3 for features (n, D) and (m, D): (n, m) in float64."""
    return (np.asarray(x, dtype=np.float64) @ np.asarray(y, dtype=np.float64).T / x.shape[1] + 1) ** 3


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased estimate of the squared MMD from all pairs of features (n, D), (n, D); slightly negative is valid."""
    n, m = len(x), len(y)
    if n < 2 or m < 2 or x.shape[1:] != y.shape[1:]:
        raise ValueError(f"two sets of two features or more of one width needed, got {x.shape} and {y.shape}")
    return _unbiased(*_pair_sums(x, y), n, m)


def kid(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, dict[str, int]]:
    """KID of features (n, D) and (n, D), with the protocol used: {"subset_size", "subsets"}.

    Up to 1000 pictures make one subset, which is the estimate from all of them; more are scored as is usual, by the
    mean over 100 seeded subsets of 1000 drawn without replacement.
    """
    if len(x) != len(y):
        raise ValueError(f"equal N needed, got {len(x)} and {len(y)} pictures")
    size = min(len(x), SUBSET_SIZE)
    if size == len(x):
        return mmd2(x, y), {"subset_size": size, "subsets": 1}
    random = np.random.default_rng(derive("kid", seed))
    draw = [(random.permutation(len(x))[:size], random.permutation(len(y))[:size]) for _ in range(SUBSETS)]
    return float(np.mean([mmd2(x[i], y[j]) for i, j in draw])), {"subset_size": size, "subsets": SUBSETS}


def kid_of_subsets(
    x: np.ndarray, y: np.ndarray, seed: int = 2020, size: int = SUBSET_SIZE, subsets: int = SUBSETS
) -> np.ndarray:
    """Estimates (subsets,) of torch-fidelity's protocol, KID being their mean, of features (n, D) and (m, D).

    Each subset draws `size` of x, then of y, without replacement from one stream of NumPy's RandomState, as
    torch-fidelity does with its default seed of 2020. Raises ValueError where a set has fewer than `size`.
    """
    if min(len(x), len(y)) < size:
        raise ValueError(f"{subsets} subsets of {size} need as many pictures of each set, got {len(x)} and {len(y)}")
    random = np.random.RandomState(seed)
    estimates = []
    for _ in range(subsets):
        chosen = x[random.choice(len(x), size, replace=False)]
        estimates.append(mmd2(chosen, y[random.choice(len(y), size, replace=False)]))
    return np.array(estimates)


def leave_out_kids(x: np.ndarray, y: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Estimates from all pictures without each block, for `intervals.block_jackknife`: (estimates, whole, sizes).

    Features (n, D), (n, D) of the same pictures in the same order, `blocks` (n,) the block of each; `whole` is the
    estimate from all. Kernel values are summed by pairs of blocks, so the kernel is evaluated once.
    """
    if not len(x) == len(y) == len(blocks):
        raise ValueError(f"equal N needed, got {len(x)} and {len(y)} features and {len(blocks)} blocks")
    labels, sizes = np.unique(blocks, return_counts=True)
    if len(blocks) - sizes.max() < 2:
        raise ValueError(f"{len(blocks)} pictures are too few to leave a block out: two must remain")
    parts_x, parts_y = [x[blocks == label] for label in labels], [y[blocks == label] for label in labels]
    sums = np.zeros((3, len(labels), len(labels)))
    for i in range(len(labels)):
        for j in range(len(labels)):
            sums[0, i, j] = kernel(parts_x[i], parts_x[j]).sum() - (_diagonal_sum(parts_x[i]) if i == j else 0)
            sums[1, i, j] = kernel(parts_y[i], parts_y[j]).sum() - (_diagonal_sum(parts_y[i]) if i == j else 0)
            sums[2, i, j] = kernel(parts_x[i], parts_y[j]).sum()
    n = len(blocks)
    whole = _unbiased(*sums.sum(axis=(1, 2)), n, n)
    estimates = []
    for i, size in enumerate(sizes):
        rest = np.delete(np.delete(sums, i, axis=1), i, axis=2).sum(axis=(1, 2))
        estimates.append(_unbiased(*rest, n - size, n - size))
    return np.array(estimates), whole, sizes


def leave_out_kids_from(y: np.ndarray, x: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Estimates without each block of x (n, D) from a reference y (m, D) that stays whole: (estimates, whole, sizes).

    For references of other pictures than the prompts'. The kernel is evaluated once, a block of rows at a time.
    """
    labels, sizes = np.unique(blocks, return_counts=True)
    n, m = len(x), len(y)
    if len(blocks) != n or n - sizes.max() < 2 or m < 2:
        raise ValueError(f"{n} and {m} features, {len(blocks)} blocks: two pictures must remain without any block")
    parts = [x[blocks == label] for label in labels]
    rows_y = [y[start : start + CHUNK] for start in range(0, m, CHUNK)]
    within = np.array([[kernel(a, b).sum() for b in parts] for a in parts])
    within[np.diag_indices(len(parts))] -= [_diagonal_sum(part) for part in parts]
    across = np.array([sum(kernel(part, rows).sum() for rows in rows_y) for part in parts])
    # the kernel is symmetric, so that half of the reference's own does
    yy = sum(kernel(a, b).sum() for i, a in enumerate(rows_y) for b in rows_y[:i]) * 2
    yy += sum(kernel(a, a).sum() - _diagonal_sum(a) for a in rows_y)
    whole = _unbiased(within.sum(), yy, across.sum(), n, m)
    estimates = []
    for i, size in enumerate(sizes):
        xx = within.sum() - within[i].sum() - within[:, i].sum() + within[i, i]
        estimates.append(_unbiased(xx, yy, across.sum() - across[i], n - size, m))
    return np.array(estimates), whole, sizes


def _pair_sums(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    return kernel(x, x).sum() - _diagonal_sum(x), kernel(y, y).sum() - _diagonal_sum(y), kernel(x, y).sum()


def _diagonal_sum(x: np.ndarray) -> float:
    return float((((np.asarray(x, dtype=np.float64) ** 2).sum(axis=1) / x.shape[1] + 1) ** 3).sum())


def _unbiased(xx: float, yy: float, xy: float, n: int, m: int) -> float:
    return float(xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m))
