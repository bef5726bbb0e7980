"""First stages: what turns pictures into the latents that a diffusion model works on, and latents into pictures.

Stage B always works on Stage A's latents. The baseline LDM has those of Stage A in the small presets and, as the paper
says, those of Stable Diffusion's autoencoder in the others: of 1.4 (E.4) or of 2.1 (section 4).
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.assets import locate
from wuerstchen.files import read_json
from wuerstchen.precompute import load_stage_a
from wuerstchen.stage_a import StageA

STABLE_DIFFUSION = ("sd-1.4", "sd-2.1")  # whose assets are <name>/vae and <name>/vae-config
# what the attention layers were called when these files were written
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class FirstStage(nn.Module):
    """An autoencoder of pictures; `file` holds its weights."""

    file: Path
    channels: int
    factor: int  # pixels a side that each latent stands for

    def place(self, device: torch.device, dtype: torch.dtype) -> "FirstStage":
        """Move it to a device, to be used there in that precision where it bears that."""
        return self.to(device, dtype, memory_format=torch.channels_last)

    def encode(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [0, 1] to latents of about unit variance, float32 (n, channels, h / factor, w /
        factor)."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """Such latents to images of about [0, 1], not clamped."""
        raise NotImplementedError


class StageALatents(FirstStage):
    """Stage A, unquantised (3.1)."""

    def __init__(self, network: StageA, file: Path):
        super().__init__()
        self.network, self.file = network, file
        self.channels, self.factor = network.config.c_latent, 2**network.config.levels

    def encode(self, images: Tensor) -> Tensor:
        return self.network.encode(self.own(images)).float() / self.network.config.scale_factor

    def decode(self, latents: Tensor) -> Tensor:
        return self.network.decode(self.own(latents * self.network.config.scale_factor))

    def own(self, x: Tensor) -> Tensor:
        """In the precision of the weights."""
        return x.to(self.network.vquantizer.codebook.weight.dtype)

    def codes(self) -> Tensor:
        """The codebook at the scale of the latents, (codes, channels)."""
        return self.network.vquantizer.codebook.weight.float() / self.network.config.scale_factor


class StableDiffusionVAE(FirstStage):
    """Stable Diffusion's variational autoencoder (Rombach et al., 2022), which is diffusers' AutoencoderKL.

    A picture's latents are the mean of what the encoder predicts, not a sample of it: the paper does not say which,
    and only of the mean are precomputed latents the same as those that a training computes.
    """

    def __init__(self, config: Path, file: Path):
        from diffusers import AutoencoderKL  # which takes seconds to import

        super().__init__()
        values = read_json(config)
        if not isinstance(values, dict) or values.get("_class_name") != "AutoencoderKL":
            raise ValueError(f"{config}: not the configuration of an AutoencoderKL")
        with torch.device("meta"):
            network = AutoencoderKL.from_config(values)
        tensors = {current_name(name): tensor for name, tensor in weights.read(file).items()}
        self.network, self.file = weights.assign(network, tensors, file, torch.float32, "cpu"), file
        self.scale = network.config.scaling_factor
        self.channels, self.factor = network.config.latent_channels, 2 ** (len(network.config.block_out_channels) - 1)

    def place(self, device: torch.device, dtype: torch.dtype) -> "FirstStage":
        return self.to(device, memory_format=torch.channels_last)  # always float32, see `decode`

    def encode(self, images: Tensor) -> Tensor:
        return self.network.encode(2 * images - 1).latent_dist.mean.float() * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        # In float32, as bf16 is hardly finer than a PNG's 256 steps, and one picture at a time, as the layers at full
        # size need gigabytes for a batch.
        with torch.autocast(latents.device.type, enabled=False):
            images = [self.network.decode(one.float() / self.scale).sample for one in latents.split(1)]
        return (torch.cat(images) + 1) / 2


def current_name(name: str) -> str:
    """What diffusers calls a tensor of an AutoencoderKL now."""
    return ".".join(RENAMED.get(part, part) for part in name.split(".")) if ".attentions." in name else name


def load_first_stage(name: str, folder: str | Path | None) -> FirstStage:
    """The first stage of that name in eval mode: "stage-a" from a folder of trained stages, others from the assets.

    Raises ValueError, one line, for another name and for what is missing or does not fit.
    """
    if name == "stage-a":
        if folder is None:
            raise ValueError("--weights: Stage A is needed; name the folder of the trained stages that holds a/")
        return StageALatents(load_stage_a(folder), Path(folder) / "a" / "model.safetensors").eval()
    if name not in STABLE_DIFFUSION:
        raise ValueError(f"first stage: {name!r} is not known; use stage-a, {', '.join(STABLE_DIFFUSION)}")
    return StableDiffusionVAE(locate(f"{name}/vae-config"), locate(f"{name}/vae")).eval()
