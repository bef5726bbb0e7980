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
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from wuerstchen import weights
from wuerstchen.distributed import Ranks, gathered, start
from wuerstchen.files import sha256_text, write_json, write_text
from wuerstchen.objectives import make_objective, phases, precomputed, view
from wuerstchen.optimisers import learning_rate, not_finite
from wuerstchen.paper import with_baseline
from wuerstchen.parallel import Training
from wuerstchen.presets import Preset, overridden, preset, to_dict
from wuerstchen.progress import progress
from wuerstchen.runs import ROWS, STOPPED, History, Limit, added_usage, deaf, memory_gib
from wuerstchen.seeds import derive
from wuerstchen.usage import Usage
from wuerstchen.validation import HeldOut, open_held_out
from wuerstchen.webdata import Batches, LatentShards, Pictures, Selection, View, expand, stop_at_corrupt


def open_data(args: argparse.Namespace, chosen: Preset, seed: int) -> tuple[Pictures | LatentShards, str]:
    """The samples, and a digest of what they are."""
    paths = expand(args.data)
    if paths[0].suffix == ".safetensors":
        if args.stage == "a":
            raise ValueError("--data: Stage A is trained on pictures, not on latents; name tar shards")
        shards = LatentShards(paths, precomputed(chosen, args.stage), seed)
        made_of, wanted = shards.about.get("first_stage", "stage-a"), chosen.baseline_first_stage
        if args.stage == "baseline-ldm" and made_of != wanted:
            raise ValueError(f"--data: {args.data} holds latents of {made_of}, but this baseline works on {wanted}")
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
    chosen = overridden(with_baseline(preset(args.preset), args.baseline), args.stage, args.set)
    recipe, known = chosen.recipes[args.stage], phases(chosen, args.stage)
    if not 1 <= args.phase <= len(known):
        raise ValueError(f"--phase: {args.phase}; stage {args.stage} of preset {args.preset} has {len(known)}")
    phase = known[args.phase - 1]
    phase = replace(phase, steps=args.steps or phase.steps)
    if phase.steps < 1:
        raise ValueError("its recipe names no number of steps: give --steps")
    dataset, digest = open_data(args, chosen, derive(args.seed, args.stage, args.phase, "order"))
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
            "text": to_dict(chosen.text_of(args.stage)),
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
                **({"first_stage": about["first_stage"]} if "first_stage" in about else {}),
            },
        )
    dist.barrier()
