"""Start or continue a study: `snakemake --cores all`, once what a killed run may have left behind is cleared away.

    python -m workflow.run [--configfile FILE] [options and targets of snakemake]

A run that was ended by SIGKILL leaves Snakemake's lock, files marked as incomplete, and perhaps jobs that still work.
Snakemake alone cannot know that the lock is stale; the lock held here ends with the processes that hold it. Jobs on
this machine are ended; those on Slurm (`--profile slurm`) are waited for. Shards of pictures that a crash has damaged
are deleted, so that they are drawn again.
"""

import argparse
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import psutil

from workflow.slurm import settle
from wuerstchen.shards import read_info

MARK = "WUERSTCHEN_RUN"  # every process of a run carries this variable, with the folder as its value
OPTIONS = ["--quiet", "host", "reason", "--cores", "all", "--rerun-incomplete", "--show-failed-logs"]


def take_lock(path: Path) -> int:
    """An open file that locks this folder; waits for a run that is going on. Processes that inherit it hold it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another run is going on in this folder; waiting until it ends.", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.set_inheritable(lock, True)
    return lock


def others(root: Path) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Jobs that a killed run left in this folder, and runs that were started by `snakemake` itself."""
    left, running = [], []
    family = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    own = os.environ.get("SLURM_JOB_ID")
    for process in psutil.process_iter():
        if process.pid in family:
            continue
        try:
            environment = process.environ()
            if environment.get("SLURM_JOB_ID") != own:  # what Slurm has started is for Slurm to end
                continue
            if environment.get(MARK) == str(root):
                left.append(process)
            elif any(Path(word).name == "snakemake" for word in process.cmdline()[:3]) and process.cwd() == str(root):
                running.append(process)
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    return left, running


def remove_damaged_shards(results: Path) -> None:
    """Delete shards of pictures that are not whole, saying which: Snakemake takes every file that is there for good."""
    for path in sorted([*results.glob("*/images/*/*/*.zip"), *results.glob("*/seeds/*/images/*/*/*.zip")]):
        try:
            read_info(path)
        except ValueError as error:
            path.unlink()
            print(f"{error}; it will be made again", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Start or continue a study.", epilog="The rest goes to snakemake.")
    parser.add_argument("--configfile", type=Path, default=Path("config/emoji.yaml"))
    options, rest = parser.parse_known_args(argv)
    if not options.configfile.is_file():
        raise SystemExit(f"{options.configfile}: no such file; it should be a config such as config/emoji.yaml")
    flags = ["--configfile", str(options.configfile), *OPTIONS, *rest]
    root = Path.cwd()
    take_lock(root / ".snakemake" / "run.lock")
    left, running = others(root)
    if running:
        raise SystemExit(f"snakemake is already running in this folder (process {running[0].pid}); wait until it ends.")
    if left:
        print(f"Ending {len(left)} processes of a run that was killed.", flush=True)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=30)
    try:
        settle(root, needed=any("slurm" in word for word in rest))
    except OSError as error:
        raise SystemExit(str(error)) from None
    os.environ[MARK] = str(root)  # before anything is started, so that whatever a kill leaves behind is found
    locks = root / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        subprocess.run([sys.executable, "-m", "snakemake", "--unlock", *flags], check=True)
        for half_written in (root / "results").glob("**/.*.tmp*"):  # what wuerstchen.files.atomic_path had begun
            half_written.unlink()
    remove_damaged_shards(root / "results")
    os.execv(sys.executable, [sys.executable, "-m", "workflow.progress", *flags])


if __name__ == "__main__":
    main()
