"""From text to pictures: Stage C, Stage B and Stage A in turn (paper, 3.3), and the baseline LDM."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.diffusion import OBJECTIVES, CosineSchedule, predicted_noise_c, sample
from wuerstchen.execution import autocast, can_compile, compile_blocks, compile_network
from wuerstchen.first_stage import load_first_stage
from wuerstchen.fused import for_sampling
from wuerstchen.precompute import load_compressor
from wuerstchen.presets import StageCConfig, Steps, TextConfig, UNetConfig, from_dict
from wuerstchen.progress import progress
from wuerstchen.published import Networks, TextEncoder
from wuerstchen.sampling import ImageNoise, doubled, grids, guided_noise, negatives, settings, to_uint8
from wuerstchen.scaling import unscale_latents
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC
from wuerstchen.text import text_encoder
from wuerstchen.unpack import training_folder


class Pictures:
    """What both pipelines have: text encoder, schedule and first stage.

    On a CPU they run in the precision of the training. On another device all but a compressor, a probe and Stable
    Diffusion's autoencoder is in bf16, as published weights are; the sampler's arithmetic stays in float32.

    compiled: None compiles the networks, on a CPU, if they were trained compiled and a compiler is there.
    """

    def __init__(self, folder: Path, metadata: dict, compiled: bool | None, device: str = "cpu"):
        self.schedule = CosineSchedule()
        self.device, on_cpu = torch.device(device), device == "cpu"
        self.dtype = torch.float32 if on_cpu else torch.bfloat16
        self.precision = metadata["precision"] if on_cpu else "bf16"
        self.compiled = on_cpu and metadata["compiled"] and can_compile() if compiled is None else compiled
        self.encoder = self.text_encoder(metadata)
        self.null = self.tokens(self.encoder, [""])
        first_stage = load_first_stage(metadata.get("first_stage", "stage-a"), folder)
        self.first_stage, self.image_size = first_stage.place(self.device, self.dtype), metadata["image_size"]
        self.shape = (first_stage.channels, *[self.image_size // first_stage.factor] * 2)
        if self.compiled:
            compile_blocks(self.first_stage)
        self.start = "noise"  # what Stage B starts from

    def text_encoder(self, metadata: dict) -> TextEncoder:
        """The text encoder that a network was trained with."""
        return text_encoder(from_dict(TextConfig, metadata["text"]), self.dtype, str(self.device))

    def tokens(self, encoder: TextEncoder, prompts: Sequence[str]) -> Tensor:
        """Text tokens (n, l, d) as the networks take them."""
        return encoder.encode(prompts).to(self.device, self.dtype)

    def autocast(self) -> torch.autocast:
        """On a CPU the precision is that of products; elsewhere the weights are in it already."""
        return autocast(self.precision if self.device.type == "cpu" else "fp32")

    def ready(self, network: nn.Module) -> nn.Module:
        """Place a network, and compile its blocks where that was asked for."""
        network.to(self.device, self.dtype, memory_format=torch.channels_last)
        if self.compiled:
            compile_blocks(network)
        return network

    def codebook(self) -> Tensor | None:
        """What Stage B draws its start from, at the scale of its latents, where it does not start from noise."""
        return None if self.start == "noise" else self.first_stage.codes()

    def decode(self, latents: Tensor) -> np.ndarray:
        """Pictures, uint8 (n, h, w, 3), from latents of unit variance."""
        return np.concatenate([to_uint8(self.first_stage.decode(part)) for part in self.parts(latents)])

    def parts(self, batch: Tensor) -> tuple[Tensor, ...]:
        """What goes through the first stage at a time: on a GPU one picture, which at 1024 px takes 3 GB."""
        return (batch,) if self.device.type == "cpu" else batch.split(1)


class Wuerstchen(Pictures):
    """The three stages of one training folder, with a, b and c below it."""

    def __init__(self, folder: str | Path, compiled: bool | None = None, device: str = "cpu"):
        folder = Path(folder)
        self.files = [folder / stage / "model.safetensors" for stage in "abc"]
        tensors, c = weights.load(self.files[2])
        super().__init__(folder, c, compiled, device)
        stage_c = StageC(from_dict(StageCConfig, c["stage_c"]))
        self.stage_c = self.ready(weights.load_module(stage_c, tensors, "stage_c.", self.files[2]))
        self.scaling, self.size = c["latent_scaling"], c["size"]
        self.stage_b = self.ready(load_stage_b(folder))
        b = weights.metadata(self.files[1])
        self.start = b.get("start", "noise")
        self.encoder_b, self.null_b = self.encoder, self.null
        if b["text"] != c["text"]:
            self.encoder_b = self.text_encoder(b)
            self.null_b = self.tokens(self.encoder_b, [""])

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
        text = self.tokens(self.encoder, prompts)
        with self.autocast():
            condition = self.stage_c.condition(doubled(text, self.null, guidance_c))
            predict = guided_noise(self.stage_c, predicted_noise_c, condition, guidance_c)
            shape = (len(text), self.stage_c.config.c_in, self.size, self.size)
            latents = sample(predict, shape, steps_c, ImageNoise(seed, ids, "stage-c", self.device), self.schedule)
            latents = unscale_latents(latents, self.scaling)
            text = text if self.encoder_b is self.encoder else self.tokens(self.encoder_b, prompts)
            return self.decode(self.refine(latents, text, ids, seed, steps_b, guidance_b))

    def refine(
        self, latents: Tensor, text: Tensor, ids: Sequence[str], seed: int, steps: int, guidance: float
    ) -> Tensor:
        """Stage B: compressor latents (n, 16, h, w) and text tokens to Stage A latents."""
        return sample_stage_b(
            self.stage_b,
            self.schedule,
            self.shape,
            latents,
            text,
            self.null_b,
            ids,
            seed,
            steps,
            guidance,
            self.codebook(),
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
    codebook: Tensor | None = None,
) -> Tensor:
    """Stage A latents (n, *shape) from compressor latents; unguided means the empty prompt and zero latents.

    With a `codebook` (codes, c) at the scale of these latents it starts from random tokens of it, as the paper says
    (3.3), otherwise from noise, as the released code does.
    """
    image = image.to(text.dtype)
    if guidance != 1:
        image = torch.cat([image, torch.zeros_like(image)])
    condition = stage_b.condition(doubled(text, null, guidance), image, shape[1:])
    predict = guided_noise(stage_b, OBJECTIVES[stage_b.config.objective], condition, guidance)
    noise = ImageNoise(seed, ids, "stage-b", image.device)
    start = None if codebook is None else noise.tokens(codebook, shape[1:])
    return sample(predict, (len(ids), *shape), steps, noise, schedule, start)


class BaselineLDM(Pictures):
    """The baseline LDM: one U-Net in the latents of its first stage."""

    def __init__(self, folder: str | Path, name: str, compiled: bool | None = None, device: str = "cpu"):
        folder = Path(folder)
        path = folder / name / "model.safetensors"
        tensors, metadata = weights.load(path)
        super().__init__(folder, metadata, compiled, device)
        self.files = [self.first_stage.file, path]
        unet = UNet(from_dict(UNetConfig, metadata["baseline_ldm"]))
        self.unet = self.ready(weights.load_module(unet, tensors, "baseline_ldm.", path))

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
        text = self.tokens(self.encoder, prompts)
        with self.autocast():
            condition = self.unet.condition(doubled(text, self.null, guidance))
            predict = guided_noise(self.unet, OBJECTIVES[self.unet.config.objective], condition, guidance)
            noise = ImageNoise(seed, ids, "baseline-ldm", self.device)
            return self.decode(sample(predict, (len(prompts), *self.shape), steps, noise, self.schedule))


class Reconstruction:
    """Real pictures through the autoencoder alone, or through compressor, Stage B and Stage A: what a perfect Stage C
    could reach at best.
    """

    def __init__(self, folder: str | Path, through_compressor: bool, compiled: bool | None = None, device: str = "cpu"):
        folder = Path(folder)
        self.files = [folder / stage / "model.safetensors" for stage in ("ab" if through_compressor else "a")]
        metadata = weights.metadata(self.files[-1])
        self.pictures = Pictures(folder, metadata, compiled, device)
        self.stage_b = self.pictures.ready(load_stage_b(folder)) if through_compressor else None
        self.compressor = load_compressor(folder).to(self.pictures.device) if through_compressor else None
        self.pictures.start = metadata.get("start", "noise")

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
        images, text = images.to(p.device), p.tokens(p.encoder, prompts)
        with p.autocast():
            if self.stage_b is None:
                return p.decode(torch.cat([p.first_stage.encode(part) for part in p.parts(images)]))
            image = self.compressor(images).float()
            latents = sample_stage_b(
                self.stage_b,
                p.schedule,
                p.shape,
                image,
                text,
                p.null,
                ids,
                seed,
                steps_b,
                guidance_b,
                p.codebook(),
            )
            return p.decode(latents)


class Pipeline:
    """Text to images with published weights or with those of a study: Stages C, B and A in turn (paper, 3.3).

    The networks run eagerly in the precision that they were loaded in, on the device that they are on; timesteps and
    the sampler's arithmetic stay in float32. They are rewritten for sampling in place: they cannot be trained any more.

    compiled: compile the networks when they first run, once for each size of picture and batch.
    """

    def __init__(self, networks: Networks, compiled: bool = False):
        self.networks, self.preset = networks, networks.preset
        self.schedule = CosineSchedule()
        self.stages = {"a": networks.stage_a, "b": networks.stage_b, "c": networks.stage_c}
        for stage in self.stages.values():
            for_sampling(stage, pack=not compiled)
            if compiled:
                compile_network(stage.up_blocks if stage is networks.stage_a else stage)
        weight = networks.stage_c.projection.weight
        self.device, self.dtype = weight.device, weight.dtype

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        compiled: bool = False,
    ) -> "Pipeline":
        """From a published model's id or folder (wuerstchen/published.py), a release's name (wuerstchen/unpack.py), or
        a study's folder train/."""
        source = training_folder(source)
        if (Path(source) / "c" / "model.safetensors").exists():
            from wuerstchen.study import study_networks

            return cls(study_networks(source, dtype, device), compiled)
        from wuerstchen import published  # only here: studies need neither the hub's client nor its text encoders

        return cls(published.load(source, dtype, str(device)), compiled)

    def __call__(
        self,
        prompts: str | Sequence[str],
        width: int | None = None,
        height: int | None = None,
        seed: int = 0,
        negative_prompts: str | Sequence[str] | None = None,
        sampling: str | None = None,
        steps_c: Steps | None = None,
        guidance_c: float | None = None,
        steps_b: Steps | None = None,
        guidance_b: float | None = None,
        ids: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Pictures, uint8 (n, height, width, 3), one for each prompt, drawn in one batch.

        width, height: pixels (default: what the model was made for), see `sampling.grids`. negative_prompts: one for
        all or one each, in the place of the empty prompt where guidance leads away from it. sampling: "paper" or
        "released" (default: the model's own), of which given steps and guidance scales replace parts. ids: names of
        the pictures (default: their place in the batch); the noise of each depends on the seed and its id alone.

        Raises ValueError for sizes and settings that are impossible.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        given = {"steps_c": steps_c, "guidance_c": guidance_c, "steps_b": steps_b, "guidance_b": guidance_b}
        how = settings(self.preset, sampling, **given)
        negative = negatives(negative_prompts, len(prompts), how)
        ids = [str(i) for i in range(len(prompts))] if ids is None else list(ids)
        if len(ids) != len(prompts) or not prompts:
            raise ValueError(
                f"ids: {len(ids)} for {len(prompts)} prompts; there must be one for each, and at least one"
            )
        grid_c, grid_b = grids(self.preset, width or self.preset.image_size, height or self.preset.image_size)
        with torch.inference_mode():
            latents = self.sample_c(prompts, negative, ids, seed, grid_c, how.steps_c, how.guidance_c)
            latents = self.sample_b(latents, prompts, negative, ids, seed, grid_b, how.steps_b, how.guidance_b)
            return to_uint8(self.decode(latents))

    def tokens(self, encoder: TextEncoder, prompts: Sequence[str], negative: Sequence[str], guidance: float) -> Tensor:
        """Text tokens on the device, those of the negative prompts after the others where guidance needs them."""
        texts = [*prompts, *negative] if guidance != 1 else list(prompts)
        return encoder.encode(texts).to(self.device, self.dtype)

    @torch.inference_mode()
    def sample_c(
        self,
        prompts: Sequence[str],
        negative: Sequence[str],
        ids: Sequence[str],
        seed: int,
        grid: tuple[int, int],
        steps: Steps,
        guidance: float,
    ) -> Tensor:
        """Stage C: prompts to compressor latents as Stage C was trained on them, float32 (n, 16, *grid)."""
        network = self.networks.stage_c
        condition = network.condition(self.tokens(self.networks.text_c, prompts, negative, guidance))
        noise = ImageNoise(seed, ids, "stage-c", self.device)
        shape = (len(prompts), network.config.c_in, *grid)
        return self._denoise("C", predicted_noise_c, condition, guidance, shape, steps, noise)

    @torch.inference_mode()
    def sample_b(
        self,
        latents: Tensor,
        prompts: Sequence[str],
        negative: Sequence[str],
        ids: Sequence[str],
        seed: int,
        grid: tuple[int, int],
        steps: Steps,
        guidance: float,
    ) -> Tensor:
        """Stage B: what `sample_c` returns to Stage A latents of unit variance, float32 (n, 4, *grid)."""
        network = self.networks.stage_b
        image = unscale_latents(latents, self.networks.scaling).to(self.dtype)
        if guidance != 1:
            image = torch.cat([image, torch.zeros_like(image)])
        tokens = self.tokens(self.networks.text_b, prompts, negative, guidance)
        condition = network.condition(tokens, image, grid)
        noise = ImageNoise(seed, ids, "stage-b", self.device)
        shape = (len(prompts), network.config.c_in, *grid)
        start = None
        if settings(self.preset).start_b == "codebook":
            stage_a = self.networks.stage_a
            start = noise.tokens(stage_a.vquantizer.codebook.weight.float() / stage_a.config.scale_factor, grid)
        return self._denoise("B", OBJECTIVES[network.config.objective], condition, guidance, shape, steps, noise, start)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Stage A: latents of unit variance to float32 images (n, 3, 4 h, 4 w) in about [0, 1].

        One image at a time: each is work enough for a GPU, and the memory does not grow with the batch.
        """
        stage_a = self.networks.stage_a
        scaled = (latents * stage_a.config.scale_factor).to(self.dtype)
        return torch.cat([stage_a.decode(image) for image in scaled.split(1)]).float()

    def _denoise(
        self,
        stage: str,
        objective: Callable[[Tensor, Tensor, Tensor], Tensor],
        condition: object,
        guidance: float,
        shape: Sequence[int],
        steps: Steps,
        noise: ImageNoise,
        start: Tensor | None = None,
    ) -> Tensor:
        """Sample one stage, with its progress."""
        predict = guided_noise(self.stages[stage.lower()], objective, condition, guidance, shared=stage == "C")
        total = steps if isinstance(steps, int) else len(steps) - 1
        with progress(what=f"Stage {stage}", unit="steps", total=total) as bar:

            def predict_and_tell(x: Tensor, t: Tensor) -> Tensor:
                bar.update()
                return predict(x, t)

            return sample(predict_and_tell, shape, steps, noise, self.schedule, start)
