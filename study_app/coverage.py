"""How often do 95 % intervals of a share of votes hold the truth, by method, number of users and how much users differ?

Each simulated study draws for every user a number of votes from a long-tailed distribution like the paper's first study
(median 30, mean 66) and a preference logit(share) + spread z; the truth is the mean share over all possible users.

    python -m study_app.coverage                  # of a share, by several methods
    python -m study_app.coverage --of davidson    # of Davidson's parameters, by the one interval that they have

Davidson's truth is what its model fitted to all votes of all possible users would say.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

from study_app import davidson
from study_app.clusters import cr2, logit_interval, pooled
from study_app.mixed import population_share
from wuerstchen.seeds import derive

USERS, SPREADS = (36, 61), (0.0, 0.5, 1.0)
MEDIAN_VOTES, MEAN_VOTES = 30, 66  # Appendix C: 36 users with 2,262 or 2,490 votes, half of them with 30 or more
SIDE_AND_TIES = (0.2, -0.5)  # of Davidson's model: the left is favoured, a fifth of the votes are ties
LOWEST, HIGHEST = 0.92, 0.97
RESAMPLES = 999

Bounds = tuple[np.ndarray, np.ndarray]
Method = Callable[[np.ndarray, np.ndarray, np.random.Generator], Bounds]


def votes_of(size: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Numbers of votes, one or more, of so many users."""
    tail = np.sqrt(2 * np.log(MEAN_VOTES / MEDIAN_VOTES))
    return np.maximum(1, np.rint(MEDIAN_VOTES * np.exp(tail * random.standard_normal(size)))).astype(np.int64)


