"""Davidson's model of paired comparisons with ties, and with an effect of the side (Davidson and Beaver 1977).

With s = +1 where A is on the left and -1 where it is on the right,

    P(left) : P(equal) : P(right)  =  exp((s strength + side) / 2) : ties : exp(-(s strength + side) / 2)

so that strength is the logit of A's share of the decisive votes where neither side is favoured, side the logit by which
the left is, and ties how often two equal models would be called equal, against the sum of the others.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit
from scipy.stats import binomtest

PARAMETERS = ("strength", "side", "log_ties")
SIGN = np.array([1.0, -1.0])  # of each side that A can be on
STEPS, TOLERANCE = 60, 1e-10
LARGEST = 30.0  # a strength above this is no longer a number that votes can tell from infinity
METHOD = (
    "bias-reduced cluster-robust variance over users (CR2), Student t with Satterthwaite's degrees of freedom, on the "
    "logit or log scale"
)


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


def robust(counts: np.ndarray, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors [..., 3] and degrees of freedom [..., 3] of parameters [..., 3] fitted to counts
    [..., users, side, outcome]: CR2 and Satterthwaite's as in `study_app.clusters`, here for several parameters.

    One user's votes may be alike in any way. In units of the whole information, the score of a user with the part J of
    it varies by J - J^2, where it would by J had the user no say in the fit; (1 - J)^(-1/2) of it makes up for that.
    """
    per_side = counts.sum(-1, keepdims=True)
    expected = probabilities(parameters)[..., None, :, :] * per_side
    score = np.einsum("...uso,sop->...up", counts - expected, DESIGN)
    parts = information(expected)  # [..., users, parameter, parameter]
    lower = np.linalg.cholesky(parts.sum(-3))[..., None, :, :]
    inverse = np.linalg.inv(lower)
    values, vectors = np.linalg.eigh(inverse @ parts @ np.swapaxes(inverse, -1, -2))
    # one user with all the votes would divide 0 by 0
    scale = 1 / np.sqrt(np.maximum(1 - values, 1e-12))
    # contrast of each parameter in the eigenvectors of each user's part: [..., users, eigenvector, parameter]
    contrast = np.swapaxes(vectors, -1, -2) @ inverse
    turned = np.einsum("...uqe,...uq->...ue", vectors, np.einsum("...uqp,...up->...uq", inverse, score))
    said = np.einsum("...ue,...ue,...uep->...up", turned, scale, contrast)
    alone = np.einsum("...ue,...uep->...up", scale**2 * values, contrast**2)
    shared = np.einsum("...uqe,...ue,...uep->...uqp", vectors, scale * values, contrast)
    together = np.einsum("...uqp,...vqp->...uvp", shared, shared)
    place = np.arange(counts.shape[-3])
    together[..., place, place, :] -= alone
    freedom = together[..., place, place, :].sum(-2) ** 2 / (together**2).sum((-3, -2))
    return np.sqrt((said**2).sum(-2)), freedom


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


def davidson(counts: np.ndarray) -> Davidson | None:
    """The model of the votes [users, side, outcome] of several people; None where the votes do not bound it.

    There is no interval where all users voted alike, as then their differences say nothing.
    """
    counts = np.asarray(counts, dtype=np.float64)
    counts = counts[counts.sum((-2, -1)) > 0]
    value = fit(counts.sum(0))
    if len(counts) < 2 or np.isnan(value).any():
        return None
    error, freedom = robust(counts, value)
    if error.min() < 1e-9:
        return Davidson(value, error, None)
    half = stdtrit(freedom, 0.975) * error
    return Davidson(value, error, np.stack([value - half, value + half], -1))


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
