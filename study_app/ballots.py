"""Exported votes: read, checked against their digest, and turned into counts that the analysis works on.

An export is a csv with the columns COLUMNS and beside it FILE.sha256, as sha256sum writes it. Several may be read
together, such as those of two studies that people took part in under one name.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from wuerstchen.files import sha256_file

COLUMNS = (
    "study",
    "participant",
    "seq",
    "kind",
    "prompt_id",
    "left_model",
    "right_model",
    "choice",
    "issued_at",
    "decided_at",
    "response_ms",
    "app_version",
)
KINDS = ("pair", "anchor", "repeat", "control")
CHOICES = ("left", "equal", "right")
# What counts as a comparison of the two models. A repeat asks the same person the same thing again, and a control has
# a known answer: both judge the person.
COMPARISONS = ("pair", "anchor")
A, EQUAL, B = 0, 1, 2  # outcomes
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with an apostrophe before these no spreadsheet runs a cell


@dataclass(frozen=True)
class Ballot:
    """One vote. `choice` is left, equal or right, as it was shown; `response_ms` is the page's own clock."""

    study: str
    participant: str
    seq: int
    kind: str
    prompt_id: str
    left_model: str
    right_model: str
    choice: str
    issued_at: datetime
    decided_at: datetime
    response_ms: float

    @property
    def chosen(self) -> str | None:
        """The model that was preferred; None for equal."""
        return {"left": self.left_model, "right": self.right_model, "equal": None}[self.choice]

    @property
    def comparison(self) -> bool:
        """Whether it counts for one of the models."""
        return self.kind in COMPARISONS


@dataclass(frozen=True)
class Study:
    """All votes of one study of two models, in the order of participants and of their `seq`."""

    name: str
    models: tuple[str, str]
    ballots: list[Ballot]

    def outcome(self, ballot: Ballot) -> int:
        """A, EQUAL or B."""
        return EQUAL if ballot.chosen is None else (A, B)[self.models.index(ballot.chosen)]

    def without(self, participants: Sequence[str]) -> "Study":
        """The same study as if some had never taken part."""
        gone = set(participants)
        return Study(self.name, self.models, [ballot for ballot in self.ballots if ballot.participant not in gone])

    @property
    def participants(self) -> list[str]:
        """Everyone with at least one comparison, sorted."""
        return sorted({ballot.participant for ballot in self.ballots if ballot.comparison})

    def counts(self) -> np.ndarray:
        """Comparisons of each participant: [users, side, outcome], side 0 where A was on the left; int64.

        Outcomes are A, EQUAL and B.
        """
        rows = {name: row for row, name in enumerate(self.participants)}
        found = np.zeros((len(rows), 2, 3), dtype=np.int64)
        for ballot in self.ballots:
            if ballot.comparison:
                side = int(ballot.left_model != self.models[0])
                found[rows[ballot.participant], side, self.outcome(ballot)] += 1
        return found


def checked_digest(path: Path) -> str:
    """SHA-256 of an export. Raises ValueError where FILE.sha256 is missing or says otherwise."""
    if not path.is_file():
        raise ValueError(f"votes: {path}: no such file; it should be an export of study_app.admin")
    beside = path.with_name(f"{path.name}.sha256")
    if not beside.is_file():
        raise ValueError(f"votes: {path}: there is no {beside.name} beside it, which an export always has")
    found, said = sha256_file(path), beside.read_text(encoding="utf-8").split()[:1]
    if said != [found]:
        raise ValueError(
            f"votes: {path} has the digest {found}, and {beside.name} says {''.join(said) or 'nothing'}: "
            "an export is never edited, make a new one"
        )
    return found


def read_ballots(paths: Sequence[Path]) -> list[Ballot]:
    """Every vote of some exports by study, participant and seq. Raises ValueError naming line, column and value."""
    found: dict[tuple[str, str, int], Ballot] = {}
    for path in paths:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            absent = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if absent:
                raise ValueError(f"{path}: no column {', '.join(absent)}; an export has {', '.join(COLUMNS)}")
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                ballot = _ballot(row, where)
                key = (ballot.study, ballot.participant, ballot.seq)
                if key in found:
                    raise ValueError(f"{where}: seq: {ballot.seq} of {ballot.participant} was there before")
                found[key] = ballot
    return [found[key] for key in sorted(found)]


def _ballot(row: dict[str, str], where: str) -> Ballot:
    if None in row or any(row[name] is None for name in COLUMNS):
        raise ValueError(f"{where}: should have {len(COLUMNS)} cells")
    row = {name: row[name][1:] if row[name][:1] == "'" and row[name][1:2] in FORMULA else row[name] for name in COLUMNS}
    for name, allowed in (("kind", KINDS), ("choice", CHOICES)):
        if row[name] not in allowed:
            raise ValueError(f"{where}: {name}: {row[name]!r} should be one of {', '.join(allowed)}")
    for name in ("study", "participant", "prompt_id", "left_model", "right_model"):
        if not row[name]:
            raise ValueError(f"{where}: {name}: should not be empty")
    if row["left_model"] == row["right_model"]:
        raise ValueError(f"{where}: right_model: {row['right_model']!r} should not be on both sides")
    try:
        seq, response = int(row["seq"]), float(row["response_ms"])
    except ValueError:
        raise ValueError(
            f"{where}: seq and response_ms should be numbers, not {row['seq']!r} and {row['response_ms']!r}"
        ) from None
    times = []
    for name in ("issued_at", "decided_at"):
        try:
            times.append(datetime.fromisoformat(row[name]))
        except ValueError:
            times.append(None)
        if times[-1] is None or times[-1].tzinfo is None:
            raise ValueError(f"{where}: {name}: {row[name]!r} should be a time of ISO 8601 in UTC")
    if times[1] < times[0] or not 0 <= response < float("inf"):
        raise ValueError(
            f"{where}: decided_at: {row['decided_at']} should not be before {row['issued_at']}, nor response_ms below 0"
        )
    texts = (row[name] for name in ("kind", "prompt_id", "left_model", "right_model", "choice"))
    return Ballot(row["study"], row["participant"], seq, *texts, *times, response)


def studies(ballots: Sequence[Ballot], first: str) -> list[Study]:
    """The studies among some votes, by name. Model A is `first` where it takes part, else the first by name.

    Raises ValueError where comparisons and repeats of a study are not between the same two models.
    """
    found = []
    for name in sorted({ballot.study for ballot in ballots}):
        mine = [ballot for ballot in ballots if ballot.study == name]
        shown = (ballot for ballot in mine if ballot.kind != "control")
        models = {model for ballot in shown for model in (ballot.left_model, ballot.right_model)}
        if len(models) != 2:
            said = ", ".join(sorted(models)) or "none"
            raise ValueError(f"study {name}: its votes should compare two models, but there are {len(models)}: {said}")
        found.append(Study(name, tuple(sorted(models, key=lambda model: (model != first, model))), mine))
    return found
