"""diffusers' Würstchen modules with our weights, in the loops of its pipelines and of its training script.

The pipelines themselves cannot be called: `from_pretrained` fails on the published files, and the decoder's fails for
more than one prompt (huggingface/diffusers#5009).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMWuerstchenScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import WuerstchenDiffNeXt
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior
from diffusers.training_utils import EMAModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from wuerstchen.convert import to_diffusers
from wuerstchen.presets import Recipe, StageAConfig, StageCConfig, Steps, UNetConfig
from wuerstchen.published import Networks
from wuerstchen.sampling import grids, settings, to_uint8
from wuerstchen.seeds import generator


class Decoder(WuerstchenDiffNeXt):
    """Stage B without its initialisation, which visits all blocks once for each layer."""

    def _init_weights(self, m: nn.Module) -> None:
        pass


def prior(config: StageCConfig) -> WuerstchenPrior:
    """Stage C in diffusers' sizes."""
    return WuerstchenPrior(
        c_in=config.c_in, c=config.width, c_cond=config.c_text, c_r=config.c_timestep, depth=config.depth,
        nhead=config.heads, dropout=config.dropout,
    )  # fmt: skip


def decoder(config: UNetConfig) -> WuerstchenDiffNeXt:
    """Stage B in diffusers' sizes."""
    return Decoder(
        c_in=config.c_in, c_out=config.c_in, c_r=config.c_timestep, patch_size=config.patch, c_cond=config.c_cond,
        c_hidden=list(config.widths), nhead=[heads or -1 for heads in config.heads], blocks=list(config.down),
        level_config=list(config.levels), inject_effnet=list(config.inject_image), effnet_embd=config.c_image,
        clip_embd=config.c_text, dropout=config.dropout,
    )  # fmt: skip


def vqgan(config: StageAConfig) -> PaellaVQModel:
    """Stage A in diffusers' sizes."""
    return PaellaVQModel(
        levels=config.levels, bottleneck_blocks=config.bottleneck_blocks, embed_dim=config.width,
        latent_channels=config.c_latent, num_vq_embeddings=config.codebook_size, scale_factor=config.scale_factor,
    )  # fmt: skip


def with_weights(make, config, part: str, ours: nn.Module) -> nn.Module:
    """diffusers' module of a part on the same memory as our network."""
    with torch.device("meta"):
        module = make(config)
    module.load_state_dict(to_diffusers(part, ours.state_dict()), strict=True, assign=True)
    return module.eval().requires_grad_(False)


