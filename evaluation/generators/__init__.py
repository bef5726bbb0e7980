"""Generators: one protocol, `generate(prompts, seed) -> images`, whatever draws them.

A prompt is a row of a prompt file (`evaluation.prompts.read_prompts`); an image is uint8 RGB of shape (h, w, 3). What a
generator draws for a prompt depends on the seed and on that prompt alone, not on what else is drawn with it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

Settings = dict[str, float]


class Generator(Protocol):
    def generate(self, prompts: Sequence[dict], seed: int) -> list[np.ndarray]:
        """One image per prompt."""

    def describe(self) -> dict:
        """Sampler, guidance and the digest of the weights, for the record in each shard."""


def make(
    model: str, weights: Path, settings: Settings, pictures: Path | None = None, compiled: bool | None = None
) -> Generator:
    """The generator of that id; the trained ones load from the folder `weights`, the others read `pictures`.

    compiled: whether models run compiled; None: as they were trained, where a compiler is there.

    Raises ValueError for an unknown id, a missing file, and settings that are missing or unknown.
    """
    # imported only here: reading pictures needs no torch
    if model in ("real", "ceiling-other-artist"):
        from evaluation.generators.pictures import Pictures

        return Pictures(_needed(pictures, "--pictures", model), other_artist=model != "real")
    if model in ("ceiling-stage-a", "ceiling-compressor", "ceiling-compressor-no-text"):
        from evaluation.generators.trained import ReconstructionGenerator

        through, text = model != "ceiling-stage-a", model != "ceiling-compressor-no-text"
        pictures = _needed(pictures, "--pictures", model)
        return ReconstructionGenerator(weights, through, settings, pictures, text, compiled)
    if model == "wuerstchen-probe":
        from evaluation.generators.trained import ProbeGenerator

        return ProbeGenerator(weights, settings, compiled)
    if model == "wuerstchen":
        from evaluation.generators.trained import WuerstchenGenerator

        return WuerstchenGenerator(weights, settings, compiled)
    if model in ("baseline-ldm", "baseline-ldm-bc"):
        from evaluation.generators.trained import BaselineGenerator

        return BaselineGenerator(weights, model, settings, compiled)
    raise ValueError(
        f"--model: {model!r} is not known; use wuerstchen, wuerstchen-probe, baseline-ldm, baseline-ldm-bc, real,"
        " ceiling-stage-a, ceiling-compressor, ceiling-compressor-no-text or ceiling-other-artist"
    )


def _needed(path: Path | None, flag: str, model: str) -> Path:
    if path is None:
        raise ValueError(f"{flag}: needed for {model}")
    return path


def check_settings(settings: Settings, known: dict[str, type]) -> Settings:
    """Settings with their types. Raises ValueError that names a missing or unknown key."""
    if wrong := sorted(set(settings) ^ set(known)):
        kind = "unknown" if wrong[0] in settings else "missing"
        raise ValueError(f"--set: {wrong[0]} is {kind}; this model takes {', '.join(known)}")
    for key, kind in known.items():
        if kind is int and (settings[key] != int(settings[key]) or settings[key] < 1):
            raise ValueError(f"--set: {key} must be a whole number of at least 1, found {settings[key]}")
    return {key: kind(settings[key]) for key, kind in known.items()}
