"""95 % intervals of a share of votes that come in clusters: many by one person, few by another.

Votes of one person are alike, so that an interval over votes (Wilson's) is far too short. These take people as the
sample. All functions take arrays [..., users] of votes for one answer and of all votes, and any number of such samples.
`python -m study_app.coverage` measures how often each interval holds the truth; `share_interval` is what it chose.
"""

import numpy as np
from scipy.special import expit, logit, stdtrit

from evaluation.intervals import wilson

METHOD = (
    "logit of the share, bias-reduced cluster-robust variance over users (CR2), Student t with Satterthwaite's degrees "
    "of freedom; where all users agree, Wilson with the number of users"
)
COVERS = "which people took part; not which prompts were shown, retraining or another sampling seed"


def pooled(successes: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Share of all votes, whoever gave them: [...]."""
    return successes.sum(-1) / trials.sum(-1)


def cr2(successes: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the pooled share and its degrees of freedom (Bell and McCaffrey 2002): [...], [...].

    A user with w of all votes has a residual that is too small by 1 - w on average if votes were independent; each
    square is divided by that. Degrees of freedom are Satterthwaite's under the same working model: few where a few
    people gave most votes. Needs two users with votes.
    """
    everything = trials.sum(-1, keepdims=True)
    weight = trials / everything
    residual = (successes - pooled(successes, trials)[..., None] * trials) / everything
    # one user with all the votes would divide 0 by 0
    scale = 1 / np.maximum(1 - weight, 1e-12)
    variance = (scale * residual**2).sum(-1)
    # The variance is a quadratic form in the votes; 2 / freedom is its squared coefficient of variation were they
    # independent.
    inverse = (scale**2 * weight**2 * (1 - 2 * weight)).sum(-1) + (scale * weight**2).sum(-1) ** 2
    return variance, 1 / inverse


def share_interval(successes: np.ndarray, trials: np.ndarray, level: float = 0.95) -> tuple[float, float] | None:
    """Interval of the pooled share of one sample of users; None with fewer than two users who voted. See METHOD."""
    voted = trials > 0
    successes, trials = np.asarray(successes, float)[voted], np.asarray(trials, float)[voted]
    if len(trials) < 2:
        return None
    variance, freedom = cr2(successes, trials)
    if variance == 0:  # in each user's votes the same share, so that the variance says nothing
        return wilson(round(pooled(successes, trials) * len(trials)), len(trials), level)
    low, high = logit_interval(pooled(successes, trials), variance, freedom, level)
    return float(low), float(high)


def logit_interval(
    share: np.ndarray, variance: np.ndarray, freedom: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Student's interval on the logit scale, so that it stays within 0 and 1; the share is not 0 or 1."""
    half = stdtrit(freedom, 0.5 + level / 2) * np.sqrt(variance) / (share * (1 - share))
    return expit(logit(share) - half), expit(logit(share) + half)
