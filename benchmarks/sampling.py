"""The pipeline beside diffusers' Würstchen modules: same weights, text tokens, noise, steps, guidance.

python -m benchmarks.sampling                                  medium size in fp32: minutes on two CPU cores
python -m benchmarks.sampling --paper-size --precision bf16 --device cuda --batch 1 8 --out measured.json

`ratio` is the pipeline as `Pipeline(networks)` makes it against diffusers as its users run it, `ratio_sdpa` against
diffusers with fused attention in the prior too; both eager. `ratio_compiled` is compiled against compiled.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import PRECISIONS, kept, wait
from wuerstchen.files import write_json
from wuerstchen.pipeline import Pipeline
from wuerstchen.presets import CompressorConfig, Preset, StageAConfig, StageCConfig, TextConfig, UNetConfig, preset
from wuerstchen.published import Networks
from wuerstchen.sampling import SAMPLING
from wuerstchen.scaling import latent_scaling
from wuerstchen.seeds import generator
from wuerstchen.stage_a import StageA
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC
from wuerstchen.usage import cpu_name

ROUNDS = 3
SEED = 0
WARM_UP = {"steps_c": 2, "steps_b": 2}
OURS, PEER, PEER_SDPA = "pipeline", "diffusers", "diffusers, SDPA"
OURS_COMPILED, PEER_COMPILED = "pipeline, compiled", "diffusers, compiled"
STAGES = ("c", "b", "a")
RATIOS = {"ratio": (PEER, OURS), "ratio_sdpa": (PEER_SDPA, OURS), "ratio_compiled": (PEER_COMPILED, OURS_COMPILED)}


def medium() -> Preset:
    """Stage C 640 wide with 8 blocks on 24x24 latents; Stage B half as wide as the paper's on 4x128x128; Stage A whole.

    At 1024 pixels Stage B would work on 4x256x256: four times as long, so here 24x24 latents make 512 pixels.
    """
    return Preset(
        name="medium",
        image_size=512,
        text=TextConfig("noise", 1024),
        stage_a=StageAConfig(),
        compressor=CompressorConfig(),
        stage_b=UNetConfig(widths=(160, 320, 640, 640), heads=(0, 5, 10, 10), c_cond=512),
        stage_c=StageCConfig(width=640, depth=8, heads=10),
        baseline_ldm=UNetConfig(),
        sampling=SAMPLING["released"],
    )


class NoiseText:
    """Text tokens that are noise which depends on the prompt alone: the text encoder is the same on both sides."""

    def __init__(self, dimensions: int):
        self.dimensions = dimensions

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """(n, 77, dimensions)."""
        return torch.stack([torch.randn(77, self.dimensions, generator=generator(text)) for text in prompts])


@torch.no_grad()
def randomised(network: nn.Module, output: nn.Module | None = None) -> nn.Module:
    """Random values where the initialisation has zeros; the output's weights are small and its bias zero, since what is
    predicted is divided by |1 - B|, which makes any rounding large where that is near zero."""
    for p in network.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.02)
    if output is not None:
        nn.init.xavier_uniform_(output.weight, 0.05)
        nn.init.zeros_(output.bias)
    return network.eval().requires_grad_(False)


def networks(chosen: Preset, dtype: torch.dtype, device: str) -> Networks:
    """Networks of a preset's sizes with random weights, always the same on one kind of device."""
    torch.manual_seed(SEED)
    with torch.device(device):
        stage_a, stage_b, stage_c = StageA(chosen.stage_a), UNet(chosen.stage_b), StageC(chosen.stage_c)
    return Networks(
        preset=chosen,
        stage_a=randomised(stage_a).to(dtype),
        stage_b=randomised(stage_b, stage_b.clf[1]).to(dtype),
        stage_c=randomised(stage_c, stage_c.out[1]).to(dtype),
        text_b=NoiseText(chosen.stage_b.c_text),
        text_c=NoiseText(chosen.stage_c.c_text),
        scaling=latent_scaling("released", {}),
        compressor=None,
    )


