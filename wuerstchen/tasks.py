"""What is trained in each stage: networks, batches and losses. `train` holds the loop around them."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.compressor import SemanticCompressor
from wuerstchen.conditions import DRAWS, disturbed
from wuerstchen.data import load_index, load_pictures
from wuerstchen.diffusion import (
    LOSS_WEIGHTS,
    OBJECTIVES,
    TIMESTEP_SAMPLING,
    CosineSchedule,
    noise_loss,
    predicted_noise_c,
)
from wuerstchen.inputs import Inputs, mean_words, packed
from wuerstchen.perceptual import perceptual_loss
from wuerstchen.precompute import images
from wuerstchen.presets import Preset, to_dict
from wuerstchen.scaling import latent_scaling, scale_latents
from wuerstchen.seeds import generator
from wuerstchen.stage_a import Discriminator, StageA
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC

Losses = dict[str, Tensor]
SMALL = 4  # pixels a side, in a small copy of the picture, that belong to one of the compressor's latents


class Task:
    """One stage's training: `modules` are trained and saved, the loss named "loss" is minimised."""

    modules: nn.ModuleDict
    n: int  # training samples
    columns: tuple[str, ...] = ("loss",)
    adversary_rate: float = 1.0  # learning rate of the adversary, relative to the recipe's

    def start(self) -> None:
        """Set up what fresh networks take from the data."""

    def losses(self, modules: nn.ModuleDict, rows: Tensor, random: torch.Generator, step: int) -> Losses:
        """Losses of the training rows (indices below `n`) under `modules`; "loss" is what is minimised."""
        raise NotImplementedError

    def validation_loss(self, modules: nn.ModuleDict) -> float:
        """Loss on the validation split with fixed noise; nothing is learned from it."""
        raise NotImplementedError

    def adversary(self) -> nn.Module | None:
        """A network that is trained against the others, by an optimiser of its own."""
        return None

    def phases(self, steps: int) -> list[tuple[int, int]]:
        """Parts of a training in which all steps cost alike: the first step of each, and how many there are."""
        return [(0, steps)]

    def pretrained(self) -> list[nn.Parameter]:
        """Parameters that start from trained weights, and learn at the recipe's `pretrained_rate`."""
        return []

    def metadata(self, modules: nn.ModuleDict) -> dict:
        """What must be known to use the weights."""
        raise NotImplementedError


