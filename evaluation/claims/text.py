"""Formulas of sections 3.2 and 3.3 against their sources, and places of the paper against each other."""

import math

from evaluation import published
from evaluation.claims import AGREES, DIFFERS, Claim, figure, holds, unknown

STEPS = 1000  # of the schedule that the sampling step is tried on


def claims() -> list[Claim]:
    """All claims about formulas, and every statement that another place of the paper contradicts."""
    return [*formulas(), *statements()]


def p2_paper(alpha_bar: float) -> float:
    """The loss weight as 3.2 prints it."""
    return (1 - alpha_bar) / (1 + alpha_bar)


def p2_choi(alpha_bar: float, k: float = 1.0, gamma: float = 1.0) -> float:
    """The weight of Choi et al. (2022), equation 8, on the loss of the noise: 1 / (k + signal-to-noise ratio)^gamma."""
    return 1 / (k + alpha_bar / (1 - alpha_bar)) ** gamma


def cosine(t: float, s: float = 0.008) -> float:
    """Cumulative alpha of the cosine schedule (Nichol and Dhariwal, 2021) at t in [0, 1]."""
    return math.cos((t + s) / (1 + s) * math.pi / 2) ** 2 / math.cos(s / (1 + s) * math.pi / 2) ** 2


def posterior(alpha_bar: float, before: float, x0: float, xt: float) -> tuple[float, float]:
    """Mean and variance of the step before, given picture and noisy picture: Bayes' rule on two normal densities."""
    alpha = alpha_bar / before
    precision = alpha / (1 - alpha) + 1 / (1 - before)
    mean = (math.sqrt(alpha) * xt / (1 - alpha) + math.sqrt(before) * x0 / (1 - before)) / precision
    return mean, 1 / precision


def ddpm(alpha_bar: float, before: float, noise: float, xt: float) -> tuple[float, float]:
    """Mean and variance of one sampling step as 3.3 prints it."""
    alpha = alpha_bar / before
    mean = (xt - (1 - alpha) / math.sqrt(1 - alpha_bar) * noise) / math.sqrt(alpha)
    return mean, (1 - alpha) * (1 - before) / (1 - alpha_bar)


def ddpm_error(x0: float = 0.7, noise: float = -1.3) -> float:
    """The largest difference of a step of 3.3 from Bayes' rule over a cosine schedule, ends left out."""
    worst = 0.0
    for step in range(2, STEPS):
        alpha_bar, before = cosine(step / STEPS), cosine((step - 1) / STEPS)
        xt = math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * noise
        pairs = zip(ddpm(alpha_bar, before, noise, xt), posterior(alpha_bar, before, x0, xt), strict=True)
        worst = max(worst, *(abs(mine - theirs) for mine, theirs in pairs))
    return worst


def formulas() -> list[Claim]:
    """Loss weight, prediction at the start of training, and sampling step."""
    error, start = ddpm_error(), 1 / (abs(1 - 0) + 1e-5)
    weights = [p2_paper(cosine(step / STEPS)) for step in range(STEPS + 1)]
    return [
        figure(
            "p2-weight",
            p2_choi(0.5),
            "Choi et al.: 1 / (k + SNR)^gamma, with k = gamma = 1; that is 1 - a, as in the released code. "
            "The printed formula divides this by 1 + a: half as much at little noise.",
            shown=f"{p2_choi(0.5):.3f}",
        ),
        holds(
            "p2-grows",
            f"{weights[0]:.0f} to {weights[-1]:.0f}, growing",
            all(less < more for less, more in zip(weights, weights[1:], strict=False)),
            "The printed formula over the cosine schedule, from no noise to noise alone.",
            weights[-1] - weights[0],
        ),
        figure("start", start, "A = B = 0: (1 - 0) / (|1 - 0| + 1e-5).", shown=f"{start:.5f}"),
        holds(
            "ddpm-step",
            f"within {error:.0e}",
            error < 1e-9,
            "Mean and variance against Bayes' rule on the forward process, over a cosine schedule of 1000 steps.",
            error,
        ),
        unknown("stage-b-text", "No numbers are given. The study that trains small networks measures it."),
    ]


def statements() -> list[Claim]:
    """Two places of the paper, or paper and released model, that say different things."""
    return [
        Claim(
            row["name"],
            row["claim"],
            f"{row['where']}; {row['where_else']}",
            row["printed"],
            row["elsewhere"],
            AGREES if row["printed"] == row["elsewhere"] else DIFFERS,
            row["how"],
        )
        for row in published.rows("statements")
    ]
