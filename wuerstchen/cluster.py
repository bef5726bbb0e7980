"""Train one phase of a stage on any number of processes, from tar shards or precomputed shards (appendix E).

`wuerstchen.train` comes here under torchrun, or where --data names shards:

    torchrun --nproc-per-node 8 -m wuerstchen.train --stage c --preset paper --phase 1 --parallel fsdp2 \\
        --data 'shards/{000000..000999}.tar' --weights train --seed 0 --stop-after 3h50m --out train/c-1

A run that is cut off goes on by the same command, with the same batches and the same randomness: samples depend on
(seed, position), noise and dropout on (seed, stage, step, rank). With --validation the moving average's loss on samples
that are never trained on goes into the history every so many steps (`wuerstchen.validation`). A run ends with status
`STOPPED` where it stopped itself before the time limit or was told to by SIGTERM or SIGUSR1, and there is more to do.
"""

import argparse
import contextlib
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from wuerstchen import weights
from wuerstchen.distributed import (
    Checkpoints,
    Ranks,
    accumulating,
    assign,
    average,
    checkpoint_activations,
    floats,
    gathered,
    load_optimiser,
    local,
    optimiser_tensors,
    read_state,
    spread,
    start,
)
from wuerstchen.execution import compile_blocks, native_precision
from wuerstchen.files import sha256_text, write_json, write_text
from wuerstchen.flops import SampleFlops
from wuerstchen.objectives import PRECOMPUTED, Objective, make_objective, phases, view
from wuerstchen.presets import Phase, Preset, overridden, preset, to_dict
from wuerstchen.progress import progress
from wuerstchen.runs import ROWS, STOPPED, History, Limit, added_usage, deaf, memory_gib
from wuerstchen.seeds import derive
from wuerstchen.train import adamw, descend, ema_decay, learning_rate, not_finite
from wuerstchen.usage import Usage
from wuerstchen.validation import HeldOut, open_held_out
from wuerstchen.webdata import Batches, LatentShards, Pictures, Selection, View, expand, stop_at_corrupt


