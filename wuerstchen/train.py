"""Train one stage: resumable, reproducible, with a history, a checkpoint and what it used."""

import argparse
import copy
import csv
import io
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from wuerstchen import weights
from wuerstchen.execution import autocast, can_compile, compile_blocks, native_precision
from wuerstchen.files import atomic_path, sha256_file, sha256_text, write_json, write_text
from wuerstchen.flops import diffusion_flops, training_flops
from wuerstchen.optimisers import OPTIMISERS, adamw, descend, ema_decay, learning_rate, not_finite
from wuerstchen.presets import Preset, Recipe, overridden, preset, to_dict
from wuerstchen.runs import add_arguments, is_for_cluster, refuse_misplaced
from wuerstchen.seeds import derive, generator
from wuerstchen.snapshots import Snapshots
from wuerstchen.tasks import DIFFUSION_TASKS, Task, make_task
from wuerstchen.usage import Usage

BUDGETED = (*DIFFUSION_TASKS, "df-gan")  # stages that can be as long as others' training FLOPs last
SAVE_SECONDS = 30.0
REPORT_SECONDS = 10.0


def batch_rows(n: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Rows of a step's batch: consecutive pieces of a fresh permutation for every epoch, whatever came before."""
    rows: list[Tensor] = []
    position, end = step * batch_size, (step + 1) * batch_size
    while position < end:
        epoch, first = divmod(position, n)
        last = min(n, first + end - position)
        rows.append(torch.randperm(n, generator=generator(seed, "epoch", epoch))[first:last])
        position += last - first
    return torch.cat(rows)


class Trainer:
    """State of one training: networks, their moving average, optimisers, history. Saved whole, resumed exactly."""

    def __init__(self, task: Task, recipe: Recipe, seed: int, stage: str, signature: str):
        self.task, self.recipe, self.seed, self.stage, self.signature = task, recipe, seed, stage, signature
        self.step, self.history = 0, []
        task.start()
        task.modules.to(memory_format=torch.channels_last).train()
        self.averaged = copy.deepcopy(task.modules).eval().requires_grad_(False)
        self.optimisers = OPTIMISERS[recipe.optimiser](task.modules, recipe, task.pretrained())
        if (adversary := task.adversary()) is not None:
            adversary.to(memory_format=torch.channels_last)
            (own,) = adamw(adversary, recipe, [])
            own.param_groups[0]["factor"] = task.adversary_rate
            self.optimisers.append(own)

    def autocast(self) -> torch.autocast:
        return autocast(native_precision(self.recipe.precision))

    def update(self) -> dict[str, float]:
        """One training step. Raises FloatingPointError where a loss is not finite."""
        random = generator(self.seed, self.stage, "step", self.step)
        torch.manual_seed(derive(self.seed, self.stage, "dropout", self.step))
        rows = batch_rows(self.task.n, self.recipe.batch_size, self.step, derive(self.seed, self.stage))
        with self.autocast():
            losses = self.task.losses(self.task.modules, rows, random, self.step)
        values = {name: value.item() for name, value in losses.items()}
        not_finite(values, self.step, self.recipe)
        losses["loss"].backward()
        if "discriminator" in losses:
            self.optimisers[-1].zero_grad(set_to_none=True)  # the generator's loss left gradients there
            losses["discriminator"].backward()
        descend(self.optimisers, self.recipe, self.step)
        self.step += 1
        self._average()
        return values

    @torch.no_grad()
    def _average(self) -> None:
        decay = ema_decay(self.recipe, self.step)
        theirs, ours = self.task.modules.state_dict(), self.averaged.state_dict()
        floats = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floats], [theirs[name] for name in floats], 1 - decay)

    def validate(self) -> float:
        with torch.no_grad(), self.autocast():
            return self.task.validation_loss(self.averaged)

    def save(self, path: Path, usage: dict) -> None:
        """Write all that a resumed run needs."""
        adversary = self.task.adversary()
        state = {
            "signature": self.signature,
            "step": self.step,
            "history": self.history,
            "usage": usage,
            "modules": self.task.modules.state_dict(),
            "averaged": self.averaged.state_dict(),
            "adversary": adversary.state_dict() if adversary is not None else None,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path, snapshots: Snapshots | None = None) -> dict | None:
        """Go on from `path` if it belongs to the same training and is past no missing snapshot; returns what was used
        so far, or None.
        """
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["signature"] != self.signature or (snapshots and snapshots.missing(state["step"])):
            return None
        self.step, self.history = state["step"], state["history"]
        self.task.modules.load_state_dict(state["modules"])
        self.averaged.load_state_dict(state["averaged"])
        if state["adversary"] is not None:
            self.task.adversary().load_state_dict(state["adversary"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        return state["usage"]


def progress(start: int, steps: int, stage: str) -> Iterator[tuple[int, tqdm | None]]:
    """Steps with a bar on a terminal."""
    bar = tqdm(range(start, steps), desc=f"stage {stage}", initial=start, total=steps, disable=None)
    for step in bar:
        yield step, bar


def history_csv(columns: tuple[str, ...], rows: list[list[float]]) -> str:
    """The history as CSV text; a value that was not computed at a step stays empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "learning_rate", "images_per_second", "seconds", "validation_loss", *columns])
    for step, *values in rows:
        writer.writerow([int(step), *("" if math.isnan(value) else f"{value:.6g}" for value in values)])
    return text.getvalue()


def run(
    trainer: Trainer,
    steps: int,
    state: Path,
    usage: Usage,
    inherited: dict | None,
    snapshots: Snapshots,
    checkpoint: Callable[[Path], None],
) -> None:
    """Train to `steps`, saving the state from time to time; `inherited` is carried along in its usage.

    `checkpoint` writes the moving average to a path, for the snapshots.
    """
    recipe, task = trainer.recipe, trainer.task
    started = saved = reported = time.monotonic()
    before = trainer.history[-1][3] if trainer.history else 0.0
    first = trainer.step
    lap, lap_step = started, first
    for step, bar in progress(first, steps, trainer.stage):
        values = trainer.update()
        snapshots.take(trainer.step, checkpoint)
        now, last = time.monotonic(), trainer.step == steps
        validation = trainer.validate() if trainer.step % recipe.validate_every == 0 or last else math.nan
        rate = (trainer.step - lap_step) * recipe.batch_size / max(now - lap, 1e-9)
        losses = [values.get(name, math.nan) for name in task.columns]
        trainer.history.append(
            [trainer.step, learning_rate(recipe, step), rate, before + now - started, validation, *losses]
        )
        bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        if bar.disable and (now - reported > REPORT_SECONDS or last):
            print(
                f"stage {trainer.stage}: step {trainer.step}/{steps}, loss {values['loss']:.4f}, {rate:.0f} images/s,"
                f" {before + now - started:.0f} s",
                flush=True,
            )
            reported = now
        if now - saved > SAVE_SECONDS or last:
            done = trainer.step - first
            trainer.save(state, usage.snapshot(images=done * recipe.batch_size, steps=done, inherited=inherited))
            saved = time.monotonic()
        lap, lap_step = time.monotonic(), trainer.step
    if not state.exists():  # the training that goes on here has spent the whole budget already
        trainer.save(state, usage.snapshot(images=0, steps=0, inherited=inherited))


def budget_flops(preset: Preset, item: str, words: int) -> int:
    """Training FLOPs of a budget's item, "STAGE" or "STAGE:KEY=VALUE,..." where its recipe differs from the preset's.
    A caption has `words` tokens.

    Raises ValueError where it is neither.
    """
    stage, _, pairs = item.partition(":")
    if stage not in DIFFUSION_TASKS:
        allowed = ", ".join(DIFFUSION_TASKS)
        raise ValueError(f"--budget: {item!r}; use STAGE or STAGE:KEY=VALUE,KEY=VALUE with a stage of {allowed}")
    return diffusion_flops(overridden(preset, stage, pairs.split(",") if pairs else []), stage, words)


def train(
    stage: str,
    preset_name: str,
    data: Path,
    out: Path,
    seed: int,
    latents: Path | None = None,
    steps: int | None = None,
    budget: list[str] | None = None,
    continue_from: Path | None = None,
    settings: Sequence[str] = (),
    percents: Sequence[int] = (),
) -> None:
    """Train `stage` of a preset and write model.safetensors, history.csv and usage.json into `out`.

    The length is `steps`, or as many steps as spend the training FLOPs of the stages in `budget` ("c", or
    "c:steps=300" for a recipe other than the preset's), or the preset's. `continue_from` is the folder of an earlier
    training of the same stage that goes on here. `settings` ("learning_rate=0.001") are fields of the recipe that
    differ from the preset's. At `percents` of the steps made here, the moving average goes to snapshots/ in `out`.
    """
    plain = preset(preset_name)
    chosen = overridden(plain, stage, settings)
    recipe = chosen.recipes[stage]
    torch.manual_seed(derive(seed, stage, "init"))
    task = make_task(stage, chosen, data, latents, seed)
    inputs = [data / "index.jsonl", *([latents / "a.safetensors"] if stage in ("b", "baseline-ldm") else [])]
    inputs += [latents / "compressor.safetensors"] if stage in ("c", "probe") else []
    signature = sha256_text(
        repr((to_dict(chosen), asdict(recipe), stage, seed, [sha256_file(path) for path in inputs]))
    )
    trainer = Trainer(task, recipe, seed, stage, signature)

    def flops(count: int) -> int:
        if stage in DIFFUSION_TASKS:
            return diffusion_flops(chosen, stage, task.words, count)
        return training_flops(task, count)

    if budget:
        if stage not in BUDGETED:
            raise ValueError(f"--budget: stage {stage} has none; it is for {', '.join(BUDGETED)}")
        spent = sum(budget_flops(plain, item, task.words) for item in budget)
        steps = math.ceil(spent / flops(1))
    steps = steps or recipe.steps
    if steps < 1:
        raise ValueError("its recipe names no number of steps: give --steps or --budget")
    first = weights.metadata(continue_from / "model.safetensors")["steps"] if continue_from else 0
    snapshots = Snapshots(out, percents, first, steps)

    state, previous, inherited = out / "state" / "last.pt", None, None
    if state.exists():
        previous = trainer.restore(state, snapshots)
        inherited = previous and previous["inherited"]
        anew = f"{state} belongs to other settings, or to a training without these snapshots: starting anew"
        print(f"resuming at step {trainer.step}" if previous else anew)
    if previous is None:
        snapshots.clear()
    if trainer.step == 0 and continue_from is not None:
        earlier = continue_from / "state" / "last.pt"
        previous = trainer.restore(earlier) if earlier.exists() else None
        if previous is None:
            raise ValueError(
                f"{earlier} is missing or belongs to other settings; delete {continue_from} and train it again"
            )
        inherited = {key: previous[key] for key in ("seconds", "kwh", "codecarbon") if key in previous}
    if trainer.step > steps:
        raise ValueError(f"{state} is at step {trainer.step}, past the {steps} asked for; delete it to train anew")

    train_flops = flops(steps)
    compiled = recipe.compiled and can_compile()
    if compiled:
        compile_blocks(task.modules)
    elif recipe.compiled:
        print("no g++ or no Python headers: the networks run uncompiled, two to three times slower", file=sys.stderr)

    def checkpoint(path: Path) -> None:
        metadata = {
            "preset": chosen.name,
            "stage": stage,
            "image_size": chosen.image_size,
            "text": to_dict(chosen.text),
            "seed": seed,
            "steps": trainer.step,
            "compiled": recipe.compiled,
            "precision": native_precision(recipe.precision),
            **task.metadata(trainer.averaged),
        }
        weights.save(path, trainer.averaged.state_dict(), metadata)

    with Usage.resume(previous, "cpu") as usage:
        run(trainer, steps, state, usage, inherited, snapshots, checkpoint)
        used = torch.load(state, map_location="cpu", weights_only=True)["usage"]
    snapshots.publish()
    checkpoint(out / "model.safetensors")
    write_text(out / "history.csv", history_csv(task.columns, trainer.history))
    write_json(
        out / "usage.json",
        used
        | {
            "stage": stage,
            "parameters": weights.parameters(task.modules),
            "train_flops": train_flops,
            "batch_size": recipe.batch_size,
            "steps": steps,
            "samples": steps * recipe.batch_size,
            "compiled": compiled,
            "precision": native_precision(recipe.precision),
        },
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", required=True, choices=["a", "b", "c", "baseline-ldm", "probe", "df-gan"])
    parser.add_argument("--preset", required=True)
    parser.add_argument("--data", required=True, help="a study's data folder, or shards: 'shards/{000000..000999}.tar'")
    parser.add_argument("--latents", type=Path)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="what differs from the recipe")
    parser.add_argument(
        "--budget", nargs="+", metavar="STAGE[:KEY=VALUE,...]", help="stages whose training FLOPs are spent"
    )
    parser.add_argument(
        "--snapshots", nargs="+", default=[], type=int, metavar="PERCENT", help="shares of the steps to keep weights of"
    )
    parser.add_argument("--continue-from", type=Path, help="folder of an earlier training that goes on here")
    parser.add_argument("--out", required=True, type=Path)
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        refuse_misplaced(args, parser, is_for_cluster(args.data))
        if is_for_cluster(args.data):
            if args.stage in ("probe", "df-gan"):
                raise ValueError(f"--stage: {args.stage} is trained on a study's data folder, not on shards")
            from wuerstchen import cluster  # which takes longer to import than a small training has

            if status := cluster.train(args):
                raise SystemExit(status)
            return
        train(
            args.stage,
            args.preset,
            Path(args.data),
            args.out,
            args.seed,
            args.latents,
            args.steps,
            args.budget,
            args.continue_from,
            args.set,
            args.snapshots,
        )
    except (ValueError, FloatingPointError) as error:
        raise SystemExit(f"training of stage {args.stage}: {error}") from None


if __name__ == "__main__":
    main()