class Diffusers:
    """Called like `wuerstchen.pipeline.Pipeline`, with the same noise.

    sdpa: fused attention in the prior, which has the legacy processor by default. `device_noise`: noise is drawn on the
    device, as it is where no generator is given; the outputs then differ.
    """

    def __init__(self, networks: Networks, sdpa: bool = False, compiled: bool = False):
        self.networks, self.preset, self.device_noise = networks, networks.preset, False
        chosen = networks.preset
        self.prior = with_weights(prior, chosen.stage_c, "stage-c", networks.stage_c)
        self.decoder = with_weights(decoder, chosen.stage_b, "stage-b", networks.stage_b)
        self.vqgan = with_weights(vqgan, chosen.stage_a, "stage-a", networks.stage_a)
        self.scheduler = DDPMWuerstchenScheduler()
        weight = networks.stage_c.projection.weight
        self.device, self.dtype = weight.device, weight.dtype
        if sdpa:
            self.prior.set_attn_processor(AttnProcessor2_0())
        if compiled:
            for module in (self.prior, self.decoder, self.vqgan.up_blocks):
                module.compile()

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], seed: int, sampling: str, **changed: Steps | float) -> np.ndarray:
        """Pictures, uint8 (n, h, w, 3)."""
        how = settings(self.preset, sampling, **changed)
        ids = [str(i) for i in range(len(prompts))]
        grid_c, grid_b = grids(self.preset, self.preset.image_size, self.preset.image_size)
        negative = [""] * len(prompts)
        latents = self.sample_c(prompts, negative, ids, seed, grid_c, how.steps_c, how.guidance_c)
        latents = self.sample_b(latents, prompts, negative, ids, seed, grid_b, how.steps_b, how.guidance_b)
        return to_uint8(self.decode(latents).clamp(0, 1))

    def denoise(self, predict, shape, steps: Steps, guidance: float, ids, seed: int, purpose: str) -> Tensor:
        """The loop of both pipelines."""
        generators = None if self.device_noise else [generator(seed, name, purpose) for name in ids]
        if isinstance(steps, int):
            self.scheduler.set_timesteps(steps, device=self.device)
        else:
            self.scheduler.set_timesteps(timesteps=list(steps), device=self.device)
        x = randn_tensor(shape, generator=generators, device=self.device, dtype=self.dtype)
        for t in self.scheduler.timesteps[:-1]:
            ratio = t.expand(len(x)).to(self.dtype)
            if guidance > 1:
                both = predict(torch.cat([x] * 2), torch.cat([ratio] * 2))
                text, unconditional = both.chunk(2)
                predicted = torch.lerp(unconditional, text, guidance)
            else:
                predicted = predict(x, ratio)
            x = self.scheduler.step(predicted, ratio, x, generator=generators).prev_sample
        return x

    def tokens(self, encoder, prompts, negative, guidance: float) -> Tensor:
        texts = [*prompts, *negative] if guidance > 1 else list(prompts)
        return encoder.encode(texts).to(self.device, self.dtype)

    def sample_c(self, prompts, negative, ids, seed: int, grid, steps: Steps, guidance: float) -> Tensor:
        """Stage C's latents."""
        text = self.tokens(self.networks.text_c, prompts, negative, guidance)
        shape = (len(prompts), self.prior.config.c_in, *grid)
        return self.denoise(lambda x, r: self.prior(x, r=r, c=text), shape, steps, guidance, ids, seed, "stage-c")

    def sample_b(self, latents, prompts, negative, ids, seed: int, grid, steps: Steps, guidance: float) -> Tensor:
        """Stage A's latents."""
        text = self.tokens(self.networks.text_b, prompts, negative, guidance)
        image = latents * 42.0 - 1.0
        image = torch.cat([image, torch.zeros_like(image)]) if guidance > 1 else image

        def predict(x: Tensor, r: Tensor) -> Tensor:
            return self.decoder(x, r=r, effnet=image, clip=text)

        return self.denoise(predict, (len(prompts), 4, *grid), steps, guidance, ids, seed, "stage-b")

    def decode(self, latents: Tensor) -> Tensor:
        """Images (n, 3, h, w)."""
        return self.vqgan.decode(self.vqgan.config.scale_factor * latents).sample


class DiffusersTraining:
    """A training of Stage C as diffusers' own script makes it (train_text_to_image_prior.py, with --use_ema).

    Its loss has no weight and its text is never dropped. What the script leaves to its user is the recipe's: learning
    rate, betas, weight decay, the norm that gradients are clipped to. Where the script draws timesteps and noise in
    bf16 they stay float32, so that both sides draw the same.

    stage_c: our network, whose memory becomes the module's. sdpa: fused attention in the place of the legacy processor,
    which is the module's own choice.
    """

    def __init__(self, stage_c: nn.Module, recipe: Recipe, bf16: bool, sdpa: bool = False, compiled: bool = False):
        self.prior = with_weights(prior, stage_c.config, "stage-c", stage_c).train().requires_grad_(True)
        if sdpa:
            self.prior.set_attn_processor(AttnProcessor2_0())
        if compiled:
            for block in self.prior.blocks:
                block.compile(dynamic=False)
        self.scheduler, self.bf16, self.clip = DDPMWuerstchenScheduler(), bf16, recipe.clip
        rate, decay = recipe.learning_rate, recipe.weight_decay
        self.optimiser = torch.optim.AdamW(self.prior.parameters(), rate, recipe.betas, weight_decay=decay)
        self.averaged = EMAModel(self.prior.parameters(), model_cls=WuerstchenPrior, model_config=self.prior.config)

    def update(self, latents: Tensor, text: Tensor, random: torch.Generator) -> Tensor:
        """One step on latents (n, c, h, w) and text tokens (n, l, d). Returns the loss, detached."""
        with torch.no_grad():
            u = torch.rand(len(latents), generator=random, device=latents.device)
            noise = torch.randn(latents.shape, generator=random, device=latents.device)
            timesteps = 1 - u
            noised = self.scheduler.add_noise(latents, noise, timesteps)
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=self.bf16):
            predicted = self.prior(noised, timesteps, text)
        loss = F.mse_loss(predicted.float(), noise.float(), reduction="mean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.prior.parameters(), self.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.averaged.step(self.prior.parameters())
        return loss.detach()