class Training:
    """One process's part of a training: the wrapped networks, their moving average, optimisers and checkpoints."""

    def __init__(self, objective: Objective, chosen: Preset, phase: Phase, args: argparse.Namespace, ranks: Ranks):
        self.objective, self.phase, self.args, self.ranks = objective, phase, args, ranks
        self.recipe, self.stage, self.step = chosen.recipes[args.stage], args.stage, 0
        self.before, self.train_flops = 0, 0  # steps of the phases before; FLOPs of this one, in the first process
        self.each = each = args.micro_batch or phase.batch_size // ranks.world
        self.accumulate = phase.batch_size // max(each * ranks.world, 1)
        if not each or each * ranks.world * self.accumulate != phase.batch_size:
            raise ValueError(
                f"--micro-batch: {each} samples in each of {ranks.world} processes do not divide the batch of"
                f" {phase.batch_size}"
            )
        if self.recipe.optimiser != "adamw":
            raise ValueError(f"optimiser: {self.recipe.optimiser!r} does not run on a cluster; use adamw, the paper's")
        self.sample_flops = SampleFlops(objective)
        self.bf16 = self.recipe.precision == "bf16"
        if ranks.device.type == "cpu":
            self.bf16 = native_precision(self.recipe.precision) == "bf16"
        elif self.recipe.compiled:
            compile_blocks(objective)
        if args.checkpoint_activations:
            checkpoint_activations(objective)
        self.model = spread(objective, args.parallel, ranks)
        networks = objective.networks
        slow = networks["compressor"].backbone.parameters() if "compressor" in networks else []
        self.optimisers = adamw(networks, self.recipe, slow)
        named = [*networks.named_parameters()]
        if (adversary := objective.adversary()) is not None:
            self.optimisers += adamw(adversary, self.recipe, [])
            named += [(f"adversary.{name}", p) for name, p in adversary.named_parameters()]
        self.names = {id(p): name for name, p in named}
        self.averaged = {name: tensor.detach().clone() for name, tensor in floats(networks).items()}
        self.checkpoints = Checkpoints(args.out / "state")

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.bf16)

    def update(self, batches) -> tuple[list[Tensor], int]:
        """One step. Returns the mean of each of the objective's columns in this process, and how many samples of its
        were passed over as corrupt."""
        columns = self.objective.columns
        sums, corrupt = [torch.zeros((), device=self.ranks.device) for _ in columns], 0
        place = (self.args.seed, self.stage, self.args.phase, "step", self.step, "rank", self.ranks.rank)
        torch.manual_seed(derive(*place, "dropout"))
        for micro in range(self.accumulate):
            batch = next(batches)
            corrupt += int(batch["corrupt"].sum())
            random = torch.Generator(self.ranks.device).manual_seed(derive(*place, "micro", micro))
            with accumulating(self.model, micro == self.accumulate - 1):
                with self.autocast():
                    with torch.no_grad():
                        inputs = self.objective.prepare(batch)
                    losses = self.model(inputs, random, self.step)
                (losses["loss"] / self.accumulate).backward()
                if "discriminator" in losses:
                    (losses["discriminator"] / self.accumulate).backward()
            nothing = torch.full((), torch.nan, device=self.ranks.device)
            for i, name in enumerate(columns):
                sums[i] += losses.get(name, nothing).detach().float() / self.accumulate
        if (adversary := self.objective.adversary()) is not None:
            average((p.grad for p in adversary.parameters() if p.grad is not None), self.ranks.world)
        descend(self.optimisers, self.recipe, self.before + self.step)
        self.step += 1
        networks = self.objective.networks
        average((b for b in networks.buffers() if b.is_floating_point()), self.ranks.world)
        with torch.no_grad():
            theirs = [local(tensor) for tensor in floats(networks).values()]
            ours = [local(tensor) for tensor in self.averaged.values()]
            torch._foreach_lerp_(ours, theirs, 1 - ema_decay(self.recipe, self.before + self.step))
        if self.ranks.first:
            self.train_flops += self.sample_flops(inputs) * self.phase.batch_size
        return sums, corrupt

    @contextlib.contextmanager
    @torch.no_grad()
    def averaged_weights(self):
        """The moving average in the networks' place, and the trained weights in its own, with no memory for a third."""

        def swap() -> None:
            for name, tensor in floats(self.objective.networks).items():
                ours, theirs = local(self.averaged[name]), local(tensor)
                kept = theirs.clone()
                theirs.copy_(ours)
                ours.copy_(kept)

        swap()
        try:
            yield
        finally:
            if isinstance(self.model, FSDPModule):
                self.model.reshard()  # what a forward pass without a backward one leaves gathered
            swap()

    def validate(self, held_out: HeldOut) -> float:
        """The moving average's loss on the held-out samples; all processes must call it."""
        with self.averaged_weights():
            return held_out.loss(self.model, self.objective, self.ranks, self.autocast())

    def save(self, about: dict) -> None:
        """Write the state; all processes must call it."""
        parts = {"networks": self.objective.networks.state_dict(), "averaged": self.averaged}
        if (adversary := self.objective.adversary()) is not None:
            parts["adversary"] = adversary.state_dict()
        for i, optimiser in enumerate(self.optimisers):
            parts[f"optimiser.{i}"] = optimiser_tensors(optimiser, self.names)
        tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        tensors = gathered(tensors, self.ranks)
        if self.ranks.first:
            counts = {"step": self.step, "before": self.before, "train_flops": self.train_flops}
            self.checkpoints.save(tensors, about | counts)
        dist.barrier()

    def restore(self, path: Path) -> None:
        """Go on from a state."""
        parts = read_state(path)
        self.load(parts["networks"], path)
        for name, tensor in self.averaged.items():
            assign(tensor, parts["averaged"][name])
        if (adversary := self.objective.adversary()) is not None:
            adversary.load_state_dict(parts["adversary"])
        for i, optimiser in enumerate(self.optimisers):
            load_optimiser(optimiser, parts.get(f"optimiser.{i}", {}), self.names)
        about = weights.metadata(path)
        self.step, self.before, self.train_flops = (about[key] for key in ("step", "before", "train_flops"))

    def load(self, tensors: dict[str, Tensor], source: Path) -> None:
        """Load whole tensors of the networks, strictly."""
        state = self.objective.networks.state_dict()
        if wrong := sorted(set(state) ^ set(tensors)):
            kind = "extra" if wrong[0] in tensors else "missing"
            raise ValueError(f"{source}: tensor {wrong[0]} is {kind} ({len(wrong)} names differ)")
        for name, target in state.items():
            if target.shape != tensors[name].shape:
                raise ValueError(f"{source}: {name} is {tuple(tensors[name].shape)}, expected {tuple(target.shape)}")
            assign(target, tensors[name])

    def begin_with(self, folder: Path) -> str:
        """Go on from the end of an earlier phase, and say how: with its state, warmed up as it is, or, where no more
        than its model is left, with that and fresh optimisers."""
        model, state = folder / "model.safetensors", Checkpoints(folder / "state").find()
        if state is not None and weights.metadata(state)["step"] == weights.metadata(model)["steps"]:
            self.restore(state)
            self.step, self.before, self.train_flops = 0, self.before + self.step, 0
            return f"going on from {state}"
        self.load(weights.load(model)[0], model)
        for name, tensor in floats(self.objective.networks).items():
            local(self.averaged[name]).copy_(local(tensor.detach()))
        return f"starting from the weights of {model}, with fresh optimisers"