class Clock:
    """Seconds and outputs of each stage while a pipeline draws."""

    def __init__(self, pipeline: object, device: torch.device):
        self.pipeline, self.device = pipeline, device
        self.seconds: dict[str, float] = {}
        self.outputs: dict[str, Tensor] = {}
        for stage, method in zip(STAGES, ("sample_c", "sample_b", "decode"), strict=True):
            setattr(pipeline, method, functools.partial(self.timed, stage, getattr(pipeline, method)))

    def timed(self, name: str, call: Callable, *args: object, **more: object) -> object:
        """What a call returns, once the device has computed it."""
        wait(self.device)
        start = time.perf_counter()
        output = call(*args, **more)
        wait(self.device)
        self.seconds[name] = time.perf_counter() - start
        self.outputs[name] = output
        return output

    def draw(self, batch: int, how: dict) -> dict[str, float]:
        """Seconds of each stage and, from prompts to pictures, of the whole."""
        prompts = [f"prompt {i}" for i in range(batch)]
        self.timed("whole", self.pipeline, prompts, seed=SEED, **how)
        return dict(self.seconds)


def makers(chosen: Preset, dtype: torch.dtype, device: str, compiled: bool) -> dict[str, Callable[[], object]]:
    """How to make each side; each gets networks of its own, of the same weights."""
    from benchmarks.peers import Diffusers  # diffusers takes seconds to import

    def own() -> Networks:
        return networks(chosen, dtype, device)

    made = {OURS: lambda: Pipeline(own()), PEER: lambda: Diffusers(own())}
    made[PEER_SDPA] = lambda: Diffusers(own(), sdpa=True)
    if compiled:
        made[OURS_COMPILED] = lambda: Pipeline(own(), compiled=True)
        made[PEER_COMPILED] = lambda: Diffusers(own(), compiled=True)
    return made


def measure(clocks: dict[str, Clock], batch: int, rounds: int, how: dict) -> dict:
    """One batch size: seconds by side and stage (medians), and how far outputs are from the eager pipeline's.

    The sides take turns, so that a slower minute of the machine meets all of them.
    """
    # two steps of each stage: whatever is compiled is so from the first time on
    first, again = ({side: clock.draw(batch, how | WARM_UP) for side, clock in clocks.items()} for _ in range(2))
    laps: dict[str, list[dict]] = {side: [] for side in clocks}
    differences, expected = {}, {}
    for lap in range(rounds):
        for side, clock in clocks.items():
            laps[side].append(clock.draw(batch, how))
        if lap == 0:
            expected, differences = compare(clocks)
            for clock in clocks.values():
                clock.pipeline.device_noise = clock.device.type == "cuda"  # of no meaning to our pipeline
    names = (*STAGES, "whole")
    seconds = {side: {name: statistics.median(lap[name] for lap in laps[side]) for name in names} for side in clocks}
    record = {
        "batch": batch,
        "seconds": seconds,
        "ms_per_image": {side: 1e3 * values["whole"] / batch for side, values in seconds.items()},
        "max_difference": differences,
        "output_std": {stage: value.std().item() for stage, value in expected.items()},
        "rounds": [{side: laps[side][i]["whole"] for side in clocks} for i in range(rounds)],
    }
    for name, (theirs, ours) in RATIOS.items():
        if theirs in seconds:
            record[name] = seconds[theirs]["whole"] / seconds[ours]["whole"]
            record[f"{name}_by_stage"] = {stage: seconds[theirs][stage] / seconds[ours][stage] for stage in STAGES}
    for eager, compiled in ((OURS, OURS_COMPILED), (PEER, PEER_COMPILED)):
        if compiled in seconds:
            warm_up = first[compiled]["whole"] - again[compiled]["whole"]
            gain = (seconds[eager]["whole"] - seconds[compiled]["whole"]) / batch
            record.setdefault("compilation", {})[compiled] = pays(warm_up, gain)
    return record


