"""What is trained on a cluster: networks, the frozen networks around them, and the losses of a batch of any size.

`wuerstchen.tasks` holds the same for a study whose pictures fit in memory; schedule, objectives and loss weights are
shared. An objective is a module, so that DDP and FSDP2 can wrap it: its children are what is trained. Frozen networks
are not among them and run before, without gradients.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.clip import Clip
from wuerstchen.compressor import SemanticCompressor
from wuerstchen.conditions import DRAWS, disturbed
from wuerstchen.diffusion import (
    LOSS_WEIGHTS,
    OBJECTIVES,
    TIMESTEP_SAMPLING,
    CosineSchedule,
    noise_loss,
    predicted_noise_c,
)
from wuerstchen.first_stage import load_first_stage
from wuerstchen.perceptual import perceptual_loss
from wuerstchen.precompute import load_compressor
from wuerstchen.presets import Phase, Preset, TextConfig, to_dict
from wuerstchen.scaling import latent_scaling, scale_latents
from wuerstchen.seeds import generator
from wuerstchen.stage_a import Discriminator, StageA
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC
from wuerstchen.text import TextEncoder, text_encoder
from wuerstchen.webdata import View

Losses = dict[str, Tensor]


def as_images(pictures: Tensor, device: torch.device) -> Tensor:
    """uint8 pictures (n, 3, h, w) as float32 in [0, 1] on the device, channels last in memory."""
    return pictures.to(device, non_blocking=True).float().div(255).contiguous(memory_format=torch.channels_last)


def each_mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of each sample, float32 (n,)."""
    return (x.float() - y.float()).square().flatten(1).mean(1)


class Objective(nn.Module):
    """Base of all: `networks` are trained and saved under their names; `frozen` are used as they are."""

    columns: tuple[str, ...] = ("loss",)

    def __init__(self, networks: dict[str, nn.Module], frozen: dict[str, nn.Module], device: torch.device):
        super().__init__()
        self.networks = nn.ModuleDict(networks).to(device).train()
        self.device = device
        # a plain dictionary: neither wrapped, saved nor averaged
        self.frozen = {name: module.to(device).eval().requires_grad_(False) for name, module in frozen.items()}

    def prepare(self, batch: dict) -> dict[str, Tensor]:
        """What `forward` needs of a batch as the loader gives it, computed by frozen networks without gradients."""
        raise NotImplementedError

    def forward(self, inputs: dict[str, Tensor], random: torch.Generator | None, step: int) -> Losses:
        """Losses of prepared inputs; "loss" is what is minimised. `random` None means validation: "loss" is that of
        each sample, (n,), and nothing is drawn."""
        raise NotImplementedError

    def fixed(self, inputs: dict[str, Tensor], numbers: Sequence[int], total: int, seed: int) -> dict[str, Tensor]:
        """Prepared inputs with all that training draws and validation keeps: those of the held-out samples `numbers` of
        `total` are the same at every check, whatever else is in the batch."""
        return inputs

    def adversary(self) -> nn.Module | None:
        """A network that is trained against the others, on the loss "discriminator"."""
        return None

    def metadata(self, averaged: dict[str, Tensor], pictures) -> dict:
        """What must be known to use the weights. averaged: those that are saved; pictures(n): training pictures, uint8
        (n, 3, h, w), or None where there are none."""
        raise NotImplementedError


