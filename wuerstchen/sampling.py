"""How a picture is drawn: named sampling settings, and the sizes that the networks allow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wuerstchen.presets import Preset

Steps = int | tuple[float, ...]  # a number of equal steps, or all timesteps from 1 to 0


@dataclass(frozen=True)
class Sampling:
    """Steps and guidance scales of Stages C and B; a scale of 1 means no guidance."""

    steps_c: Steps
    guidance_c: float
    steps_b: Steps
    guidance_b: float


def ranges(*parts: tuple[float, int]) -> tuple[float, ...]:
    """Timesteps from 1 down to each part's end in its number of equal steps."""
    times = [1.0]
    for end, count in parts:
        start = times[-1]
        times += [start + (end - start) * i / count for i in range(1, count + 1)]
    return tuple(times)


SAMPLING = {
    # 3.3 and E: 60 and 12 steps, w_B 4; the paper does not state w_C, which is taken to be the same
    "paper": Sampling(steps_c=60, guidance_c=4.0, steps_b=12, guidance_b=4.0),
    # the released sampler: 20 steps to 2/3 and 10 to 0; Stage B is not guided
    "released": Sampling(steps_c=ranges((2 / 3, 20), (0.0, 10)), guidance_c=4.0, steps_b=12, guidance_b=1.0),
}


def grid_step(preset: Preset) -> int:
    """Pixels of which a picture's width and height must be multiples.

    Each of Stage C's latents covers `preset.compression` pixels, of which only a whole number is possible, and Stage B
    halves its latents `levels - 1` times. For the paper's sizes this is 128.
    """
    of_c = preset.image_size // math.gcd(preset.image_size, preset.compressed_size)
    of_b = 2**preset.stage_a.levels * preset.stage_b.patch * 2 ** (len(preset.stage_b.widths) - 1)
    return math.lcm(of_c, of_b)


def grids(preset: Preset, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of Stage C's and of Stage A's latents for a picture of that size in pixels.

    Sides may be up to half as long again as what the model was made for (the paper trains up to 1536 for 1024). Raises
    ValueError that names the nearest possible sizes.
    """
    step = grid_step(preset)
    largest = preset.image_size * 3 // 2 // step * step
    for name, side in (("width", width), ("height", height)):
        if side % step or not step <= side <= largest:
            below = min(max(side // step * step, step), largest)
            near = sorted({below, min(below + step, largest)}) if step < side < largest else [below]
            raise ValueError(
                f"{name}: {side} pixels cannot be drawn; nearest is {' or '.join(map(str, near))} (multiples of {step}"
                f" up to {largest})"
            )
    c, a = preset.compressed_size, 2**preset.stage_a.levels
    return (
        (height * c // preset.image_size, width * c // preset.image_size),
        (height // a, width // a),
    )


def settings(name: str, **changed: Steps | float | None) -> Sampling:
    """The named sampling settings with those replaced that are not None. Raises ValueError that names a bad one."""
    if name not in SAMPLING:
        raise ValueError(f"sampling: {name!r} is not known; use {' or '.join(SAMPLING)}")
    how = replace(SAMPLING[name], **{key: value for key, value in changed.items() if value is not None})
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