class StageATask(Task):
    columns = ("loss", "mse", "perceptual", "vq", "adversarial", "discriminator", "codes_used")

    def __init__(self, preset: Preset, data: Path, seed: int):
        rows = load_index(data)
        self.preset, self.recipe = preset, preset.recipes["a"]
        pictures = torch.from_numpy(load_pictures(data, rows))
        self.pictures = pictures[[row["split"] == "train" for row in rows]]
        self.held_out = pictures[[row["split"] == "validation" for row in rows]]
        self.n = len(self.pictures)
        self.modules = nn.ModuleDict({"stage_a": StageA(preset.stage_a)})
        self.perceptual = perceptual_loss(self.recipe.perceptual).to(memory_format=torch.channels_last)
        self.discriminator = Discriminator(self.recipe.discriminator_width, self.recipe.discriminator_depth)
        self.seed = seed

    def adversary(self) -> nn.Module:
        return self.discriminator

    def crops(self, rows: Tensor, random: torch.Generator) -> Tensor:
        size = self.recipe.crop
        corners = torch.randint(0, self.preset.image_size - size + 1, (len(rows), 2), generator=random).tolist()
        cut = [
            self.pictures[r, :, y : y + size, x : x + size] for r, (y, x) in zip(rows.tolist(), corners, strict=True)
        ]
        return images(torch.stack(cut))

    def losses(self, modules: nn.ModuleDict, rows: Tensor, random: torch.Generator, step: int) -> Losses:
        recipe = self.recipe
        real = self.crops(rows, random)
        keep = torch.rand(len(rows), generator=random) >= recipe.drop_quantisation
        due = recipe.revive_codes_every and step < recipe.steps // 2 and step % recipe.revive_codes_every == 0
        fake, indices, vq = modules["stage_a"](real, keep, random if due else None)
        fake = fake.float()
        mse, perceptual = F.mse_loss(fake, real), self.perceptual(fake, real)
        loss = mse + vq + recipe.perceptual_weight * perceptual
        parts = {"mse": mse, "perceptual": perceptual, "vq": vq}
        if step >= recipe.adversarial_from:
            logits = self.discriminator(fake).float()
            parts["adversarial"] = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
            loss = loss + recipe.adversarial_weight * parts["adversarial"]
            on_real, on_fake = self.discriminator(real).float(), self.discriminator(fake.detach()).float()
            parts["discriminator"] = 0.5 * (
                F.binary_cross_entropy_with_logits(on_real, torch.ones_like(on_real))
                + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
            )
        parts["codes_used"] = torch.tensor(float(len(indices.unique())))
        return {"loss": loss, **parts}

    def validation_loss(self, modules: nn.ModuleDict) -> float:
        """Mean squared error of whole validation pictures through unquantised latents, as Stage B uses them."""
        real = images(self.held_out[:64])
        stage_a = modules["stage_a"]
        return F.mse_loss(stage_a.decode(stage_a.encode(real)).clamp(0, 1), real).item()

    def metadata(self, modules: nn.ModuleDict) -> dict:
        # the diffusion stages want latents of unit variance, so the scale is measured
        with torch.inference_mode():
            latents = torch.cat([modules["stage_a"].encode(images(p)) for p in self.pictures[:512].split(64)])
        return {"stage_a": to_dict(self.preset.stage_a) | {"scale_factor": latents.std().item()}}


class DiffusionTask(Task):
    """What Stages B and C and the baseline share: text tokens, timesteps, noise and the weighted loss on it."""

    def __init__(self, preset: Preset, stage: str, inputs: Inputs, seed: int):
        self.preset, self.recipe, self.seed = preset, preset.recipes[stage], seed
        self.schedule = CosineSchedule()
        self.weight = LOSS_WEIGHTS[self.recipe.loss_weight]
        self.timesteps = TIMESTEP_SAMPLING[self.recipe.timesteps]
        self.latents, self.measured = inputs.latents, inputs.measured
        self.train_rows = inputs.train.nonzero().squeeze(1)
        self.validation_rows = inputs.validation.nonzero().squeeze(1)
        self.n = len(self.train_rows)
        # short captions, long ones and the empty prompt: most positions are zero, and what is not is kept once
        self.pictures = len(inputs.train)
        texts = [inputs.tokens[key] for key in ("captions", "descriptions", "null")]
        self.tokens, self.places = packed(torch.cat(texts))
        self.modules = self.networks()

    def networks(self) -> nn.ModuleDict:
        """The networks that are trained, freshly initialised."""
        raise NotImplementedError

    def targets(self, modules: nn.ModuleDict, rows: Tensor) -> Tensor:
        """Clean latents of the rows (indices into the index), float32."""
        raise NotImplementedError

    def image(self, modules: nn.ModuleDict, rows: Tensor, step: int | None) -> Tensor | None:
        """Compressor latents of the rows, where the stage is conditioned on them; `step` None means validation."""
        return None

    def predict(
        self,
        modules: nn.ModuleDict,
        noised: Tensor,
        t: Tensor,
        text: Tensor,
        image: Tensor | None,
        random: torch.Generator | None,
    ) -> Tensor:
        """Predicted noise; `text`: places of tokens (n, l); `random` None means validation: conditions are neither
        noised nor dropped."""
        raise NotImplementedError

    @property
    def words(self) -> int:
        """Tokens of a caption, averaged as training draws short and long ones, rounded up."""
        short, long, _ = self.places.split(self.pictures)
        return mean_words(short, long, self.recipe.long_captions)

    def text(self, rows: Tensor, random: torch.Generator | None) -> Tensor:
        """Places, among `tokens`, of short or, at times, long captions; at times of the empty prompt (3.2)."""
        if random is None:
            return self.places[rows]
        u, v = torch.rand(2, len(rows), generator=random)
        v = DRAWS[self.recipe.drop_text_per](v)
        rows = torch.where(u < self.recipe.long_captions, rows + self.pictures, rows)
        return self.places[torch.where(v < self.recipe.drop_text, 2 * self.pictures, rows)]

    def dense(self, places: Tensor) -> Tensor:
        """Text tokens (n, l, d), float32, at their places."""
        return self.tokens[places].float()

    def losses(self, modules: nn.ModuleDict, rows: Tensor, random: torch.Generator, step: int) -> Losses:
        rows = self.train_rows[rows]
        clean = self.targets(modules, rows)
        t = self.timesteps(torch.rand(len(rows), generator=random))
        noise = torch.randn(clean.shape, generator=random).contiguous(memory_format=torch.channels_last)
        noised = self.schedule.add_noise(clean, t, noise).contiguous(memory_format=torch.channels_last)
        image = self.image(modules, rows, step)
        predicted = self.predict(modules, noised, t, self.text(rows, random), image, random)
        return {"loss": noise_loss(predicted, noise, self.weight(self.schedule.alpha_bar(t)))}

    def validation_loss(self, modules: nn.ModuleDict) -> float:
        """Unweighted loss at evenly spaced timesteps."""
        rows = self.validation_rows[: 2 * self.recipe.batch_size]
        random = generator(self.seed, "validation")
        t = (torch.arange(len(rows)) + 0.5) / len(rows)
        clean = self.targets(modules, rows)
        noise = torch.randn(clean.shape, generator=random)
        noised = self.schedule.add_noise(clean, t, noise).contiguous(memory_format=torch.channels_last)
        predicted = self.predict(modules, noised, t, self.text(rows, None), self.image(modules, rows, None), None)
        return noise_loss(predicted, noise, torch.ones(len(rows))).item()