class StageAObjective(Objective):
    """Stage A (E.1): squared error, perceptual and, later, adversarial loss; quantisation dropped at times."""

    columns = ("loss", "mse", "perceptual", "vq", "adversarial", "discriminator", "codes_used")

    def __init__(self, preset: Preset, device: torch.device, lpips: Path | None):
        self.preset, self.recipe = preset, preset.recipes["a"]
        if self.recipe.revive_codes_every:
            raise ValueError(
                "revive_codes_every moves codes onto one process's latents; set it to 0 (--set revive_codes_every=0)"
            )
        frozen = {"perceptual": perceptual_loss(self.recipe.perceptual, lpips)}
        super().__init__({"stage_a": StageA(preset.stage_a)}, frozen, device)
        self.frozen["discriminator"] = Discriminator(self.recipe.discriminator_width, self.recipe.discriminator_depth)
        self.frozen["discriminator"].to(device).train()

    def adversary(self) -> nn.Module:
        return self.frozen["discriminator"]

    def prepare(self, batch: dict) -> dict[str, Tensor]:
        return {"images": as_images(batch["image"], self.device)}

    def forward(self, inputs: dict[str, Tensor], random: torch.Generator | None, step: int) -> Losses:
        recipe, real, discriminator = self.recipe, inputs["images"], self.adversary()
        if random is None:  # unquantised latents, as Stage B uses them
            stage_a = self.networks["stage_a"]
            return {"loss": each_mse(stage_a.decode(stage_a.encode(real)).clamp(0, 1), real)}
        keep = torch.rand(len(real), generator=random, device=self.device) >= recipe.drop_quantisation
        fake, indices, vq = self.networks["stage_a"](real, keep)
        fake = fake.float()
        mse, perceptual = F.mse_loss(fake, real), self.frozen["perceptual"](fake, real)
        loss = mse + vq + recipe.perceptual_weight * perceptual
        parts = {"mse": mse, "perceptual": perceptual, "vq": vq}
        if step >= recipe.adversarial_from:
            discriminator.requires_grad_(False)  # the generator's loss leaves no gradients there
            parts["adversarial"] = F.softplus(-discriminator(fake).float()).mean()
            discriminator.requires_grad_(True)
            loss = loss + recipe.adversarial_weight * parts["adversarial"]
            on_real, on_fake = discriminator(real).float(), discriminator(fake.detach()).float()
            parts["discriminator"] = 0.5 * (F.softplus(-on_real).mean() + F.softplus(on_fake).mean())
        used = torch.zeros(self.preset.stage_a.codebook_size, device=self.device)
        parts["codes_used"] = used.index_fill_(0, indices.flatten(), 1.0).sum()  # `unique` would wait for the GPU
        return {"loss": loss, **parts}

    @torch.inference_mode()
    def metadata(self, averaged: dict[str, Tensor], pictures) -> dict:
        """The diffusion stages want latents of unit variance, so the encoder's scale is measured, on the CPU."""
        stage_a = StageA(self.preset.stage_a)
        prefix = "stage_a."
        stage_a.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in averaged.items()})
        images = as_images(pictures(512), torch.device("cpu"))
        latents = torch.cat([stage_a.eval().encode(some) for some in images.split(16)])
        return {"stage_a": to_dict(self.preset.stage_a) | {"scale_factor": latents.std().item()}}


class DiffusionObjective(Objective):
    """What Stages B and C and the baseline share: text, timesteps, noise and the weighted loss on it."""

    def __init__(self, preset: Preset, stage: str, networks, frozen, device, text: TextConfig | None, null):
        """text: the encoder of captions; None where tokens are precomputed, with those of the empty prompt in null."""
        super().__init__(networks, frozen, device)
        self.preset, self.recipe = preset, preset.recipes[stage]
        self.schedule = CosineSchedule()
        self.weight = LOSS_WEIGHTS[self.recipe.loss_weight]
        self.timesteps = TIMESTEP_SAMPLING[self.recipe.timesteps]
        self.encoder = encoder_on(text, device) if text else None
        self.null = (self.encoder.encode([""]) if text else null).to(device).float()

    def tokens(self, batch: dict) -> Tensor:
        """Text tokens (n, l, d), precomputed or encoded now."""
        if self.encoder is None:
            return batch["tokens"].to(self.device, non_blocking=True).float()
        captions = batch["caption"]
        return self.encoder.encode(captions, len(captions)).to(self.device).float()

    def fixed(self, inputs, numbers, total, seed):
        """Noise for each sample, and timesteps evenly spaced over all of them."""
        shape = inputs["clean"].shape[1:]
        noise = torch.stack([torch.randn(shape, generator=generator(seed, "validation", i)) for i in numbers])
        t = (torch.tensor(numbers) + 0.5) / total
        return inputs | {"noise": noise.to(self.device), "t": t.to(self.device)}

    def forward(self, inputs: dict[str, Tensor], random: torch.Generator | None, step: int) -> Losses:
        clean, n = inputs["clean"], len(inputs["clean"])
        if random is None:  # conditions are neither noised nor dropped, and all timesteps count alike
            t, noise = inputs["t"], inputs["noise"]
            noised = self.schedule.add_noise(clean, t, noise).contiguous(memory_format=torch.channels_last)
            return {"loss": each_mse(self.predict(noised, t, inputs["tokens"], inputs, None), noise)}
        t = self.timesteps(torch.rand(n, generator=random, device=self.device))
        noise = torch.randn(clean.shape, generator=random, device=self.device)
        noised = self.schedule.add_noise(clean, t, noise).contiguous(memory_format=torch.channels_last)
        draw = DRAWS[self.recipe.drop_text_per](torch.rand(n, generator=random, device=self.device))
        text = torch.where((draw < self.recipe.drop_text)[:, None, None], self.null, inputs["tokens"])
        predicted = self.predict(noised, t, text, inputs, random)
        return {"loss": noise_loss(predicted, noise, self.weight(self.schedule.alpha_bar(t)))}

    def predict(self, noised: Tensor, t: Tensor, text: Tensor, inputs: dict, random: torch.Generator | None) -> Tensor:
        """Predicted noise; `random` None means validation."""
        raise NotImplementedError


