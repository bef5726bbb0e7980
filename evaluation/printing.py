"""Tables as typed records and their printing: csv and Markdown, each with its own escaping; LaTeX is in `latex`.

What was not measured stands as `not run`, with the reason: in the cell in csv, in a note below the table elsewhere.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.results import NotRun

NOT_APPLICABLE = "n/a"

Value = str | int | float | NotRun
Record = dict[str, Value]


@dataclass(frozen=True)
class Column:
    """One printed column: its title, the text of a record's cell, and its alignment."""

    title: str
    cell: Callable[[Record], str | NotRun]
    right: bool = True


@dataclass(frozen=True)
class Block:
    """Rows under one heading. Neighbouring blocks with the same `columns` object are printed as one table."""

    title: str
    columns: tuple[Column, ...]
    records: list[Record]


@dataclass(frozen=True)
class Table:
    """A table twice: typed `records` with the columns `fields` for csv, and blocks of printed rows for people."""

    name: str
    caption: str
    fields: tuple[str, ...]
    records: list[Record]
    blocks: list[Block]
    notes: list[str]


@dataclass(frozen=True)
class Printed:
    """A table as text: sections of (titles, right-aligned?, groups of (heading, rows of cells)), and notes."""

    sections: list[tuple[list[str], list[bool], list[tuple[str, list[list[str]]]]]]
    notes: list[str]


def significant(value: float, like: float | None = None) -> str:
    """`value` without exponent, with the decimals that give `like` (or itself) three significant digits.

    >>> significant(1234.5), significant(0.012345), significant(0), significant(0.1, like=12.3)
    ('1234', '0.0123', '0', '0.1')
    """
    size = abs(value if like is None else like)
    if size == 0:
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def percent(value: float, like: float | None = None) -> str:
    """A share in 0..1 as percent with one decimal, whatever it stands beside."""
    return f"{100 * value:.1f} %"


def count(value: float) -> str:
    """A large number as people write it: 1.42B, 3.1M, 24,602."""
    for size, unit in ((1e9, "B"), (1e6, "M")):
        if abs(value) >= size:
            return f"{significant(value / size)}{unit}"
    return f"{value:,.0f}"


def interval(value: float, low: float, high: float, form: Callable[..., str] = significant) -> str:
    """An interval in words, with the decimals of its value: `0.1 to 0.3`."""
    return f"{form(low, like=value).removesuffix(' %')} to {form(high, like=value)}"


def shown(form: Callable[[float], str], key: str) -> Callable[[Record], str | NotRun]:
    """A cell that prints the number at `key` with `form`, and text or NotRun as it is."""

    def cell(record: Record) -> str | NotRun:
        value = record[key]
        return form(value) if isinstance(value, int | float) else value

    return cell


INTERVAL = ("", "_low", "_high")
RANGE = ("_mean", "_min", "_max")


def with_interval(
    form: Callable[..., str], key: str, ends: tuple[str, str, str] = INTERVAL
) -> Callable[[Record], str | NotRun]:
    """A cell that prints `key` and, where there is one, its 95 % interval from `key`_low and `key`_high.

    With other `ends`, a value and bounds that are named otherwise.
    """

    def cell(record: Record) -> str | NotRun:
        value, low, high = (record[f"{key}{end}"] for end in ends)
        if not isinstance(value, int | float):
            return value
        if not isinstance(low, int | float) or not isinstance(high, int | float):
            return form(value)
        return f"{form(value)} ({interval(value, low, high, form)})"

    return cell


def text(key: str) -> Callable[[Record], str | NotRun]:
    """A cell that prints the text at `key`."""
    return lambda record: record[key] if isinstance(record[key], NotRun) else str(record[key])


def all_records(blocks: Sequence[Block]) -> list[Record]:
    """The records of all blocks, in order."""
    return [record for block in blocks for record in block.records]


def printed(table: Table) -> Printed:
    """The table as text. A cell that was not run reads `not run (a)`, and note a gives the reason."""
    marks: dict[str, str] = {}

    def cell(value: str | NotRun) -> str:
        if isinstance(value, NotRun):
            return f"not run ({marks.setdefault(value.reason, letters(len(marks)))})"
        return str(value)

    sections: list[tuple[list[str], list[bool], list[tuple[str, list[list[str]]]]]] = []
    columns = None
    for block in table.blocks:
        if block.columns is not columns:
            columns = block.columns
            sections.append(([column.title for column in columns], [column.right for column in columns], []))
        rows = [[cell(column.cell(record)) for column in columns] for record in block.records]
        sections[-1][2].append((block.title, rows))
    return Printed(sections, table.notes + [f"({mark}) not run: {reason}." for reason, mark in marks.items()])


def letters(number: int) -> str:
    """The sign of note `number`, from 0: a, b, ... z, aa."""
    said = ""
    while number >= 0:
        said = chr(ord("a") + number % 26) + said
        number = number // 26 - 1
    return said


def csv_cell(value: Value) -> str | int | float:
    """A csv cell: numbers with six significant digits, text that a spreadsheet would run after an apostrophe."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        said = str(value)
        return f"'{said}" if said.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else said
    return value if isinstance(value, int) else float(f"{value:.6g}")


def to_csv(table: Table) -> str:
    """RFC 4180 csv of the typed records: one column per field."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.fields)
    writer.writerows([csv_cell(record[field]) for field in table.fields] for record in table.records)
    return file.getvalue()


def escape_markdown(said: str) -> str:
    """Text that shows as itself in a Markdown table cell: no markup, no HTML, no cell border, one line."""
    for character in "\\`*_[]#~|$":
        said = said.replace(character, "\\" + character)
    said = said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(said.split())


def to_markdown(table: Table) -> str:
    """GitHub-flavoured Markdown with the notes below."""
    printing = printed(table)
    lines = [f"**{escape_markdown(table.caption)}**", ""]
    for titles, right, groups in printing.sections:
        for heading, rows in groups:
            lines += [f"*{escape_markdown(heading)}*", "", "| " + " | ".join(map(escape_markdown, titles)) + " |"]
            lines.append("|" + "|".join("---:" if r else ":---" for r in right) + "|")
            lines += ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows] + [""]
    lines += [f"- {escape_markdown(note)}" for note in printing.notes]
    return "\n".join(lines) + "\n"
