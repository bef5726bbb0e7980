"""The four models of the paper's Figure 4 at their published sizes, with random weights: trained ones take as long.

Stable Diffusion runs in diffusers' own pipelines; Würstchen's networks are this project's. Each is built and drawn with
alike: `draw(batch_size)` goes from token ids to uint8 pictures in the computer's memory. Only tokenisation is left out.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wuerstchen.diffusion import CosineSchedule, predicted_noise_b, predicted_noise_c, sample
from wuerstchen.pipeline import doubled, guided_noise
from wuerstchen.presets import Preset, preset
from wuerstchen.stage_a import StageA
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC
from wuerstchen.tasks import latent_scaling, unscale_latents

NETWORKS = Path(__file__).parents[1] / "published" / "networks.json"
LENGTH, START, WORD, END = 77, 49406, 320, 49407  # CLIP's text length and some of its tokens


def entries() -> dict[str, dict[str, Any]]:
    """What is published of each model: the configs of its networks, steps, guidance and where these come from."""
    return json.loads(NETWORKS.read_text(encoding="utf-8"))


def text_model(config: dict[str, Any]) -> nn.Module:
    """CLIP's text model of transformers; with a `projection_dim` it gives the pooled embedding too."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    return (CLIPTextModelWithProjection if "projection_dim" in config else CLIPTextModel)(CLIPTextConfig(**config))


def token_ids(batch_size: int, words: int, device: torch.device) -> Tensor:
    """Prompts of so many words, padded to CLIP's length: (n, 77). Their content changes no time."""
    ids = torch.full((batch_size, LENGTH), END, device=device)
    ids[:, 0], ids[:, 1 : 1 + words] = START, WORD
    return ids


class PaperSize:
    """A model at its published size: `networks` by name, all on one device and in one precision."""

    networks: dict[str, nn.Module]
    finite = True  # whether the last pictures were: processors draw less power, and run faster, on NaN

    def __init__(self, entry: dict[str, Any], device: torch.device, dtype: torch.dtype, size: int):
        self.device, self.dtype, self.size = device, dtype, size
        self.steps, self.guidance = entry["steps"], entry["guidance"]

    def ready(self, **networks: nn.Module) -> None:
        """Take networks in use: no gradients, no dropout."""
        self.networks = {name: net.to(self.dtype).eval().requires_grad_(False) for name, net in networks.items()}

    def parameters(self) -> dict[str, int]:
        """Parameters of each network."""
        return {name: sum(p.numel() for p in network.parameters()) for name, network in self.networks.items()}

    def compiled_parts(self) -> list[nn.Module]:
        """What torch.compile is asked for: the networks that denoise, and the decoder."""
        raise NotImplementedError

    def compile(self) -> None:
        """Compile for fixed shapes, as one does who draws many batches of one size."""
        torch._dynamo.reset()
        for part in self.compiled_parts():
            part.compile(dynamic=False)

    def pixels(self, images: Tensor) -> np.ndarray:
        """Images (n, 3, h, w) in about [0, 1] as uint8 (n, h, w, 3) in the computer's memory."""
        self.finite = bool(images.isfinite().all())
        return images.float().clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    def draw(self, batch_size: int, steps: int | None = None) -> np.ndarray:
        """One batch, uint8 (n, size, size, 3); `steps` in place of the model's own, to warm up."""
        raise NotImplementedError


