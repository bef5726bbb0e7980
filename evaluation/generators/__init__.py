"""Generators: one protocol, `generate(prompts, seed) -> images`, whatever draws them.

A prompt is a row of a prompt file (`evaluation.prompts.read_prompts`); an image is uint8 RGB of shape (h, w, 3). What a
generator draws for a prompt depends on the seed and on that prompt alone, not on what else is drawn with it.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

Settings = dict[str, float]
DIFFUSERS = ("sd-1.4", "sd-2.1", "sd-xl")  # assets, which diffusers runs
KNOWN = (
    "wuerstchen",
    "wuerstchen-long",
    "wuerstchen-probe",
    "baseline-ldm",
    "baseline-ldm-bc",
    *DIFFUSERS,
    "df-gan",
    "galip",
    "real",
    "ceiling-stage-a",
    "ceiling-compressor",
    "ceiling-compressor-no-text",
    "ceiling-other-artist",
)
# of those that a study trains, and others have published
STAGES = {"wuerstchen": "c", "wuerstchen-long": "c", "df-gan": "df-gan"}
MODEL = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")


class Generator(Protocol):
    """Those that draw also have `batch_size`, how many pictures they draw at a time, which may be set, and `device`
    where that is not the CPU."""

    def generate(self, prompts: Sequence[dict], seed: int) -> list[np.ndarray]:
        """One image per prompt."""

    def describe(self) -> dict:
        """Sampler, guidance and the digest of the weights, for the record in each shard; and what else is known,
        such as precision and settings."""


def make(
    model: str,
    weights: Path | None,
    settings: Settings,
    pictures: Path | None = None,
    compiled: bool | None = None,
    prompts: Iterable[dict] = (),
    sampling: str | None = None,
    device: str | None = None,
) -> Generator:
    """The generator of that id; the trained ones load from the folder `weights`, the others read `pictures`.

    `weights` may also be a published Würstchen (wuerstchen) or the folder of the official files (df-gan, galip), and it
    may be None for sd-1.4, sd-2.1, sd-xl, df-gan and galip, whose files are assets. Any other id
    is yours: of a diffusers pipeline that `weights` names, or of `pictures` named by their prompts' ids.

    compiled: whether models run compiled; None: as they were trained, where a compiler is there.
    prompts: all that will be drawn, other shards' too; your pictures are compared with them.
    sampling: a published Würstchen's settings by name, "paper" or "released", of which `settings` replace parts.
    device: "cpu", "cuda" or "auto"; see `device_of`.

    Raises ValueError for an unknown id, a missing file, and settings that are missing or unknown.
    """
    if sampling is not None and model != "wuerstchen":
        raise ValueError(f"--sampling: {sampling} is of wuerstchen alone; {model} takes --set KEY=NUMBER")
    device = device_of(model, weights, pictures, device)
    # imported only here: reading pictures needs no torch
    if model in ("real", "ceiling-other-artist"):
        from evaluation.generators.pictures import Pictures

        return Pictures(_needed(pictures, "--pictures", model), other_artist=model != "real")
    if model in ("ceiling-stage-a", "ceiling-compressor", "ceiling-compressor-no-text"):
        from evaluation.generators.trained import ReconstructionGenerator

        through, text = model != "ceiling-stage-a", model != "ceiling-compressor-no-text"
        pictures = _needed(pictures, "--pictures", model)
        return ReconstructionGenerator(weights, through, settings, pictures, text, compiled, device)
    if model == "wuerstchen-probe":
        from evaluation.generators.trained import ProbeGenerator

        return ProbeGenerator(weights, settings, compiled, device)
    if model in ("wuerstchen", "wuerstchen-long"):
        from evaluation.generators.published import PublishedGenerator, is_published

        if is_published(_needed(weights, "--weights", model)):
            return PublishedGenerator(weights, settings, bool(compiled), device, sampling)
        from evaluation.generators.trained import WuerstchenGenerator

        if sampling is not None:
            raise ValueError(f"--sampling: {sampling} is for published weights; {weights} takes --set KEY=NUMBER")
        return WuerstchenGenerator(weights, settings, compiled, device)
    if model in ("baseline-ldm", "baseline-ldm-bc"):
        from evaluation.generators.trained import BaselineGenerator

        return BaselineGenerator(weights, model, settings, compiled, device)
    if model == "df-gan":
        if weights is not None and (weights / model).is_dir():
            from evaluation.generators.trained import SmallDFGanGenerator

            return SmallDFGanGenerator(weights, settings, device)
        from evaluation.generators.df_gan import DFGanGenerator

        return DFGanGenerator(weights, settings, device)
    if model == "galip":
        from evaluation.generators.galip import GalipGenerator

        return GalipGenerator(weights, settings, device=device)
    if pictures is not None and weights is None and MODEL.fullmatch(model):
        from evaluation.generators.own import Folder

        check_settings(settings, {})
        return Folder(pictures, prompts)
    if model in DIFFUSERS or (weights is not None and pictures is None and MODEL.fullmatch(model)):
        from evaluation.generators.hub import DiffusersGenerator

        return DiffusersGenerator(model, weights, settings, device)
    raise ValueError(
        f"--model: {model!r} is not known; use {', '.join(KNOWN)}, or any other name [a-z0-9.-] with one of --pictures"
        " (a folder of yours) and --weights (a diffusers pipeline)"
    )


def device_of(model: str, weights: Path | None, pictures: Path | None, given: str | None = None) -> str:
    """Where `make` draws, as torch names it. Raises ValueError for a GPU that is not there.

    given: "cpu", "cuda" or "auto", a GPU where there is one; None: the CPU for what a study trained, so that it draws
    the same on every machine, "auto" for others' models. Pictures that are there are read on the CPU.
    """
    if model in ("real", "ceiling-other-artist") or (pictures is not None and weights is None):
        return "cpu"
    trained = model.startswith(("ceiling-", "baseline-ldm")) or model == "wuerstchen-probe"
    if weights is not None and model in STAGES:
        trained = (weights / STAGES[model] / "model.safetensors").is_file()
    if given == "cpu" or (given is None and trained):
        return "cpu"
    from evaluation.generators.batched import best_device

    if given == "cuda" != best_device():
        raise ValueError("--device: cuda, but torch finds no GPU here; use cpu or auto")
    return best_device()


def _needed(path: Path | None, flag: str, model: str) -> Path:
    if path is None:
        raise ValueError(f"{flag}: needed for {model}")
    return path


def check_settings(settings: Settings, known: dict[str, type], whole: bool = True) -> Settings:
    """Settings with their types. Raises ValueError that names an unknown key and, where `whole`, a missing one."""
    if wrong := sorted(set(settings) ^ set(known) if whole else set(settings) - set(known)):
        kind = "unknown" if wrong[0] in settings else "missing"
        raise ValueError(f"--set: {wrong[0]} is {kind}; this model takes {', '.join(known) or 'none'}")
    known = {key: known[key] for key in known if key in settings}
    for key, kind in known.items():
        if kind is int and (settings[key] != int(settings[key]) or settings[key] < 1):
            raise ValueError(f"--set: {key} must be a whole number of at least 1, found {settings[key]}")
    return {key: kind(settings[key]) for key, kind in known.items()}
