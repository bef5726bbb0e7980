"""Schedule, objective, loss weights and sampler: small separate objects that training and sampling share.

Timesteps are continuous, t in [0, 1]; t = 1 is pure noise. All of this runs in float32 where the networks run in half
precision, and in float64 where they do.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wuerstchen.blocks import wide


@dataclass(frozen=True)
class CosineSchedule:
    """Cosine schedule (Nichol and Dhariwal, 2021) with the released code's offset and clamp: the paper gives none."""

    s: float = 0.008
    clamp: tuple[float, float] = (1e-4, 0.9999)

    def alpha_bar(self, t: Tensor) -> Tensor:
        """Share of signal variance left at t, the paper's alpha-bar; t: any shape in [0, 1]."""
        angle = (wide(t) + self.s) / (1 + self.s) * (math.pi / 2)
        return (angle.cos() ** 2 / math.cos(self.s / (1 + self.s) * math.pi / 2) ** 2).clamp(*self.clamp)

    def add_noise(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Forward diffusion (3.2): sqrt(alpha-bar) x + sqrt(1 - alpha-bar) noise; t: (n,)."""
        alpha_bar = self.alpha_bar(t).view(-1, *[1] * (x.dim() - 1))
        return alpha_bar.sqrt() * wide(x) + (1 - alpha_bar).sqrt() * noise


def predicted_noise_c(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The A/B objective of Stage C (3.2): (x - A) / (|1 - B| + 1e-5); x itself where A = B = 0, as at first."""
    return (x - a) / ((1 - b).abs() + 1e-5)


def predicted_noise_b(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The released code's objective of Stage B: (x - A) / B with B in [0.001, 0.999]; 2x at initialisation."""
    return (x - a) / b


# How a U-Net's A and B make the predicted noise (`UNetConfig.objective`): the paper words only Stage C's.
OBJECTIVES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sigmoid": predicted_noise_b,
    "ab": predicted_noise_c,
}


def p2_paper(alpha_bar: Tensor) -> Tensor:
    """The paper's loss weight (3.2): (1 - alpha-bar) / (1 + alpha-bar)."""
    return (1 - alpha_bar) / (1 + alpha_bar)


def p2_code(alpha_bar: Tensor) -> Tensor:
    """The released code's loss weight, Choi et al. (2022) with k = gamma = 1: 1 / (1 + SNR) = 1 - alpha-bar."""
    return 1 / (1 + alpha_bar / (1 - alpha_bar))


def velocity(alpha_bar: Tensor) -> Tensor:
    """What a loss on the velocity (Salimans and Ho, 2022) weighs the noise with: 1 / alpha-bar, here at most 20.

    At high noise, where a picture's outline and colours are decided, the noise itself is predicted well by a network
    that ignores all conditions; a short training under the other weights never learns to use them.
    """
    return 1 / alpha_bar.clamp(min=0.05)


def uniform_weight(alpha_bar: Tensor) -> Tensor:
    """No weighting."""
    return torch.ones_like(alpha_bar)


LOSS_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "p2-paper": p2_paper,
    "p2-code": p2_code,
    "velocity": velocity,
    "none": uniform_weight,
}


def timesteps_uniform(u: Tensor) -> Tensor:
    """Continuous uniform timesteps, the paper's wording: u in [0, 1) gives t in (0, 1]."""
    return 1 - u


def timesteps_released(u: Tensor) -> Tensor:
    """The released code's timesteps: (1 - u) 1.08 + 0.001, clamped to [0.001, 1], so 7.5 % are pure noise."""
    return ((1 - u) * 1.08 + 0.001).clamp(0.001, 1.0)


TIMESTEP_SAMPLING: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": timesteps_uniform,
    "released": timesteps_released,
}


def noise_loss(predicted: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """Mean over the batch of weight * MSE(predicted, noise) per sample; weight: (n,)."""
    return ((predicted - noise).square().flatten(1).mean(1) * weight).mean()


def ddpm_step(
    x: Tensor, predicted: Tensor, alpha_bar: float, alpha_bar_previous: float, noise: Tensor | None
) -> Tensor:
    """One step of DDPM sampling (3.3) from alpha-bar of t to that of t - 1; noise None gives the mean (last step)."""
    alpha = alpha_bar / alpha_bar_previous
    mean = (x - (1 - alpha) / math.sqrt(1 - alpha_bar) * predicted) / math.sqrt(alpha)
    if noise is None:
        return mean
    return mean + math.sqrt((1 - alpha) * (1 - alpha_bar_previous) / (1 - alpha_bar)) * noise


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance; scale 1 is the conditional prediction alone."""
    return torch.lerp(unconditional, conditional, scale)


def sample(
    predict: Callable[[Tensor, Tensor], Tensor],
    shape: Sequence[int],
    steps: int | Sequence[float],
    randn: Callable[[Sequence[int]], Tensor],
    schedule: CosineSchedule,
    start: Tensor | None = None,
) -> Tensor:
    """DDPM sampling from t = 1 to 0 in a number of equal steps, or at the timesteps given, these two among them.

    predict(x, t): noise predicted for x of `shape` at t of shape (n,). randn(shape): standard normal noise; it is asked
    first for the start (unless `start` is given), then once per step but the last. Returns float32 of `shape`, or
    float64 where the start is.
    """
    x = wide(randn(shape) if start is None else start)
    # alpha-bar of the whole path is known beforehand: nothing in the loop waits for the device
    equal = isinstance(steps, int)
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64) if equal else torch.tensor(steps, dtype=torch.float64)
    alpha_bars = schedule.alpha_bar(times.to(x.dtype)).tolist()
    for i, time in enumerate(times.tolist()[:-1]):
        t = torch.full((shape[0],), time, device=x.device, dtype=x.dtype)
        last = i == len(times) - 2
        x = ddpm_step(x, predict(x, t), alpha_bars[i], alpha_bars[i + 1], None if last else randn(shape))
    return x
