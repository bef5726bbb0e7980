"""Tensors whose values follow from their names, equal wherever they are computed."""

import math
import zlib
from collections.abc import Mapping, Sequence

import torch


def wave(name: str, shape: Sequence[int], scale: float = 1.0) -> torch.Tensor:
    """float32 values in [-scale, scale] that look like noise."""
    places = torch.arange(math.prod(shape), dtype=torch.float64)
    return (
        (scale * torch.sin(places * (1 + places % 7) * 0.7391 + zlib.crc32(name.encode()) % 997)).float().view(*shape)
    )


def fill(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """New values for a network's tensors, of a size that lets every part of it matter and nothing explode."""
    filled = {}
    for name, tensor in tensors.items():
        matrix = tensor.ndim > 1
        value = wave(name, tensor.shape, 0.8 / math.sqrt(tensor.numel() / tensor.shape[0]) if matrix else 0.3)
        filled[name] = (
            value if matrix or name.endswith("beta.linear2.bias") else value + ("weight" in name or "gamma" in name)
        )
    return filled
