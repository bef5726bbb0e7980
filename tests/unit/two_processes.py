"""Trainings of two processes each, as torchrun starts them, some of which are killed on the way.

    python two_processes.py '[{"arguments": [...], "kill_at": 5}, {"arguments": [...]}]'

Run as a program: it imports everything once and forks the processes, which saves most of a short training's time. A
training with `kill_at` ends by SIGKILL of both processes as soon as its history has that step; one that `fails` ends
with status 1. {rank} in an argument is the process's.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path


def steps_of(out: Path) -> int:
    """The last step in a training's history."""
    path = out / "state" / "history.csv"
    return max((int(row.split(",")[0]) for row in path.read_text().split()[1:]), default=0) if path.exists() else 0


def one(rank: int, port: int, arguments: list[str]) -> None:
    from wuerstchen import train

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train.main([argument.replace("{rank}", str(rank)) for argument in arguments])


def training(arguments: list[str], kill_at: int | None = None, fails: bool = False) -> None:
    """Make a training, or begin one. Exits where a process did not end as it should."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=one, args=(rank, port, arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    out = Path(arguments[arguments.index("--out") + 1])
    if kill_at is not None:
        while steps_of(out) < kill_at and all(process.is_alive() for process in processes):
            time.sleep(0.005)
        for process in processes:
            process.kill()
    for process in processes:
        process.join()
    ended = [process.exitcode for process in processes]
    if ended != [int(fails) if kill_at is None else -signal.SIGKILL] * 2:
        sys.exit(f"{out}: the processes ended with {ended}")


if __name__ == "__main__":
    import timm  # noqa: F401

    import wuerstchen.cluster  # noqa: F401

    for job in json.loads(sys.argv[1]):
        training(**job)
