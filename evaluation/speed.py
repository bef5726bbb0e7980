"""Sampling time of a trained model against batch size (the shape of the paper's Figure 4).

With --figure4, times the paper's models at their published sizes instead, on a GPU: see evaluation.figure4.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

from evaluation import figure4
from evaluation.generators import make
from evaluation.sample import parse_settings
from wuerstchen.files import write_json
from wuerstchen.usage import cpu_name

PROMPT = "twemoji of red apple"


def measure(generator, batch_size: int, repeats: int) -> dict:
    """Median and extremes of the wall time of one batch, prompt text to pixels, after one batch to warm up."""
    prompts = [{"id": f"speed-{i}", "prompt": PROMPT, "image": None} for i in range(batch_size)]
    generator.batch(prompts, 0)
    seconds = []
    for repeat in range(repeats):
        start = time.perf_counter()
        generator.batch(prompts, repeat)
        seconds.append(time.perf_counter() - start)
    return {
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
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--batch-sizes", required=True, nargs="+", type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=NUMBER", help="sampling settings of the model")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    import torch

    try:
        generator = make(args.model, args.weights, parse_settings(args.set), compiled=False)
        batches = [measure(generator, size, args.repeats) for size in args.batch_sizes]
    except ValueError as error:
        raise SystemExit(f"speed of {args.model}: {error}") from None
    write_json(
        args.out,
        {
            "model": args.model,
            "device": cpu_name(),
            "threads": torch.get_num_threads(),
            "precision": generator.pipeline.precision,
            "compiled": False,
            "image_size": generator.pipeline.image_size,
            "steps": generator.settings,
            "batches": batches,
            "versions": {"torch": torch.__version__},
        },
    )


if __name__ == "__main__":
    main()
