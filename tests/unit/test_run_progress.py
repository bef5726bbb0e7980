"""The line about how far a run is: the arithmetic of the time left, and the line itself in a real run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trees import ROOT

from workflow.done import chapters
from workflow.timing import TABLE, expected_seconds, main, measured_seconds, seconds_left

CHAIN = [("a", "b"), ("b", "c"), ("a", "d")]
EXPECTED = {"a": 10.0, "b": 20.0, "c": 30.0, "d": 5.0}


@pytest.mark.parametrize(
    ("waiting", "running", "cores", "left"),
    [
        ({"a": 1, "b": 1, "c": 1, "d": 1}, [], 1, 65),  # one core does everything in turn
        ({"a": 1, "b": 1, "c": 1, "d": 1}, [], 8, 60),  # more cores do not shorten a - b - c
        ({"d": 8}, [], 2, 20),
        ({"c": 1, "a": 0}, [("b", 15.0)], 2, 35),
        ({}, [("b", 100.0)], 2, 10),  # past its time: a tenth of its age
        ({"unknown": 3}, [("d", 1.0)], 2, 4),
        ({}, [], 2, 0),
    ],
)
def test_seconds_left(waiting, running, cores, left):
    assert seconds_left(waiting, running, EXPECTED, CHAIN, cores) == pytest.approx(left)


def test_a_circle_among_rules_ends_the_estimate_too():
    assert seconds_left({"a": 1, "b": 1}, [], EXPECTED, [("a", "b"), ("b", "a")], 2) >= 30


def test_the_table_is_scaled_to_this_machine():
    assert expected_seconds({}, EXPECTED) == EXPECTED
    assert expected_seconds({"b": 40.0}, EXPECTED) == {"a": 20.0, "b": 40.0, "c": 60.0, "d": 10.0}
    assert expected_seconds({"d": 40.0, "new": 7.0}, EXPECTED) == EXPECTED | {
        "d": 40.0,
        "new": 7.0,
    }  # too short to tell


def write_benchmarks(study: Path, **seconds: list[float]) -> None:
    for rule, values in seconds.items():
        for number, value in enumerate(values):
            path = study / "benchmarks" / rule / f"deep/{number}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"s\th:m:s\n{value}\t0:00:00\n")


def test_an_earlier_run_is_read_with_its_further_seeds(tmp_path):
    write_benchmarks(tmp_path, a=[1.0, 2.0], b=[5.0])
    write_benchmarks(tmp_path / "seeds/7", a=[6.0])
    assert measured_seconds(tmp_path) == {"a": 3.0, "b": 5.0}
    assert measured_seconds(tmp_path / "nothing") == {}


def test_the_table_knows_every_rule():
    """Every rule of the default study; a test of the workflow holds docs/rulegraph.txt against that."""
    table = json.loads(TABLE.read_text())
    _, *lines = (ROOT / "docs" / "rulegraph.txt").read_text().splitlines()
    rules = {line.split(":")[0] for line in lines}
    assert table["machine"] and table["seconds"].keys() == rules <= chapters().keys(), (
        "rules have changed: run `python -m workflow.timing results/emoji --machine ...` after a whole run"
    )


def test_a_table_needs_a_run(tmp_path):
    with pytest.raises(SystemExit, match="give the folder of a study that has run"):
        main([str(tmp_path), "--machine", "x"])


SNAKEFILE = """
rule all:
    input: "results/m/b1", "results/m/b2"
rule a:
    output: "results/m/a"
    benchmark: "results/m/benchmarks/a/a.tsv"
    shell: "sleep 1; touch {output}"
rule b:
    input: "results/m/a"
    output: "results/m/b{n}"
    log: "results/m/b{n}.log"
    benchmark: "results/m/benchmarks/b/{n}.tsv"
    shell: "sleep 2; if [ -f fail ]; then echo words of b > {log}; exit 3; fi; touch {output}"
"""


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    (folder / "Snakefile").write_text(SNAKEFILE)
    command = "import sys; from workflow import progress; progress.EVERY[False] = 0.5; progress.main()"
    return subprocess.run(
        [sys.executable, "-c", command, "--cores", "2", "--quiet", "host", "reason", "--show-failed-logs", *flags],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_a_run_says_how_far_it_is(tmp_path):
    write_benchmarks(tmp_path / "results/m", b=[400.0])
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    first = next(line for line in done.stderr.splitlines() if "] 0 of 4 jobs" in line)
    assert "about 7 min left: a 0:0" in first and "[...." in first
    assert any("] 1 of 4 jobs" in line and "b 1 0:0" in line and "b 2 0:0" in line for line in done.stderr.splitlines())
    assert "a took 1 s" in done.stderr and "b 2 took 2 s" in done.stderr
    assert "rule b:" not in done.stderr
    assert "Nothing to be done" in run(tmp_path).stderr


def test_a_failed_job_is_shown_in_full(tmp_path):
    (tmp_path / "fail").touch()
    done = run(tmp_path)
    assert done.returncode == 1
    assert "Error in rule b" in done.stderr and "words of b" in done.stderr


def test_a_dry_run_is_shown_as_snakemake_shows_it(tmp_path):
    done = run(tmp_path, "--dry-run")
    assert "Job stats:" in done.stdout and "rule b:" in done.stdout and " left: " not in done.stdout + done.stderr
