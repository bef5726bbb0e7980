"""Inception Score (Salimans et al. 2016): exp of the mean KL divergence of class probabilities from their mean."""

import numpy as np
from scipy.special import log_softmax, logsumexp

SPLITS = 10


def splits_for(n: int) -> int:
    """Ten splits, or as many as leave two pictures in each. Raises ValueError below four pictures."""
    if n < 4:
        raise ValueError(f"an Inception Score needs four pictures or more, got {n}")
    return min(SPLITS, n // 2)


def split_scores(logits: np.ndarray, splits: int, seed: int) -> np.ndarray:
    """Inception Scores (splits,) of the parts of `logits` (n, classes) after a seeded shuffle; each 1..classes.

    The score grows with the pictures in a part, so compare only equal n and equal `splits`. NumPy's RandomState is
    used because its permutations are frozen for all versions (torch-fidelity's order for an equal seed).
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or not 1 <= splits <= len(logits):
        raise ValueError(f"logits (n, classes) with n >= splits needed, got shape {logits.shape}, splits={splits}")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity")
    n = len(logits)
    log_p = log_softmax(logits[np.random.RandomState(seed).permutation(n)], axis=1)
    scores = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        log_mean = logsumexp(part, axis=0, keepdims=True) - np.log(len(part))
        scores.append(np.exp((np.exp(part) * (part - log_mean)).sum(axis=1).mean()))
    return np.array(scores)