class StageBTask(DiffusionTask):
    """Stage B with the Semantic Compressor, trained together (3.1)."""

    def networks(self) -> nn.ModuleDict:
        self.compressed: Tensor | None = None
        compressor = SemanticCompressor(self.preset.compressor, pretrained=True)
        return nn.ModuleDict({"stage_b": UNet(self.preset.stage_b), "compressor": compressor})

    def start(self) -> None:
        """Fit the compressor, if the recipe asks for it, to a small copy of the pictures (Stage A latents, pooled).

        Through the denoising loss alone a short training teaches it next to nothing.
        """
        if self.recipe.fit_compressor:
            small = F.adaptive_avg_pool2d(
                self.latents["a"][self.train_rows].float(), SMALL * self.preset.compressed_size
            )
            self.modules["compressor"].fit(self.latents["trunk"][self.train_rows].float(), small)

    def targets(self, modules: nn.ModuleDict, rows: Tensor) -> Tensor:
        return self.latents["a"][rows].float()

    def phases(self, steps: int) -> list[tuple[int, int]]:
        both = min(steps, self.recipe.compressor_steps)
        return [(first, n) for first, n in ((0, both), (both, steps - both)) if n]

    def image(self, modules: nn.ModuleDict, rows: Tensor, step: int | None) -> Tensor:
        compressor = modules["compressor"]
        if step is None or step < self.recipe.compressor_steps:
            return self.compress(compressor, rows)
        if self.compressed is None:
            # from here on nothing in it moves, so its latents are computed once; a resumed run computes the same
            compressor.requires_grad_(False).eval()
            everything = torch.arange(len(self.latents["trunk"]))
            with torch.no_grad():
                self.compressed = torch.cat([self.compress(compressor, part) for part in everything.split(64)])
        return self.compressed[rows]

    def compress(self, compressor: SemanticCompressor, rows: Tensor) -> Tensor:
        """Compressor latents from the precomputed output of its frozen stages."""
        trunk = self.latents["trunk"][rows].float().contiguous(memory_format=torch.channels_last)
        return compressor.head(trunk).float()

    def predict(self, modules, noised, t, text, image, random):
        if random is not None:
            image = disturbed(image, self.recipe, self.schedule, random)
        stage_b = modules["stage_b"]
        a, b = stage_b(noised, t, stage_b.condition(self.dense(text), image, noised.shape[-2:]))
        return OBJECTIVES[stage_b.config.objective](noised, a, b)

    def pretrained(self) -> list[nn.Parameter]:
        return list(self.modules["compressor"].backbone.parameters())

    def metadata(self, modules: nn.ModuleDict) -> dict:
        sampling = self.preset.sampling
        return {
            "stage_b": to_dict(self.preset.stage_b),
            "compressor": to_dict(self.preset.compressor),
            "start": sampling.start_b if sampling else "noise",
        }


