"""Jobs on Slurm that a killed Snakemake has left behind: they go on without it, and nobody may write beside them.

Snakemake knows nothing of them when it is started again, and would submit each a second time.
"""

import getpass
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

FORMAT = "%i|%T|%k|%Z"  # id, state, comment, working directory
SECONDS = 5.0  # between two looks at the queue


@dataclass(frozen=True)
class Job:
    """A job of Slurm; `what` is its rule with wildcards, as Snakemake's Slurm plugin says it in the comment."""

    number: str
    state: str
    what: str


def jobs_of(folder: Path, needed: bool) -> list[Job]:
    """Snakemake's jobs on Slurm, of this user, that work in a folder.

    Raises OSError where Slurm does not answer and is `needed`; where it is not, it is taken for absent.
    """
    if not shutil.which("squeue"):
        return []
    run = subprocess.run(
        ["squeue", "--noheader", "--user", getpass.getuser(), "--format", FORMAT], capture_output=True, text=True
    )
    if run.returncode and not needed:
        return []
    if run.returncode:
        raise OSError(f"squeue does not say whether jobs of a killed run are still there: {run.stderr.strip()}")
    jobs = []
    for line in run.stdout.splitlines():
        number, state, what, place = line.split("|", 3)
        if what.startswith("rule_") and Path(place).resolve() == folder.resolve():
            jobs.append(Job(number, state, what.removeprefix("rule_").replace("_wildcards_", " ")))
    return jobs


def refuse_second_writers(folder: Path, needed: bool) -> None:
    """Raises ValueError where jobs of a run that is gone still work in this folder; to be called before any is sent."""
    if jobs := jobs_of(folder, needed):
        listed = "\n".join(f"  {job.number} ({job.state.lower()}): {job.what}" for job in jobs)
        raise ValueError(
            "Slurm still has jobs of a run in this folder that was killed, and they would write to the same files:\n"
            f"{listed}\n`python -m workflow.run --profile slurm` keeps what they finish and goes on from there; "
            f"`scancel {' '.join(job.number for job in jobs)}` ends them."
        )


def settle(folder: Path, needed: bool) -> None:
    """Take back jobs that have not begun, and wait for those that run: what they finish need not be done again."""
    told: set[str] = set()
    while jobs := jobs_of(folder, needed):
        pending = [job.number for job in jobs if job.state == "PENDING"]
        if pending:
            subprocess.run(["scancel", "--state=PENDING", *pending], check=True)
        for job in jobs:
            if job.number not in pending and job.number not in told:
                print(f"Waiting for job {job.number} of a killed run on Slurm: {job.what}", flush=True)
                told.add(job.number)
        time.sleep(SECONDS)
