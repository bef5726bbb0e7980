"""What the benchmarks share: fair timing, the machine's own speed, and how a result is printed."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from wuerstchen.files import read_json
from wuerstchen.usage import cpu_name

MATRIX = 1024  # side of the matrices whose product is the machine's measured rate
MATRIX_GFLOP = 2e-9 * MATRIX**3
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
PLAIN = ("eager, fp32, NCHW", "eager, fp32, channels last")  # the peers: PyTorch's default, and what it advises on CPUs
OURS = "as `make` runs it"


def medians(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call. They take turns, so that a slower minute of the machine meets all of them."""
    laps: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            laps[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in laps.items()}


def wait(device: torch.device) -> None:
    """Until a GPU has computed all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_product(side: int, precision: str, device: torch.device) -> Callable[[], object]:
    """A call that multiplies two square matrices."""
    a, b = torch.randn(2, side, side, device=device).to(PRECISIONS[precision])

    def call() -> None:
        torch.mm(a, b)
        wait(device)

    call()  # the first call sets the library up
    return call


def matrix_products() -> dict[str, Callable[[], object]]:
    """Calls that each multiply two square matrices on the CPU, by precision; `MATRIX_GFLOP` is the work of one."""
    return {name: matrix_product(MATRIX, name, torch.device("cpu")) for name in PRECISIONS}


def kept(out: Path | None, header: dict) -> dict:
    """The record of a measurement that was cut off, or the bare header where there is none to go on from.

    Raises ValueError where the file is of another measurement.
    """
    if out is None or not out.exists():
        return header
    before = read_json(out)
    if any(before.get(key) != value for key, value in header.items()):
        raise ValueError(f"--out: {out} is of another measurement; name another file, or delete it")
    return before


def result(name: str, parts: Sequence[dict], weigh: Callable[[dict], float], **more: object) -> dict:
    """The JSON object of a benchmark.

    Each part has "seconds" by way of doing the work (OURS and the PLAIN ones) and the "max_difference" of the outputs;
    it gets the "ratio" to its best peer. `weigh` says how often a part's work is done; the ratio of all is that of the
    seconds they then take.
    """
    for part in parts:
        part["ratio"] = min(part["seconds"][way] for way in PLAIN) / part["seconds"][OURS]
    total = {way: sum(weigh(part) * part["seconds"][way] for part in parts) for way in (OURS, *PLAIN)}
    peer = min(PLAIN, key=total.__getitem__)
    return {
        "name": name,
        "ratio": total[peer] / total[OURS],
        "peer": peer,
        "max_difference": max(part["max_difference"] for part in parts),
        "device": cpu_name(),
        "threads": torch.get_num_threads(),
        **more,
        "parts": list(parts),
        "versions": {"torch": torch.__version__},
    }


def show(record: dict, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table and, as the last line, the JSON object."""
    threads = f"{record['threads']} thread{'s' * (record['threads'] > 1)}"
    print(f"{record['device']}, {threads}, torch {record['versions']['torch']}. {record['ratio_of'].capitalize()}:")
    print(f"**{record['ratio']:.2f} times faster** than the best peer ({record['peer']}).", end="\n\n")
    lines = [titles, [":---", *["---:"] * (len(titles) - 1)], *rows]
    print("\n".join(f"| {' | '.join(line)} |" for line in lines), end="\n\n")
    print(json.dumps(record, allow_nan=False))
