"""Training steps of each stage as `make` runs them, beside the same networks and losses in plain PyTorch.

python -m benchmarks.study_training                  all stages of the preset emoji
python -m benchmarks.study_training --stages b c     some of them
"""

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.measure import MATRIX_GFLOP, OURS, PLAIN, matrix_products, medians, result, show
from wuerstchen.diffusion import predicted_noise_c
from wuerstchen.execution import can_compile, compile_blocks, native_precision
from wuerstchen.files import sha256_file, write_jsonl
from wuerstchen.flops import diffusion_flops, flops_per_sample
from wuerstchen.inputs import Inputs
from wuerstchen.muon import Muon
from wuerstchen.presets import Preset, preset
from wuerstchen.seeds import generator
from wuerstchen.shards import write_shard
from wuerstchen.tasks import DIFFUSION_TASKS, StageATask, StageCTask, Task
from wuerstchen.train import Trainer

STAGES = ("a", "b", "c", "baseline-ldm")
PICTURES = 128
# shortest and longest, in tokens: nine tenths of the emoji study's captions lie between
CAPTIONS, DESCRIPTIONS = (7, 12), (20, 29)
COMPARED = 3  # first steps, untimed: their losses are compared, and whatever is compiled or cached is so by then
ROUNDS = 7


class DenseStageC(StageCTask):
    """Stage C with its text tokens computed at all positions, the empty ones too."""

    def predict(self, modules, noised, t, text, image, random):
        stage_c = modules["stage_c"]
        a, b = stage_c(noised, t, stage_c.condition(self.dense(text)))
        return predicted_noise_c(noised, a, b)


def write_pictures(size: int, folder: Path) -> None:
    """A data folder of noise pictures of `size` px, as far as Stage A reads it."""
    random = np.random.default_rng(0)
    rows = [{"id": f"noise-{i}", "split": "train"} for i in range(PICTURES)]
    write_jsonl(folder / "index.jsonl", rows)
    pictures = ((row["id"], Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8))) for row in rows)
    write_shard(folder / "pictures.zip", pictures, {"index_sha256": sha256_file(folder / "index.jsonl")})


def noise_inputs(preset: Preset) -> Inputs:
    """What the diffusion stages train on, of noise: latents, and tokens of captions as long as the emoji study's."""
    random, dummy = generator("benchmark"), Inputs.dummy(preset, 1)
    length, dimensions = preset.text.length, preset.text.dimensions

    def text(shortest: int, longest: int) -> Tensor:
        words = torch.randint(shortest, longest + 1, (PICTURES, 1, 1), generator=random)
        real = torch.arange(length).view(1, -1, 1) < words
        return (torch.randn(PICTURES, length, dimensions, generator=random) * real).half()

    tokens = {"captions": text(*CAPTIONS), "descriptions": text(*DESCRIPTIONS), "null": text(2, 2)[:1]}
    latents = {name: torch.randn(PICTURES, *x.shape[1:], generator=random).half() for name, x in dummy.latents.items()}
    everything = torch.ones(PICTURES, dtype=torch.bool)
    return Inputs(tokens, latents, dummy.measured, everything, everything)


def make_task(stage: str, preset: Preset, data: Path, dense: bool, inputs: Inputs | None = None) -> Task:
    """The task of a stage with the same fresh weights each time; `dense` computes the text's empty positions too."""
    torch.manual_seed(0)
    if stage == "a":
        task = StageATask(preset, data, 0)
    else:
        kind = DenseStageC if dense and stage == "c" else DIFFUSION_TASKS[stage]
        task = kind(preset, stage, inputs or noise_inputs(preset), 0)
    for parameter in task.modules.parameters():
        if not parameter.any():  # a last layer of zeros would hide from the losses what the others compute
            nn.init.normal_(parameter, std=0.02)
    return task


def to_nchw(trainer: Trainer) -> None:
    """Networks and their inputs in PyTorch's default memory format."""
    task = trainer.task
    networks = [*task.modules.values(), *trainer.averaged.values(), task.adversary(), getattr(task, "perceptual", None)]
    networks = [network for network in networks if network is not None]
    # the compressor's head is called stage by stage
    called = networks + [stage for network in networks for stage in getattr(network, "backbone", [])]
    for network in networks:
        network.to(memory_format=torch.contiguous_format)
    for network in called:
        network.register_forward_pre_hook(_contiguous)


def _contiguous(module: nn.Module, inputs: tuple) -> tuple:
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in inputs)


