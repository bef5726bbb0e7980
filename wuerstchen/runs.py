"""Long runs on a cluster: their options, when they must stop, their history, and what they used."""

import argparse
import csv
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from wuerstchen import independent
from wuerstchen.files import write_text
from wuerstchen.webdata import CORRUPT_LIMIT

COLUMNS = ("step", "learning_rate", "images_per_second", "seconds", "memory_gib", "kwh", "corrupt", "validation_loss")
STOPPED = 75  # exit status, EX_TEMPFAIL: run the same command again
ROWS = 10_000  # of a history, at most
DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def is_for_cluster(data: str) -> bool:
    """Whether a training belongs here: under torchrun, or with shards as its data."""
    return "RANK" in os.environ or str(data).endswith((".tar", ".safetensors"))


ON_A_CLUSTER = ("selection", "validation", "validate_every", "weights", "lpips", "baseline", "phase", "parallel")
ON_A_CLUSTER += ("micro_batch", "checkpoint_activations", "workers", "checkpoint_every", "stop_after", "corrupt_limit")
ON_A_FOLDER = ("latents", "budget", "snapshots")


def refuse_misplaced(args: argparse.Namespace, parser: argparse.ArgumentParser, cluster: bool) -> None:
    """Raises ValueError naming an option that has no meaning for this kind of data."""
    for name in ON_A_FOLDER if cluster else ON_A_CLUSTER:
        if getattr(args, name) != parser.get_default(name):
            data = "a study's data folder" if cluster else "shards (--data 'shards/{000000..000999}.tar')"
            raise ValueError(f"--{name.replace('_', '-')} is for trainings on {data}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `wuerstchen.train` that are for clusters alone."""
    group = parser.add_argument_group("on a cluster (torchrun, or shards as --data)")
    group.add_argument("--selection", type=Path, help="what `selection select` wrote; default: beside the shards")
    group.add_argument(
        "--validation",
        metavar="FILE",
        help="the selection of what is held out, or shards precomputed of it like --data",
    )
    group.add_argument("--validate-every", type=positive, metavar="STEPS", help="default: the recipe's")
    group.add_argument("--weights", type=Path, help="folder of the trained stages that this one builds on")
    group.add_argument(
        "--lpips", type=Path, help="VGG16 weights of Stage A's perceptual loss; default: the asset vgg16"
    )
    add_baseline(group)
    group.add_argument("--phase", type=int, default=1, help="which phase of the recipe, from 1")
    group.add_argument("--parallel", choices=("ddp", "fsdp2"), default="ddp")
    group.add_argument(
        "--micro-batch", type=positive, help="samples at a time in each process; default: all of its share"
    )
    group.add_argument("--checkpoint-activations", action="store_true", help="less memory, a third more computation")
    group.add_argument("--workers", type=int, default=8, help="processes that decode pictures, for each GPU")
    group.add_argument("--checkpoint-every", type=positive, default=1000, metavar="STEPS")
    limit = group.add_mutually_exclusive_group()
    limit.add_argument("--stop-after", type=duration, metavar="TIME", help="end in time for this limit, e.g. 3h50m")
    limit.add_argument(
        "--walltime",
        type=within_walltime,
        dest="stop_after",
        metavar="TIME",
        help="the same from a batch job's time limit, e.g. 4h: a twentieth is left for start and end",
    )
    group.add_argument("--corrupt-limit", type=float, default=CORRUPT_LIMIT, help="share of corrupt samples to stop at")


def add_baseline(parser: argparse._ActionsContainer) -> None:
    """The option that picks a reading of the baseline LDM."""
    parser.add_argument(
        "--baseline",
        metavar="READING",
        help="whose first stage and text encoder the baseline LDM has: appendix-e4 or section-4; default: the preset's",
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number of at least 1")
    return int(text)


def duration(text: str) -> float:
    """Seconds of "3h50m", "90m" or "45s"."""
    match = DURATION.fullmatch(text)
    if not text or not match:
        raise argparse.ArgumentTypeError(f"{text!r} should be a time such as 3h50m, 90m or 45s")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 3600.0 * hours + 60 * minutes + seconds


def within_walltime(text: str) -> float:
    """Seconds of a batch job's time limit that a training may use: all but a twentieth, 30 seconds to 15 minutes."""
    seconds = duration(text)
    return seconds - min(max(seconds / 20, 30.0), 900.0)


def deaf(_: int) -> None:
    """A loader's process leaves the signals to the training: torchrun and Slurm send them to all processes, and the
    last step needs its pictures."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


@dataclass
class Limit:
    """When to stop: before a wall-clock limit, or on SIGTERM or SIGUSR1."""

    seconds: float | None
    began: float
    told: bool = False
    longest_save: float = 0.0
    longest_step: float = 0.0

    def __enter__(self) -> "Limit":
        self._before = {n: signal.signal(n, self._tell) for n in (signal.SIGTERM, signal.SIGUSR1)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _tell(self, *_: object) -> None:
        self.told = True

    def due(self) -> bool:
        """Whether another step, and the checkpoint after it, might end past the limit."""
        if self.seconds is None:
            return self.told
        margin = 2 * self.longest_step + 1.5 * self.longest_save
        return self.told or time.monotonic() - self.began + margin >= self.seconds


class History:
    """state/history.csv, written line by line by the first process, and TensorBoard's log where that is installed.

    It moves beside the model at the end: Snakemake deletes the outputs of a job that was cut off.
    """

    def __init__(self, out: Path, columns: tuple[str, ...], step: int):
        self.path = out / "state" / "history.csv"
        rows = [[*COLUMNS, *columns]]
        if self.path.exists() and step:
            with open(self.path, newline="") as file:
                written = [row for row in list(csv.reader(file))[1:] if len(row) == len(rows[0])]
            rows += [row for row in written if int(row[0]) <= step]
        write_text(self.path, "".join(",".join(row) + "\n" for row in rows))
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board = None
        else:
            self.board = SummaryWriter(str(out / "state" / "tensorboard"), purge_step=step + 1)

    def add(self, step: int, values: dict[str, float]) -> None:
        """A row; NaN, of a loss that was not computed, stays empty."""
        with open(self.path, "a") as file:
            file.write(",".join([str(step), *("" if v != v else f"{v:.6g}" for v in values.values())]) + "\n")
        if self.board is not None:
            for name, value in values.items():
                if value == value:
                    self.board.add_scalar(name, value, step)


def memory_gib(device: torch.device) -> float:
    """Most memory that this process has held so far, in GiB: of the GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def added_usage(previous: dict | None, snapshots: list[dict]) -> dict:
    """Usage of all processes and of the runs before: seconds pass once, energy and devices add up."""
    previous = previous or {}
    devices = dict.fromkeys([*previous.get("device", "").split("; "), *(s["device"] for s in snapshots)])
    sources = {s["kwh_source"] for s in snapshots} | ({previous["kwh_source"]} if previous else set())
    parts = [record.get("codecarbon") for record in ([previous] if previous else []) + snapshots]
    return {
        "device": "; ".join(filter(None, devices)),
        "count": sum(s["count"] for s in snapshots),
        "seconds": previous.get("seconds", 0.0) + max(s["seconds"] for s in snapshots),
        "kwh": previous.get("kwh", 0.0) + sum(s["kwh"] for s in snapshots),
        "kwh_source": sources.pop() if len(sources) == 1 else "tdp",
        "images": previous.get("images", 0) + sum(s["images"] for s in snapshots),
        "steps": previous.get("steps", 0) + snapshots[0]["steps"],
        **({"codecarbon": independent.added(parts)} if any(parts) else {}),
    }
