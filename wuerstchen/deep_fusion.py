"""What the generators of DF-GAN (Tao et al. 2022) and GALIP (Tao et al. 2023) share: blocks that fuse text and picture.

Names of modules are those of the official checkpoints, whose tensors they load.
"""

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen import weights

NOISE = 100
SLOPE = 0.2  # of all leaky ReLUs


class Mlp(nn.Sequential):
    def __init__(self, c_cond: int, channels: int):
        super().__init__()
        self.linear1 = nn.Linear(c_cond, channels)
        self.relu1 = nn.ReLU()
        self.linear2 = nn.Linear(channels, channels)


class Affine(nn.Module):
    """A scale and a shift of each channel, from the condition."""

    def __init__(self, c_cond: int, channels: int):
        super().__init__()
        self.fc_gamma, self.fc_beta = Mlp(c_cond, channels), Mlp(c_cond, channels)
        for mlp, start in ((self.fc_gamma, 1.0), (self.fc_beta, 0.0)):  # it begins as the identity
            nn.init.zeros_(mlp.linear2.weight)
            nn.init.constant_(mlp.linear2.bias, start)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return self.fc_gamma(cond)[:, :, None, None] * x + self.fc_beta(cond)[:, :, None, None]


class Fusion(nn.Module):
    """Two such, each followed by a leaky ReLU."""

    def __init__(self, c_cond: int, channels: int):
        super().__init__()
        self.affine0, self.affine1 = Affine(c_cond, channels), Affine(c_cond, channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return F.leaky_relu(self.affine1(F.leaky_relu(self.affine0(x, cond), SLOPE), cond), SLOPE)


class UpBlock(nn.Module):
    """Nearest resize to size x size, then a residual block of two convolutions, each after a fusion."""

    def __init__(self, c_cond: int, c_in: int, c_out: int, size: int):
        super().__init__()
        self.size = size
        self.c1, self.c2 = nn.Conv2d(c_in, c_out, 3, padding=1), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.fuse1, self.fuse2 = Fusion(c_cond, c_in), Fusion(c_cond, c_out)
        self.c_sc = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        x = F.interpolate(x, (self.size, self.size))
        return self.c_sc(x) + self.c2(self.fuse2(self.c1(self.fuse1(x, cond)), cond))


class Decoder(nn.Module):
    """Maps of 8 * width channels and a condition to pictures, through blocks of these sizes; the last has `width`."""

    def __init__(self, width: int, c_cond: int, sizes: Sequence[int]):
        super().__init__()
        channels = [width * min(2**level, 8) for level in range(len(sizes), -1, -1)]
        pairs = zip(channels, channels[1:], sizes, strict=False)
        self.GBlocks = nn.ModuleList(UpBlock(c_cond, *pair) for pair in pairs)
        self.to_rgb = nn.Sequential(nn.LeakyReLU(SLOPE), nn.Conv2d(width, 3, 3, padding=1))

    def decode(self, x: Tensor, cond: Tensor) -> Tensor:
        """(n, 8 * width, h, w) and (n, c_cond) -> (n, 3, s, s), not bounded."""
        for block in self.GBlocks:
            x = block(x, cond)
        return self.to_rgb(x)


def read_generator(path: Path) -> dict[str, Tensor]:
    """The generator's tensors in an official checkpoint, which also holds discriminators. Raises ValueError."""
    tensors = weights.read(path)
    for key in ("model", "netG"):
        tensors = tensors.get(key)
        if not isinstance(tensors, dict):
            raise ValueError(f"{path}: no checkpoint of DF-GAN or GALIP: it has no {key!r}")
    return unwrapped(tensors)


def unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without the prefix that training on several GPUs leaves before their names."""
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def width_of(tensors: dict[str, Tensor], path: Path) -> int:
    """The generator's width. Raises ValueError naming the file where its last layer is missing."""
    if "to_rgb.1.weight" not in tensors:
        raise ValueError(f"{path}: tensor to_rgb.1.weight is missing")
    return tensors["to_rgb.1.weight"].shape[1]
