"""Pairs of networks with the same random weights: ours and those of diffusers, which we did not write.

diffusers computes some values in float32 whatever its networks run in; `in_double` lifts that, so that a comparison can
be made in float64.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from wuerstchen import convert
from wuerstchen.diffusion import OBJECTIVES, CosineSchedule, predicted_noise_c, sample
from wuerstchen.pipeline import guided_noise
from wuerstchen.presets import StageAConfig, StageCConfig, UNetConfig
from wuerstchen.stage_a import StageA
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC

SMALL_A = StageAConfig(bottleneck_blocks=2, width=32, codebook_size=64)
SMALL_B = UNetConfig(
    widths=(16, 32, 32), heads=(0, 2, 4), levels=("CT", "CTA", "CTA"), down=(1, 2, 1), up=(1, 2, 1),
    inject_image=(False, True, True), c_cond=24, c_text=20, dropout=0.0,
)  # fmt: skip
SMALL_C = StageCConfig(width=32, c_text=20, depth=3, heads=4, dropout=0.0)


def randomised(module: nn.Module, scale_output: nn.Module | None = None) -> nn.Module:
    """Random values in every parameter and buffer, such that activations stay about 1; of no initialisation's zeros.

    With `scale_output`, the last convolution has a twentieth of that and no bias: otherwise dividing by |1 - B| + 1e-5
    makes any rounding large.
    """
    with torch.no_grad():
        for name, p in module.named_parameters():
            inputs = p[0].numel() if p.dim() > 1 and "gamma" not in name and "beta" not in name else 100
            p.copy_(torch.randn(p.shape) / inputs**0.5)
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.copy_(0.1 * torch.randn(layer.running_mean.shape))
                layer.running_var.copy_(0.5 + torch.rand(layer.running_var.shape))
        if scale_output is not None:
            scale_output.weight.mul_(0.05)
            scale_output.bias.zero_()
    return module.eval().requires_grad_(False)


def empty(make: Callable[[], nn.Module], device: str = "meta") -> nn.Module:
    """A network without values. The initialisation of diffusers' Stage B walks all blocks once per layer."""
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenDiffNeXt

    with pytest.MonkeyPatch.context() as patch, torch.device(device):
        patch.setattr(WuerstchenDiffNeXt, "_init_weights", lambda self, module: None)
        return make()


def their_stage_a(config: StageAConfig) -> nn.Module:
    """diffusers' `PaellaVQModel` of the same sizes, on the meta device."""
    from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel

    return empty(
        lambda: PaellaVQModel(
            levels=config.levels,
            bottleneck_blocks=config.bottleneck_blocks,
            embed_dim=config.width,
            latent_channels=config.c_latent,
            num_vq_embeddings=config.codebook_size,
        )
    )


def their_stage_b(config: UNetConfig) -> nn.Module:
    """diffusers' `WuerstchenDiffNeXt` of the same sizes, on the meta device."""
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenDiffNeXt

    return empty(
        lambda: WuerstchenDiffNeXt(
            c_in=config.c_in,
            c_out=config.c_in,
            c_r=config.c_timestep,
            patch_size=config.patch,
            c_cond=config.c_cond,
            c_hidden=list(config.widths),
            nhead=[heads or -1 for heads in config.heads],
            blocks=list(config.down),
            level_config=list(config.levels),
            inject_effnet=list(config.inject_image),
            effnet_embd=config.c_image,
            clip_embd=config.c_text,
            dropout=config.dropout,
        )
    )


def their_stage_c(config: StageCConfig) -> nn.Module:
    """diffusers' `WuerstchenPrior` of the same sizes, on the meta device."""
    from diffusers.pipelines.deprecated.wuerstchen import WuerstchenPrior

    return empty(
        lambda: WuerstchenPrior(
            c_in=config.c_in,
            c=config.width,
            c_cond=config.c_text,
            c_r=config.c_timestep,
            depth=config.depth,
            nhead=config.heads,
            dropout=config.dropout,
        )
    )


THEIRS = {"stage-a": their_stage_a, "stage-b": their_stage_b, "stage-c": their_stage_c}
OURS = {"stage-a": StageA, "stage-b": UNet, "stage-c": StageC}


