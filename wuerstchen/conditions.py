"""What training does to the conditions: dropped for guidance (3.1, 3.2), noised so that Stage B forgives Stage C."""

from collections.abc import Callable

import torch
from torch import Tensor

from wuerstchen.diffusion import CosineSchedule
from wuerstchen.presets import DiffusionRecipe


def each_sample(u: Tensor) -> Tensor:
    """Every sample has a draw of its own."""
    return u


def whole_batch(u: Tensor) -> Tensor:
    """The first draw decides for all samples, as in the released code: a batch has its conditions or has none."""
    return u[:1].expand_as(u)


# What one of the uniform draws (n,) decides for (`drop_text_per`, `drop_image_per`).
DRAWS: dict[str, Callable[[Tensor], Tensor]] = {"sample": each_sample, "batch": whole_batch}


def disturbed(image: Tensor, recipe: DiffusionRecipe, schedule: CosineSchedule, random: torch.Generator) -> Tensor:
    """Compressor latents (n, c, h, w) as Stage B is trained on them: some are zeros, some are noised, others as given.

    Of those that are not dropped a share `noise_image` is noised, by up to t = `noise_image_until`.
    """
    u, until = torch.rand(2, len(image), generator=random, device=image.device)
    noise = torch.randn(image.shape, generator=random, device=image.device)
    noised = schedule.add_noise(image, until * recipe.noise_image_until, noise)
    u = DRAWS[recipe.drop_image_per](u)[:, None, None, None]
    image = torch.where(u < recipe.drop_image + (1 - recipe.drop_image) * recipe.noise_image, noised, image)
    return image * (u >= recipe.drop_image)
