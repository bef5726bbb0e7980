"""What another training seed changes: each number of a study over all its trainings, beside the intervals over prompts.

The first training seed's models are the study's own. Each further seed has a folder seeds/{seed}/ of the same layout,
with models, pictures and scores of its own; prompts, sampling noise, real pictures and scorer are the same for all.
"""

from collections.abc import Callable
from statistics import fmean
from typing import Any

from evaluation.results import NotRun, Study

Number = Callable[[Study], float | NotRun]


def over_trainings(study: Study, number: Number) -> dict[str, Any] | NotRun:
    """{"mean", "min", "max", "values"} of one number over the training seeds, values in the config's order of seeds.

    `number` reads it from the folder of one training. Where one has none the whole is NotRun: a range over fewer
    trainings would look like a narrower one.
    """
    first, *further = study.training_seeds
    folders = {first: study.directory} | {seed: study.directory / "seeds" / str(seed) for seed in further}
    values = []
    for seed, folder in folders.items():
        value = number(Study(folder, study.config))
        if isinstance(value, NotRun):
            return NotRun(f"training seed {seed}: {value.reason}")
        values.append(value)
    return {"mean": fmean(values), "min": min(values), "max": max(values), "values": values}


def score_value(metric: str, model: str, prompts: str) -> Number:
    """The value of a score file."""

    def number(study: Study) -> float | NotRun:
        score = study.score(metric, model, prompts)
        return score if isinstance(score, NotRun) else score["value"]

    return number


def recall_value(model: str, prompts: str, part: str, key: str) -> Number:
    """`at_1` or `at_10` of one part ("seen", "held_out", "special") of a recall score."""

    def number(study: Study) -> float | NotRun:
        score = study.score("recall", model, prompts)
        return score if isinstance(score, NotRun) else score["recall"][part][key]

    return number


def win_rate(prompts: str, rival: str) -> Number:
    """The share of prompts won against a rival."""

    def number(study: Study) -> float | NotRun:
        measured = study.read(f"scores/win-rate/{prompts}.json")
        return measured if isinstance(measured, NotRun) else measured["rivals"][rival]["rate"]

    return number


def coverage(study: Study) -> str:
    """Which uncertainty the intervals over prompts leave open, in words."""
    if study.published:
        return "Each published model was trained once: no interval covers what training it again would change."
    seeds = study.training_seeds
    if len(seeds) == 1:
        return (
            f"All models were trained once (training seed {seeds[0]}): no interval covers what another training seed "
            "would change."
        )
    return (
        f"The intervals cover which prompts are in the set, for the models of training seed {seeds[0]}. What another "
        f"training seed changes is shown by mean and range (smallest to largest) over the {len(seeds)} trainings with "
        f"seeds {', '.join(map(str, seeds))}, on the same prompts from the same noise; a range is not a 95 % interval."
    )