def open_data(args: argparse.Namespace, seed: int) -> tuple[Pictures | LatentShards, str]:
    """The samples, and a digest of what they are."""
    paths = expand(args.data)
    if paths[0].suffix == ".safetensors":
        if args.stage == "a":
            raise ValueError("--data: Stage A is trained on pictures, not on latents; name tar shards")
        shards = LatentShards(paths, PRECOMPUTED[args.stage], seed)
        return shards, sha256_text(json.dumps([[p.name for p in paths], shards.about, shards.order.counts.tolist()]))
    if paths[0].suffix != ".tar":
        raise ValueError(f"--data: {args.data} should name tar shards or precomputed .safetensors shards")
    selection = Selection(args.selection or paths[0].parent / "selection.safetensors", paths)
    stop_at_corrupt(selection.report["corrupt"], selection.report["samples"], args.corrupt_limit)
    about = [[[p.name, p.stat().st_size] for p in paths], selection.report, selection.counts.tolist()]
    return Pictures(paths, selection, seed), sha256_text(json.dumps(about))


def check_same(state: Path, made_of: dict, now: dict, exact: tuple[str, ...]) -> None:
    """Raises ValueError naming what differs between a state and this run; what only changes the noise is said."""
    for key, value in now.items():
        if made_of.get(key) != value:
            said = f"{state} was made with {key} {made_of.get(key)!r}, now it is {value!r}"
            if key in exact:
                raise ValueError(f"{said}; delete {state.parent} to train anew")
            print(f"{said}: the samples stay the same, the noise does not", file=sys.stderr)


def train(args: argparse.Namespace) -> int:
    """Train as the arguments say; returns the exit status, 0 or `STOPPED`.

    Raises ValueError and FloatingPointError, in every process, for what stops a training.
    """
    with Limit(args.stop_after, time.monotonic()) as limit:
        ranks = start()
        try:
            return _train(args, ranks, limit)
        finally:
            dist.destroy_process_group()


