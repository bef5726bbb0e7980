"""How long the rest of a run takes: the seconds that a job of each rule needs, and what follows for the whole DAG.

python -m workflow.timing results/emoji --machine "2 cores of an AMD EPYC"      writes workflow/seconds.json anew
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean

from wuerstchen.files import write_json

TABLE = Path(__file__).with_name("seconds.json")
TELLING = 10.0  # seconds; less measured time says nothing about a machine's speed


def measured_seconds(study: Path) -> dict[str, float]:
    """Mean seconds of a job by rule, from the benchmark files that a study has so far."""
    found: dict[str, list[float]] = {}
    for folder in (study / "benchmarks", *study.glob("seeds/*/benchmarks")):
        for path in folder.rglob("*.tsv"):
            _, *rows = path.read_text(encoding="utf-8").splitlines()
            rule = path.relative_to(folder).parts[0]
            found.setdefault(rule, []).extend(float(row.split("\t")[0]) for row in rows)
    return {rule: fmean(seconds) for rule, seconds in sorted(found.items()) if seconds}


def expected_seconds(measured: Mapping[str, float], table: Mapping[str, float]) -> dict[str, float]:
    """Seconds of a job by rule: as measured here or, where that is not known yet, as in the table, which is scaled to
    this machine and study by the rules that are in both.
    """
    both = measured.keys() & table.keys()
    ours, theirs = sum(measured[rule] for rule in both), sum(table[rule] for rule in both)
    scale = ours / theirs if theirs >= TELLING else 1.0
    return {rule: seconds * scale for rule, seconds in table.items()} | dict(measured)


def seconds_left(
    waiting: Mapping[str, int],
    running: Iterable[tuple[str, float]],
    expected: Mapping[str, float],
    links: Iterable[tuple[str, str]],
    cores: int,
) -> float:
    """Seconds until the last job ends: the work left over all cores or, if that is longer, its longest chain.

    `waiting` counts jobs by rule, `running` has the rule and age in seconds of each running job, and a link leads from
    a rule to one that needs it. A job past its time is expected to need another tenth of its age.
    """
    rest = {rule: expected.get(rule, 0.0) for rule, count in waiting.items() if count > 0}
    work = sum(rest[rule] * waiting[rule] for rule in rest)
    for rule, age in running:
        remaining = max(expected.get(rule, 0.0) - age, age / 10)
        work += remaining
        rest[rule] = max(rest.get(rule, 0.0), remaining)
    after: dict[str, list[str]] = {rule: [] for link in links for rule in link} | {rule: [] for rule in rest}
    for rule, user in links:
        after[rule].append(user)
    chain = dict.fromkeys(after, 0.0)
    for _ in after:  # as many rounds as the longest chain could have rules
        chain = {r: rest.get(r, 0.0) + max((chain[user] for user in users), default=0.0) for r, users in after.items()}
    return max([work / cores, *chain.values()])


def in_words(seconds: float) -> str:
    """An estimate as people say it.

    >>> in_words(20), in_words(601), in_words(7900)
    ('less than a minute', 'about 10 min', 'about 2 h 12 min')
    """
    minutes = round(seconds / 60)
    if seconds < 60:
        return "less than a minute"
    return f"about {minutes} min" if minutes < 100 else f"about {minutes // 60} h {minutes % 60} min"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the table of seconds by rule from a study that has run.")
    parser.add_argument("study", type=Path, help="folder of a finished study")
    parser.add_argument("--machine", required=True, help="what it ran on")
    arguments = parser.parse_args(argv)
    seconds = {rule: round(value, 1) for rule, value in measured_seconds(arguments.study).items()}
    if not seconds:
        raise SystemExit(f"{arguments.study}: no benchmarks/*/*.tsv; give the folder of a study that has run")
    write_json(TABLE, {"machine": arguments.machine, "study": arguments.study.name, "seconds": seconds})


if __name__ == "__main__":
    main()
