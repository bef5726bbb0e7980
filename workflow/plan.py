"""What a study will need before anything is submitted: jobs, GPU-hours, disk space, energy and carbon, rule by rule.

    python -m workflow.plan --configfile config/paper.yaml [--gpu h100] [--json plan.json]

The jobs are those of Snakemake's own dry-run, so that what is done already is not in them.
"""

import argparse
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from evaluation import carbon
from workflow import check, published
from workflow.columns import aligned
from workflow.costs import GPUS, UNKNOWN, Cost, Costs, Gpu, Range
from workflow.dryrun import PlannedJob, planned_jobs
from workflow.settings import problems
from wuerstchen.files import write_json
from wuerstchen.usage import CORE_WATTS

SMALLEST = 0.001  # of what is printed
# Rules whose jobs differ so much that each of these wildcards has a line of its own.
APART = {"train_phase": ("stage", "phase"), "draw": ("model",), "sample": ("model",), "real_pictures": ("model",)}


@dataclass(frozen=True)
class Row:
    """Jobs that cost alike, all of them together; None is not known. `limit_*`: hours that their time limits allow."""

    name: str
    jobs: int
    kind: str
    gpu_hours: Range | None
    core_hours: Range | None
    gigabytes: float | None
    kwh: Range | None
    kg: Range | None
    limit_gpu_hours: float
    limit_core_hours: float
    basis: str


def name_of(job: PlannedJob) -> str:
    """The row that a job belongs to."""
    return " ".join([job.rule, *(job.wildcards[key] for key in APART.get(job.rule, ()))])


def energy(cost: Cost, gpu: Gpu) -> Range | None:
    """kWh of a job: the power that GPUs (or cores) are stated to take over all their hours, as `usage.json` has it."""
    hours, watts = (cost.core_hours, CORE_WATTS) if cost.gpu_hours is None else (cost.gpu_hours, gpu.watts)
    return None if hours is None else (hours[0] * watts / 1000, hours[1] * watts / 1000)


def kilograms(kwh: Range, device: str, kg_per_kwh: float, source: str) -> Range:
    """Carbon by `evaluation.carbon`, as of a run that had used so much."""
    record = {"device": device, "count": 1, "seconds": 0.0, "kwh_source": "tdp"}
    low, high = (carbon.run([("plan", record | {"kwh": end})], kg_per_kwh, source)["total_kg"] for end in kwh)
    return low, high


def rows(jobs: Iterable[PlannedJob], config: dict[str, Any], gpu: Gpu) -> list[Row]:
    """A row for each rule, or part of one, in the order of the dry-run's jobs."""
    costs, groups = Costs(config, gpu), {}
    for job in jobs:
        groups.setdefault(name_of(job), []).append(job)
    found = []
    for name, group in groups.items():
        each = [costs.cost(job) for job in group]
        kwh = total(energy(cost, gpu) for cost in each)
        sizes = [cost.gigabytes for cost in each if cost.gigabytes is not None]
        found.append(
            Row(
                name,
                len(group),
                each[0].kind,
                total(cost.gpu_hours for cost in each),
                total(cost.core_hours for cost in each),
                sum(sizes) if sizes else None,
                kwh,
                None if kwh is None else kilograms(kwh, gpu.name, **config["carbon"]),
                sum(job.gpus * job.minutes for job in group) / 60,
                sum(job.threads * job.minutes for job in group if not job.gpus) / 60,
                each[0].basis,
            )
        )
    return found


def total(ranges: Iterable[Range | None]) -> Range | None:
    """The sum of what is known; None where nothing is."""
    known = [value for value in ranges if value is not None]
    return (math.fsum(low for low, _ in known), math.fsum(high for _, high in known)) if known else None


def totals(found: list[Row]) -> dict[str, Any]:
    """Sums of what is known and, apart, what the time limits allow of the rest."""
    unknown = [row for row in found if row.kind == UNKNOWN]
    sizes = [row.gigabytes for row in found if row.gigabytes is not None]
    return {
        "jobs": sum(row.jobs for row in found),
        **{key: total(getattr(row, key) for row in found) for key in ("gpu_hours", "core_hours", "kwh", "kg")},
        "gigabytes": math.fsum(sizes) if sizes else None,
        "not_known": {
            "jobs": sum(row.jobs for row in unknown),
            "limit_gpu_hours": math.fsum(row.limit_gpu_hours for row in unknown),
            "limit_core_hours": math.fsum(row.limit_core_hours for row in unknown),
        },
    }


