"""Published Würstchen weights, loaded from located assets or from a folder into this project's networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from wuerstchen.compressor import SemanticCompressor
from wuerstchen.presets import Preset
from wuerstchen.stage_a import StageA
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC


class TextEncoder(Protocol):
    """What the stages need of a text encoder."""

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Tokens of each prompt, (n, length, dimensions)."""
        ...


@dataclass
class Networks:
    """Everything that draws pictures, in eval mode, on one device."""

    preset: Preset
    stage_a: StageA
    stage_b: UNet
    stage_c: StageC
    text_b: TextEncoder
    text_c: TextEncoder
    scaling: dict
    """How Stage C's latents are scaled, as `tasks.latent_scaling` gives it."""
    compressor: SemanticCompressor | None
    files: tuple[Path, ...] = ()
    """The weight files that all this came from."""


def load(source: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Networks:
    """The networks of a published model, by its id ("released-v2") or in a folder."""
    raise ValueError(f"model: {source!r} cannot be loaded yet")
