"""CMMD: squared MMD of CLIP's image embeddings with a Gaussian kernel, times 1000 (Jayasumana et al. 2024).

python -m evaluation.cmmd --features NPZ --reference NPZ --model M --prompts P --seed N --out JSON

Embeddings of CLIP ViT-L/14 at 336 px, of length 1; sigma 10; the biased estimator of least variance, in which every
picture is compared with itself too (Gretton et al. 2012, equation 5), as its authors publish it. Both sets may have any
number of pictures. All in float64, in parts: no matrix of all pairs is ever in memory.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.features import FeatureSet, read_features
from evaluation.intervals import COVERS, block_jackknife, blocks_of
from evaluation.scores import JACKKNIFE, score_record
from wuerstchen.files import write_json

NETWORK = "clip-l14-336"
SIGMA = 10.0
SCALE = 1000.0
ROWS = 1024


def kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of k(a, b) - 1 over all pairs of float64 rows of x (n, d) and y (m, d), k = exp(-|a - b|^2 / (2 sigma^2)).

    Embeddings of length 1 have kernels from 0.98 to 1, and the ones cancel in the MMD: without them no digits are lost.
    """
    total, squares = 0.0, (y * y).sum(axis=1)
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]
        distances = (part * part).sum(axis=1)[:, None] + squares - 2 * (part @ y.T)
        total += float(np.expm1(distances / (-2 * SIGMA**2)).sum())
    return total


def block_sums(x: list[np.ndarray], y: list[np.ndarray] | None = None) -> np.ndarray:
    """`kernel_sum` of each block of x with each of y; with each other block of x, both ways, where y is None."""
    if y is not None:
        return np.array([[kernel_sum(a, b) for b in y] for a in x])
    sums = np.zeros((len(x), len(x)))
    for i, a in enumerate(x):
        for j in range(i + 1):
            sums[i, j] = sums[j, i] = kernel_sum(a, x[j])
    return sums


def estimate(xx: float, yy: float, xy: float, n: int, m: int) -> float:
    """CMMD from the three sums over pairs of n and m pictures; never below 0 but for rounding, which is cut off."""
    return max(0.0, SCALE * (xx / n**2 + yy / m**2 - 2 * xy / (n * m)))


def cmmd(x: np.ndarray, y: np.ndarray) -> float:
    """CMMD of embeddings (n, d) and (m, d). Raises ValueError for an empty set or two widths."""
    return leave_out_cmmds(x, y, np.zeros(len(x), int), None)[0]


def leave_out_cmmds(
    x: np.ndarray, y: np.ndarray, blocks_x: np.ndarray, blocks_y: np.ndarray | None
) -> tuple[float, np.ndarray, np.ndarray]:
    """CMMD of all pictures, without each block of x, and the blocks' sizes.

    blocks_x: the block of each row of x. blocks_y: that of each row of y, which then goes with x's block of the same
    number; None where the reference stays whole. A single block cannot be left out: there are then no estimates.
    Raises ValueError for an empty set or two widths.
    """
    if not len(x) or not len(y) or x.shape[1:] != y.shape[1:]:
        raise ValueError(f"two sets of embeddings of one width needed, got {x.shape} and {y.shape}")
    labels, sizes = np.unique(blocks_x, return_counts=True)
    x, y = x.astype(np.float64), y.astype(np.float64)
    parts_x = [x[blocks_x == label] for label in labels]
    parts_y = [y] if blocks_y is None else [y[blocks_y == label] for label in labels]
    xx, yy, xy = block_sums(parts_x), block_sums(parts_y), block_sums(parts_x, parts_y)
    n, m = len(x), sum(map(len, parts_y))
    value = estimate(xx.sum(), yy.sum(), xy.sum(), n, m)
    if len(labels) == 1:
        return value, np.zeros(0), sizes
    estimates = []
    for i, size in enumerate(sizes):
        kept, paired = np.arange(len(labels)) != i, blocks_y is not None
        kept_y = kept if paired else np.ones(1, bool)
        rest = xx[np.ix_(kept, kept)].sum(), yy[np.ix_(kept_y, kept_y)].sum(), xy[np.ix_(kept, kept_y)].sum()
        estimates.append(estimate(*rest, n - size, m - len(parts_y[i]) if paired else m))
    return value, np.array(estimates), sizes


def cmmd_score(images: FeatureSet, reference: FeatureSet) -> dict[str, Any]:
    """Value, interval (cut off at 0) and protocol.

    Where both sets have the same ids, a block leaves both; otherwise the reference is held fixed.
    """
    paired = set(images.ids) == set(reference.ids)
    real = reference.of(images.ids) if paired else reference.features
    blocks = blocks_of(images.ids)
    value, leave_out, sizes = leave_out_cmmds(images.features, real, blocks, blocks if paired else None)
    low, high = block_jackknife(value, leave_out, sizes)
    against = "the real pictures of the same ids" if paired else f"{len(reference.ids)} other pictures, held fixed"
    return {
        "protocol": f"{SCALE:g} x squared MMD, Gaussian kernel of sigma {SIGMA:g}, biased estimator, float64, against "
        + against,
        "value": value,
        "interval": [max(0.0, low), high],
        "interval_method": JACKKNIFE,
        "interval_covers": COVERS,
        "n_reference": len(reference.ids),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m evaluation.cmmd", description=__doc__.splitlines()[0])
    parser.add_argument("--features", required=True, type=Path, metavar="NPZ", help="of the images to score")
    parser.add_argument("--reference", required=True, type=Path, metavar="NPZ", help="of real pictures")
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--seed", required=True, type=int, help="of the study; nothing is drawn here")
    parser.add_argument("--out", required=True, type=Path, metavar="JSON")
    options = parser.parse_args(argv)
    try:
        images = read_features(options.features)
        reference = read_features(options.reference, like=images)
        network = images.key["extractor"]["name"]
        # what another network's features give must not carry the name
        metric = "cmmd" if network == NETWORK else f"mmd-rbf-{network}"
        record = (metric, cmmd_score(images, reference), images, reference)
        write_json(options.out, score_record(*record, options.model, options.prompts, options.seed))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
