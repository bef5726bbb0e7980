"""What a study of the paper's size computes: FLOPs and parameters, counted by torch from shapes alone.

Networks are made on torch's meta device: neither weights nor data nor memory are needed. A gradient counts as two more
forward passes. What is not counted: optimisers, losses, activations that are computed again, decoding of pictures and,
of drawing, text encoders.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from evaluation.generators.paper_size import entries
from wuerstchen.clip import SIZES, ClipText
from wuerstchen.compressor import SemanticCompressor
from wuerstchen.objectives import phases
from wuerstchen.presets import CompressorConfig, Preset, StageAConfig, StageCConfig, TextConfig, UNetConfig
from wuerstchen.stage_a import Discriminator, StageA
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC

LATENT = 4  # pixels a side of a latent of Stage A
VAE = 8  # of Stable Diffusion's autoencoder
COMPRESSED = 32  # of the compressor's backbone
Size = tuple[int, int]


@dataclass(frozen=True)
class Network:
    """FLOPs of a forward pass for one sample, and the network's parameters."""

    flops: int
    parameters: int = 0


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """A network of shapes alone."""
    with torch.device("meta"):
        return make()


@cache
def network_of(kind: Callable[[Any], nn.Module], config: Any) -> nn.Module:
    """One of this project's, of shapes alone: to make one takes longer than to count it."""
    return on_meta(lambda: kind(config))


