"""DINOv2 ViT-L/14 (Oquab et al. 2023) as the extractor of FD-DINOv2 (Stein et al. 2023), through timm.

Features are the class token after the last norm, of pictures squeezed to 224 x 224 as dgm-eval has them. The published
weights have positions for 518 x 518; DINOv2's own code resamples them at every call, here that is done once.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.assets import verified
from wuerstchen.linear import pack_linears

NETWORK = "vit_large_patch14_dinov2"
ASSET = "dinov2-l14"
PREPROCESSING = "pil-uint8-224"
SIZE, PATCH = 224, 14
HEAD = 64  # channels of an attention head, in each of the published sizes
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resample_positions(positions: Tensor, side: int) -> Tensor:
    """Positions (1, 1 + s * s, c), the class token's first, for a grid of side x side patches instead of s x s.

    Plain bicubic by the scale (side + 0.1) / s: DINOv2's own rule, whose tenth shifts all samples a little. timm
    antialiases, and transformers leaves the tenth out; their features are not those that FD-DINOv2 was published with.
    """
    old = math.isqrt(positions.shape[1] - 1)
    if old == side:
        return positions
    grid = positions[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2).float()
    scale = (side + 0.1) / old
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([positions[:, :1].float(), grid.flatten(2).transpose(1, 2)], dim=1)


def build(tensors: Mapping[str, Tensor], source: str | Path, device: str = "cpu") -> nn.Module:
    """timm's network with DINOv2's published tensors, whose width and depth it has.

    Raises ValueError naming `source` and the first tensor that is missing, extra or misshapen.
    """
    if "cls_token" not in tensors:
        raise ValueError(f"{source}: tensor cls_token is missing")
    width, depth = tensors["cls_token"].shape[-1], sum(name.endswith(".norm1.weight") for name in tensors)
    sizes = {"embed_dim": width, "depth": depth, "num_heads": width // HEAD}
    import timm  # seconds that other extractors need not pay

    with torch.device("meta"):
        network = timm.create_model(NETWORK, img_size=SIZE, num_classes=0, **sizes)
    # the mask token is for training
    state = {name: tensor for name, tensor in tensors.items() if name != "mask_token"}
    if "pos_embed" in state:
        state["pos_embed"] = resample_positions(state["pos_embed"], SIZE // PATCH)
    return pack_linears(weights.assign(network, state, source, torch.float32, device))


class DINOv2:
    """Extractor; its weights are the asset's."""

    name = "dinov2"
    batch_size = 16

    def __init__(self) -> None:
        path, self.sha256 = verified(ASSET)
        self._model = build(weights.read(path), path, "cuda" if torch.cuda.is_available() else "cpu")

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray, preprocessing: str) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, 1024), of ViT-L, and logits (n, 0), float32, of uint8 RGB (n, height, width, 3).

        Raises ValueError for a preprocessing other than pil-uint8-224.
        """
        if preprocessing != PREPROCESSING:
            raise ValueError(f"preprocessing {preprocessing!r}; DINOv2 has {PREPROCESSING} only")
        device, features = next(self._model.parameters()).device, []
        for start in range(0, len(pictures), self.batch_size):
            pixels = torch.stack([to_pixels(picture) for picture in pictures[start : start + self.batch_size]])
            features.append(self._model(pixels.to(device)).cpu().numpy())
        return np.concatenate(features), np.zeros((len(pictures), 0), np.float32)


def to_pixels(picture: np.ndarray) -> Tensor:
    """uint8 RGB (height, width, 3) -> float32 (3, 224, 224): Pillow's bicubic on bytes, the shape not kept."""
    squeezed = np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    pixels = torch.tensor(squeezed).permute(2, 0, 1).float().div(255)
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