class PaperWuerstchen(PaperSize):
    """Würstchen from this project's networks, sampled as section 3.3 says: timesteps and sampler in float32."""

    def __init__(
        self,
        entry: dict[str, Any],
        device: torch.device,
        dtype: torch.dtype,
        size: int = 1024,
        of: Preset | None = None,
    ):
        super().__init__(entry, device, dtype, size)
        of = of or preset(entry["preset"])
        with device:
            self.ready(
                text_encoder_c=text_model(entry["text_encoder_c"]),
                text_encoder_b=text_model(entry["text_encoder_b"]),
                stage_c=StageC(of.stage_c).to(memory_format=torch.channels_last),
                stage_b=UNet(of.stage_b).to(memory_format=torch.channels_last),
                stage_a=StageA(of.stage_a).to(memory_format=torch.channels_last),
            )
        self.scaling = latent_scaling("released", {})

    def compiled_parts(self) -> list[nn.Module]:
        stage_a = self.networks["stage_a"]
        return [self.networks["stage_c"], self.networks["stage_b"], stage_a.up_blocks, stage_a.out_block]

    def text(self, encoder: str, ids: Tensor, scale: float) -> Tensor:
        """Tokens of the prompts and, where guidance needs it, of the empty prompt."""
        network = self.networks[encoder]
        null = network(token_ids(1, 0, self.device)).last_hidden_state
        return doubled(network(ids).last_hidden_state, null, scale)

    def denoise(self, stage: str, objective, condition, scale: float, shape: tuple[int, ...], steps: int) -> Tensor:
        """Latents of `shape`, float32, sampled by one stage."""

        def network(x: Tensor, t: Tensor, condition) -> tuple[Tensor, Tensor]:
            return self.networks[stage](x.to(self.dtype, memory_format=torch.channels_last), t, condition)

        def noise(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, device=self.device)

        return sample(guided_noise(network, objective, condition, scale), shape, steps, noise, CosineSchedule())

    @torch.inference_mode()
    def draw(self, batch_size: int, steps: int | None = None) -> np.ndarray:
        stage_a, stage_b, stage_c = (self.networks[f"stage_{stage}"] for stage in "abc")
        ids, scale = token_ids(batch_size, 20, self.device), self.guidance["guidance_c"]
        condition = stage_c.condition(self.text("text_encoder_c", ids, scale))
        shape = (batch_size, stage_c.config.c_in, *[self.size * 3 // 128] * 2)
        image = self.denoise("stage_c", predicted_noise_c, condition, scale, shape, steps or self.steps["steps_c"])
        image, scale = unscale_latents(image, self.scaling).to(self.dtype), self.guidance["guidance_b"]
        image = image if scale == 1 else torch.cat([image, torch.zeros_like(image)])
        shape = (batch_size, stage_b.config.c_in, *[self.size // 4] * 2)
        condition = stage_b.condition(self.text("text_encoder_b", ids, scale), image, shape[2:])
        latents = self.denoise("stage_b", predicted_noise_b, condition, scale, shape, steps or self.steps["steps_b"])
        return self.pixels(stage_a.decode((latents * stage_a.config.scale_factor).to(self.dtype)))


class PaperStableDiffusion(PaperSize):
    """A Stable Diffusion in diffusers' pipeline, as its users run it; XL has a second text encoder."""

    def __init__(self, entry: dict[str, Any], device: torch.device, dtype: torch.dtype, size: int = 1024):
        import diffusers

        super().__init__(entry, device, dtype, size)
        with device:
            networks = {
                "unet": diffusers.UNet2DConditionModel.from_config(entry["unet"]),
                "vae": diffusers.AutoencoderKL.from_config(entry["vae"]),
                **{name: text_model(entry[name]) for name in ("text_encoder", "text_encoder_2") if name in entry},
            }
        self.ready(**networks)
        scheduler = getattr(diffusers, entry["scheduler"]["_class_name"]).from_config(entry["scheduler"])
        self.double = "text_encoder_2" in entry
        if self.double:
            made = diffusers.StableDiffusionXLPipeline(
                **self.networks, tokenizer=None, tokenizer_2=None, scheduler=scheduler, add_watermarker=False
            )
        else:
            unused = {"tokenizer": None, "safety_checker": None, "feature_extractor": None}
            made = diffusers.StableDiffusionPipeline(
                **self.networks, **unused, scheduler=scheduler, requires_safety_checker=False
            )
        made.set_progress_bar_config(disable=True)
        self.pipeline = made

    def compiled_parts(self) -> list[nn.Module]:
        return [self.networks["unet"], self.networks["vae"].decoder]

    def embeddings(self, batch_size: int) -> dict[str, Tensor]:
        """What the pipeline makes of prompts, as its arguments: XL takes zeros for the empty prompt."""
        ids = token_ids(batch_size, 20, self.device)
        if not self.double:
            encoder, empty = self.networks["text_encoder"], token_ids(batch_size, 0, self.device)
            return {"prompt_embeds": encoder(ids)[0], "negative_prompt_embeds": encoder(empty)[0]}
        one, two = (self.networks[name](ids, output_hidden_states=True) for name in ("text_encoder", "text_encoder_2"))
        text = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1)
        return {
            "prompt_embeds": text,
            "negative_prompt_embeds": torch.zeros_like(text),
            "pooled_prompt_embeds": two.text_embeds,
            "negative_pooled_prompt_embeds": torch.zeros_like(two.text_embeds),
        }

    @torch.inference_mode()
    def draw(self, batch_size: int, steps: int | None = None) -> np.ndarray:
        images = self.pipeline(
            **self.embeddings(batch_size),
            height=self.size,
            width=self.size,
            num_inference_steps=steps or self.steps["steps"],
            guidance_scale=self.guidance["guidance"],
            output_type="pt",
        ).images
        return self.pixels(images)


def build(model: str, device: torch.device, dtype: torch.dtype) -> PaperSize:
    """One of `entries` with random weights, for pictures of 1024 x 1024."""
    entry = entries()[model]
    return (PaperWuerstchen if model == "wuerstchen" else PaperStableDiffusion)(entry, device, dtype)
