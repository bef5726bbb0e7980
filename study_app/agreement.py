"""Do people agree with each other, and with themselves? Krippendorff's alpha, and repeats with the sides swapped."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from study_app.ballots import Study
from wuerstchen.seeds import derive

RESAMPLES = 2000
METHOD = f"percentile bootstrap over units, {RESAMPLES} resamples"


def coincidences(counts: np.ndarray) -> np.ndarray:
    """Pairs of values given to the same unit, [units, values, values], of counts [units, values]. Each ballot adds 1.

    A unit that one person judged has no pair and is left out (all zero).
    """
    counts = np.asarray(counts, dtype=np.float64)
    judged = counts.sum(-1)[:, None, None]
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(counts.shape[-1])
    return np.where(judged > 1, pairs / np.maximum(judged - 1, 1), 0.0)


def nominal(given: np.ndarray) -> np.ndarray:
    """Difference of two values that are equal or not: [..., values, values] of how often each was given."""
    size = given.shape[-1]
    return np.broadcast_to(1 - np.eye(size), (*given.shape, size))


def ordinal(given: np.ndarray) -> np.ndarray:
    """Squared difference of two values in an order: how many ballots lie between them, with half of each end."""
    middle = np.cumsum(given, -1) - given / 2
    return (middle[..., :, None] - middle[..., None, :]) ** 2


def alpha(summed: np.ndarray, difference=nominal) -> np.ndarray:
    """Krippendorff's alpha of summed coincidences [..., values, values]: 1 is agreement, 0 what chance gives.

    Not a number where all ballots are equal: then chance would agree too (Krippendorff 2011, "Computing Krippendorff's
    alpha-reliability", equations for nominal and ordinal data).
    """
    given = summed.sum(-1)
    total = given.sum(-1)
    weight = difference(given)
    observed = (summed * weight).sum((-1, -2))
    expected = (given[..., :, None] * given[..., None, :] * weight).sum((-1, -2))
    return 1 - (total - 1) * np.divide(observed, expected, out=np.full_like(observed, np.nan), where=expected > 0)


def agreement(counts: np.ndarray, seed: int) -> dict[str, object] | None:
    """Both alphas with their intervals; None where no unit has two ballots or all ballots are equal."""
    pairs = coincidences(counts)
    pairs = pairs[pairs.sum((-1, -2)) > 0]
    units = len(pairs)
    if units == 0 or np.isnan(alpha(pairs.sum(0))):
        return None
    random = np.random.default_rng(derive("agreement", seed))
    weights = random.multinomial(units, np.full(units, 1 / units), size=RESAMPLES)
    resampled = np.einsum("ru,uij->rij", weights, pairs)
    found: dict[str, object] = {"units": units, "ballots": int(round(pairs.sum())), "interval_method": METHOD}
    for name, difference in (("nominal", nominal), ("ordinal", ordinal)):
        values = alpha(resampled, difference)
        low, high = np.nanquantile(values, [0.025, 0.975])
        value = float(alpha(pairs.sum(0), difference))
        found[name] = {"value": value, "interval": [float(low), float(high)] if units > 1 else None}
    return found


def units(study: Study, kinds: Sequence[str] = ("anchor",)) -> np.ndarray:
    """Outcomes A, equal and B of each prompt that such votes were given on: [prompts, 3], prompts sorted.

    A person counts once for each prompt.
    """
    seen: set[tuple[str, str]] = set()
    found: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, dtype=np.int64))
    for ballot in study.ballots:
        if ballot.kind in kinds and (ballot.participant, ballot.prompt_id) not in seen:
            seen.add((ballot.participant, ballot.prompt_id))
            found[ballot.prompt_id][study.outcome(ballot)] += 1
    return np.array([found[prompt] for prompt in sorted(found)]).reshape(-1, 3)


def repeats(study: Study) -> dict[str, np.ndarray]:
    """[same, other, turned] of each participant's repeats against the first answer to the same prompt.

    `turned` is the other model preferred, `other` a change from or to equal.
    """
    first: dict[tuple[str, str], int] = {}
    found: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, dtype=np.int64))
    for ballot in study.ballots:
        key = (ballot.participant, ballot.prompt_id)
        if ballot.comparison:
            first.setdefault(key, study.outcome(ballot))
        elif ballot.kind == "repeat" and key in first:
            found[ballot.participant][abs(first[key] - study.outcome(ballot))] += 1
    return dict(found)
