"""Resizing before an extractor: five ways, each equal to the one of the tool that has it.

A Frechet distance depends on this choice (Parmar et al. 2022), so that it is part of a preprocessing's name:
"pil-float-299" is `pil-float` to 299x299.

- tf1: TensorFlow 1's bilinear, without antialias and without half-pixel centres: TTUR, torch-fidelity, clean-fid's
  legacy_tensorflow.
- torch: bilinear with half-pixel centres, without antialias: pytorch-fid, clean-fid's legacy_pytorch.
- torch-antialias: the same with antialias: torchmetrics' default.
- pil-float: Pillow's antialiased bicubic of each channel in float, cut to 0..255 and not rounded: clean-fid's clean.
- pil-uint8: Pillow's antialiased bicubic, rounded to whole numbers.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def tf1(pictures: np.ndarray, size: int) -> Tensor:
    """TensorFlow 1's bilinear resize; a pixel i of the output lies at i * (input size / output size) of the input."""
    # With align_corners, from n + 1 pixels to size + 1, torch steps by n / size too; the one too many repeats the last.
    padded = np.pad(pictures, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    resized = F.interpolate(_floats(padded), size=(size + 1, size + 1), mode="bilinear", align_corners=True)
    return _channels_last(resized[:, :, :size, :size])


def torch_bilinear(pictures: np.ndarray, size: int) -> Tensor:
    """torch's bilinear resize with half-pixel centres."""
    return _channels_last(F.interpolate(_floats(pictures), size=(size, size), mode="bilinear", align_corners=False))


def torch_antialias(pictures: np.ndarray, size: int) -> Tensor:
    """torch's bilinear resize, in which a pixel of a smaller picture is a mean over all that it covers."""
    resized = F.interpolate(_floats(pictures), size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return _channels_last(resized)


def pil_float(pictures: np.ndarray, size: int) -> Tensor:
    """Pillow's bicubic resize of each channel in float32, cut to 0..255."""
    resized = np.empty((len(pictures), size, size, 3), dtype=np.float32)
    for picture, out in zip(pictures, resized, strict=True):
        for channel in range(3):
            plane = Image.fromarray(picture[:, :, channel].astype(np.float32))
            out[:, :, channel] = plane.resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(resized.clip(0, 255, out=resized)).permute(0, 3, 1, 2)


def pil_uint8(pictures: np.ndarray, size: int) -> Tensor:
    """Pillow's bicubic resize in whole numbers."""
    resized = [Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC) for picture in pictures]
    return _floats(np.stack([np.asarray(picture) for picture in resized]))


RESIZES: dict[str, Callable[[np.ndarray, int], Tensor]] = {
    "tf1": tf1,
    "torch": torch_bilinear,
    "torch-antialias": torch_antialias,
    "pil-float": pil_float,
    "pil-uint8": pil_uint8,
}


def parse(preprocessing: str) -> tuple[str, int]:
    """Name of the resize and size in pixels of a preprocessing such as "pil-float-299". Raises ValueError."""
    name, _, size = preprocessing.rpartition("-")
    if name not in RESIZES or not size.isdecimal() or int(size) == 0:
        raise ValueError(
            f"unknown preprocessing {preprocessing!r}; known are: {', '.join(f'{known}-299' for known in RESIZES)}, "
            "and the same with another size in pixels"
        )
    return name, int(size)


def resized(pictures: np.ndarray, preprocessing: str) -> Tensor:
    """RGB (n, height, width, 3), uint8 or float32 in 0..255 -> float32 (n, 3, size, size), channels last in memory.

    Floats are what a protocol without rounding makes; `pil-uint8` does not take them. Raises ValueError for an unknown
    preprocessing or other arrays.
    """
    name, size = parse(preprocessing)
    known = (np.uint8,) if name == "pil-uint8" else (np.uint8, np.float32)
    if pictures.dtype not in known or pictures.ndim != 4 or pictures.shape[3] != 3 or 0 in pictures.shape:
        raise ValueError(f"uint8 pictures (n, height, width, 3) needed, got {pictures.dtype} {pictures.shape}")
    return RESIZES[name](pictures, size)


def _floats(pictures: np.ndarray) -> Tensor:
    return torch.tensor(pictures).permute(0, 3, 1, 2).float()


def _channels_last(pixels: Tensor) -> Tensor:
    return pixels.contiguous(memory_format=torch.channels_last)
