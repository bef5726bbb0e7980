"""The paper's Figure 4: time to draw a batch of 1024 x 1024 pictures against its size, without and with torch.compile.

    python -m evaluation.speed --figure4 --out FILE [--minutes N]

The networks have their published sizes and random weights, so that nothing is loaded: time does not depend on weights.
The file is written after every cell (model, batch size, compiled or not); a run that was cut off goes on from it.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.features import library_versions
from wuerstchen.files import read_json, write_json

if TYPE_CHECKING:
    from evaluation.generators.paper_size import PaperSize

# (compiled, batch size): all that is quick first, so that a run that ends early has most of the figure
ORDER = (*((False, size) for size in (1, 2, 4, 8, 16)), (True, 1), (True, 8))
REPEATS, SECONDS = 3, 15.0  # a cell is timed so many times, or until so many seconds are spent
WARM_UP = 2  # sampling steps, of each stage, before a cell is timed
OUT_OF_MEMORY = "out of memory"
PROTOCOL = (
    "token ids to uint8 pictures in the computer's memory; each cell builds the model anew, draws one batch of "
    f"{WARM_UP} steps (this compiles), then up to {REPEATS} whole batches within {SECONDS:.0f} s or one, of which "
    "the median counts; attention is torch's scaled_dot_product_attention; compiled: what denoises and the decoder, "
    "whole, for fixed shapes"
)


def timed(model: "PaperSize", batch_size: int, compiled: bool) -> dict[str, Any]:
    """Seconds of one cell: median, extremes, repeats, and what the warm-up took, with compilation where asked for."""
    start = time.perf_counter()
    if compiled:
        model.compile()
    model.draw(batch_size, WARM_UP)
    warm_up, seconds = time.perf_counter() - start, []
    while len(seconds) < REPEATS and (not seconds or sum(seconds) + seconds[-1] <= SECONDS):
        start = time.perf_counter()
        model.draw(batch_size)
        seconds.append(time.perf_counter() - start)
    return {
        "seconds_per_batch": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "repeats": len(seconds),
        "warm_up_seconds": warm_up,
        "finite": model.finite,
    }


def measure_cell(make: Callable[[], "PaperSize"], batch_size: int, compiled: bool) -> dict[str, Any]:
    """What `timed` gives, the parameters and the most memory in use; or `failed`, where memory ran out."""
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    model = None
    try:
        model = make()
        cell = timed(model, batch_size, compiled) | {"parameters": model.parameters}
        if on_gpu:
            cell["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    except torch.OutOfMemoryError:
        cell = {"failed": OUT_OF_MEMORY}
    del model
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    return cell


def started(out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The record to go on with: that of the file, if it was taken under the same conditions, or an empty one.

    Raises ValueError where the file's conditions differ, naming the first that does.
    """
    if not out.exists():
        return {"schema": 1, "figure": 4, **about, "cells": []}
    record = read_json(out)
    for key, value in about.items():
        if record.get(key) != value:
            raise ValueError(f"{out}: its {key} is {record.get(key)!r}, here it is {value!r}; name another file")
    return record


def measure(
    makers: Mapping[str, Callable[[], "PaperSize"]],
    out: Path,
    about: dict[str, Any],
    minutes: float | None = None,
    order: Sequence[tuple[bool, int]] = ORDER,
) -> bool:
    """Time every cell that the file does not have yet; False where `minutes` were over before the last one.

    `about` says under which conditions; a limit ends the run between two cells, never inside one.
    """
    record = started(out, about)
    done = {(cell["model"], cell["batch_size"], cell["compiled"]) for cell in record["cells"]}
    began = time.monotonic()
    for compiled, batch_size in order:
        for model, make in makers.items():
            if (model, batch_size, compiled) in done:
                continue
            if minutes is not None and time.monotonic() - began >= 60 * minutes:
                return False
            cell = measure_cell(make, batch_size, compiled)
            record["cells"].append({"model": model, "batch_size": batch_size, "compiled": compiled, **cell})
            write_json(out, record)
            said = cell.get("failed") or f"{cell['seconds_per_batch']:.3f} s a batch"
            print(f"{model}, batch {batch_size}, {'compiled' if compiled else 'plain'}: {said}", flush=True)
    return True


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m evaluation.speed --figure4", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", required=True, type=Path, metavar="JSON", help="written after every cell, gone on with"
    )
    parser.add_argument("--minutes", type=float, help="begin no further cell after so many minutes")
    options = parser.parse_args(argv)
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("speed --figure4: torch finds no GPU here; models of this size are timed on one")
    try:
        from evaluation.generators.paper_size import build, entries

        device, published = torch.device("cuda"), entries()
        about = {
            "device": torch.cuda.get_device_name(device),
            "precision": "bf16",
            "image_size": 1024,
            "protocol": PROTOCOL,
            "models": {
                model: {key: entry[key] for key in ("repository", "steps", "guidance", "source")}
                for model, entry in published.items()
            },
            "versions": library_versions("torch", "diffusers", "transformers"),
        }
        makers = {model: lambda model=model: build(model, device, torch.bfloat16) for model in published}
        whole = measure(makers, options.out, about, options.minutes)
    except (ValueError, ModuleNotFoundError) as error:
        raise SystemExit(f"speed --figure4: {error}") from None
    print(f"{options.out}: {'all cells are there' if whole else 'the minutes are over; run it again to go on'}")
