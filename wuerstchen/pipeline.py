"""From text to pictures: Stage C, Stage B and Stage A in turn (paper, 3.3), and the baseline LDM."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.diffusion import CosineSchedule, guide, predicted_noise_b, predicted_noise_c, sample
from wuerstchen.execution import autocast, can_compile, compile_blocks
from wuerstchen.precompute import load_compressor, load_stage_a
from wuerstchen.presets import StageCConfig, TextConfig, UNetConfig, from_dict
from wuerstchen.seeds import generator
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC
from wuerstchen.tasks import unscale_latents
from wuerstchen.text import text_encoder


class ImageNoise:
    """Standard normal noise that depends, image by image, on (seed, prompt id, purpose) alone."""

    def __init__(self, seed: int, ids: Sequence[str], purpose: str):
        self.generators = [generator(seed, name, purpose) for name in ids]

    def __call__(self, shape: Sequence[int]) -> Tensor:
        noise = torch.stack([torch.randn(tuple(shape[1:]), generator=g) for g in self.generators])
        return noise.contiguous(memory_format=torch.channels_last)


def to_uint8(images: Tensor) -> np.ndarray:
    """Float images (n, 3, h, w) in about [0, 1] as uint8 (n, h, w, 3), rounded to nearest."""
    return images.float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


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
    network: nn.Module, objective: Callable[[Tensor, Tensor, Tensor], Tensor], condition: object, scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """predict(x, t) for `sample`: the guided noise of a network whose condition is doubled where guidance needs it."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        x = twice(x, scale)
        return guided(objective(x, *network(x, twice(t, scale), condition)), scale)

    return predict


class Pictures:
    """What both pipelines have: text encoder, schedule and Stage A. They run in the precision of the training.

    compiled: None compiles the networks if they were trained compiled and a compiler is there.
    """

    def __init__(self, folder: Path, metadata: dict, compiled: bool | None):
        self.schedule = CosineSchedule()
        self.precision = metadata["precision"]
        self.compiled = metadata["compiled"] and can_compile() if compiled is None else compiled
        self.encoder = text_encoder(from_dict(TextConfig, metadata["text"]))
        self.null = self.encoder.encode([""])
        self.stage_a = load_stage_a(folder).to(memory_format=torch.channels_last)
        self.shape = (self.stage_a.config.c_latent, *[metadata["image_size"] // 4] * 2)
        self.ready(self.stage_a)

    def ready(self, network: nn.Module) -> None:
        """Compile a network's blocks where that was asked for."""
        if self.compiled:
            compile_blocks(network)

    def decode(self, latents: Tensor) -> np.ndarray:
        """Pictures, uint8 (n, h, w, 3), from Stage A latents of unit variance."""
        return to_uint8(self.stage_a.decode(latents * self.stage_a.config.scale_factor))


class Wuerstchen(Pictures):
    """The three stages of one training folder, with a, b and c below it."""

    def __init__(self, folder: str | Path, compiled: bool | None = None):
        folder = Path(folder)
        self.files = [folder / stage / "model.safetensors" for stage in "abc"]
        tensors, c = weights.load(self.files[2])
        super().__init__(folder, c, compiled)
        self.stage_c = weights.load_module(
            StageC(from_dict(StageCConfig, c["stage_c"])), tensors, "stage_c.", self.files[2]
        )
        self.stage_c.to(memory_format=torch.channels_last)
        self.scaling, self.size = c["latent_scaling"], c["size"]
        self.stage_b = load_stage_b(folder)
        self.ready(self.stage_c)
        self.ready(self.stage_b)

    def load(self, path: Path) -> int:
        """Draw with another Stage C of the same shape from now on, trained as far as the steps returned."""
        tensors, metadata = weights.load(path)
        weights.load_module(self.stage_c, tensors, "stage_c.", path)
        self.scaling, self.files[-1] = metadata["latent_scaling"], path
        return metadata["steps"]

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[str],
        ids: Sequence[str],
        seed: int,
        steps_c: int,
        guidance_c: float,
        steps_b: int,
        guidance_b: float,
    ) -> np.ndarray:
        """Pictures, uint8 (n, h, w, 3); the noise of each depends on the seed and its id alone."""
        text = self.encoder.encode(prompts)
        with autocast(self.precision):
            condition = self.stage_c.condition(doubled(text, self.null, guidance_c))
            predict = guided_noise(self.stage_c, predicted_noise_c, condition, guidance_c)
            shape = (len(text), self.stage_c.config.c_in, self.size, self.size)
            latents = sample(predict, shape, steps_c, ImageNoise(seed, ids, "stage-c"), self.schedule)
            latents = unscale_latents(latents, self.scaling)
            return self.decode(self.refine(latents, text, ids, seed, steps_b, guidance_b))

    def refine(
        self, latents: Tensor, text: Tensor, ids: Sequence[str], seed: int, steps: int, guidance: float
    ) -> Tensor:
        """Stage B: compressor latents (n, 16, h, w) and text tokens to Stage A latents."""
        return sample_stage_b(
            self.stage_b, self.schedule, self.shape, latents, text, self.null, ids, seed, steps, guidance
        )


def load_stage_b(folder: str | Path) -> UNet:
    """Stage B's U-Net from train/b."""
    path = Path(folder) / "b" / "model.safetensors"
    tensors, metadata = weights.load(path)
    module = weights.load_module(UNet(from_dict(UNetConfig, metadata["stage_b"])), tensors, "stage_b.", path)
    return module.to(memory_format=torch.channels_last)


def sample_stage_b(
    stage_b: UNet,
    schedule: CosineSchedule,
    shape: tuple[int, int, int],
    image: Tensor,
    text: Tensor,
    null: Tensor,
    ids: Sequence[str],
    seed: int,
    steps: int,
    guidance: float,
) -> Tensor:
    """Stage A latents (n, *shape) from compressor latents; unguided means the empty prompt and zero latents."""
    if guidance != 1:
        image = torch.cat([image, torch.zeros_like(image)])
    condition = stage_b.condition(doubled(text, null, guidance), image, shape[1:])
    predict = guided_noise(stage_b, predicted_noise_b, condition, guidance)
    return sample(predict, (len(ids), *shape), steps, ImageNoise(seed, ids, "stage-b"), schedule)


class BaselineLDM(Pictures):
    """The baseline LDM: one U-Net in Stage A's latents."""

    def __init__(self, folder: str | Path, name: str, compiled: bool | None = None):
        folder = Path(folder)
        path = folder / name / "model.safetensors"
        self.files = [folder / "a" / "model.safetensors", path]
        tensors, metadata = weights.load(path)
        super().__init__(folder, metadata, compiled)
        unet = UNet(from_dict(UNetConfig, metadata["baseline_ldm"]))
        self.unet = weights.load_module(unet, tensors, "baseline_ldm.", path).to(memory_format=torch.channels_last)
        self.ready(self.unet)

    def load(self, path: Path) -> int:
        """Draw with another U-Net of the same shape from now on, trained as far as the steps returned."""
        tensors, metadata = weights.load(path)
        weights.load_module(self.unet, tensors, "baseline_ldm.", path)
        self.files[-1] = path
        return metadata["steps"]

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[str], ids: Sequence[str], seed: int, steps: int, guidance: float
    ) -> np.ndarray:
        """Pictures, uint8 (n, h, w, 3); the noise of each depends on the seed and its id alone."""
        text = self.encoder.encode(prompts)
        with autocast(self.precision):
            condition = self.unet.condition(doubled(text, self.null, guidance))
            predict = guided_noise(self.unet, predicted_noise_b, condition, guidance)
            noise = ImageNoise(seed, ids, "baseline-ldm")
            return self.decode(sample(predict, (len(prompts), *self.shape), steps, noise, self.schedule))


