"""What pipelines share: noise, guidance, named sampling settings, and the sizes that the networks allow."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from wuerstchen.diffusion import guide
from wuerstchen.presets import Preset, Sampling, Steps, preset
from wuerstchen.seeds import generator

# the paper's 60 and 12 steps, and the released sampler's 30 and 12
SAMPLING: dict[str, Sampling] = {"paper": preset("paper").sampling, "released": preset("released-v2").sampling}


def grid_step(chosen: Preset) -> int:
    """Pixels of which a picture's width and height must be multiples.

    Each of Stage C's latents covers `preset.compression` pixels, of which only a whole number is possible, and Stage B
    halves its latents `levels - 1` times. For the paper's sizes this is 128.
    """
    of_c = chosen.image_size // math.gcd(chosen.image_size, chosen.compressed_size)
    of_b = 2**chosen.stage_a.levels * chosen.stage_b.patch * 2 ** (len(chosen.stage_b.widths) - 1)
    return math.lcm(of_c, of_b)


def grids(chosen: Preset, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of Stage C's and of Stage A's latents for a picture of that size in pixels.

    Sides may be up to half as long again as what the model was made for (the paper trains up to 1536 for 1024). Raises
    ValueError that names the nearest possible sizes.
    """
    step = grid_step(chosen)
    largest = chosen.image_size * 3 // 2 // step * step
    for name, side in (("width", width), ("height", height)):
        if side % step or not step <= side <= largest:
            below = min(max(side // step * step, step), largest)
            near = sorted({below, min(below + step, largest)}) if step < side < largest else [below]
            raise ValueError(
                f"{name}: {side} pixels cannot be drawn; nearest is {' or '.join(map(str, near))} (multiples of {step}"
                f" up to {largest})"
            )
    c, a = chosen.compressed_size, 2**chosen.stage_a.levels
    return (
        (height * c // chosen.image_size, width * c // chosen.image_size),
        (height // a, width // a),
    )


def settings(chosen: Preset, name: str | None = None, **changed: Steps | float | None) -> Sampling:
    """Named sampling settings, or else those of a preset, with those replaced that are not None.

    What Stage B starts from stays the preset's, as the weights were trained for it. Raises ValueError that names a bad
    setting.
    """
    if name is not None and name not in SAMPLING:
        raise ValueError(f"sampling: {name!r} is not known; use {' or '.join(SAMPLING)}")
    how = SAMPLING[name or "paper"] if name or chosen.sampling is None else chosen.sampling
    changed = {key: value for key, value in changed.items() if value is not None}
    how = replace(how, **changed, start_b=chosen.sampling.start_b if chosen.sampling else "noise")
    for key in ("steps_c", "steps_b"):
        steps = getattr(how, key)
        if isinstance(steps, int) and steps < 1:
            raise ValueError(f"{key}: {steps}; use a whole number of at least 1")
        if not isinstance(steps, int) and (
            len(steps) < 2 or steps[0] != 1 or steps[-1] != 0 or list(steps) != sorted(set(steps), reverse=True)
        ):
            raise ValueError(f"{key}: {steps}; timesteps must fall from 1 to 0")
    return how


def negatives(prompts: str | Sequence[str] | None, count: int, how: Sampling) -> list[str]:
    """The negative prompt of each picture. Raises ValueError where their number is wrong or nothing would heed them."""
    if prompts is None:
        return [""] * count
    if how.guidance_c == 1 and how.guidance_b == 1:
        raise ValueError("negative_prompts: they need guidance, and guidance_c and guidance_b are both 1")
    each = [prompts] * count if isinstance(prompts, str) else list(prompts)
    if len(each) != count:
        raise ValueError(f"negative_prompts: {len(each)} for {count} prompts; give one, or one for each")
    return each


class ImageNoise:
    """Standard normal noise that depends, image by image, on (seed, prompt id, purpose) alone, whatever the device."""

    def __init__(self, seed: int, ids: Sequence[str], purpose: str, device: str | torch.device = "cpu"):
        self.generators = [generator(seed, name, purpose) for name in ids]
        self.device = torch.device(device)

    def __call__(self, shape: Sequence[int]) -> Tensor:
        noise = torch.stack([torch.randn(tuple(shape[1:]), generator=g) for g in self.generators])
        noise = noise.contiguous(memory_format=torch.channels_last)
        if self.device.type == "cuda":
            noise = noise.pin_memory()  # else the copy would wait until the GPU has done all that it was given before
        return noise.to(self.device, non_blocking=True)

    def tokens(self, codebook: Tensor, size: tuple[int, int]) -> Tensor:
        """Random entries of a codebook (codes, c) for maps of that height and width: (n, c, *size)."""
        drawn = torch.stack([torch.randint(len(codebook), size, generator=g) for g in self.generators])
        return codebook[drawn.to(codebook.device)].permute(0, 3, 1, 2)


def to_uint8(images: Tensor) -> np.ndarray:
    """Float images (n, 3, h, w) in about [0, 1] as uint8 (n, h, w, 3), rounded to nearest."""
    return images.float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def doubled(text: Tensor, null: Tensor, scale: float) -> Tensor:
    """Tokens of the prompts, followed by those of the empty prompt where guidance needs them."""
    return text if scale == 1 else torch.cat([text, null.expand(len(text), -1, -1)])


def twice(x: Tensor, scale: float) -> Tensor:
    """A batch for the conditional and, where guidance needs it, the unconditional prediction."""
    return x if scale == 1 else torch.cat([x, x])


def guided(predicted: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance over a doubled batch."""
    return predicted if scale == 1 else guide(*predicted.chunk(2), scale)


def guided_noise(
    network: nn.Module,
    objective: Callable[[Tensor, Tensor, Tensor], Tensor],
    condition: object,
    scale: float,
    shared: bool = False,
) -> Callable[[Tensor, Tensor], Tensor]:
    """predict(x, t) for `sample`: the guided noise of a network whose condition is doubled where guidance needs it.

    The network computes in the precision of its weights, all else in float32. shared: the network itself repeats what
    is the same for both predictions, as Stage C can.
    """
    dtype = next(network.parameters()).dtype

    def predict(x: Tensor, t: Tensor) -> Tensor:
        both = twice(x, scale)
        a, b = network((x if shared else both).to(dtype), twice(t, scale), condition)
        return guided(objective(both, a, b), scale)

    return predict
