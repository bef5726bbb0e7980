"""Snakemake with a line about how far it is: jobs done, jobs running, and about how long the rest takes.

python -m workflow.progress [options and targets of snakemake]

On a terminal the line is redrawn every second; in a log it is written every ten. One line for each job that has ended
takes the place of Snakemake's description of it; errors, warnings and all else are printed as Snakemake prints them.
"""

import logging
import shutil
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from snakemake import cli
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter, get_event
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from workflow.done import clock
from workflow.runlog import job_name
from workflow.timing import TABLE, expected_seconds, in_words, measured_seconds, seconds_left
from wuerstchen.files import read_json

NAME = "progress"
EVERY = {True: 1.0, False: 10.0}  # seconds between two lines, on a terminal or not
REPLACED = {LogEvent.RUN_INFO, LogEvent.RESOURCES_INFO, LogEvent.JOB_INFO, LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED}
REPLACED |= {LogEvent.PROGRESS, LogEvent.RULEGRAPH}


class LogHandler(LogHandlerBase):
    """The only handler that writes to the terminal. Snakemake calls it from one thread, another redraws the line."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True  # events are counted before they are filtered
    has_formatter = True
    needs_rulegraph = True

    def __post_init__(self) -> None:
        said = self.common_settings
        self.dryrun = said.dryrun
        self.screen = ColorizingTextHandler(nocolor=said.nocolor, stream=sys.stdout if said.stdout else sys.stderr)
        self.screen.setFormatter(DefaultFormatter(said.quiet, said.show_failed_logs))
        self.screen.addFilter(DefaultFilter(said.quiet, said.debug_dag, said.verbose, said.dryrun, said.printshellcmds))
        self.terminal = self.screen.stream.isatty()
        self.started = time.monotonic()
        self.waiting: Counter[str] = Counter()
        self.running: dict[int, tuple[str, str, float]] = {}  # by job: rule, its name with wildcards, start
        self.total, self.done, self.cores = 0, 0, 1
        self.links: list[tuple[str, str]] = []
        self.before: dict[str, float] | None = None  # seconds by rule of an earlier run of this study
        self.finished: dict[str, list[float]] = {}
        self.table = read_json(TABLE)["seconds"]
        self.ended = threading.Event()
        if not self.dryrun:
            threading.Thread(target=self.redraw, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        event = get_event(record)
        if not self.dryrun:
            self.count(event, record)
            if event in REPLACED or record.getMessage().startswith("Select jobs"):
                return
        self.clear()
        self.screen.handle(record)

    def count(self, event: LogEvent | None, record: logging.LogRecord) -> None:
        """Take note of what an event says about jobs."""
        now = time.monotonic()
        if event == LogEvent.RULEGRAPH:
            self.links = [(link["sourcerule"], link["targetrule"]) for link in record.rulegraph["links"]]
        elif event == LogEvent.RESOURCES_INFO:
            self.cores = getattr(record, "cores", self.cores)
        elif event == LogEvent.RUN_INFO:
            self.waiting = Counter(record.stats)
            self.total = self.waiting.pop("total")
        elif event == LogEvent.JOB_INFO:
            if self.before is None and record.benchmark:
                study = record.benchmark.split("/benchmarks/")[0].split("/seeds/")[0]
                self.before = measured_seconds(Path(study))
            self.waiting[record.rule_name] -= 1
            self.running[record.jobid] = (record.rule_name, job_name(record.rule_name, record.wildcards), now)
        elif event == LogEvent.JOB_FINISHED and record.job_id in self.running:
            rule, name, start = self.running.pop(record.job_id)
            self.done += 1
            self.finished.setdefault(rule, []).append(now - start)
            self.clear()
            self.screen.stream.write(f"{clock(now - self.started):>6}  {name} took {now - start:.0f} s\n")
        elif event == LogEvent.JOB_ERROR:
            self.running.pop(getattr(record, "jobid", None), None)

    def line(self) -> str:
        """How far the run is."""
        now = time.monotonic()
        measured = (self.before or {}) | {rule: sum(took) / len(took) for rule, took in self.finished.items()}
        ages = [(rule, now - start) for rule, _, start in self.running.values()]
        expected = expected_seconds(measured, self.table)
        left = seconds_left(self.waiting, ages, expected, self.links, self.cores)
        gone = now - self.started
        bar = "#" * round(12 * gone / (gone + left + 1e-9))
        names = ", ".join(f"{name} {clock(now - start)}" for _, name, start in self.running.values())
        return f"{clock(gone):>6}  [{bar:.<12}] {self.done} of {self.total} jobs, {in_words(left)} left: {names}"

    def redraw(self) -> None:
        while not self.ended.wait(EVERY[self.terminal]):
            with self.lock:
                if self.running and not self.ended.is_set():
                    self.clear()
                    # The cursor goes back to the start, so that what a job prints itself overwrites the line.
                    room = shutil.get_terminal_size().columns - 1
                    self.screen.stream.write(f"{self.line()[:room]}\r" if self.terminal else f"{self.line()}\n")
                    self.screen.stream.flush()

    def clear(self) -> None:
        """Wipe the line off the terminal."""
        if self.terminal:
            self.screen.stream.write("\r\x1b[K")

    def close(self) -> None:
        self.ended.set()
        with self.lock:
            self.clear()
        super().close()


def main() -> None:
    LoggerPluginRegistry().register_plugin(f"snakemake_logger_plugin_{NAME}", sys.modules[__name__])
    cli.main(["--logger", NAME, *sys.argv[1:]])


if __name__ == "__main__":
    main()
