"""How far a study is: jobs done, running and failed by rule, pictures per second, time left, and why a job failed.

    python -m workflow.status results/emoji

To be asked from any shell, also of another host that shares the file system, while a run goes on or afterwards: it only
reads what Snakemake and the jobs have written.
"""

import argparse
import csv
import re
import time
from collections import deque
from pathlib import Path

import yaml

from workflow.columns import aligned
from workflow.done import clock
from workflow.runlog import AGAIN, DONE, FAILED, RUNNING, Job, Run, last_run, written
from workflow.timing import TABLE, expected_seconds, in_words, measured_seconds, seconds_left
from wuerstchen.files import read_json

RULEGRAPH = Path(__file__).parent.parent / "docs" / "rulegraph.txt"
TARGET = "all"  # a job that does nothing
TAIL = 15  # lines of a failed job's log
SILENT = 600.0  # seconds without a word after which a run may be dead
# what wuerstchen.progress and a training in one process write into a log
BAR = re.compile(r".*?: \d+ of \d+ .+?, \S+ gone, (\S+) left.*")
STEP = re.compile(r"stage .*: step (\d+)/(\d+), .*, (\d+) s")
BYTES = 65_536  # of a log's end that are read


def ending(path: Path, lines: int) -> list[str]:
    """The last lines of a log; none where there is no log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return list(deque((line for line in text.splitlines() if line.strip()), lines))


def bar(job: Job) -> str:
    """The last line of progress in a job's log, such as "stage c: 120 of 1000 steps, 00:12 gone, 01:30 left"."""
    said = [line for log in job.logs for line in ending(log, TAIL) if BAR.fullmatch(line) or STEP.fullmatch(line)]
    return said[-1] if said else ""


def bar_seconds(line: str) -> float | None:
    """Seconds left by a line of progress; None where it does not say."""
    if found := STEP.fullmatch(line):
        step, steps, gone = map(int, found.groups())
        return gone * (steps - step) / step
    found = BAR.fullmatch(line)
    if not found or "?" in found[1]:
        return None
    seconds = 0.0
    for part in found[1].split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def images_per_second(jobs: list[Job]) -> float | None:
    """Pictures drawn, or trained on, per second of the jobs that are done, from their usage.json."""
    records = [read_json(file) for job in jobs for file in job.outputs if file.name.endswith("usage.json")]
    images = sum(record.get("images") or record.get("samples", 0) for record in records)
    seconds = sum(record["seconds"] for record in records)
    return images / seconds if images and seconds else None


def training_speed(job: Job) -> str:
    """Pictures per second of a training that goes on, from the history beside its state; empty where it has none."""
    for path in (output.parent / "state" / "history.csv" for output in job.outputs):
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            if rows and rows[-1].get("images_per_second"):
                return f"{float(rows[-1]['images_per_second']):.0f} images/s"
    return ""


def rule_links() -> list[tuple[str, str]]:
    """(rule, one that needs it) of the default study; rules of others are taken to wait for nothing."""
    _, *lines = RULEGRAPH.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(": ")[::2] for line in lines)
    return [(rule, user) for rule, users in pairs for user in users.split(", ") if user]


def waiting(run: Run) -> dict[str, int]:
    """Jobs by rule that are still to be started, failed ones with them: the next run does these again."""
    return {rule: number - run.count(rule, DONE, RUNNING) for rule, number in run.planned.items()}


def time_left(run: Run, study: Path, now: float) -> str:
    """Seconds until the last job ends, in words, and the rules of which nothing is known yet."""
    config = study / "config.yaml"
    preset = yaml.safe_load(config.read_text(encoding="utf-8")).get("preset") if config.is_file() else None
    table = read_json(TABLE)  # of the preset's trainings on another machine, whose proportions hold here
    took = expected_seconds(measured_seconds(study), table["seconds"] if preset == table["study"] else {})
    ages = []
    for job in run.in_state(RUNNING):
        age = 0.0 if job.queued else now - job.began
        ages.append((job.rule, age))
        if job.rule not in took and (rest := bar_seconds(bar(job))) is not None:
            took[job.rule] = age + rest
    rest = waiting(run)
    unknown = sorted({rule for rule, number in rest.items() if number} | {rule for rule, _ in ages})
    unknown = [rule for rule in unknown if rule not in took and rule != TARGET]
    seconds = seconds_left(rest, ages, took, rule_links(), run.at_once or 1)
    if not unknown:
        return in_words(seconds)
    known = f"{in_words(seconds)}, and " if seconds else ""
    return f"{known}what these take, of which no job has ended yet: {', '.join(unknown)}"


