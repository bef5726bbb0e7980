"""What the diffusion stages of a study are trained on: text tokens and latents, computed beforehand."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wuerstchen import weights
from wuerstchen.compressor import SemanticCompressor
from wuerstchen.data import load_index
from wuerstchen.presets import Preset


def read_rows(path: Path, rows: list[dict]) -> tuple[dict[str, Tensor], dict]:
    """Precomputed tensors that belong to exactly these rows. Raises ValueError where they belong to others."""
    tensors, metadata = weights.load(path)
    if metadata["ids"] != weights.ids_digest([row["id"] for row in rows]):
        raise ValueError(f"{path} was computed for other pictures than index.jsonl lists; delete it")
    return tensors, metadata


@dataclass
class Inputs:
    """What the diffusion stages are trained on: one row per picture in each tensor but `tokens["null"]`.

    `latents` holds what the stage needs of "a", "trunk" and "compressor"; `measured` their statistics.
    """

    tokens: dict[str, Tensor]
    latents: dict[str, Tensor]
    measured: dict
    train: Tensor  # bool per row
    validation: Tensor  # bool per row

    @classmethod
    def read(cls, stage: str, data: Path, folder: Path) -> "Inputs":
        """What was computed of the pictures in `data`, from there and from the folder of latents."""
        rows = load_index(data)
        latents, measured = {}, {}
        for name in LATENTS[stage]:
            tensors, metadata = read_rows(folder / f"{name}.safetensors", rows)
            latents[name] = tensors["latents"]
            measured |= metadata
        tokens, _ = read_rows(data / "tokens.safetensors", rows)
        splits = [torch.tensor([row["split"] == split for row in rows]) for split in ("train", "validation")]
        return cls(tokens, latents, measured, *splits)

    @classmethod
    def dummy(cls, preset: Preset, words: int) -> "Inputs":
        """Zeros in the shapes of a preset, for two pictures whose captions have `words` tokens: enough to count what a
        training step computes."""
        side, size = preset.image_size // 4, preset.compressed_size
        compressor = SemanticCompressor(preset.compressor)
        with torch.no_grad():
            trunk = compressor.trunk(torch.zeros(2, 3, preset.compressor.input_size, preset.compressor.input_size))
        latents = {
            "a": torch.zeros(2, preset.stage_a.c_latent, side, side),
            "trunk": trunk,
            "compressor": torch.zeros(2, preset.compressor.c_latent, size, size),
        }
        text = torch.zeros(2, preset.text.length, preset.text.dimensions)
        text[:, :words] = 1
        tokens = {"captions": text, "descriptions": text, "null": text[:1]}
        ones = [1.0] * preset.compressor.c_latent
        both = torch.ones(2, dtype=torch.bool)
        return cls(tokens, latents, {"mean": ones, "std": ones}, both, both)


def mean_words(short: Tensor, long: Tensor, share: float) -> int:
    """Tokens of a caption, rounded up, where a share of the captions that are drawn are the long ones.

    short, long: which of their tokens are not zero, (n, l).
    """
    means = (real.count_nonzero() / len(real) for real in (short, long))
    return math.ceil(torch.lerp(*means, share))


LATENTS = {"b": ["a", "trunk"], "c": ["compressor"], "baseline-ldm": ["a"]}


def packed(text: Tensor) -> tuple[Tensor, Tensor]:
    """Text tokens (n, l, d) as the rows that are not zero, after one that is: (1 + m, d), and their places (n, l).

    Positions after a prompt's end are zero, and most are; what is computed of single tokens need not be repeated.
    """
    real = text.any(-1)
    places = real.flatten().cumsum(0).view_as(real) * real
    return torch.cat([text.new_zeros(1, text.shape[-1]), text[real]]), places