class Reconstruction:
    """Real pictures through the autoencoder alone, or through compressor, Stage B and Stage A: what a perfect Stage C
    could reach at best.
    """

    def __init__(self, folder: str | Path, through_compressor: bool, compiled: bool | None = None):
        folder = Path(folder)
        self.files = [folder / stage / "model.safetensors" for stage in ("ab" if through_compressor else "a")]
        metadata = weights.metadata(self.files[-1])
        self.pictures = Pictures(folder, metadata, compiled)
        self.stage_b = load_stage_b(folder) if through_compressor else None
        self.compressor = load_compressor(folder) if through_compressor else None
        if self.stage_b is not None:
            self.pictures.ready(self.stage_b)

    def load(self, path: Path) -> int:
        """Go through another Stage B and its compressor from now on, trained as far as the steps returned."""
        tensors, metadata = weights.load(path)
        weights.load_module(self.stage_b, tensors, "stage_b.", path)
        weights.load_module(self.compressor, tensors, "compressor.", path)
        self.files[-1] = path
        return metadata["steps"]

    @torch.inference_mode()
    def reconstruct(
        self, images: Tensor, prompts: Sequence[str], ids: Sequence[str], seed: int, steps_b: int, guidance_b: float
    ) -> np.ndarray:
        """Pictures, uint8 (n, h, w, 3), for float images (n, 3, h, w) in [0, 1]."""
        p = self.pictures
        text = p.encoder.encode(prompts)
        with autocast(p.precision):
            if self.stage_b is None:
                return p.decode(p.stage_a.encode(images).float() / p.stage_a.config.scale_factor)
            image = self.compressor(images).float()
            latents = sample_stage_b(
                self.stage_b, p.schedule, p.shape, image, text, p.null, ids, seed, steps_b, guidance_b
            )
            return p.decode(latents)