def pair(part: str, config, scaled: bool = False, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """Our network and theirs with the same random weights; they share what memory they can."""
    torch.manual_seed(0)
    ours = OURS[part](config)
    output = {"stage-b": "clf", "stage-c": "out"}.get(part)
    randomised(ours, getattr(ours, output)[1] if scaled else None).to(dtype)
    theirs = THEIRS[part](config)
    theirs.load_state_dict(convert.to_diffusers(part, ours.state_dict()), strict=True, assign=True)
    return ours, theirs.eval().requires_grad_(False)


@contextmanager
def in_double(dtype: torch.dtype) -> Iterator[None]:
    """Where dtype is float64, what asks for float32 gets float64."""
    with pytest.MonkeyPatch.context() as patch:
        if dtype == torch.float64:
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield


def a_and_b(net: nn.Module, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """A and B of diffusers' Stage C, which returns only the noise made of them."""
    seen = []
    handle = net.out.register_forward_hook(lambda module, args, output: seen.append(output))
    net(*inputs)
    handle.remove()
    return seen[0].chunk(2, dim=1)


def inputs(
    c_in: int, size: int, c_text: int, dtype: torch.dtype, words: int = 7, n: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Noised latents, timesteps and text tokens."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, c_in, size, size, generator=g, dtype=dtype)
    text = torch.randn(n, words, c_text, generator=g, dtype=dtype)
    return x, torch.linspace(0.1, 1, n, dtype=dtype), text


def scheduler(times: Tensor):
    """diffusers' scheduler with given timesteps, in their precision."""
    from diffusers import DDPMWuerstchenScheduler

    made = DDPMWuerstchenScheduler()
    made.s = torch.tensor([0.008], dtype=times.dtype)
    made._init_alpha_cumprod = torch.cos(made.s / (1 + made.s) * torch.pi * 0.5) ** 2
    made.set_timesteps(timesteps=times)
    return made


def equal_steps(steps: int, dtype: torch.dtype) -> Tensor:
    """Timesteps from 1 to 0."""
    return torch.tensor([1 - i / steps for i in range(steps)] + [0.0], dtype=dtype)


def our_chain(a: StageA, b: UNet, c: StageC, text: Tensor, null: Tensor, guidance: float, sides: tuple[int, int]):
    """Pictures by our networks and sampler; text and null: tokens (n, l, d) for both stages."""
    n, both = len(text), torch.cat([text, null])
    noise = torch.Generator().manual_seed(5)

    def randn(shape) -> Tensor:
        return torch.randn(tuple(shape), generator=noise, dtype=text.dtype)

    predict = guided_noise(c, predicted_noise_c, c.condition(both), guidance)
    latents = sample(predict, (n, c.config.c_in, sides[0], sides[0]), 60, randn, CosineSchedule()) * 42 - 1
    noise.manual_seed(6)
    image = torch.cat([latents, torch.zeros_like(latents)])
    condition = b.condition(both, image, (sides[1], sides[1]))
    predict = guided_noise(b, OBJECTIVES[b.config.objective], condition, guidance)
    latents = sample(predict, (n, b.config.c_in, sides[1], sides[1]), 12, randn, CosineSchedule())
    return a.decode(latents * a.config.scale_factor)


def their_chain(a, b, c, text: Tensor, null: Tensor, guidance: float, sides: tuple[int, int], scale: float) -> Tensor:
    """The same by diffusers' networks and scheduler, as its two pipelines put them together."""
    n, both = len(text), torch.cat([text, null])

    def sampled(net: Callable[[Tensor, Tensor], Tensor], channels: int, side: int, steps: int, seed: int) -> Tensor:
        noise, times = torch.Generator().manual_seed(seed), equal_steps(steps, text.dtype)
        ddpm = scheduler(times)
        x = torch.randn(n, channels, side, side, generator=noise, dtype=text.dtype)
        for t in times[:-1]:
            t = t.expand(n)
            conditional, unconditional = net(torch.cat([x, x]), torch.cat([t, t])).chunk(2)
            guided = torch.lerp(unconditional, conditional, guidance)
            x = ddpm.step(guided, t, x, generator=noise).prev_sample
        return x

    with in_double(text.dtype):
        latents = sampled(lambda x, t: c(x, t, both), c.config.c_in, sides[0], 60, 5) * 42 - 1
        image = torch.cat([latents, torch.zeros_like(latents)])
        latents = sampled(lambda x, t: b(x, t, image, both), b.config.c_in, sides[1], 12, 6)
        return a.decode(latents * scale).sample
