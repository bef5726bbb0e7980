"""The four models of the paper's Figure 4 at their published sizes, with random weights: trained ones take as long.

Stable Diffusion runs in diffusers' own pipelines, Würstchen in this project's, each as its users construct it. All are
drawn with alike: `draw(batch_size)` goes from token ids to uint8 pictures in the computer's memory.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wuerstchen.pipeline import Pipeline
from wuerstchen.presets import Preset, preset
from wuerstchen.published import Networks
from wuerstchen.sampling import to_uint8
from wuerstchen.scaling import latent_scaling
from wuerstchen.stage_a import StageA
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC

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


class UntrainedText:
    """A text encoder for `Pipeline` that makes as many tokens of a prompt as it has words."""

    def __init__(self, network: nn.Module):
        self.network = network

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Last layer's tokens, (n, 77, d)."""
        ids = torch.cat([token_ids(1, len(prompt.split()), self.network.device) for prompt in prompts])
        return self.network(ids).last_hidden_state


class PaperSize:
    """A model at its published size: `networks` by name, all on one device and in one precision."""

    networks: dict[str, nn.Module]
    parameters: dict[str, int]
    finite = True  # whether the last pictures were: processors draw less power, and run faster, on NaN

    def __init__(self, entry: dict[str, Any], device: torch.device, dtype: torch.dtype, size: int):
        self.device, self.dtype, self.size = device, dtype, size
        self.steps, self.guidance = entry["steps"], entry["guidance"]

    def ready(self, **networks: nn.Module) -> None:
        """Take networks in use: no gradients, no dropout."""
        self.networks = {name: net.to(self.dtype).eval().requires_grad_(False) for name, net in networks.items()}
        self.parameters = {name: sum(p.numel() for p in net.parameters()) for name, net in self.networks.items()}

    def compile(self) -> None:
        """Compile what denoises and the decoder, for fixed shapes, when they first run."""
        raise NotImplementedError

    def draw(self, batch_size: int, steps: int | None = None) -> np.ndarray:
        """One batch, uint8 (n, size, size, 3); `steps` in place of the model's own, to warm up."""
        raise NotImplementedError


class PaperWuerstchen(PaperSize):
    """Würstchen in this project's `Pipeline`, which rewrites the networks for sampling when it is first used."""

    def __init__(
        self,
        entry: dict[str, Any],
        device: torch.device,
        dtype: torch.dtype,
        size: int = 1024,
        of: Preset | None = None,
    ):
        super().__init__(entry, device, dtype, size)
        self.preset, self.pipeline, self.compiled = of or preset(entry["preset"]), None, False
        with device:
            self.ready(
                text_encoder_c=text_model(entry["text_encoder_c"]),
                text_encoder_b=text_model(entry["text_encoder_b"]),
                stage_c=StageC(self.preset.stage_c),
                stage_b=UNet(self.preset.stage_b),
                stage_a=StageA(self.preset.stage_a),
            )
        self.networks["stage_a"].out_block.register_forward_hook(self.look)

    def look(self, module: nn.Module, inputs: tuple[Tensor, ...], images: Tensor) -> None:
        """Whether the decoder gives finite pictures."""
        self.finite &= bool(images.isfinite().all())

    def compile(self) -> None:
        torch._dynamo.reset()
        self.compiled = True

    def draw(self, batch_size: int, steps: int | None = None) -> np.ndarray:
        if self.pipeline is None:
            text = {name: UntrainedText(self.networks[f"text_encoder_{name[-1]}"]) for name in ("text_b", "text_c")}
            stages = {name: self.networks[name] for name in ("stage_a", "stage_b", "stage_c")}
            scaling = latent_scaling("released", {})
            networks = Networks(preset=self.preset, scaling=scaling, compressor=None, **stages, **text)
            self.pipeline = Pipeline(networks, self.compiled)
        self.finite = True
        how = self.guidance | (self.steps if steps is None else dict.fromkeys(self.steps, steps))
        return self.pipeline([" ".join(["word"] * 20)] * batch_size, self.size, self.size, **how)


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

    def compile(self) -> None:
        torch._dynamo.reset()
        for part in (self.networks["unet"], self.networks["vae"].decoder):
            part.compile(dynamic=False)

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
        self.finite = bool(images.isfinite().all())
        return to_uint8(images)


def build(model: str, device: torch.device, dtype: torch.dtype) -> PaperSize:
    """One of `entries` with random weights, for pictures of 1024 x 1024."""
    entry = entries()[model]
    return (PaperWuerstchen if model == "wuerstchen" else PaperStableDiffusion)(entry, device, dtype)
