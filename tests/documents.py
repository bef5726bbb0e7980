"""The commands of the README and of the documents: where they stand, and what they call."""

import re
import shlex
from dataclasses import dataclass
from itertools import takewhile

from trees import ROOT

FOLDERS = (".", "docs", "config", "results", "benchmarks", "wuerstchen/released/emoji")
LANGUAGES = ("sh", "text", "yaml", "python", "nginx")
PAPER_SCALE = "<!-- paper-scale -->"
# Programs with which a text in backquotes is a command and no name.
PROGRAMS = ("python", "snakemake", "make", "torchrun", "generate-slurm-partition-config")
PLACEHOLDERS = ("…", "NAME", "FILE")
# Programs that tests/test_commands.py runs as the documents have them, on the tiny study.
RUN = {
    "evaluation.audit",
    "study_app.planner",
    "workflow.plan",
    "workflow.status",
    "wuerstchen.assets",
    "wuerstchen.generate",
}


@dataclass(frozen=True)
class Command:
    """One command. paper_scale: what it needs is too large for tests, so that it is parsed or planned alone.

    inline: in backquotes in a sentence, where a program's name alone is no command.
    """

    document: str
    words: tuple[str, ...]
    paper_scale: bool
    inline: bool

    def __str__(self) -> str:
        return f"{self.document}: {shlex.join(self.words)}"

    @property
    def module(self) -> str | None:
        """What `python -m` calls."""
        return self.words[2] if self.words[:2] == ("python", "-m") else None

    @property
    def whole(self) -> bool:
        """Whether this is more than a program's name in a sentence."""
        return not (self.inline and len(self.words) <= (3 if self.module else 1))


@dataclass(frozen=True)
class Block:
    """A fenced block of a document: its language and its lines."""

    document: str
    language: str
    lines: tuple[str, ...]
    paper_scale: bool


def documents() -> dict[str, str]:
    """The text of each document by its path."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def split(document: str, text: str) -> tuple[list[Block], str]:
    """The fenced blocks, and all else."""
    blocks, rest, before = [], [], ""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("```"):
            inside = tuple(takewhile(lambda each: each != "```", lines))
            blocks.append(Block(document, line[3:], inside, before == PAPER_SCALE))
        else:
            rest.append(line)
        before = line
    return blocks, "\n".join(rest)


def blocks() -> list[Block]:
    """All fenced blocks."""
    return [block for name, text in documents().items() for block in split(name, text)[0]]


def of_document(name: str, text: str) -> list[Command]:
    """The commands of one document, in blocks and in backquotes, each once."""
    found: dict[Command, None] = {}
    fenced, rest = split(name, text)
    for block in fenced:
        if block.language == "sh":
            for line in re.sub(r"\\\n\s*", " ", "\n".join(block.lines)).splitlines():
                for part in line.split("&&"):
                    if words := tuple(shlex.split(part, comments=True)):
                        found[Command(name, words, block.paper_scale, False)] = None
    for quoted in re.findall(r"(?<!`)`([^`]+)`(?!`)", rest):
        if quoted.split() and quoted.split()[0] in PROGRAMS:
            found[Command(name, tuple(shlex.split(quoted)), False, True)] = None
    return list(found)


def commands() -> list[Command]:
    """Every command of all documents."""
    return [command for name, text in documents().items() for command in of_document(name, text)]