def state_of(run: Run, now: float) -> str:
    """Whether a run goes on."""
    if run.ended:
        return "has ended"
    if not any((run.root / ".snakemake" / "locks").glob("*")):
        return "was ended from outside"
    logs = [run.path, *(log for job in run.in_state(RUNNING) for log in job.logs)]
    silent = now - max(map(written, logs))
    if silent > SILENT:
        return f"has said nothing for {in_words(silent)}; where its snakemake is dead, start it again"
    return f"goes on, last word {clock(silent)} ago"


def table_lines(run: Run) -> list[str]:
    """One line per rule, in the order in which the rules began."""
    first = {job.rule: None for job in sorted(run.jobs.values(), key=lambda job: job.began)}
    rows = [("rule", "jobs", "done", "running", "queued", "failed", "s a job", "images/s")]
    for rule in dict.fromkeys([*first, *run.planned]):
        done = [job for job in run.jobs.values() if job.rule == rule and job.state == DONE]
        queued = sum(job.queued for job in run.in_state(RUNNING) if job.rule == rule)
        numbers = [run.planned[rule], len(done), run.count(rule, RUNNING) - queued, queued, run.count(rule, FAILED)]
        took = [job.ended - job.began for job in done if job.ended is not None]
        speed = images_per_second(done)
        rows.append(
            (
                rule,
                *(str(number) if number else "" for number in numbers),
                f"{sum(took) / len(took):.0f}" if took else "",
                f"{speed:.3g}" if speed else "",
            )
        )
    return aligned(rows)


def running_lines(run: Run, now: float) -> list[str]:
    """What each running job is at."""
    lines = []
    for job in run.in_state(RUNNING):
        about = [f"job {job.slurm} of Slurm"] if job.slurm else []
        about += [f"try {job.tries}"] if job.tries > 1 else []
        about += ["waits in the queue"] if job.queued else [training_speed(job), bar(job)]
        lines.append(f"  {job.name}, {clock(now - job.began)}: {'; '.join(filter(None, about))}".removesuffix(": "))
    return lines


def failed_lines(run: Run) -> list[str]:
    """Each failed job with its reason and the end of its log or, where it wrote none, of Slurm's."""
    lines = []
    for job in [*run.in_state(AGAIN), *run.in_state(FAILED)]:
        again = f", {AGAIN}" if job.state == AGAIN else ""
        lines.append(f"  {job.name} failed after {clock((job.ended or job.began) - job.began)}{again}")
        lines += [f"    {job.message}"] if job.message else []
        own = [(log, said) for log in job.logs if (said := ending(log, TAIL))]
        for log, said in own or [(job.slurm_log, ending(job.slurm_log, TAIL) if job.slurm_log else [])]:
            lines += (
                [f"    the end of {log}:", *(f"      {line}" for line in said)] if said else ["    it wrote no log"]
            )
    return lines


def message(study: Path, now: float | None = None) -> str:
    """How far a study's last run is. Raises ValueError where none is known."""
    now = time.time() if now is None else now
    run = last_run(study)
    if run is None:
        raise ValueError(f"{study}: no log in {study.absolute().parents[1] / '.snakemake/log'} has a job of this study")
    done, total = sum(job.state == DONE for job in run.jobs.values()), run.planned.total()
    lines = [f"{study}: the run of {time.ctime(run.began)} {state_of(run, now)}; {done} of {total} jobs done", ""]
    lines += table_lines(run)
    if found := running_lines(run, now):
        lines += ["", "cut off:" if run.ended else "running:", *found]
    if found := failed_lines(run):
        lines += ["", "failed:", *found]
    if done < total:
        lines += ["", f"left: {time_left(run, study, now)}"]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Say how far a study is, and why a job failed.")
    parser.add_argument("study", type=Path, help="its folder, such as results/emoji")
    arguments = parser.parse_args(argv)
    try:
        print(message(arguments.study))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
