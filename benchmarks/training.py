"""Training steps of Stage C beside diffusers' module in the loop of its training script; model FLOP utilisation.

python -m benchmarks.training                  a small Stage C in fp32: minutes on two CPU cores
python -m benchmarks.training --paper-size --precision bf16 --micro-batch 8 16 32 64 --out measured.json    on a GPU

Both sides begin with the same weights and see the same latents, text tokens, timesteps and noise. `ratio` is eager
against eager, `ratio_sdpa` eager against diffusers with fused attention, `ratio_compiled` compiled against compiled.
"""

import argparse
import gc
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import MATRIX, kept, matrix_product, medians
from benchmarks.sampling import randomised
from workflow.costs import PEAKS
from wuerstchen import weights
from wuerstchen.compressor import SemanticCompressor
from wuerstchen.distributed import Ranks, start
from wuerstchen.execution import native_precision
from wuerstchen.files import write_json
from wuerstchen.objectives import make_objective
from wuerstchen.parallel import Training
from wuerstchen.presets import CompressorConfig, Phase, Preset, StageCConfig, overridden, preset, to_dict
from wuerstchen.runs import add_arguments
from wuerstchen.seeds import derive
from wuerstchen.stage_c import StageC
from wuerstchen.usage import cpu_name

COMPARED = 3  # first steps, untimed: their losses are compared, and whatever is compiled or cached is so by then
ROUNDS = 5
SEED = 0
PIXELS = 768  # what the compressor sees: 24x24 latents
GPU_MATRIX = 8192
PAPER_GPU_HOURS = 24_602  # Table 2
OURS, PEER, PEER_SDPA = "wuerstchen.train", "diffusers", "diffusers, SDPA"
OURS_COMPILED, PEER_COMPILED = "wuerstchen.train, compiled", "diffusers, SDPA, compiled"
RATIOS = {"ratio": (PEER, OURS), "ratio_sdpa": (PEER_SDPA, OURS), "ratio_compiled": (PEER_COMPILED, OURS_COMPILED)}
# what diffusers' script does differently is done its way on both sides
AS_THE_SCRIPT = ("loss_weight=none", "timesteps=uniform", "drop_text=0", "warmup=0")

Step = Callable[[], float]  # a training step, which returns its loss once the device has computed it


def small() -> Preset:
    """The paper's Stage C, 640 wide with 8 blocks."""
    return replace(preset("paper"), name="small", stage_c=StageCConfig(width=640, depth=8, heads=10, dropout=0.0))