class StageBObjective(DiffusionObjective):
    """Stage B with the Semantic Compressor: trained together (3.1), or, with `compressor_steps` 0, as it is."""

    def __init__(self, preset, phase, device, folder, null):
        recipe = preset.recipes["b"]
        self.trains_compressor = recipe.compressor_steps >= phase.steps
        if not self.trains_compressor and recipe.compressor_steps:
            raise ValueError(
                f"compressor_steps is {recipe.compressor_steps} of {phase.steps}: on a cluster the compressor is"
                " trained in all steps, or in none (0)"
            )
        if recipe.fit_compressor:
            raise ValueError("fit_compressor needs all pictures at once; set it to false (--set fit_compressor=false)")
        networks: dict[str, nn.Module] = {"stage_b": UNet(preset.stage_b)}
        frozen: dict[str, nn.Module] = {}
        if null is None:
            frozen["stage_a"] = load_first_stage("stage-a", folder)
        if self.trains_compressor:
            if null is not None:
                raise ValueError(
                    "precomputed latents cannot train the compressor: train on pictures (tar shards), or keep it as it"
                    " is (--set compressor_steps=0)"
                )
            networks["compressor"] = SemanticCompressor(preset.compressor, pretrained=True)
        elif null is None:
            frozen["compressor"] = load_compressor(folder)
        super().__init__(preset, "b", networks, frozen, device, preset.text_of("b") if null is None else None, null)
        if self.trains_compressor and torch.distributed.get_world_size() > 1 and device.type == "cuda":
            self.networks = nn.SyncBatchNorm.convert_sync_batchnorm(self.networks)

    def prepare(self, batch: dict) -> dict[str, Tensor]:
        inputs = {"tokens": self.tokens(batch)}
        if "a" in batch:
            inputs["clean"] = batch["a"].to(self.device, non_blocking=True).float()
            inputs["image"] = batch["compressor"].to(self.device, non_blocking=True).float()
            return inputs
        images = as_images(batch["image"], self.device)
        inputs["clean"] = self.frozen["stage_a"].encode(images)
        if self.trains_compressor:
            inputs["images"] = images
        else:
            inputs["image"] = compressed(self.frozen["compressor"], self.preset, images)
        return inputs

    def predict(self, noised, t, text, inputs, random):
        if self.trains_compressor:
            image = compressed(self.networks["compressor"], self.preset, inputs["images"])
        else:
            image = inputs["image"]
        image = image.float()
        if random is not None:
            image = disturbed(image, self.recipe, self.schedule, random)
        stage_b = self.networks["stage_b"]
        a, b = stage_b(noised, t, stage_b.condition(text, image, noised.shape[-2:]))
        return OBJECTIVES[self.preset.stage_b.objective](noised, a, b)

    def metadata(self, averaged, pictures) -> dict:
        sampling = self.preset.sampling
        return {
            "stage_b": to_dict(self.preset.stage_b),
            "compressor": to_dict(self.preset.compressor),
            "start": sampling.start_b if sampling else "noise",
        }


class StageCObjective(DiffusionObjective):
    """Stage C on scaled latents of the frozen compressor (3.2)."""

    def __init__(self, preset, phase, device, folder, null):
        compressor = load_compressor(folder)
        frozen = {"compressor": compressor} if null is None else {}
        super().__init__(
            preset, "c", {"stage_c": StageC(preset.stage_c)}, frozen, device,
            preset.text if null is None else None, null,
        )  # fmt: skip
        self.size = compressor.config.input_size // 32
        # the normalisation that ends the compressor knows what its channels' means and deviations are
        norm = compressor.mapper[-1]
        measured = {"mean": norm.bias.tolist(), "std": norm.weight.abs().tolist()}
        self.scaling = latent_scaling(preset.latent_scaling, measured)

    def prepare(self, batch: dict) -> dict[str, Tensor]:
        if "compressor" in batch:
            latents = batch["compressor"].to(self.device, non_blocking=True).float()
        else:
            images = as_images(batch["image"], self.device)
            # pictures come at the size that the compressor sees
            latents = self.frozen["compressor"](images, tuple(images.shape[-2:])).float()
        return {"clean": scale_latents(latents, self.scaling), "tokens": self.tokens(batch)}

    def predict(self, noised, t, text, inputs, random):
        stage_c = self.networks["stage_c"]
        a, b = stage_c(noised, t, stage_c.condition(text))
        return predicted_noise_c(noised, a, b)

    def metadata(self, averaged, pictures) -> dict:
        return {"stage_c": to_dict(self.preset.stage_c), "latent_scaling": self.scaling, "size": self.size}


