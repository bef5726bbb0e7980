"""Optimisers of a recipe, their schedule, and a step of theirs: the same for a study and on a cluster."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from wuerstchen.blocks import AttentionBlock, ResBlock, TimestepBlock
from wuerstchen.muon import Muon
from wuerstchen.presets import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then constant (appendix E)."""
    return recipe.learning_rate * min(1.0, (step + 1) / max(recipe.warmup, 1))


def adamw(module: nn.Module, recipe: Recipe, slow: Iterable[nn.Parameter]) -> list[torch.optim.Optimizer]:
    """AdamW, the paper's optimiser; `slow` are parameters that learn at `pretrained_rate`."""
    return [_adamw((p for p in module.parameters() if p.requires_grad), recipe, slow)]


def muon(module: nn.Module, recipe: Recipe, slow: Iterable[nn.Parameter]) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of the repeated blocks, AdamW for all else; both share a learning rate."""
    blocks = (m for m in module.modules() if isinstance(m, ResBlock | TimestepBlock | AttentionBlock))
    matrices = list(dict.fromkeys(p for block in blocks for p in block.parameters() if p.dim() == 2))
    taken = {id(p) for p in matrices}
    rest = (p for p in module.parameters() if p.requires_grad and id(p) not in taken)
    group = {"params": matrices, "factor": 1.0}
    return [_adamw(rest, recipe, slow), Muon([group], recipe.learning_rate, recipe.weight_decay)]


def _adamw(params: Iterable[nn.Parameter], r: Recipe, slow: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    params, slowed = list(params), {id(p) for p in slow}
    groups = [
        {"params": [p for p in params if id(p) not in slowed], "factor": 1.0},
        {"params": [p for p in params if id(p) in slowed], "factor": r.pretrained_rate},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=r.learning_rate, betas=r.betas, weight_decay=r.weight_decay, fused=True)


OPTIMISERS = {"adamw": adamw, "muon": muon}


def not_finite(values: dict[str, float], step: int, recipe: Recipe) -> None:
    """Raises FloatingPointError that names the first loss which is not finite."""
    if wrong := [name for name, value in values.items() if not math.isfinite(value)]:
        raise FloatingPointError(
            f"{wrong[0]} is {values[wrong[0]]} at step {step}; the state before it is kept; lower the learning"
            f" rate ({recipe.learning_rate}) or train in fp32 (precision is {recipe.precision})"
        )


def descend(optimisers: Iterable[torch.optim.Optimizer], recipe: Recipe, step: int) -> None:
    """Clip the gradients of each optimiser's parameters, let it make the step, and forget them."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["factor"] * learning_rate(recipe, step)
        everything = [p for group in optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(everything, recipe.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def ema_decay(recipe: Recipe, step: int) -> float:
    """Decay of the moving average after `step` steps: shorter at first, when there is little to average."""
    return min(recipe.ema, step / (step + 10))
