"""What a run of Snakemake has told of its jobs in its own log, .snakemake/log/*.snakemake.log.

Snakemake writes it whatever the terminal shows, and on a shared file system any host can read it while the run goes on:
nothing here asks Snakemake, Slurm or a process.
"""

import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

RUNNING, DONE, FAILED, AGAIN = "running", "done", "failed", "to be tried again"
TIME = re.compile(r"\[(\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4})\]")
COUNT = re.compile(r"(\w+) +(\d+)")
STARTED = re.compile(r"(?:local)?(?:rule|checkpoint) (\w+):")
ERROR = re.compile(r"Error in rule (\w+):")
FIELD = re.compile(r"    (\w+): (.*)")
FINISHED = re.compile(r"Finished jobid: (\d+) ")
RESTARTED = re.compile(r"Trying to restart job (\d+)\.")
SUBMITTED = re.compile(r"Job (\d+) has been submitted with SLURM jobid (\S+) \(log: (.+)\)\.")
AT_ONCE = re.compile(r"Provided (?:cores|remote nodes): (\d+)")
END = "Complete log(s):"


@dataclass
class Job:
    """One job, as it was last heard of."""

    rule: str
    name: str  # the rule with its wildcards
    began: float  # seconds since 1970: when it was started or, on a cluster, submitted
    state: str = RUNNING
    ended: float | None = None
    tries: int = 1
    logs: list[Path] = field(default_factory=list)
    outputs: list[Path] = field(default_factory=list)
    slurm: str | None = None  # Slurm's number of it
    slurm_log: Path | None = None  # what else its programs have said; Slurm's executor deletes it after a success
    message: str = ""  # why it failed, where Snakemake says more than that

    @property
    def queued(self) -> bool:
        """Whether it was submitted and has not begun: a rule's log is the first thing that its job writes."""
        return self.slurm is not None and not any(written(log) >= self.began - 1 for log in self.logs)


@dataclass
class Run:
    """One run: the jobs that it set out to do, by rule, and those that it has started, by Snakemake's number."""

    path: Path
    planned: Counter[str] = field(default_factory=Counter)
    jobs: dict[int, Job] = field(default_factory=dict)
    at_once: int | None = None  # cores or, on a cluster, jobs at a time
    ended: bool = False

    @property
    def root(self) -> Path:
        """The folder that it runs in."""
        return self.path.parents[2]

    @property
    def began(self) -> float:
        """When its first job was started, in seconds since 1970."""
        return min((job.began for job in self.jobs.values()), default=written(self.path))

    def count(self, rule: str, *states: str) -> int:
        """How many jobs of a rule are in one of these states."""
        return sum(job.rule == rule and job.state in states for job in self.jobs.values())

    def in_state(self, state: str) -> list[Job]:
        """Its jobs in a state, the first started first."""
        return sorted((job for job in self.jobs.values() if job.state == state), key=lambda job: job.began)


def written(path: str | Path) -> float:
    """When a file was last written, in seconds since 1970; 0 where there is none."""
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return 0.0


def job_name(rule: str, wildcards: Mapping[str, str]) -> str:
    """A rule with its wildcards; of the study only seeds/<seed> is worth reading."""
    words = [value.partition("/")[2] if key == "study" else value for key, value in wildcards.items()]
    return " ".join([rule, *filter(None, words)])


def read_run(path: Path) -> Run:
    """A run from its log, which may still be growing."""
    run, now, lines = Run(path), 0.0, path.read_text(encoding="utf-8", errors="replace").splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if found := TIME.fullmatch(line):
            now = time.mktime(time.strptime(found[1]))
        elif line == "Job stats:":
            while number < len(lines) and lines[number].strip():
                if found := COUNT.fullmatch(lines[number].strip()):
                    run.planned[found[1]] = int(found[2])
                number += 1
            del run.planned["total"]
        elif found := AT_ONCE.match(line):
            run.at_once = int(found[1])
        elif found := STARTED.fullmatch(line):
            number = _started(run, found[1], now, lines, number)
        elif found := ERROR.fullmatch(line):
            number = _failed(run, now, lines, number)
        elif found := FINISHED.match(line):
            if job := run.jobs.get(int(found[1])):
                job.state, job.ended = DONE, now
        elif found := SUBMITTED.match(line):
            if job := run.jobs.get(int(found[1])):
                job.slurm, job.slurm_log = found[2], run.root / found[3]
        elif found := RESTARTED.match(line):
            if job := run.jobs.get(int(found[1])):
                job.state = AGAIN
        elif line.startswith(END):
            run.ended = True
    return run


def _fields(lines: list[str], number: int) -> tuple[dict[str, str], int]:
    """The indented "key: value" lines from `number` on, and the number of the line after them."""
    found: dict[str, str] = {}
    while number < len(lines) and lines[number].startswith("    "):
        if match := FIELD.fullmatch(lines[number]):
            found.setdefault(*match.groups())
        number += 1
    return found, number


def _listed(text: str) -> list[str]:
    return [word for word in text.split(", ") if word]


def _started(run: Run, rule: str, now: float, lines: list[str], number: int) -> int:
    about, number = _fields(lines, number)
    if "jobid" in about:
        pairs = (pair.partition("=")[::2] for pair in _listed(about.get("wildcards", "")))
        before = run.jobs.get(int(about["jobid"]))
        run.jobs[int(about["jobid"])] = Job(
            rule,
            job_name(rule, dict(pairs)),
            now,
            tries=before.tries + 1 if before else 1,
            logs=[run.root / log for log in _listed(about.get("log", ""))],
            outputs=[run.root / output for output in _listed(about.get("output", ""))],
        )
    return number


def _failed(run: Run, now: float, lines: list[str], number: int) -> int:
    about, number = _fields(lines, number)
    job = run.jobs.get(int(about.get("jobid", -1)))
    if job:
        job.state, job.ended = FAILED, now
        job.message = about.get("message", "").removeprefix("None").partition(" For further error details")[0]
    return number


def last_run(study: Path) -> Run | None:
    """The latest run with jobs of a study, results/<study>; None where there is none."""
    study = study.absolute()
    logs = study.parents[1] / ".snakemake" / "log"
    for path in sorted(logs.glob("*.snakemake.log"), reverse=True):  # their names begin with their time
        run = read_run(path)
        if any(study in file.parents for job in run.jobs.values() for file in [*job.outputs, *job.logs]):
            return run
    return None