def number(value: float) -> str:
    """Three significant digits, or two of what is less than one, without an exponent.

    >>> number(24602), number(0.123456), number(0.0000123), number(0)
    ('24,600', '0.12', '< 0.001', '0')
    """
    if not value:
        return "0"
    if value < SMALLEST:
        return f"< {SMALLEST}"
    digits = (2 if value >= 1 else 1) - math.floor(math.log10(value))
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def shown(value: Range | float | None) -> str:
    """A number, an interval, or a question mark for what is not known."""
    if value is None:
        return "?"
    if isinstance(value, tuple):
        low, high = map(number, value)
        return low if low == high else f"{low} to {high}"
    return number(value)


def text(config: dict[str, Any], gpu: Gpu, found: list[Row]) -> str:
    """The table, its sum, and what its numbers rest on."""
    titles = ("", "jobs", "GPU-hours", "core-hours", "GB", "kWh", "kg CO2 eq.", "")
    sums, bases = totals(found), list(dict.fromkeys(row.basis for row in found if row.basis))
    cells = [
        (
            row.name,
            str(row.jobs),
            *hours(row),
            shown(row.gigabytes),
            shown(row.kwh),
            shown(row.kg),
            f"{row.kind} ({bases.index(row.basis) + 1})" if row.basis else f"{row.kind}{limit(row)}",
        )
        for row in found
    ]
    keys = ("gpu_hours", "core_hours", "gigabytes", "kwh", "kg")
    cells.append(("all that is known", f"{sums['jobs']}", *(shown(sums[key]) for key in keys), ""))
    lines = aligned([titles, *cells], left=(0, len(titles) - 1))
    return "\n".join(
        [f"{config['study']}: what is left to do, of {gpu.name}", "", *lines, "", *notes(config, sums, bases)]
    )


def hours(row: Row) -> tuple[str, str]:
    """The cells of GPU-hours and core-hours: empty for what a row's jobs do not use."""
    on_gpu = row.gpu_hours is not None or bool(row.limit_gpu_hours)
    return (shown(row.gpu_hours), "") if on_gpu else ("", shown(row.core_hours))


def limit(row: Row) -> str:
    """What a row's time limits allow at most."""
    if row.limit_gpu_hours:
        return f", its limits allow {shown(row.limit_gpu_hours)} GPU-hours"
    return f", its limits allow {shown(row.limit_core_hours)} core-hours" if row.limit_core_hours else ""


def notes(config: dict[str, Any], sums: dict[str, Any], bases: list[str]) -> list[str]:
    """What the numbers rest on, and what is not in them."""
    lines = [f"({place}) {basis}" for place, basis in enumerate(bases, 1)]
    rest = sums["not_known"]
    allowed = [shown(rest[key]) for key in ("limit_gpu_hours", "limit_core_hours")]
    lines.append(
        f"Not in the sum: {rest['jobs']} jobs of which no time is known; their limits allow {allowed[0]} GPU-hours and"
        f" {allowed[1]} core-hours."
    )
    lines.append(
        f"Energy: the stated power of GPUs, or {CORE_WATTS:g} W a core, in all hours; no hosts, cooling or network."
        f" Carbon: {config['carbon']['kg_per_kwh']:g} kg/kWh ({config['carbon']['source']})."
    )
    if published.is_published(config):
        asked = check.GIGABYTES + published.gigabytes(config)
    else:
        asked = check.GIGABYTES if config["data"]["source"] != "webdataset" else None
    lines.append(
        "Disk: drawn and shown pictures, trained weights and their states; not what is read."
        + (f" The first job asks for {asked} GB." if asked else "")
    )
    return lines


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Say what a study will need before anything is submitted.")
    parser.add_argument("--configfile", type=Path, default=Path("config/emoji.yaml"))
    parser.add_argument("--gpu", choices=GPUS, default="a100", help="what it would run on (default: the paper's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    arguments = parser.parse_args(argv)
    if not arguments.configfile.is_file():
        raise SystemExit(f"{arguments.configfile}: no such file; it should be a config such as config/emoji.yaml")
    config = yaml.safe_load(arguments.configfile.read_text(encoding="utf-8"))
    if wrong := problems(config):
        raise SystemExit("\n".join([f"{arguments.configfile} is not valid:", *wrong]))
    jobs = planned_jobs(["--configfile", str(arguments.configfile)])
    gpu = GPUS[arguments.gpu]
    found = rows(jobs, config, gpu)
    print(text(config, gpu, found))
    if arguments.json:
        record = {"study": config["study"], "gpu": gpu.name, "rows": [asdict(row) for row in found]}
        write_json(arguments.json, record | {"totals": totals(found)})


if __name__ == "__main__":
    main()