def counted(network: nn.Module, call: Callable[[nn.Module], Any]) -> Network:
    """A network on the meta device as `call` calls it, with a batch of one."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(network)
    return Network(counter.get_total_flops(), sum(p.numel() for p in network.parameters()))


@cache
def stage_a(config: StageAConfig, size: Size, part: str) -> Network:
    """Stage A's encoder, decoder, or both."""
    grid = (1, config.c_latent, size[0] // LATENT, size[1] // LATENT)
    calls = {
        "encoder": lambda net: net.encode(torch.empty(1, 3, *size)),
        "decoder": lambda net: net.decode(torch.empty(grid)),
        "both": lambda net: net(torch.empty(1, 3, *size), torch.ones(1, dtype=torch.bool)),
    }
    return counted(network_of(StageA, config), calls[part])


@cache
def stage_c(config: StageCConfig, text: TextConfig, size: Size) -> Network:
    """Stage C; size: of the pictures that the compressor sees."""
    tokens = torch.empty(1, text.length, config.c_text, device="meta")
    x = torch.empty(1, config.c_in, size[0] // COMPRESSED, size[1] // COMPRESSED, device="meta")
    return counted(network_of(StageC, config), lambda net: net(x, torch.empty(1), net.condition(tokens)))


@cache
def unet(config: UNetConfig, text: TextConfig, latents: Size, compressed: Size | None) -> Network:
    """Stage B, or the baseline LDM where nothing is compressed; both sizes are of latents."""
    image = torch.empty(1, config.c_image, *compressed, device="meta") if compressed else None
    tokens, x = torch.empty(1, text.length, config.c_text, device="meta"), (1, config.c_in, *latents)
    return counted(
        network_of(UNet, config), lambda net: net(torch.empty(x), torch.empty(1), net.condition(tokens, image, latents))
    )


@cache
def compressor(config: CompressorConfig, seen: Size) -> Network:
    """The Semantic Compressor, pictures as large as it sees them."""
    return counted(
        network_of(SemanticCompressor, config),
        # as `forward` does, without its autocast, which the meta device does not have
        lambda net: net.mapper(net.features(net.trunk(torch.empty(1, 3, *seen), seen))),
    )


@cache
def text_encoder(text: TextConfig) -> Network:
    """A CLIP's text half; in training mode, since torch counts nothing of its fused layers."""
    ids = torch.zeros(1, text.length, dtype=torch.long, device="meta")
    return counted(network_of(ClipText, SIZES[text.encoder]), lambda net: net(ids, ids == ids))


@cache
def autoencoder(name: str, size: Size, part: str) -> Network:
    """The encoder or decoder of a Stable Diffusion's autoencoder."""
    from diffusers import AutoencoderKL  # which takes seconds to import

    config = entries()[name]["vae"]
    x = torch.empty(1, 3, *size, device="meta")
    z = torch.empty(1, config["latent_channels"], size[0] // VAE, size[1] // VAE, device="meta")
    return counted(
        on_meta(lambda: AutoencoderKL.from_config(config)),
        lambda net: net.encode(x) if part == "encoder" else net.decode(z),
    )


@cache
def stable_diffusion(name: str, size: Size) -> Network:
    """The U-Net of a Stable Diffusion."""
    from diffusers import UNet2DConditionModel

    config = entries()[name]["unet"]
    x = torch.empty(1, config["in_channels"], size[0] // VAE, size[1] // VAE, device="meta")
    text = torch.empty(1, 77, config["cross_attention_dim"], device="meta")
    pooled = config.get("projection_class_embeddings_input_dim", 0) - 6 * config.get("addition_time_embed_dim", 0)
    added = {"text_embeds": torch.empty(1, pooled, device="meta"), "time_ids": torch.empty(1, 6, device="meta")}
    time = torch.empty(1, device="meta")
    return counted(
        on_meta(lambda: UNet2DConditionModel.from_config(config)),
        lambda net: net(x, time, text, added_cond_kwargs=added if pooled else None),
    )


@cache
def vgg16(size: Size) -> Network:
    """The backbone of LPIPS."""
    from torchvision.models import vgg16 as make

    return counted(on_meta(lambda: make(weights=None).features), lambda net: net(torch.empty(1, 3, *size)))


def shrunk(preset: Preset, size: Size) -> Size:
    """As what the compressor sees a picture of that size (E.2: three quarters)."""
    share = preset.compressor.input_size / preset.image_size
    return round(size[0] * share), round(size[1] * share)


def divided(size: Size, factor: int) -> Size:
    return size[0] // factor, size[1] // factor


def sample_of_stage_a(preset: Preset, first: int, steps: int) -> Network:
    """FLOPs of one sample in a training of Stage A, averaged over its steps: its discriminator starts late."""
    recipe = preset.recipes["a"]
    size = (recipe.crop,) * 2
    network, backbone = stage_a(preset.stage_a, size, "both"), vgg16(size)
    rival = counted(
        on_meta(lambda: Discriminator(recipe.discriminator_width, recipe.discriminator_depth)),
        lambda net: net(torch.empty(1, 3, *size)),
    )
    against = max(0, first + steps - max(first, recipe.adversarial_from)) / steps
    # of LPIPS both pictures' features and the gradient of one; of the discriminator that of Stage A's loss too
    return Network(3 * network.flops + 3 * backbone.flops + round(against * 8 * rival.flops), network.parameters)


def training_sample(preset: Preset, stage: str, number: int) -> Network:
    """FLOPs of one sample in a phase (from 1) of a training on pictures, and the parameters that are trained.

    Frozen networks count, since a training on tar shards of pictures runs them in every step.
    """
    phase = phases(preset, stage)[number - 1]
    if stage == "a":
        before = sum(earlier.steps for earlier in phases(preset, stage)[: number - 1])
        return sample_of_stage_a(preset, before, phase.steps)
    text = text_encoder(preset.text_of(stage)).flops
    found = []
    for size in phase.sizes:
        if stage == "c":
            trained, frozen = [stage_c(preset.stage_c, preset.text, size)], compressor(preset.compressor, size).flops
        elif stage == "b":
            seen = shrunk(preset, size)
            network = unet(preset.stage_b, preset.text_of("b"), divided(size, LATENT), divided(seen, COMPRESSED))
            trained, frozen = (
                [network, compressor(preset.compressor, seen)],
                stage_a(preset.stage_a, size, "encoder").flops,
            )
        else:
            trained, frozen = _baseline(preset, size)
        found.append(3 * sum(network.flops for network in trained) + frozen + text)
    return Network(sum(found) // len(found), sum(network.parameters for network in trained))


def _baseline(preset: Preset, size: Size) -> tuple[list[Network], int]:
    own = preset.baseline_first_stage == "stage-a"
    first = (
        stage_a(preset.stage_a, size, "encoder") if own else autoencoder(preset.baseline_first_stage, size, "encoder")
    )
    latents = divided(size, LATENT if own else VAE)
    return [unet(preset.baseline_ldm, preset.text_of("baseline-ldm"), latents, None)], first.flops


def phase_flops(preset: Preset, stage: str, number: int) -> int:
    """FLOPs of a whole phase of a training."""
    phase = phases(preset, stage)[number - 1]
    return training_sample(preset, stage, number).flops * phase.batch_size * phase.steps


def guided(settings: Mapping[str, float], steps: str, guidance: str) -> float:
    """How often a network is called: twice a step where it is guided."""
    return settings[steps] * (2 if settings[guidance] != 1 else 1)


def refined(preset: Preset, settings: Mapping[str, float]) -> float:
    """FLOPs of Stages B and A."""
    size, seen = (preset.image_size,) * 2, (preset.compressor.input_size,) * 2
    b = unet(preset.stage_b, preset.text_of("b"), divided(size, LATENT), divided(seen, COMPRESSED)).flops
    return guided(settings, "steps_b", "guidance_b") * b + stage_a(preset.stage_a, size, "decoder").flops


def of_wuerstchen(preset: Preset, settings: Mapping[str, float]) -> float:
    c = stage_c(preset.stage_c, preset.text, (preset.compressor.input_size,) * 2).flops
    return guided(settings, "steps_c", "guidance_c") * c + refined(preset, settings)


def of_compressor_ceiling(preset: Preset, settings: Mapping[str, float]) -> float:
    """Of a real picture through compressor, Stage B and Stage A."""
    return compressor(preset.compressor, (preset.compressor.input_size,) * 2).flops + refined(preset, settings)


def of_stage_a_ceiling(preset: Preset, settings: Mapping[str, float]) -> float:
    """Of a real picture through Stage A."""
    return stage_a(preset.stage_a, (preset.image_size,) * 2, "both").flops


OWN = {
    "wuerstchen": of_wuerstchen,
    "ceiling-compressor": of_compressor_ceiling,
    "ceiling-stage-a": of_stage_a_ceiling,
}


def picture_flops(model: str, preset: Preset | None, settings: Mapping[str, float]) -> float | None:
    """FLOPs of drawing one picture; None for a model that is not counted.

    preset: of this project's models and ceilings, None for others'; settings: steps and guidance, as a config has them.
    """
    if preset and model != "baseline-ldm":
        return OWN[model](preset, settings) if model in OWN else None
    if model == "baseline-ldm" and preset:
        size = phases(preset, "baseline-ldm")[-1].sizes[0]
        (network,), _ = _baseline(preset, size)
        own = preset.baseline_first_stage == "stage-a"
        back = (
            stage_a(preset.stage_a, size, "decoder")
            if own
            else autoencoder(preset.baseline_first_stage, size, "decoder")
        )
        return guided(settings, "steps", "guidance") * network.flops + back.flops
    if model in entries() and model != "wuerstchen":
        entry = entries()[model]
        size = (entry["unet"]["sample_size"] * VAE,) * 2
        given = {**entry["steps"], **entry["guidance"], **settings}
        denoised = guided(given, "steps", "guidance") * stable_diffusion(model, size).flops
        return denoised + autoencoder(model, size, "decoder").flops
    return None