def _train(args: argparse.Namespace, ranks: Ranks, limit: Limit) -> int:
    chosen = overridden(preset(args.preset), args.stage, args.set)
    recipe, known = chosen.recipes[args.stage], phases(chosen, args.stage)
    if not 1 <= args.phase <= len(known):
        raise ValueError(f"--phase: {args.phase}; stage {args.stage} of preset {args.preset} has {len(known)}")
    phase = known[args.phase - 1]
    phase = replace(phase, steps=args.steps or phase.steps)
    if phase.steps < 1:
        raise ValueError("its recipe names no number of steps: give --steps")
    dataset, digest = open_data(args, derive(args.seed, args.stage, args.phase, "order"))
    null = dataset.null() if isinstance(dataset, LatentShards) else None
    torch.manual_seed(derive(args.seed, args.stage, "init"))
    objective = make_objective(args.stage, chosen, phase, ranks.device, args.weights, null, args.lpips)
    training = Training(objective, chosen, phase, args, ranks)

    same = {
        "settings": sha256_text(json.dumps([to_dict(chosen), to_dict(phase) | {"steps": 0}], sort_keys=True)),
        "stage": args.stage,
        "phase": args.phase,
        "seed": args.seed,
        "data": digest,
    }
    made_of = same | {"processes": ranks.world, "accumulate": training.accumulate}
    before: dict = {}
    if (state := training.checkpoints.find()) is not None:
        before = weights.metadata(state)
        check_same(state, before["made_of"], made_of, tuple(same))
        training.restore(state)
        if training.step > phase.steps:
            raise ValueError(f"{state} is at step {training.step}, past the {phase.steps} asked for")
        say(ranks, f"resuming at step {training.step}")
    elif args.continue_from is not None:
        say(ranks, training.begin_with(args.continue_from))

    refuse_differing((training.before, training.step, digest), ranks, args.out)

    held_out = None
    if args.validation is not None:
        samples = open_held_out(args.validation, dataset, derive(args.seed, "validation"))
        whole = View(phase.sizes[0], phase.sizes[0])  # of Stage A too, which is trained on small crops
        held_out = HeldOut(samples, whole, 2 * phase.batch_size, training.each, args.workers, args.seed)
    elif args.validate_every is not None:
        raise ValueError("--validate-every: there is nothing to validate on; name --validation")
    status = loop(training, dataset, held_out, chosen, limit, before, made_of)
    if status == 0:
        finish(training, dataset, chosen, recipe.precision)
    return status


def refuse_differing(about: tuple, ranks: Ranks, out: Path) -> None:
    """Raises ValueError, in all processes, where they do not see the same state and data."""
    found: list = [None] * ranks.world
    dist.all_gather_object(found, about)
    if len(set(found)) > 1:
        steps = ", ".join(str(step) for _, step, _ in found)
        raise ValueError(f"--out: the processes find other data or other states (steps {steps}); {out} must be shared")


def say(ranks: Ranks, text: str) -> None:
    """Print a line, once."""
    if ranks.first:
        print(text, flush=True)


def summed(values: list[float], ranks: Ranks) -> list[float]:
    """Numbers of all processes, added up; all must call it."""
    numbers = torch.tensor(values, dtype=torch.float64, device=ranks.device)
    dist.all_reduce(numbers)
    return numbers.tolist()


