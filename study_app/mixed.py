"""A mixed model of the decisive votes: everyone has a preference of their own, drawn from a normal distribution.

    logit P(A is preferred) = strength + s side + spread z,    z ~ N(0, 1) for each user

with s = +1 where A is on the left and -1 where it is on the right; fitted by maximum likelihood, the integral over z by
adaptive Gauss-Hermite quadrature (Pinheiro and Bates 1995).
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logsumexp
from scipy.stats import chi2

from study_app.davidson import SIGN

NODES = 25
PARAMETERS = ("strength", "side", "spread")
Z = 1.959963984540054  # 97.5 % of a standard normal distribution
METHOD = "Wald, from the curvature of the likelihood"
LARGEST = 15.0


def log_likelihood(parameters: np.ndarray, wins: np.ndarray, votes: np.ndarray, nodes: int = NODES) -> float:
    """Log likelihood of A's wins [users, side] among decisive votes [users, side], without binomial coefficients.

    parameters: strength, side and spread; spread is a standard deviation in logits, 0 or more.
    """
    strength, side, spread = parameters
    logits = strength + SIGN * side  # [side]
    mode = np.zeros(len(wins))
    for _ in range(50):
        share = expit(logits + spread * mode[:, None])
        slope = spread * (wins - votes * share).sum(-1) - mode
        curvature = 1 + spread**2 * (votes * share * (1 - share)).sum(-1)
        step = slope / curvature
        mode = mode + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-10:
            break
    share = expit(logits + spread * mode[:, None])
    width = 1 / np.sqrt(1 + spread**2 * (votes * share * (1 - share)).sum(-1))
    points, weights = np.polynomial.hermite.hermgauss(nodes)
    at = mode[:, None] + np.sqrt(2) * width[:, None] * points  # [users, nodes]
    log_odds = logits[:, None] + spread * at[:, None, :]  # [users, side, nodes]
    votes_part = wins[..., None] * log_odds - votes[..., None] * np.logaddexp(0, log_odds)
    inside = votes_part.sum(1) - at**2 / 2 + points**2 + np.log(weights)
    return float((logsumexp(inside, axis=1) + np.log(width) - np.log(np.pi) / 2).sum())


def curvature(parameters: np.ndarray, wins: np.ndarray, votes: np.ndarray, free: int, step: float = 1e-3) -> np.ndarray:
    """Minus the second derivatives of the log likelihood in the first `free` parameters, by central differences."""
    found = np.zeros((free, free))
    units = np.eye(3)[:free] * step

    def at(*moves: np.ndarray) -> float:
        return log_likelihood(parameters + sum(moves), wins, votes)

    for i in range(free):
        for j in range(i, free):
            a, b = units[i], units[j]
            found[i, j] = found[j, i] = -(at(a, b) - at(a, -b) - at(-a, b) + at(-a, -b)) / (4 * step**2)
    return found


def mixed_model(counts: np.ndarray) -> dict[str, object] | None:
    """The fitted model of votes [users, side, outcome] as JSON; None where the decisive votes do not bound it.

    Each parameter's value, standard error and interval; the share of A that everyone together would give (`population`)
    and the likelihood-ratio test of spread = 0, whose p value is halved since 0 is an end of the range.
    """
    wins = np.asarray(counts, dtype=np.float64)[:, :, 0]
    votes = wins + np.asarray(counts)[:, :, 2]
    with_votes = votes.sum(-1) > 0
    wins, votes = wins[with_votes], votes[with_votes]
    lost = votes - wins
    if len(votes) < 2 or min(wins.sum(), lost.sum()) == 0 or (votes.sum(0) == 0).any():
        return None
    if votes.sum(-1).max() < 2:  # with one vote each nobody can be told from anybody else
        return None

    def minus(parameters: np.ndarray) -> float:
        return -log_likelihood(parameters, wins, votes)

    start = np.log(wins.sum() / lost.sum())
    bounds = [(-LARGEST, LARGEST)] * 2 + [(0, LARGEST)]
    fits = [minimize(minus, [start, 0.0, spread], method="L-BFGS-B", bounds=bounds) for spread in (0.1, 1.0)]
    best = min(fits, key=lambda fit: fit.fun)
    alone = minimize(minus, [start, 0.0, 0.0], method="L-BFGS-B", bounds=[*bounds[:2], (0, 0)])
    value = best.x if best.fun < alone.fun else alone.x
    if np.abs(value).max() > LARGEST - 1e-6:
        return None
    free = 3 if value[2] > 1e-3 else 2  # at the end of its range a curvature says nothing
    if free == 2:
        value = alone.x
    bend = curvature(value, wins, votes, free)
    if np.linalg.eigvalsh(bend)[0] <= 0:
        return None
    errors = np.sqrt(np.diag(np.linalg.inv(bend)))
    record: dict[str, object] = {"interval_method": METHOD, "users": len(votes), "votes": int(votes.sum())}
    for place, name in enumerate(PARAMETERS):
        entry: dict[str, object] = {"value": float(value[place]), "standard_error": None, "interval": None}
        if place < free:
            low, high = value[place] - Z * errors[place], value[place] + Z * errors[place]
            entry |= {
                "standard_error": float(errors[place]),
                "interval": [float(max(low, 0.0) if name == "spread" else low), float(high)],
            }
        record[name] = entry
    ratio = max(0.0, 2 * (alone.fun - best.fun))
    record["population"] = population_share(value[0], value[2])
    record["spread_p"] = float(chi2.sf(ratio, 1) / 2) if ratio > 0 else 0.5
    record["icc"] = float(value[2] ** 2 / (value[2] ** 2 + np.pi**2 / 3))
    return record


def population_share(strength: float, spread: float) -> float:
    """Mean share of A over people whose logits are N(strength, spread^2)."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    return float(weights @ expit(strength + spread * points) / weights.sum())