def grid(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the latents of pictures of that size."""
    return size[0] // 32, size[1] // 32


def noise_batch(chosen: Preset, n: int, device: torch.device) -> dict[str, Tensor]:
    """A batch as shards of precomputed latents give it, already on the device: loading is not what is measured."""
    torch.manual_seed(SEED)
    latents = torch.randn(n, chosen.stage_c.c_in, *grid((PIXELS, PIXELS))).half()
    tokens = torch.randn(n, chosen.text.length, chosen.text.dimensions).half()
    batch = {"compressor": latents, "tokens": tokens}
    return {name: x.to(device) for name, x in batch.items()} | {"corrupt": torch.zeros(n)}


def initialise(stage_c: StageC) -> StageC:
    """Random weights, always the same on one kind of device, of which no layer is zero."""
    torch.manual_seed(SEED)
    stage_c.reset_parameters()
    return randomised(stage_c, stage_c.out[1]).train().requires_grad_(True)


def our_step(chosen: Preset, batch: dict[str, Tensor], ranks: Ranks, folder: Path) -> Step:
    """The step of `wuerstchen.train` on shards, in one process."""
    options = argparse.ArgumentParser()
    add_arguments(options)
    args = options.parse_args([], argparse.Namespace(stage="c", seed=SEED, out=folder))
    phase = Phase(steps=0, batch_size=len(batch["tokens"]), sizes=((PIXELS, PIXELS),))
    with ranks.device:  # a billion parameters are made much faster where they are used
        objective = make_objective("c", chosen, phase, ranks.device, folder, null=batch["tokens"][:1])
        initialise(objective.networks["stage_c"])
    training = Training(objective, chosen, phase, args, ranks)

    def step() -> float:
        means, _ = training.update(iter([batch]))
        return means[0].item()

    return step


def their_step(chosen: Preset, batch: dict[str, Tensor], ranks: Ranks, sdpa: bool) -> Step:
    """The step of diffusers' script, with the randomness of ours."""
    from benchmarks.peers import DiffusersTraining  # diffusers takes seconds to import

    recipe = chosen.recipes["c"]
    with ranks.device:
        stage_c = initialise(StageC(chosen.stage_c))
    training = DiffusersTraining(stage_c, recipe, recipe.precision == "bf16", sdpa, recipe.compiled)
    step_count = 0

    def step() -> float:
        nonlocal step_count
        place = (SEED, "c", 1, "step", step_count, "rank", 0, "micro", 0)
        random = torch.Generator(ranks.device).manual_seed(derive(*place))
        step_count += 1
        return training.update(batch["compressor"].float(), batch["tokens"].float(), random).item()

    return step


def make_step(side: str, chosen: Preset, precision: str, batch: dict[str, Tensor], ranks: Ranks, folder: Path) -> Step:
    """The training step of a side, of fresh networks."""
    compiled = side in (OURS_COMPILED, PEER_COMPILED)
    settings = (*AS_THE_SCRIPT, f"precision={precision}", f"compiled={json.dumps(compiled)}")
    chosen = overridden(chosen, "c", settings)
    if side in (OURS, OURS_COMPILED):
        return our_step(chosen, batch, ranks, folder)
    return their_step(chosen, batch, ranks, sdpa=side != PEER)


def measure(
    sides: Sequence[str], n: int, chosen: Preset, precision: str, rounds: int, ranks: Ranks, folder: Path
) -> dict[str, dict]:
    """By side: seconds of a step (median), the first losses, and FLOP/s of the matrix product that was timed in turns
    with the steps; of a side that ran out of memory, None."""
    batch = noise_batch(chosen, n, ranks.device)
    torch.compiler.reset()
    try:
        steps = {side: make_step(side, chosen, precision, batch, ranks, folder) for side in sides}
        losses = {side: [step() for _ in range(COMPARED)] for side, step in steps.items()}
        width = GPU_MATRIX if ranks.device.type == "cuda" else MATRIX
        seconds = medians(steps | {"product": matrix_product(width, precision, ranks.device)}, rounds)
    except torch.OutOfMemoryError:
        return dict.fromkeys(sides)
    rate = 2 * width**3 / seconds["product"]
    return {side: {"seconds": seconds[side], "losses": losses[side], "matrix_flop_per_second": rate} for side in sides}


def release(device: torch.device) -> None:
    """Give back the memory of networks that are no longer in use; DDP's refer to themselves."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def flops(config: StageCConfig, size: tuple[int, int], tokens: int) -> int:
    """FLOPs of a training step for one sample: three times those of the forward pass, whose gradients take two.

    size: of the pictures that the compressor sees.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        stage_c = StageC(config)
        x, t = torch.empty(1, config.c_in, *grid(size)), torch.empty(1)
        stage_c(x, t, stage_c.condition(torch.empty(1, tokens, config.c_text)))
    return 3 * counter.get_total_flops()


def gpu_hours(chosen: Preset, flop_per_second: float) -> dict:
    """Hours on one GPU of all phases of the recipe at that rate, whatever their latents' size, beside the paper's."""
    by_phase = []
    for phase in chosen.recipes["c"].phases:
        each = [flops(chosen.stage_c, size, chosen.text.length) for size in phase.sizes]
        work = phase.steps * phase.batch_size * sum(each) / len(each)
        by_phase.append(work / flop_per_second / 3600)
    steps = chosen.recipes["c"].steps
    return {"steps": steps, "by_phase": by_phase, "total": sum(by_phase), "paper": PAPER_GPU_HOURS}


def finished(part: dict, each: int, peak: float | None) -> dict:
    """A part of the record with what follows from what was measured; `each`: FLOPs of a sample."""
    fits = {side: found for side, found in part["sides"].items() if found}
    speed = {side: part["micro_batch"] / found["seconds"] for side, found in fits.items()}
    part |= {
        "out_of_memory": [side for side, found in part["sides"].items() if not found],
        "images_per_second": speed,
        "mfu": {side: each * value / peak if peak else None for side, value in speed.items()},
        "share_of_matrix_rate": {
            side: each * value / fits[side]["matrix_flop_per_second"] for side, value in speed.items()
        },
        "max_difference": None,
    }
    for name, (theirs, ours) in RATIOS.items():
        if theirs in fits and ours in fits:
            part[name] = fits[theirs]["seconds"] / fits[ours]["seconds"]
    if OURS in fits and len(fits) > 1:
        expected = fits[OURS]["losses"]
        part["max_difference"] = max(
            abs(loss - ours) / abs(ours)
            for found in fits.values()
            for loss, ours in zip(found["losses"], expected, strict=True)
        )
    return part


def summary(record: dict, chosen: Preset) -> dict:
    """The record with its parts finished and, on top, the largest micro-batch that each number can be told of."""
    each, on_gpu = record["flop_per_sample"], record["matrix"] == GPU_MATRIX
    parts = [finished(part, each, record["peak_flop_per_second"]) for part in record["parts"]]
    top: dict = {"parts": parts}
    for name in RATIOS:
        found = [part for part in parts if name in part]
        top[name] = found[-1][name] if found else None
    top["micro_batch"] = max((part["micro_batch"] for part in parts if "ratio" in part), default=None)
    top["max_difference"] = max((p["max_difference"] for p in parts if p["max_difference"] is not None), default=None)
    ours = OURS_COMPILED if on_gpu else OURS  # as the recipe says; trainings on CPUs are not compiled
    if fits := [part for part in parts if ours in part["images_per_second"]]:
        columns = ("images_per_second", "mfu", "share_of_matrix_rate")
        top["ours"] = {"side": ours, "micro_batch": fits[-1]["micro_batch"]}
        top["ours"] |= {column: fits[-1][column][ours] for column in columns}
        if on_gpu and record["size"] == "paper":
            top["gpu_hours"] = gpu_hours(chosen, each * top["ours"]["images_per_second"])
    return record | top


def run(args: argparse.Namespace) -> dict:
    """Measure what the output file does not have yet, writing it after every cell."""
    chosen = preset("paper") if args.paper_size else small()
    ranks = start()
    try:
        device = ranks.device
        on_gpu = device.type == "cuda"
        if args.device not in (None, device.type):
            raise ValueError(f"--device: {args.device}; trainings run on a GPU where there is one, here on {device}")
        if not on_gpu and native_precision(args.precision) != args.precision:
            raise ValueError(f"--precision: {args.precision}; this processor has no bf16 arithmetic, use fp32")
        name = torch.cuda.get_device_name(device) if on_gpu else cpu_name()
        header = {
            "name": "training",
            "size": chosen.name,
            "precision": args.precision,
            "latents": [chosen.stage_c.c_in, *grid((PIXELS, PIXELS))],
            "flop_per_sample": flops(chosen.stage_c, (PIXELS, PIXELS), chosen.text.length),
            "device": name,
            "peak_flop_per_second": PEAKS.get(name) if args.precision == "bf16" else None,
            "matrix": GPU_MATRIX if on_gpu else MATRIX,
            "threads": torch.get_num_threads(),
            "versions": {"torch": torch.__version__, "diffusers": __import__("diffusers").__version__},
        }
        record = {"parts": []} | kept(args.out, header)
        # two trainings of a billion parameters do not fit: on a GPU each side runs alone, on a CPU they take turns
        eager, compiled = (OURS, PEER, PEER_SDPA), () if args.eager else (OURS_COMPILED, PEER_COMPILED)
        groups = [(side,) for side in (*eager, *compiled)] if on_gpu else [eager]
        parts = {part["micro_batch"]: part for part in record["parts"]}
        with tempfile.TemporaryDirectory() as folder:
            write_compressor(Path(folder))
            for n in sorted(set(args.micro_batch)):
                part = parts.setdefault(n, {"micro_batch": n, "sides": {}})
                for sides in groups:
                    if set(sides) <= set(part["sides"]):
                        continue
                    part["sides"] |= measure(sides, n, chosen, args.precision, args.rounds, ranks, Path(folder))
                    release(device)
                    record["parts"] = [parts[n] for n in sorted(parts)]
                    if args.out:
                        write_json(args.out, record)
        return summary(record, chosen)
    finally:
        dist.destroy_process_group()


def write_compressor(folder: Path) -> None:
    """The compressor that a training of Stage C asks for; on precomputed latents it only reads its normalisation."""
    config = CompressorConfig(c_features=24, stages=1)
    tensors = {f"compressor.{name}": x for name, x in SemanticCompressor(config).state_dict().items()}
    weights.save(folder / "b" / "model.safetensors", tensors, {"compressor": to_dict(config)})


def table(record: dict) -> str:
    """A Markdown table of all sides and micro-batches."""

    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.0%}"

    lines = ["| Micro-batch | Side | ms a step | images/s | of the peak | of the matrix product's | compared losses |"]
    lines.append("| ---: | :--- | ---: | ---: | ---: | ---: | ---: |")
    for part in record["parts"]:
        for side, found in part["sides"].items():
            cells = [str(part["micro_batch"]), side]
            if found:
                cells += [f"{1e3 * found['seconds']:.0f}", f"{part['images_per_second'][side]:.2f}"]
                cells += [percent(part["mfu"][side]), percent(part["share_of_matrix_rate"][side])]
                cells += [", ".join(f"{loss:.6f}" for loss in found["losses"])]
            else:
                cells += ["out of memory", "", "", "", ""]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper-size", action="store_true", help="the paper's 0.99B Stage C; for a GPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="what the machine must have; default: what it has")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--micro-batch", type=int, nargs="+", default=[4], metavar="N", help="samples in a step")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed steps, of which the median counts")
    parser.add_argument("--eager", action="store_true", help="leave out the compiled sides, which only a GPU has")
    parser.add_argument("--out", type=Path, help="JSON, written after each cell; what it has is not measured again")
    args = parser.parse_args(argv)
    try:
        if min(args.micro_batch) < 1 or args.rounds < 1:
            raise ValueError("--micro-batch and --rounds: use at least 1")
        record = run(args)
    except ValueError as error:
        raise SystemExit(f"benchmark of training: {error}") from None
    threads = f"{record['threads']} thread{'s' * (record['threads'] > 1)}"
    print(f"{record['device']}, {threads}, {record['precision']}, torch {record['versions']['torch']}:")
    print(", ".join(f"{name} {record[name]:.2f}" for name in RATIOS if record[name] is not None), end="\n\n")
    print(table(record), end="\n\n")
    if hours := record.get("gpu_hours"):
        print(f"{hours['steps']:,} steps: {hours['total']:,.0f} GPU-hours; the paper's: {hours['paper']:,}", end="\n\n")
    print(json.dumps(record, allow_nan=False))


if __name__ == "__main__":
    main()
