"""Columns and fields that tables share: a number with its interval, and its range over several trainings."""

from collections.abc import Callable, Iterable

from evaluation.printing import NOT_APPLICABLE, RANGE, Column, Record, with_interval
from evaluation.results import NotRun, Study
from evaluation.trainings import Number, over_trainings


def score_fields(key: str, score: dict | NotRun) -> Record:
    """`key`, `key`_low and `key`_high of one score file."""
    if isinstance(score, NotRun):
        return dict.fromkeys((key, f"{key}_low", f"{key}_high"), score)
    low, high = score["interval"] or (NOT_APPLICABLE, NOT_APPLICABLE)
    return {key: score["value"], f"{key}_low": low, f"{key}_high": high}


LOSSY = "‡"


def marked(key: str) -> Callable[[Record], str | NotRun]:
    """A cell that prints the text at `key`, with LOSSY where the record counts `lossy` pictures."""
    return lambda record: f"{record[key]} {LOSSY}" if record["lossy"] else str(record[key])


def lossy_notes(records: Iterable[Record]) -> list[str]:
    """What LOSSY means, where a record has it."""
    if not any(record["lossy"] for record in records):
        return []
    return [
        f"{LOSSY}: pictures that were saved with loss, in JPEG and its like. That alone moves scores: Table 3 "
        "shows how far."
    ]


def range_names(study: Study, key: str) -> tuple[str, ...]:
    """`key`_mean, `key`_min and `key`_max, the fields of a number over the training seeds; none with one seed."""
    return tuple(f"{key}{end}" for end in RANGE) if len(study.training_seeds) > 1 else ()


def range_fields(study: Study, key: str, number: Number | None) -> Record:
    """The fields of `range_names` with their values; without `number`, for what no seed trains, not applicable."""
    names = range_names(study, key)
    if not names or number is None:
        return dict.fromkeys(names, NOT_APPLICABLE)
    found = over_trainings(study, number)
    if isinstance(found, NotRun):
        return dict.fromkeys(names, found)
    return dict(zip(names, (found["mean"], found["min"], found["max"]), strict=True))


def measured_fields(study: Study, key: str, score: dict | NotRun, number: Number | None) -> Record:
    """The fields of one score file and of its number over the training seeds."""
    absent = isinstance(score, NotRun)
    ranges = dict.fromkeys(range_names(study, key), score) if absent else range_fields(study, key, number)
    return score_fields(key, score) | ranges


def columns_of(study: Study, title: str, form: Callable[..., str], key: str, note: str = "") -> tuple[Column, ...]:
    """The column of a number with its interval and, with several training seeds, that of its mean and range."""
    column = Column(title + note, with_interval(form, key))
    if not range_names(study, key):
        return (column,)
    trainings = f"Its mean over {len(study.training_seeds)} trainings (range)"
    return (column, Column(trainings, with_interval(form, key, RANGE)))