class StageCTask(DiffusionTask):
    """Stage C on scaled compressor latents."""

    def networks(self) -> nn.ModuleDict:
        self.scaling = latent_scaling(self.preset.latent_scaling, self.measured)
        self.clean = scale_latents(self.latents["compressor"].float(), self.scaling)
        return nn.ModuleDict({"stage_c": StageC(self.preset.stage_c)})

    def targets(self, modules: nn.ModuleDict, rows: Tensor) -> Tensor:
        return self.clean[rows]

    def predict(self, modules, noised, t, text, image, random):
        stage_c = modules["stage_c"]
        # what is computed of single tokens is computed once for the zeros after all the texts' ends
        used, places = text.unique(return_inverse=True)
        # float32: the gradient of the zero row is a sum of many
        condition = [F.embedding(places, values.float()) for values in stage_c.condition(self.dense(used))]
        a, b = stage_c(noised, t, condition)
        return predicted_noise_c(noised, a, b)

    def metadata(self, modules: nn.ModuleDict) -> dict:
        size = self.clean.shape[-1]
        return {"stage_c": to_dict(self.preset.stage_c), "latent_scaling": self.scaling, "size": size}


class BaselineTask(DiffusionTask):
    """The baseline LDM (E.4) in Stage A's latents; `wuerstchen.objectives` has it in those of Stable Diffusion."""

    def networks(self) -> nn.ModuleDict:
        return nn.ModuleDict({"baseline_ldm": UNet(self.preset.baseline_ldm)})

    def targets(self, modules: nn.ModuleDict, rows: Tensor) -> Tensor:
        return self.latents["a"][rows].float()

    def predict(self, modules, noised, t, text, image, random):
        unet = modules["baseline_ldm"]
        a, b = unet(noised, t, unet.condition(self.dense(text)))
        return OBJECTIVES[unet.config.objective](noised, a, b)

    def metadata(self, modules: nn.ModuleDict) -> dict:
        return {"baseline_ldm": to_dict(self.preset.baseline_ldm)}


DIFFUSION_TASKS = {"b": StageBTask, "c": StageCTask, "baseline-ldm": BaselineTask}


def make_task(stage: str, preset: Preset, data: Path, latents: Path | None, seed: int) -> Task:
    """The task of a stage: a, b, c, baseline-ldm, probe or df-gan."""
    if stage == "a":
        return StageATask(preset, data, seed)
    if stage == "df-gan":
        from wuerstchen.adversarial import DFGanTask  # which needs this module

        return DFGanTask(preset, data, seed)
    if latents is None:
        raise ValueError(f"--latents: stage {stage} is trained on precomputed latents; name their folder")
    if stage == "probe":
        from wuerstchen.probing import ProbeTask  # which needs this module

        return ProbeTask(preset, data, latents)
    if stage == "baseline-ldm" and preset.baseline_first_stage != "stage-a":
        raise ValueError(
            f"the baseline of preset {preset.name} works on latents of {preset.baseline_first_stage}, not on Stage A's;"
            " train it on shards (--data 'shards/{000000..000999}.tar')"
        )
    return DIFFUSION_TASKS[stage](preset, stage, Inputs.read(stage, data, latents), seed)
