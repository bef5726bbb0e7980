"""95 % intervals: Wilson for shares, block jackknife for distances, paired bootstrap for means over prompts.

All three cover one source of uncertainty: which prompts (and so which pictures) happened to be in the set. None covers
a second training run, another sampling seed, the choice of extractor, or the bias of a Frechet distance at small N.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri, stdtrit

from wuerstchen.seeds import derive

BLOCKS = 20
COVERS = "which prompts are in the set; not retraining, another sampling seed or the bias at small N"


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share of `n` independent trials, both ends in [0, 1] (Wilson 1927).

    Raises ValueError where n < 1 or successes is not in 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a share needs 0 <= successes <= n and n >= 1, got successes={successes}, n={n}")
    z = ndtri(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding would put the ends of 0/n and n/n some 1e-17 outside or inside their exact 0 and 1.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return float(low), float(high)


def blocks_of(ids: Sequence[str], count: int = BLOCKS) -> np.ndarray:
    """Block number in 0..count-1 of each prompt id, by a hash of the id alone: equal for every model and order."""
    return np.array([derive("jackknife-block", str(name)) % count for name in ids], dtype=np.int64)


def block_jackknife(
    value: float, leave_out: Sequence[float], sizes: Sequence[int], level: float = 0.95
) -> tuple[float, float]:
    """Interval around `value` from its recomputation without each block (delete-m_j jackknife, Busing et al. 1999).

    `leave_out[j]` is the statistic without block j, which holds `sizes[j]` of the sum(sizes) samples; Student's t with
    blocks - 1 degrees of freedom. Only the variance is taken from the jackknife, the value is not bias corrected.
    Raises ValueError where there are fewer than two blocks.
    """
    estimates, sizes_ = np.asarray(leave_out, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    blocks = len(estimates)
    if blocks < 2 or blocks != len(sizes_):
        raise ValueError(f"a block jackknife needs two blocks or more and one size for each, got {blocks} blocks")
    if not np.isfinite(value) or not np.isfinite(estimates).all():
        raise ValueError("a block jackknife needs finite estimates")
    ratio = sizes_.sum() / sizes_
    pseudo = ratio * value - (ratio - 1) * estimates
    centre = blocks * value - ((1 - 1 / ratio) * estimates).sum()
    variance = ((pseudo - centre) ** 2 / (ratio - 1)).mean()
    half = float(stdtrit(blocks - 1, 0.5 + level / 2)) * math.sqrt(variance)
    return float(value - half), float(value + half)


def paired_bootstrap(
    per_prompt: Sequence[float], seed: int, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of one number per prompt, by drawing prompts with replacement.

    Pass what the pair of models did on each prompt (a difference of scores, or 1 for a win and 0 otherwise): the pair
    then stays together. Raises ValueError where there is no prompt.
    """
    values = np.asarray(per_prompt, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"a paired bootstrap needs one number per prompt, got an array of shape {values.shape}")
    random = np.random.default_rng(derive("bootstrap", seed))
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
