"""The jobs that Snakemake would run, as its own dry-run names them: nothing is counted a second way.

It is asked in this process, by a logger of our own, since the parsable parts of a dry-run's text hold no resources.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snakemake import cli
from snakemake.logging import get_event
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

NAME = "dryrun"
THREADS = 1024  # so many cores that no rule's threads are cut down to what this machine has


@dataclass(frozen=True)
class PlannedJob:
    """One job: its rule, wildcards, CPU threads, whole GPUs, and the minutes that it may take (0: no limit)."""

    rule: str
    wildcards: dict[str, str]
    threads: int
    gpus: int
    minutes: float


class LogHandler(LogHandlerBase):
    """Keeps what a dry-run says of its jobs; only errors and warnings are printed."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False
    jobs: list[PlannedJob] = []

    def __post_init__(self) -> None:
        type(self).jobs = []

    def emit(self, record: logging.LogRecord) -> None:
        if get_event(record) == LogEvent.JOB_INFO:
            self.jobs.append(planned(record))
        elif record.levelno >= logging.WARNING:
            print(record.getMessage(), file=sys.stderr)


def planned(record: Any) -> PlannedJob:
    """A job from Snakemake's description of it."""
    resources = dict(record.resources.items())
    threads = resources.get("cpus_per_task", record.threads)
    gpus, minutes = resources.get("gpu", 0), resources.get("runtime", 0)
    return PlannedJob(record.rule_name, dict(record.wildcards), int(threads), int(gpus), float(minutes))


def planned_jobs(arguments: Sequence[str]) -> list[PlannedJob]:
    """The jobs of `snakemake --dry-run` with further arguments. Exits as Snakemake does where it finds an error."""
    LoggerPluginRegistry().register_plugin(f"snakemake_logger_plugin_{NAME}", sys.modules[__name__])
    try:
        cli.main(["--dry-run", "--cores", str(THREADS), "--logger", NAME, *arguments])
    except SystemExit as end:
        if end.code:
            raise
    return LogHandler.jobs
