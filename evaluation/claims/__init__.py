"""Claims of the paper that can be recomputed, by topic: each module's `claims()` recomputes those of one.

What is claimed and where stands in published/claims.csv, and what it is recomputed from in the tables beside it. A
verdict is never written by hand: it follows from the printed and the recomputed number (`figure`), from a comparison
(`holds`), from two places of the paper (`evaluation.claims.text`), or from what the paper leaves out (`unknown`).
"""

import csv
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evaluation import published

# Each verdict with its mark (colour is never the only sign) and its meaning.
VERDICTS = {
    "agrees": ("✓", "it follows from its inputs"),
    "agrees within rounding": ("≈", "it follows once rounded, or cut, to the digits printed"),
    "differs": ("✗", "its inputs give something else, or two places of the paper do not agree"),
    "cannot be checked": ("?", "the paper does not give what that would take"),
}
AGREES, WITHIN_ROUNDING, DIFFERS, UNKNOWN = VERDICTS
# The columns in which evaluation.audit writes them.
FIELDS = ("topic", "name", "claim", "where", "printed", "recomputed", "verdict", "how")


@dataclass(frozen=True)
class Claim:
    """One claim: a name, what is claimed, where, as printed, as recomputed, one of VERDICTS, and how it was done.

    value: the recomputed number where there is one.
    """

    name: str
    claim: str
    where: str
    printed: str
    recomputed: str
    verdict: str
    how: str
    value: float | None = None


def compared(said: float, value: float, unit: float) -> str:
    """The verdict on a printed number, a multiple of `unit`, against the recomputed one.

    >>> compared(42, 1024 / 24, 1), compared(43, 1024 / 24, 1), compared(41, 1024 / 24, 1)
    ('agrees within rounding', 'agrees within rounding', 'differs')
    """
    if math.isclose(said, value, rel_tol=1e-9):
        return AGREES
    steps = value / unit
    near = (math.floor(steps), math.floor(steps + 0.5))
    return WITHIN_ROUNDING if any(math.isclose(said, step * unit, rel_tol=1e-9) for step in near) else DIFFERS


def last_digit(printed: str) -> float:
    """What one more in the last printed digit would be: 1e7 for "1.42B", 1 for "24,602"."""
    digits = re.search(r"[\d,]+(?:\.(\d+))?([kMB]?)", printed)
    if digits is None:
        raise ValueError(f"{printed!r} has no number")
    return {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9}[digits[2]] / 10 ** len(digits[1] or "")


@cache
def _said() -> dict[str, dict[str, str]]:
    """The rows of claims.csv by name."""
    return {row["name"]: row for row in published.rows("claims")}


def _claim(name: str, recomputed: str, verdict: str, how: str, value: float | None) -> Claim:
    row = _said()[name]
    return Claim(name, row["claim"], row["where"], row["printed"], recomputed, verdict, how, value)


def figure(name: str, value: float, how: str, shown: str = "") -> Claim:
    """A printed number against its recomputed `value`; `shown` is how that is printed, by default as a whole number."""
    row = _said()[name]
    number = published.number(row["said"] or row["printed"])
    unit = float(row["unit"]) if row["unit"] else last_digit(row["said"] or row["printed"])
    return _claim(name, shown or f"{value:,.0f}", compared(number, value, unit), how, value)


def holds(name: str, shown: str, true: bool, how: str, value: float | None = None) -> Claim:
    """A claim in words that a comparison of numbers decides."""
    return _claim(name, shown, AGREES if true else DIFFERS, how, value)


def unknown(name: str, how: str, shown: str = "no inputs", value: float | None = None) -> Claim:
    """A claim for which the paper does not give the inputs; `shown` is what can be said nevertheless."""
    return _claim(name, shown, UNKNOWN, how, value)


def millions(value: float) -> str:
    """A count in millions: `1,349.4M`, `3.86M`."""
    return f"{value / 1e6:,.{1 if value >= 1e7 else 2}f}M"


def read(path: Path) -> dict[str, list[dict[str, str]]]:
    """The rows that evaluation.audit wrote, by topic. Raises ValueError where its columns are not FIELDS."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if tuple(reader.fieldnames or ()) != FIELDS:
        raise ValueError(f"{path}: the columns are {reader.fieldnames}, but should be {', '.join(FIELDS)}")
    return {topic: [row for row in rows if row["topic"] == topic] for topic in dict.fromkeys(r["topic"] for r in rows)}