def compare(clocks: dict[str, Clock]) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """Outputs of the eager pipeline by stage, and the largest difference of each other side's from them."""
    expected = {stage: clocks[OURS].outputs[stage].float() for stage in STAGES}
    differences = {
        side: {stage: (clock.outputs[stage].float() - value).abs().max().item() for stage, value in expected.items()}
        for side, clock in clocks.items()
        if side != OURS
    }
    return expected, differences


def pays(warm_up: float, gain: float) -> dict:
    """Seconds that compilation takes, and the number of images after which it has paid, each `gain` seconds faster
    (None: never)."""
    return {"warm_up_seconds": warm_up, "break_even_images": warm_up / gain if gain > 0 else None}


def run(args: argparse.Namespace) -> dict:
    """Measure every batch size that the output file does not have yet, writing it after each."""
    chosen = preset("released-v2") if args.paper_size else medium()
    how = {"sampling": args.sampling}
    on_gpu = args.device.startswith("cuda")
    record = {
        "name": "sampling",
        "size": chosen.name,
        "precision": args.precision,
        "sampling": args.sampling,
        "device": torch.cuda.get_device_name(args.device) if on_gpu else cpu_name(),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "diffusers": __import__("diffusers").__version__},
    }
    record = {"cells": []} | kept(args.out, record)
    missing = [batch for batch in args.batch if batch not in [cell["batch"] for cell in record["cells"]]]
    if missing:
        made = makers(chosen, PRECISIONS[args.precision], args.device, not args.eager)
        clocks = {side: Clock(make(), torch.device(args.device)) for side, make in made.items()}
        for batch in missing:
            record["cells"].append(measure(clocks, batch, args.rounds, how))
            if args.out:
                write_json(args.out, record)
    first = next(cell for cell in record["cells"] if cell["batch"] == args.batch[0])
    differences = [value for side in (PEER, PEER_SDPA) for value in first["max_difference"][side].values()]
    headline = {name: first[name] for name in RATIOS if name in first}
    return record | headline | {"max_difference": max(differences), "ms_per_image": first["ms_per_image"]}


def table(record: dict) -> str:
    """A Markdown table of all cells."""
    lines = ["| Batch | Side | Stage C, ms | Stage B, ms | Stage A, ms | whole, ms per image | outputs differ by |"]
    lines.append("| ---: | :--- | ---: | ---: | ---: | ---: | ---: |")
    for cell in record["cells"]:
        for side, seconds in cell["seconds"].items():
            stages = " | ".join(f"{1e3 * seconds[stage]:.0f}" for stage in STAGES)
            difference = cell["max_difference"].get(side)
            far = f"{max(difference.values()):.1e}" if difference else ""
            lines.append(f"| {cell['batch']} | {side} | {stages} | {cell['ms_per_image'][side]:.0f} | {far} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper-size", action="store_true", help="released-v2 at 1024x1024; for a GPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="pictures in a batch")
    parser.add_argument("--sampling", choices=SAMPLING, default="released", help="whose steps and guidance")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed batches, of which the median counts")
    parser.add_argument("--eager", action="store_true", help="leave out the compiled sides")
    parser.add_argument("--out", type=Path, help="JSON, written after each batch size; what it has is not done again")
    args = parser.parse_args(argv)
    try:
        if min(args.batch) < 1 or args.rounds < 1:
            raise ValueError("--batch and --rounds: use at least 1")
        record = run(args)
    except ValueError as error:
        raise SystemExit(f"benchmark of sampling: {error}") from None
    threads = f"{record['threads']} thread{'s' * (record['threads'] > 1)}"
    print(f"{record['device']}, {threads}, {record['precision']}, torch {record['versions']['torch']}:")
    print(", ".join(f"{name} {record[name]:.2f}" for name in RATIOS if name in record), end="\n\n")
    print(table(record), end="\n\n")
    print(json.dumps(record, allow_nan=False))


if __name__ == "__main__":
    main()
