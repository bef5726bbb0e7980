"""Sampling time of a model against batch size (the shape of the paper's Figure 4): any model that draws.

A time is that of `generate` for one batch, from the texts of prompts to pixels in memory, text encoder included, on the
device and in the precision that the model draws in for a study; weights are loaded and one batch is drawn before.

With --figure4, times the paper's models at their published sizes instead, on a GPU: see evaluation.figure4.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from evaluation import figure4
from evaluation.generators import Generator
from evaluation.sample import add_device, generator_of
from wuerstchen.files import write_json
from wuerstchen.usage import cpu_name

PROMPT = "twemoji of red apple"
MEASURES = "prompt text to pixels of one batch, wall time, median of the repeats after a batch to warm up"


def measure(generator: Generator, batch_size: int, repeats: int) -> dict[str, Any]:
    """Median and extremes of the wall time of one batch, prompt text to pixels, after one batch to warm up.

    Raises ValueError for a generator that reads its pictures.
    """
    if not hasattr(generator, "batch_size"):
        raise ValueError("its pictures are there already: there is nothing to time")
    generator.batch_size = batch_size
    prompts = [{"id": f"speed-{i}", "prompt": PROMPT, "image": None} for i in range(batch_size)]
    height, width = generator.generate(prompts, 0)[0].shape[:2]
    seconds = []
    for repeat in range(repeats):
        start = time.perf_counter()
        generator.generate(prompts, repeat)
        seconds.append(time.perf_counter() - start)
    return {
        "width": width,
        "height": height,
        "batch_size": batch_size,
        "seconds_per_batch": statistics.median(seconds),
        "seconds_per_image": statistics.median(seconds) / batch_size,
        "fastest": min(seconds),
        "slowest": max(seconds),
        "repeats": repeats,
    }


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if "--figure4" in argv:
        return figure4.main([word for word in argv if word != "--figure4"])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path, help="as in evaluation.sample")
    parser.add_argument("--callable", metavar="MODULE:FUNCTION", help="as in evaluation.sample")
    parser.add_argument("--batch-sizes", required=True, nargs="+", type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=NUMBER", help="sampling settings of the model")
    parser.add_argument("--sampling", metavar="NAME", help="as in evaluation.sample")
    add_device(parser)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", required=True, type=Path)
    parser.set_defaults(pictures=None)
    args = parser.parse_args(argv)
    import torch

    try:
        generator = generator_of(args, [], compiled=False)
        batches = [measure(generator, size, args.repeats) for size in args.batch_sizes]
    except ValueError as error:
        raise SystemExit(f"speed of {args.model}: {error}") from None
    sizes = {(batch.pop("width"), batch.pop("height")) for batch in batches}
    width, height = max(sizes)
    about = generator.describe()
    write_json(
        args.out,
        {
            "model": args.model,
            "measures": MEASURES,
            "device": device_name(getattr(generator, "device", "cpu")),
            "threads": torch.get_num_threads(),
            "precision": about.get("precision", "not said"),
            "compiled": about.get("compiled", False),
            "image_size": width if width == height else f"{width}x{height}",
            "steps": about.get("settings", {}),
            "weights_sha256": about["weights_sha256"],
            "batches": batches,
            "versions": {"torch": torch.__version__},
        },
    )


def device_name(device: str) -> str:
    """What a processor or a graphics card calls itself."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_name()


if __name__ == "__main__":
    main()
