"""Davidson's model of paired comparisons with ties, and with an effect of the side (Davidson and Beaver 1977).

With s = +1 where A is on the left and -1 where it is on the right,

    P(left) : P(equal) : P(right)  =  exp((s strength + side) / 2) : ties : exp(-(s strength + side) / 2)

so that strength is the logit of A's share of the decisive votes where neither side is favoured, side the logit by which
the left is, and ties how often two equal models would be called equal, against the sum of the others.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from wuerstchen.seeds import derive

PARAMETERS = ("strength", "side", "log_ties")
SIGN = np.array([1.0, -1.0])  # of each side that A can be on
STEPS, TOLERANCE = 60, 1e-10
RESAMPLES = 1999
LARGEST = 30.0  # a strength above this is no longer a number that votes can tell from infinity
METHOD = f"bootstrap-t over users, {RESAMPLES} resamples, cluster-robust standard errors"


def design() -> np.ndarray:
    """[side, outcome A / equal / B, parameter]: what each parameter adds to the log-odds of each outcome."""
    matrix = np.zeros((2, 3, 3))
    matrix[:, 0, 0], matrix[:, 2, 0] = 0.5, -0.5
    matrix[:, 0, 1], matrix[:, 2, 1] = SIGN / 2, -SIGN / 2
    matrix[:, 1, 2] = 1.0
    return matrix


DESIGN = design()


def probabilities(parameters: np.ndarray) -> np.ndarray:
    """[..., side, outcome] from [..., parameter]."""
    odds = np.einsum("sop,...p->...so", DESIGN, parameters)
    odds = np.exp(odds - odds.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def fit(counts: np.ndarray) -> np.ndarray:
    """Parameters of the largest likelihood, [..., 3], of counts [..., side, outcome], by Newton's method.

    Not a number where votes do not bound all three: none for one of the models, none for equal, a side never shown.
    """
    counts = np.asarray(counts, dtype=np.float64)
    found = np.zeros((*counts.shape[:-2], 3))
    sufficient = np.einsum("...so,sop->...p", counts, DESIGN)
    for _ in range(STEPS):
        expected = probabilities(found) * counts.sum(-1, keepdims=True)
        step = solve(information(expected), sufficient - np.einsum("...so,sop->...p", expected, DESIGN))
        found = found + np.clip(step, -2, 2)
        if not (np.abs(step) > TOLERANCE).any():
            break
    settled = (np.abs(step) < 1e-6).all(-1) & (np.abs(found) < LARGEST).all(-1)
    return np.where(settled[..., None], found, np.nan)


def solve(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """matrix^-1 vector of stacks, not a number where the matrix has no inverse."""
    finite = np.isfinite(matrix).all((-1, -2)) & np.isfinite(vector).all(-1)
    matrix = np.where(finite[..., None, None], matrix, np.eye(matrix.shape[-1]))
    whole = finite & (np.linalg.cond(matrix) < 1e12)
    safe = np.where(whole[..., None, None], matrix, np.eye(matrix.shape[-1]))
    return np.where(whole[..., None], np.linalg.solve(safe, vector[..., None])[..., 0], np.nan)


def information(expected: np.ndarray) -> np.ndarray:
    """Fisher information [..., 3, 3] of expected counts [..., side, outcome]."""
    mean = np.einsum("...so,sop->...sp", expected, DESIGN)
    total = np.maximum(expected.sum(-1), 1e-300)
    return np.einsum("...so,sop,soq->...pq", expected, DESIGN, DESIGN) - np.einsum(
        "...sp,...sq,...s->...pq", mean, mean, 1 / total
    )


def standard_errors(counts: np.ndarray, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Cluster-robust standard errors [..., 3] of counts [users, side, outcome] at parameters [..., 3].

    `weights` [..., users] says how often each user counts, as in a resample. One user's votes may be alike in any way.
    """
    expected = probabilities(parameters)
    per_user = counts.sum(-1)  # [users, side]
    score = np.einsum("uso,sop->up", counts, DESIGN) - np.einsum(
        "us,...so,sop->...up", per_user, expected, DESIGN, optimize=True
    )
    meat = np.einsum("...u,...up,...uq->...pq", weights, score, score, optimize=True)
    bread = information(expected * np.einsum("...u,us->...s", weights, per_user)[..., None])
    rows = [solve(bread, np.broadcast_to(unit, bread.shape[:-1])) for unit in np.eye(3)]
    inverse = np.stack(rows, -1)
    return np.sqrt(np.maximum(np.einsum("...pi,...ij,...jp->...p", inverse, meat, inverse), 0.0))


@dataclass(frozen=True)
class Davidson:
    """A fitted model: value, standard error and 95 % interval (or None) of each of PARAMETERS."""

    value: np.ndarray
    error: np.ndarray
    interval: np.ndarray | None

    def record(self) -> dict[str, dict[str, object]]:
        """As JSON."""
        return {
            name: {
                "value": float(self.value[place]),
                "standard_error": float(self.error[place]),
                "interval": None if self.interval is None else self.interval[place].tolist(),
            }
            for place, name in enumerate(PARAMETERS)
        }


def davidson(counts: np.ndarray, seed: int) -> Davidson | None:
    """The model of the votes [users, side, outcome] of several people; None where the votes do not bound it.

    The interval is of the bootstrap-t over users: each resample of users gives (value - ours) / its standard error.
    There is none where a hundredth of the resamples or more do not bound the model.
    """
    counts = np.asarray(counts, dtype=np.float64)
    users = len(counts)
    value = fit(counts.sum(0))
    if users < 2 or np.isnan(value).any():
        return None
    error = standard_errors(counts, value, np.ones(users))
    random = np.random.default_rng(derive("davidson", seed))
    weights = random.multinomial(users, np.full(users, 1 / users), size=RESAMPLES).astype(np.float64)
    values = fit(np.einsum("ru,uso->rso", weights, counts))
    whole = ~np.isnan(values).any(-1)
    if whole.mean() <= 0.99:
        return Davidson(value, error, None)
    errors = standard_errors(counts, values[whole], weights[whole])
    studentised = (values[whole] - value) / np.maximum(errors, 1e-12)
    low, high = np.quantile(studentised, [0.025, 0.975], axis=0)
    return Davidson(value, error, np.stack([value - high * error, value - low * error], -1))


def position_test(counts: np.ndarray) -> dict[str, float | int] | None:
    """Whether the left is chosen as often as the right among decisive votes: exact binomial test, two-sided.

    None without a decisive vote. Sides are drawn for each pair anew, so that this needs no model; it takes votes as
    independent, which one user with a habit makes too small a p value: `side` of Davidson's model does not.
    """
    summed = np.asarray(counts).sum(0)
    left, right = int(summed[0, 0] + summed[1, 2]), int(summed[0, 2] + summed[1, 0])
    if left + right == 0:
        return None
    return {"left": left, "right": right, "p": float(binomtest(left, left + right).pvalue)}