class BaselineObjective(DiffusionObjective):
    """The baseline LDM (E.4) in the latents of its first stage."""

    def __init__(self, preset, phase, device, folder, null):
        unet, text = preset.baseline_ldm, preset.text_of("baseline-ldm")
        frozen = {"first_stage": load_first_stage(preset.baseline_first_stage, folder)} if null is None else {}
        for first_stage in frozen.values():
            if first_stage.channels != unet.c_in:
                raise ValueError(
                    f"{first_stage.file}: it has latents of {first_stage.channels} channels, the baseline of preset"
                    f" {preset.name} takes {unet.c_in}"
                )
        super().__init__(
            preset, "baseline-ldm", {"baseline_ldm": UNet(unet)}, frozen, device, text if null is None else None, null
        )  # fmt: skip
        if self.null.shape[-1] != unet.c_text:
            raise ValueError(
                f"the baseline of preset {preset.name} takes text of {unet.c_text} dimensions, its text encoder"
                f" {text.encoder} gives {self.null.shape[-1]}"
            )
        self.latents, self.size = baseline_latents(preset), phase.sizes[0]

    def prepare(self, batch: dict) -> dict[str, Tensor]:
        if self.latents in batch:
            return {"clean": batch[self.latents].to(self.device).float(), "tokens": self.tokens(batch)}
        images = as_images(batch["image"], self.device)
        return {"clean": self.frozen["first_stage"].encode(images), "tokens": self.tokens(batch)}

    def predict(self, noised, t, text, inputs, random):
        unet = self.networks["baseline_ldm"]
        a, b = unet(noised, t, unet.condition(text))
        return OBJECTIVES[self.preset.baseline_ldm.objective](noised, a, b)

    def metadata(self, averaged, pictures) -> dict:
        return {
            "baseline_ldm": to_dict(self.preset.baseline_ldm),
            "first_stage": self.preset.baseline_first_stage,
            "image_size": self.size[0],  # it draws pictures as large as those that it was trained on
        }


DIFFUSION_OBJECTIVES = {"b": StageBObjective, "c": StageCObjective, "baseline-ldm": BaselineObjective}


def encoder_on(text: TextConfig, device: torch.device) -> TextEncoder:
    """A text encoder on a device; MiniLM stays on the CPU."""
    encoder = text_encoder(text)
    if isinstance(encoder, Clip):
        encoder.model.to(device)
    return encoder


def baseline_latents(preset: Preset) -> str:
    """What the latents that the baseline works on are called in precomputed shards."""
    return "a" if preset.baseline_first_stage == "stage-a" else "vae"


def precomputed(preset: Preset, stage: str) -> tuple[str, ...]:
    """What a diffusion stage needs of precomputed shards."""
    latents = {"b": ("a", "compressor"), "c": ("compressor",), "baseline-ldm": (baseline_latents(preset),)}
    return (*latents[stage], "tokens")


def compressed(compressor: SemanticCompressor, preset: Preset, images: Tensor) -> Tensor:
    """Compressor latents of images that Stage A sees: the compressor sees them at its share of the size (E.2: 3/4)."""
    share = preset.compressor.input_size / preset.image_size
    return compressor(images, tuple(round(side * share) for side in images.shape[-2:]))


def phases(preset: Preset, stage: str) -> tuple[Phase, ...]:
    """The phases of a stage's training; one with the preset's size where its recipe names none."""
    recipe = preset.recipes[stage]
    if recipe.phases:
        return recipe.phases
    size = preset.compressor.input_size if stage == "c" else preset.image_size
    return (Phase(recipe.steps, recipe.batch_size, ((size, size),)),)


def view(preset: Preset, stage: str, size: tuple[int, int]) -> View:
    """How a picture is cut for a phase's size: Stage A sees small crops of it (E.1), the others the whole."""
    if stage == "a":
        return View((preset.recipes["a"].crop,) * 2, size)
    return View(size, size)


def make_objective(
    stage: str,
    preset: Preset,
    phase: Phase,
    device: torch.device,
    folder: Path | None,
    null: Tensor | None = None,
    lpips: Path | None = None,
) -> Objective:
    """The objective of a stage.

    folder: trained stages (a/, b/) that it builds on, if any; null: tokens of the empty prompt where it is trained on
    precomputed shards; lpips: the weights of the perceptual loss's backbone.
    """
    if stage == "a":
        return StageAObjective(preset, device, lpips)
    if folder is None and (stage != "baseline-ldm" or preset.baseline_first_stage == "stage-a"):
        raise ValueError(f"--weights: stage {stage} builds on trained stages; name the folder that holds them (a/, b/)")
    return DIFFUSION_OBJECTIVES[stage](preset, phase, device, folder, null)
