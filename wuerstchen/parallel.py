"""One process's part of a training on a cluster: its networks, moving average, optimisers and checkpoints."""

import argparse
import contextlib
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

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
)
from wuerstchen.execution import compile_blocks, native_precision
from wuerstchen.flops import SampleFlops
from wuerstchen.objectives import Objective
from wuerstchen.optimisers import adamw, descend, ema_decay
from wuerstchen.presets import Phase, Preset
from wuerstchen.seeds import derive
from wuerstchen.validation import HeldOut


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
