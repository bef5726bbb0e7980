"""How much a training computes: FLOPs of its steps, forward and backward, as torch counts them from shapes.

The networks that are trained count, and what their losses are computed with; not the frozen ones before them, whose
latents and tokens may as well have been precomputed, and not what checkpointed activations cost again.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wuerstchen.inputs import Inputs
from wuerstchen.presets import Preset
from wuerstchen.seeds import generator
from wuerstchen.tasks import DIFFUSION_TASKS, Task


def convolution_backward_flops(grad_output, x, weight, bias, *args, out_shape=None, **kwargs) -> int:
    """FLOPs of a convolution's gradient from shapes: torch 2.15 counts that of a depthwise one as if it were dense."""
    *_, transposed, _, _, needed = args
    forward = 2 * math.prod(x if transposed else grad_output) * math.prod(weight[1:])
    return forward * (bool(needed[0]) + bool(needed[1]))


def flops_of(loss: Callable[[], Tensor]) -> int:
    """FLOPs of a loss and of its gradient."""
    own = {torch.ops.aten.convolution_backward: convolution_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        loss().backward()
    return counter.get_total_flops()


def flops_per_sample(task: Task, step: int = 0) -> int:
    """FLOPs of one sample in a training step, forward and backward, counted by torch on a batch of two; those of an
    adversary count where it has a loss.
    """
    state = copy.deepcopy(task.modules.state_dict())  # batch norm counts what it sees
    task.modules.train()
    rows = torch.arange(2) % task.n

    def loss() -> Tensor:
        losses = task.losses(task.modules, rows, generator("flops"), step)
        return losses["loss"] + losses.get("discriminator", 0)

    total = flops_of(loss)
    task.modules.load_state_dict(state)
    task.modules.zero_grad(set_to_none=True)
    if (adversary := task.adversary()) is not None:
        adversary.zero_grad(set_to_none=True)
    return total // 2


def training_flops(task: Task, steps: int) -> int:
    """Training FLOPs of a task over `steps`."""
    return sum(flops_per_sample(task, first) * task.recipe.batch_size * n for first, n in task.phases(steps))


def diffusion_flops(preset: Preset, stage: str, words: int, steps: int | None = None) -> int:
    """Training FLOPs of a diffusion stage over `steps` (None: the preset's) on captions of so many tokens.

    It needs neither data nor weights.
    """
    task = DIFFUSION_TASKS[stage](preset, stage, Inputs.dummy(preset, words), 0)
    return training_flops(task, steps or task.recipe.steps)


class SampleFlops:
    """FLOPs of one sample in an objective's training step, counted on a copy without memory or computation.

    To be made before the objective (`wuerstchen.objectives`) is compiled, wrapped or sharded.
    """

    def __init__(self, objective: nn.Module):
        from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

        self.mode, self.known = FakeTensorMode(), {}
        encoder = getattr(objective, "encoder", None)  # text is encoded beforehand
        with FakeCopyMode(self.mode):
            self.objective = copy.deepcopy(objective, {id(encoder): encoder})

    def __call__(self, inputs: dict[str, Tensor]) -> int:
        """inputs: what the objective has prepared of a batch of any size."""
        shapes = {name: tensor.shape[1:] for name, tensor in inputs.items()}
        if (key := str(shapes)) not in self.known:
            device = self.objective.device
            with self.mode:
                two = {name: torch.zeros(2, *shape, device=device) for name, shape in shapes.items()}
                loss = flops_of(lambda: self.objective(two, torch.Generator(device), 0)["loss"])
                self.objective.zero_grad(set_to_none=True)
            self.known[key] = loss // 2
        return self.known[key]