def simulate(
    users: int, spread: float, share: float, simulations: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Votes for A and all votes, [simulations, users], and the true share.

    `share` is that of a user with z = 0; a user's number of votes does not depend on their preference.
    """
    size = (simulations, users)
    trials = votes_of(size, random)
    logits = logit(share) + spread * random.standard_normal(size)
    successes = random.binomial(trials, expit(logits))
    return successes.astype(np.float64), trials.astype(np.float64), population_share(float(logit(share)), spread)


def wilson_over_votes(successes: np.ndarray, trials: np.ndarray, random: np.random.Generator) -> Bounds:
    """As if every vote were another person's."""
    z, n, share = ndtri(0.975), trials.sum(-1), pooled(successes, trials)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


def resampled(successes: np.ndarray, trials: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shares of resamples of the users and their cluster-robust variances, [resamples, simulations]."""
    users = trials.shape[-1]
    weights = random.multinomial(users, np.full(users, 1 / users), size=RESAMPLES).astype(np.float64)
    total = weights @ trials.T
    share = weights @ successes.T / total
    squares = weights @ (successes**2).T - 2 * share * (weights @ (successes * trials).T)
    return share, (squares + share**2 * (weights @ (trials**2).T)) / total**2


def user_bootstrap(successes: np.ndarray, trials: np.ndarray, random: np.random.Generator) -> Bounds:
    """Percentiles of the share over resamples of the users."""
    low, high = np.quantile(resampled(successes, trials, random)[0], [0.025, 0.975], axis=0)
    return low, high


def residual_variance(successes: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Cluster-robust variance without any correction for the number of users."""
    residual = successes - pooled(successes, trials)[..., None] * trials
    return (residual**2).sum(-1) / trials.sum(-1) ** 2


def bootstrap_t(successes: np.ndarray, trials: np.ndarray, random: np.random.Generator) -> Bounds:
    """Percentiles of (share - ours) / standard error over resamples of the users."""
    share = pooled(successes, trials)
    shares, variances = resampled(successes, trials, random)
    low, high = np.quantile((shares - share) / np.sqrt(np.maximum(variances, 1e-12)), [0.025, 0.975], axis=0)
    error = np.sqrt(residual_variance(successes, trials))
    return share - high * error, share - low * error


def robust_t(successes: np.ndarray, trials: np.ndarray, random: np.random.Generator) -> Bounds:
    """Cluster-robust variance times users / (users - 1), Student t with users - 1 degrees of freedom."""
    users, share = trials.shape[-1], pooled(successes, trials)
    half = stdtrit(users - 1, 0.975) * np.sqrt(residual_variance(successes, trials) * users / (users - 1))
    return share - half, share + half


def cr2_satterthwaite(successes: np.ndarray, trials: np.ndarray, random: np.random.Generator) -> Bounds:
    """The interval of `study_app.clusters`."""
    return logit_interval(pooled(successes, trials), *cr2(successes, trials))


METHODS: dict[str, Method] = {
    "Wilson over votes": wilson_over_votes,
    "user bootstrap, percentiles": user_bootstrap,
    "cluster-robust, t of users - 1": robust_t,
    "bootstrap-t over users": bootstrap_t,
    "CR2 with Satterthwaite, logit": cr2_satterthwaite,
}
CHOSEN = "CR2 with Satterthwaite, logit"


def coverage(users: int, spread: float, share: float, simulations: int, seed: int) -> dict[str, tuple[float, float]]:
    """For each method the share of simulated studies whose interval holds the truth, and the median width."""
    random = np.random.default_rng(derive("coverage", users, str(spread), seed))
    successes, trials, truth = simulate(users, spread, share, simulations, random)
    found = {}
    for name, method in METHODS.items():
        low, high = method(successes, trials, random)
        found[name] = (float(((low <= truth) & (truth <= high)).mean()), float(np.median(high - low)))
    return found


def simulate_davidson(
    users: int, spread: float, share: float, simulations: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Votes [simulations, users, side, outcome] with ties and an effect of the side, and the true parameters [3]."""
    total = votes_of((simulations, users), random)
    first = random.binomial(total, 0.5)
    strength = logit(share) + spread * random.standard_normal((simulations, users))

    def chances(at: np.ndarray) -> np.ndarray:
        return davidson.probabilities(np.stack([at, *(np.full_like(at, value) for value in SIDE_AND_TIES)], -1))

    counts = random.multinomial(np.stack([first, total - first], -1), chances(strength))
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    everyone = np.einsum("z,zso->so", weights / weights.sum(), chances(logit(share) + spread * points))
    return counts, davidson.fit(everyone)


def davidson_coverage(users: int, spread: float, share: float, simulations: int, seed: int) -> tuple[np.ndarray, int]:
    """The share of simulated studies that hold the truth, of each of davidson.PARAMETERS; how many had an interval.

    A study without an interval does not hold it.
    """
    random = np.random.default_rng(derive("davidson coverage", users, str(spread), seed))
    counts, truth = simulate_davidson(users, spread, share, simulations, random)
    fitted = [davidson.davidson(votes) for votes in counts]
    bounds = np.array([model.interval for model in fitted if model is not None and model.interval is not None])
    held = (bounds[..., 0] <= truth) & (truth <= bounds[..., 1])
    return held.sum(0) / simulations, len(bounds)


def print_davidson(cells: Sequence[tuple[int, float]], share: float, simulations: int, seed: int) -> None:
    """The table of Davidson's parameters."""
    print(f"Coverage of Davidson's 95 % intervals, {simulations} simulated studies in each cell; {davidson.METHOD}")
    print("| users | spread, logit | " + " | ".join(davidson.PARAMETERS) + " | studies with an interval |")
    print("|---:|---:|" + "---:|" * (1 + len(davidson.PARAMETERS)))
    for users, spread in cells:
        held, number = davidson_coverage(users, spread, share, simulations, seed)
        said = " | ".join(f"{value:.3f}" for value in held)
        print(f"| {users} | {spread:g} | {said} | {number} |", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; end with status 1 where the chosen interval leaves 92 to 97 %."""
    parser = argparse.ArgumentParser(prog="python -m study_app.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--of", choices=("share", "davidson"), default="share", help="what the intervals are of")
    parser.add_argument("--simulations", type=int, default=2000, help="studies in each cell (default 2000)")
    parser.add_argument("--share", type=float, default=0.6, help="of A by a user in the middle (default 0.6)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if options.simulations < 1 or not 0 < options.share < 1:
        parser.error("--simulations should be 1 or more, and --share between 0 and 1")
    cells = [(users, spread) for users in USERS for spread in SPREADS]
    if options.of == "davidson":
        print_davidson(cells, options.share, options.simulations, options.seed)
        return
    found = [coverage(*cell, options.share, options.simulations, options.seed) for cell in cells]
    print(f"Coverage of 95 % intervals (median width), {options.simulations} simulated studies in each cell")
    print("| users | spread, logit | " + " | ".join(METHODS) + " |")
    print("|---:|---:|" + "---:|" * len(METHODS))
    for (users, spread), row in zip(cells, found, strict=True):
        said = [f"{held:.3f} ({width:.3f})" for held, width in row.values()]
        print(f"| {users} | {spread:g} | {' | '.join(said)} |")
    held = [row[CHOSEN][0] for row in found]
    print(f"{CHOSEN}: {min(held):.3f} to {max(held):.3f}")
    if not LOWEST <= min(held) <= max(held) <= HIGHEST:
        raise SystemExit(f"the chosen interval should hold the truth in {LOWEST:.0%} to {HIGHEST:.0%} of all studies")


if __name__ == "__main__":
    main()
