"""The paper's two views of the votes (section 4.2, Figure 5): all votes whoever gave them, and what each user prefers.

Users count in the second from the median number of comparisons on; `sweep` says what other thresholds would give.
All functions take votes [users, outcome], outcomes being A, equal and B, of users with a comparison or more.
"""

from typing import Any

import numpy as np
from scipy.stats import binomtest

from study_app.clusters import share_interval

OUTCOMES = ("a", "equal", "b")
SHARES_OF_USERS = tuple(range(0, 100, 10))  # percent of users that a threshold of the sweep leaves out


def interval(successes: np.ndarray, trials: np.ndarray) -> list[float] | None:
    """The 95 % interval over users as JSON."""
    bounds = share_interval(successes, trials)
    return None if bounds is None else list(bounds)


def overall(votes: np.ndarray) -> dict[str, Any]:
    """First view: counts and shares of all votes, and the share of A among the decisive ones, with intervals."""
    total = votes.sum(-1)
    shares = {
        name: {
            "votes": int(votes[:, place].sum()),
            "share": float(votes[:, place].sum() / total.sum()),
            "interval": interval(votes[:, place], total),
        }
        for place, name in enumerate(OUTCOMES)
    }
    decisive = total - votes[:, 1]
    return {
        "votes": int(total.sum()),
        "shares": shares,
        "preferred": {
            "votes": int(decisive.sum()),
            "share": float(votes[:, 0].sum() / decisive.sum()) if decisive.sum() else None,
            "interval": interval(votes[:, 0], decisive) if decisive.sum() else None,
        },
    }


def majorities(votes: np.ndarray) -> dict[str, int]:
    """How many users preferred A more often than B, as often, and less often."""
    lead = votes[:, 0] - votes[:, 2]
    return {"a": int((lead > 0).sum()), "equal": int((lead == 0).sum()), "b": int((lead < 0).sum())}


def sign_test(for_a: int, for_b: int) -> float | None:
    """Two-sided exact p value of as many users for A as for B; users for neither are left out. None without any."""
    return float(binomtest(for_a, for_a + for_b).pvalue) if for_a + for_b else None


def from_threshold(votes: np.ndarray, threshold: float) -> dict[str, Any]:
    """Second view of the users with at least so many comparisons."""
    chosen = votes[votes.sum(-1) >= threshold]
    users = majorities(chosen)
    return {
        "threshold": float(threshold),
        "users": len(chosen),
        "votes": int(chosen.sum()),
        "majorities": users,
        "sign_test_p": sign_test(users["a"], users["b"]),
        "mean_share": mean_share(chosen),
    }


def mean_share(votes: np.ndarray) -> float | None:
    """Mean over users of each one's share of A among decisive votes; None without a decisive vote."""
    decisive = votes[:, 0] + votes[:, 2]
    with_votes = decisive > 0
    return float((votes[with_votes, 0] / decisive[with_votes]).mean()) if with_votes.any() else None


def by_users(votes: np.ndarray) -> dict[str, Any]:
    """Second view from the median number of comparisons on, as the paper has it, and beside it all users."""
    total = votes.sum(-1)
    return {
        "comparisons": sorted(total.tolist()),
        "median": float(np.median(total)),
        "from_median": from_threshold(votes, np.median(total)),
        "everyone": from_threshold(votes, 1),
    }


def sweep(votes: np.ndarray) -> list[dict[str, Any]]:
    """The second view at the thresholds that leave out 0, 10, ... 90 % of the users, each threshold once."""
    total = np.sort(votes.sum(-1))
    thresholds = dict.fromkeys(int(total[len(total) * percent // 100]) for percent in SHARES_OF_USERS)
    return [from_threshold(votes, threshold) for threshold in thresholds]