def loop(
    training: Training, dataset, held_out: HeldOut | None, chosen: Preset, limit: Limit, before: dict, made_of: dict
) -> int:
    """Train from where the training is to the end of its phase, or until it is time to stop."""
    args, ranks, phase, stage = training.args, training.ranks, training.phase, training.stage
    columns = training.objective.columns
    first = training.step
    row_every, validate_every = max(1, phase.steps // ROWS), args.validate_every or training.recipe.validate_every

    def view_of(step: int):
        size = phase.sizes[derive(args.seed, stage, args.phase, "size", step) % len(phase.sizes)]
        return view(chosen, stage, size)

    sampler = Batches(
        range(first, phase.steps), ranks.rank, ranks.world, phase.batch_size, training.accumulate, view_of
    )
    batches = iter(
        DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=args.workers,
            pin_memory=ranks.device.type == "cuda",
            prefetch_factor=4 if args.workers else None,
            worker_init_fn=deaf,
        )
    )
    history = History(args.out, columns, first) if ranks.first else None
    spent, corrupt = before.get("usage"), before.get("corrupt", 0)
    bar = progress(range(first, phase.steps), what=f"stage {stage}", unit="steps") if ranks.first else None
    device = "cpu" if ranks.device.type == "cpu" else None
    with Usage(device=device) as usage:
        (stop,) = summed([limit.told], ranks)  # the first step can take minutes, and nothing is lost without it
        while training.step < phase.steps and not stop:
            began = time.monotonic()
            means, passed_over = training.update(batches)
            # Each step ends with a wait for the GPU: all must stop after the same step, and none may go on from a loss
            # that is not finite. The GPU idles only while the next step's first kernels are launched.
            *values, passed_over, stop = summed([*torch.stack(means).tolist(), passed_over, limit.due()], ranks)
            values = dict(zip(columns, (value / ranks.world for value in values), strict=True))
            not_finite({"loss": values["loss"]}, training.step - 1, training.recipe)
            corrupt += int(passed_over)
            stop_at_corrupt(corrupt, max(training.step * phase.batch_size, 1000), args.corrupt_limit)
            seconds = time.monotonic() - began
            last = training.step == phase.steps
            check = held_out is not None and (training.step % validate_every == 0 or last)
            validation_loss = training.validate(held_out) if check else math.nan
            limit.longest_step = max(limit.longest_step, time.monotonic() - began)
            if check or last or training.step % row_every == 0:
                used = usage.snapshot()  # the GPU's counter takes milliseconds to read
                (kwh,) = summed([used["kwh"]], ranks)
                row = {
                    "learning_rate": learning_rate(training.recipe, training.before + training.step - 1),
                    "images_per_second": phase.batch_size / seconds,
                    "seconds": (spent or {}).get("seconds", 0.0) + used["seconds"],
                    "memory_gib": memory_gib(ranks.device),
                    "kwh": (spent or {}).get("kwh", 0.0) + kwh,
                    "corrupt": corrupt,
                    "validation_loss": validation_loss,
                }
                if ranks.first:
                    history.add(training.step, row | values)
            if ranks.first:
                bar.update()
                bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
            if training.step % args.checkpoint_every == 0 or last or stop:
                began = time.monotonic()
                done = training.step - first
                shares: list = [None] * ranks.world
                dist.all_gather_object(
                    shares, usage.snapshot(images=done * phase.batch_size // ranks.world, steps=done)
                )
                training.usage = added_usage(spent, shares)
                training.save({"made_of": made_of, "usage": training.usage, "corrupt": corrupt})
                limit.longest_save = max(limit.longest_save, time.monotonic() - began)
    if ranks.first:
        bar.close()
    if training.step < phase.steps:
        say(ranks, f"stopped in time at step {training.step} of {phase.steps}; run the same command to go on")
        return STOPPED
    if first == phase.steps:  # it was whole already
        training.usage = spent
    say(ranks, f"stage {stage}: {phase.steps} steps, {corrupt} corrupt samples passed over")
    return 0


def finish(training: Training, dataset, chosen: Preset, precision: str) -> None:
    """Write model.safetensors, the moving average, and usage.json."""
    args, ranks, phase = training.args, training.ranks, training.phase
    state = gathered(training.objective.networks.state_dict() | training.averaged, ranks)
    if ranks.first:

        def pictures(n: int) -> Tensor:
            return torch.stack([dataset[i, view(chosen, args.stage, phase.sizes[0])]["image"] for i in range(n)])

        about = {
            "preset": chosen.name,
            "stage": args.stage,
            "image_size": chosen.image_size,
            "text": to_dict(chosen.text),
            "seed": args.seed,
            "phase": args.phase,
            "steps": phase.steps,
            "compiled": chosen.recipes[args.stage].compiled,
            "precision": precision,
            **training.objective.metadata(state, pictures),
        }
        weights.save(args.out / "model.safetensors", state, about)
        write_text(args.out / "history.csv", (args.out / "state" / "history.csv").read_text())
        write_json(
            args.out / "usage.json",
            training.usage
            | {
                "stage": args.stage,
                "phase": args.phase,
                "train_flops": training.train_flops,
                "parameters": weights.parameters(training.objective.networks),
                "batch_size": phase.batch_size,
                "steps": phase.steps,
                "samples": phase.steps * phase.batch_size,
                "parallel": args.parallel,
            },
        )
    dist.barrier()
