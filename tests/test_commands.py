"""The commands of the README and the documents, run on the tiny study, or planned where they are of another one."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from documents import PLACEHOLDERS, RUN, Command, blocks, commands
from trees import ROOT, environment

pytestmark = pytest.mark.dag

# What the documents call a study, and what the tiny one has in its place.
TINY = {
    "results/emoji": "results/tiny",
    "results/paper": "results/tiny",
    "config/emoji.yaml": "tests/tiny.yaml",
}
OTHERS = ("--configfile", "--config", "--profile", "-n", "sweep", "--resources")  # with these, it is no part of `make`


def unique(found: Iterator[Command]) -> list[tuple[str, ...]]:
    return sorted({command.words for command in found})


def of_the_study(words: tuple[str, ...]) -> bool:
    return not any(word in OTHERS for word in words)


ALL = [command for command in commands() if command.whole]
SNAKEMAKE = unique(command for command in ALL if command.words[0] == "snakemake")
# a plan is the same with and without -n
PLANNED = sorted({tuple(word for word in words if word != "-n") for words in SNAKEMAKE if not of_the_study(words)})
PROGRAMS = unique(
    command
    for command in ALL
    if command.module in RUN and not command.paper_scale and not set(command.words) & {"fetch", *PLACEHOLDERS}
)


def of_tiny(words: tuple[str, ...]) -> tuple[str, ...]:
    """The command with the tiny study in the place of the documents' own."""
    for name, tiny in TINY.items():
        words = tuple(word.replace(name, tiny) for word in words)
    return words


def run(words: tuple[str, ...], tree: Path) -> str:
    """Run a command as a shell would in the environment; returns what it said. It must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words,
        cwd=tree,
        env=environment() | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-5000:]}"
    return done.stdout


@pytest.mark.parametrize("words", PLANNED, ids=shlex.join)
def test_other_studies_and_clusters_are_planned(words: tuple[str, ...], tree: Path) -> None:
    shutil.copy(tree / "config" / "emoji.yaml", tree / "config" / "my.yaml")
    mine = (block for block in blocks() if block.lines[:1] == ("study: mine",))
    (tree / "config" / "mine.yaml").write_text("\n".join(next(mine).lines))
    said = run((*words, "-n"), tree)
    assert "Job stats:" in said, said


@pytest.mark.parametrize("words", [words for words in SNAKEMAKE if of_the_study(words)], ids=shlex.join)
def test_parts_of_a_study(words: tuple[str, ...], whole: Path) -> None:
    words = of_tiny(words)
    said = run((*words, "--configfile", "tests/tiny.yaml"), whole)
    if "--report" in words:
        report = whole / words[words.index("--report") + 1]
        assert report.stat().st_size > 0
        report.unlink()
    else:
        assert "Nothing to be done" in said, said


@pytest.mark.parametrize("words", PROGRAMS, ids=shlex.join)
def test_programs_do_what_documents_say(words: tuple[str, ...], whole: Path, tmp_path: Path) -> None:
    words = of_tiny(words)
    if "--out" in words:
        place = words.index("--out") + 1
        words = (*words[:place], str(tmp_path / words[place]), *words[place + 1 :])
    said = run((sys.executable, *words[1:]), whole)
    if "--out" in words:
        assert Path(words[place]).stat().st_size > 0
    else:
        assert len(said.splitlines()) > 3, said
    if words[2] == "workflow.plan":
        (hours,) = re.findall(r"^all that is known +\d+ +(\S+ to \S+) ", said, re.MULTILINE)
        guide = " ".join((ROOT / "docs" / "reproduce-the-paper.md").read_text(encoding="utf-8").split())
        assert f"{hours} hours of" in guide


def test_what_the_documents_promise_of_a_finished_study(whole: Path) -> None:
    """Each file that results/README.md lists, but for what only other configs make."""
    listed = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    study = whole / "results" / yaml.safe_load((ROOT / "tests" / "tiny.yaml").read_text())["study"]
    for name in (
        "report.html",
        "summary.json",
        "workload.json",
        "curve.json",
        "carbon.json",
        "config.yaml",
        "check.json",
    ):
        assert f"`{name}`" in listed and (study / name).is_file(), name
    for name in ("data", "prompts", "latents", "tables", "figures", "features", "scores", "preference", "scorer"):
        assert f"`{name}/`" in listed and any((study / name).iterdir()), name
    folders = {path.name for path in study.iterdir() if path.is_dir()} | {path.name for path in study.glob("*.*")}
    unlisted = {name for name in folders if f"`{name}" not in listed}
    assert not unlisted, unlisted
