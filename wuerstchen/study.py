"""A study's trained networks in the form in which published ones are loaded."""

from dataclasses import replace
from pathlib import Path

import torch
import yaml

from wuerstchen import weights
from wuerstchen.pipeline import load_stage_b
from wuerstchen.precompute import load_stage_a
from wuerstchen.presets import CompressorConfig, Preset, Sampling, StageCConfig, TextConfig, from_dict, preset
from wuerstchen.published import Networks
from wuerstchen.sampling import SAMPLING
from wuerstchen.stage_c import StageC
from wuerstchen.text import text_encoder


def own_sampling(folder: Path, start: str) -> Sampling:
    """The settings of the study's config.yaml beside train/; where there is none, the paper's."""
    path = folder.parent / "config.yaml"
    if not path.exists():
        return replace(SAMPLING["paper"], start_b=start)
    return Sampling(**yaml.safe_load(path.read_text(encoding="utf-8"))["sampling"]["wuerstchen"], start_b=start)


def study_networks(
    folder: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Networks:
    """The networks of a study's folder train/, as a published model's would be."""
    folder = Path(folder)
    files = tuple(folder / stage / "model.safetensors" for stage in "abc")
    tensors, c = weights.load(files[2])
    b = weights.metadata(files[1])
    stage_c = StageC(from_dict(StageCConfig, c["stage_c"]))
    weights.load_module(stage_c, tensors, "stage_c.", files[2])
    stage_a, stage_b = load_stage_a(folder), load_stage_b(folder)
    text, text_b = (from_dict(TextConfig, metadata["text"]) for metadata in (c, b))
    encoder = text_encoder(text, dtype, str(device))
    return Networks(
        preset=Preset(
            name=c["preset"],
            image_size=c["image_size"],
            text=text,
            text_b=text_b,
            stage_a=stage_a.config,
            compressor=from_dict(CompressorConfig, b["compressor"]),
            stage_b=stage_b.config,
            stage_c=stage_c.config,
            baseline_ldm=preset(c["preset"]).baseline_ldm,
            sampling=own_sampling(folder, b.get("start", "noise")),
        ),
        stage_a=stage_a.to(device, dtype),
        stage_b=stage_b.to(device, dtype),
        stage_c=stage_c.to(device, dtype),
        text_b=encoder if text_b == text else text_encoder(text_b, dtype, str(device)),
        text_c=encoder,
        scaling=c["latent_scaling"],
        compressor=None,
        files=files,
    )