def torchs(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser itself, or torch's Muon in the place of ours, which has not stepped yet."""
    if not isinstance(optimiser, Muon):
        return optimiser
    keys = ("params", "factor", "lr", "weight_decay", "momentum")
    groups = [{key: group[key] for key in keys} for group in optimiser.param_groups]
    return torch.optim.Muon(groups, adjust_lr_fn="match_rms_adamw")


def make_trainer(way: str, stage: str, preset: Preset, data: Path, first: int) -> Trainer:
    """A training of a stage at its step `first`, but with fresh weights, that is run in one of the ways."""
    task = make_task(stage, preset, data, dense=way in PLAIN)
    plain = replace(task.recipe, precision="fp32", compiled=False)
    trainer = Trainer(task, plain if way in PLAIN else task.recipe, 0, stage, "")
    trainer.step = first
    if way in PLAIN:
        trainer.optimisers = [torchs(optimiser) for optimiser in trainer.optimisers]
    if way == PLAIN[0]:
        to_nchw(trainer)
    if trainer.recipe.compiled and can_compile():
        compile_blocks(task.modules)
    return trainer


def gflop(stage: str, preset: Preset, data: Path, first: int, words: int, dense: bool) -> float:
    """GFLOP of one sample in the step `first`, counted as a training's usage counts them."""
    inputs = Inputs.dummy(preset, words) if stage != "a" else None
    return flops_per_sample(make_task(stage, preset, data, dense, inputs), first) / 1e9


def study_steps(stage: str, preset: Preset, words: int) -> int:
    """Training steps of a stage in a study. Those of the baseline spend the training FLOPs of Stages B and C."""
    if stage != "baseline-ldm":
        return preset.recipes[stage].steps
    spent = sum(diffusion_flops(preset, other, words) for other in ("b", "c"))
    return math.ceil(spent / diffusion_flops(preset, stage, words, steps=1))


def measure(stage: str, preset: Preset, data: Path, rounds: int) -> list[dict]:
    """One part for each phase of a stage's training."""
    task = make_task(stage, preset, data, dense=False)
    words = 0 if stage == "a" else task.words
    recipe = task.recipe
    parts = []
    for first, steps in task.phases(study_steps(stage, preset, words)):
        torch.compiler.reset()  # a study trains each stage in a process of its own
        trainers = {way: make_trainer(way, stage, preset, data, first) for way in (OURS, *PLAIN)}
        losses = {way: [t.update()["loss"] for _ in range(COMPARED)] for way, t in trainers.items()}
        # in turns with the matrix products, so that whatever slows the machine slows both
        seconds = medians({way: t.update for way, t in trainers.items()} | matrix_products(), rounds)
        rates = {name: MATRIX_GFLOP / seconds.pop(name) for name in ("fp32", "bf16")}
        best, precision = min(PLAIN, key=seconds.__getitem__), native_precision(recipe.precision)
        work = {way: gflop(stage, preset, data, first, words, dense=way != OURS) for way in (best, OURS)}
        speed = {way: work[way] * recipe.batch_size / seconds[way] for way in work}
        limit = {best: rates["fp32"], OURS: rates[precision]}
        differences = [
            abs(ours - theirs) / abs(theirs)
            for way in PLAIN
            for ours, theirs in zip(losses[OURS], losses[way], strict=True)
        ]
        parts.append(
            {
                "stage": stage,
                "first_step": first,
                "steps": steps,
                "batch_size": recipe.batch_size,
                "precision": precision,
                "seconds": seconds,
                "gflop_per_sample": work,
                "gflop_per_second": speed,
                "matrix_gflop_per_second": rates,
                "share_of_matrix_rate": {way: speed[way] / limit[way] for way in speed},
                "max_difference": max(differences),
            }
        )
    return parts


def run(preset_name: str, stages: Sequence[str], rounds: int) -> dict:
    """The benchmark's JSON object. Sets torch to one thread, which is what a study gives each training."""
    torch.set_num_threads(1)
    chosen = preset(preset_name)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(chosen.image_size, Path(folder))
        parts = [part for stage in stages for part in measure(stage, chosen, Path(folder), rounds)]
    return result(
        "study_training",
        parts,
        weigh=lambda part: part["steps"],
        preset=preset_name,
        ratio_of="seconds of all training steps of a study",
        max_difference_of=f"losses of the first {COMPARED} steps, relative",
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="emoji")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed steps, of which the median counts")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error(f"--rounds: {args.rounds}; use at least 1")
    try:
        record = run(args.preset, args.stages, args.rounds)
    except ValueError as error:
        raise SystemExit(f"benchmark of a study's training: {error}") from None
    titles = ["Stage, from step", "steps", "batch", *(f"{way}, ms" for way in (*PLAIN, OURS)), "times faster"]
    titles += ["GFLOP a sample", "GFLOP/s before, after", "of the matrix product's", "losses differ by"]
    rows = []
    for part in record["parts"]:
        speed, share = (list(part[key].values()) for key in ("gflop_per_second", "share_of_matrix_rate"))
        rows.append(
            [
                f"{part['stage']}, {part['first_step']}",
                f"{part['steps']}",
                f"{part['batch_size']}",
                *(f"{1000 * part['seconds'][way]:.0f}" for way in (*PLAIN, OURS)),
                f"{part['ratio']:.2f}",
                f"{part['gflop_per_sample'][OURS]:.3f}",
                ", ".join(f"{value:.0f}" for value in speed),
                ", ".join(f"{value:.0%}" for value in share),
                f"{part['max_difference']:.1e}",
            ]
        )
    show(record, titles, rows)


if __name__ == "__main__":
    main()
