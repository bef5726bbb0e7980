"""How many people and votes does a preference study need?

Votes of one person are alike, so that ten times the votes of the same people are worth far less than ten times the
people. How alike is the intraclass correlation, or the spread of people's preferences in logits: 0 where all prefer
alike, 0.5 to 1 for tastes. The pooled share's variance grows by the design effect 1 + (m (1 + cv^2) - 1) icc, with m
decisive votes per person on average and cv their coefficient of variation (Kish 1965; unequal clusters: Eldridge et al.
2006).

    python -m study_app.planner --margin 0.05 --share 0.6 --spread 0.5 --votes-per-user 50
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, ndtri, stdtrit

from study_app.mixed import population_share

MOST = 1_000_000  # participants: what needs more is out of reach


@dataclass(frozen=True)
class Plan:
    """What is expected of a study. Shares are in 0..1.

    share: of the decisive votes for A. equal: of all votes that call both equal. votes_per_user: mean, equal ones
    included. variation: standard deviation of votes per user over their mean; 0 where all give the same number.
    """

    share: float
    equal: float
    icc: float
    votes_per_user: float
    variation: float

    @property
    def decisive(self) -> float:
        """Decisive votes per user."""
        return self.votes_per_user * (1 - self.equal)

    @property
    def design_effect(self) -> float:
        """How many times the variance is that of as many votes by different people."""
        return 1 + max(0.0, self.decisive * (1 + self.variation**2) - 1) * self.icc

    def error(self, users: int) -> float:
        """Standard error of the share with so many users.

        Too large by up to a fifth where a few people give most votes: then a study without such a person is likely.
        """
        return math.sqrt(self.share * (1 - self.share) * self.design_effect / (users * self.decisive))

    def margin(self, users: int) -> float:
        """Half the width of the 95 % interval. Unequal users leave fewer degrees of freedom than users."""
        freedom = max(1.0, users / (1 + self.variation**2) - 1)
        return float(stdtrit(freedom, 0.975)) * self.error(users)

    def effective_votes(self, users: int) -> float:
        """As many votes by different people would say as much."""
        return users * self.decisive / self.design_effect

    def users_for_margin(self, margin: float) -> int:
        """The fewest users whose margin is at most this. Raises ValueError where it takes more than a million."""
        low, high = 1, 2
        while self.margin(high) > margin:
            low, high = high, 2 * high
            if high > MOST:
                raise ValueError(f"margin: {margin} would take more than {MOST:,} participants; it should be larger")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.margin(middle) <= margin else (middle, high)
        return high

    def users_for_power(self, power: float) -> int | None:
        """The fewest users with whom a test at 5 % tells the share from one half so often; None for one half itself."""
        if self.share == 0.5:
            return None
        needed = abs(self.share - 0.5) / float(ndtri(0.975) + ndtri(power))
        return max(2, math.ceil((self.error(1) / needed) ** 2))


def icc_of_spread(spread: float, share: float) -> float:
    """Intraclass correlation of votes where people's logits are normal with this standard deviation and mean share."""
    if spread == 0:
        return 0.0
    middle = brentq(lambda at: population_share(at, spread) - share, -50.0, 50.0)
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    squares = float(weights @ expit(middle + spread * points) ** 2 / weights.sum())
    return (squares - share**2) / (share * (1 - share))


def words(plan: Plan, margin: float) -> list[str]:
    """The plan in words, with a table of margins beside it."""
    users = plan.users_for_margin(margin)
    lines = [
        f"Intraclass correlation {plan.icc:.3f}, design effect {plan.design_effect:.1f} with {plan.decisive:g} "
        "decisive votes per user.",
        f"A margin of {100 * margin:g} points around {100 * plan.share:g} % takes {users} participants, "
        f"{math.ceil(users * plan.votes_per_user):,} votes; they say as much as {plan.effective_votes(users):,.0f} "
        "decisive votes by different people.",
    ]
    needed = plan.users_for_power(0.8)
    if needed:
        lines.append(
            f"To tell {100 * plan.share:g} % from 50 % in four studies of five takes {needed} participants, "
            f"{math.ceil(needed * plan.votes_per_user):,} votes."
        )
    votes = (10, 25, 50, 100)
    lines += ["", "Margin in points by participants and votes of each:", ""]
    lines += ["| participants | " + " | ".join(map(str, votes)) + " |", "|---:|" + "---:|" * len(votes)]
    for count in (10, 20, 40, 80, 160, 320):
        plans = [Plan(plan.share, plan.equal, plan.icc, each, plan.variation) for each in votes]
        lines.append(f"| {count} | " + " | ".join(f"{100 * each.margin(count):.1f}" for each in plans) + " |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Print how many participants and votes a margin takes."""
    parser = argparse.ArgumentParser(prog="python -m study_app.planner", description=__doc__.splitlines()[0])
    parser.add_argument("--margin", type=float, required=True, help="half a 95 %% interval, such as 0.05")
    parser.add_argument("--share", type=float, default=0.5, help="expected among decisive votes (default 0.5)")
    parser.add_argument("--equal", type=float, default=0.1, help="share of votes for equal (default 0.1)")
    parser.add_argument("--votes-per-user", type=float, default=50, help="mean (default 50, what Appendix C asked for)")
    parser.add_argument(
        "--variation",
        type=float,
        default=1.0,
        help="standard deviation of votes per user over their mean: 0.4 where most reach a target, 2 for a long tail "
        "like the paper's first study (default 1)",
    )
    alike = parser.add_mutually_exclusive_group()
    alike.add_argument("--spread", type=float, default=0.5, help="of people's preferences, in logits (default 0.5)")
    alike.add_argument("--icc", type=float, help="intraclass correlation of votes, in the place of --spread")
    options = parser.parse_args(argv)
    for name, low, high in (("margin", 0, 0.5), ("share", 0, 1), ("equal", -1e-9, 1), ("icc", -1e-9, 1)):
        value = getattr(options, name)
        if value is not None and not low < value < high:
            parser.error(f"--{name}: {value} should be between {max(low, 0):g} and {high:g}")
    for name, least in (("votes_per_user", 1), ("variation", 0), ("spread", 0)):
        if not least <= getattr(options, name) < math.inf:
            parser.error(f"--{name.replace('_', '-')}: {getattr(options, name)} should be at least {least}")
    icc = icc_of_spread(options.spread, options.share) if options.icc is None else options.icc
    plan = Plan(options.share, options.equal, icc, options.votes_per_user, options.variation)
    try:
        print("\n".join(words(plan, options.margin)))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
