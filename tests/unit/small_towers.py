"""Whole CLIPs of reduced width with random weights, in the formats that the real ones are published in."""

import json
import math
from dataclasses import replace
from pathlib import Path

import open_clip
import torch
from transformers import CLIPConfig, CLIPModel

from evaluation.clip_models import MODELS, Clip

WIDTHS = {"text": 64, "vision": 80, "embedding": 48}
LAYERS = 3


def randomise(net: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights that matter on every path: fresh ones are so small that all cosines are near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        net.logit_scale.fill_(math.log(100))
    return net.eval().requires_grad_(False)


def hugging_face(size: int = 224, patch: int = 14, act: str = "gelu", seed: int = 0) -> CLIPModel:
    """transformers' CLIPModel with CLIP's vocabulary."""
    shape = {"num_hidden_layers": LAYERS, "num_attention_heads": 4, "hidden_act": act}
    text, vision = ({"hidden_size": WIDTHS[part], "intermediate_size": 4 * WIDTHS[part]} for part in ("text", "vision"))
    marks = {"vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406}
    vision |= {"image_size": size, "patch_size": patch}
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config=text | shape | marks, vision_config=vision | shape, projection_dim=WIDTHS["embedding"]
    )
    return randomise(CLIPModel(config), seed)


def register(folder: Path, size: int = 224, patch: int = 14) -> str:
    """Tell open_clip these sizes; returns their name."""
    name = f"small-{size}-{patch}"
    vision = {"image_size": size, "layers": LAYERS, "width": WIDTHS["vision"], "head_width": 20, "patch_size": patch}
    text = {"context_length": 77, "vocab_size": 49408, "width": WIDTHS["text"], "heads": 4, "layers": LAYERS}
    config = {"embed_dim": WIDTHS["embedding"], "vision_cfg": vision, "text_cfg": text}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    return name


def small(model: str, network: str) -> Clip:
    """The published model at other sizes."""
    return replace(MODELS[model], network=network)


def with_open_clip(network: str, quick_gelu: bool, seed: int = 0) -> torch.nn.Module:
    """open_clip's CLIP of registered sizes."""
    torch.manual_seed(seed)
    net = open_clip.CLIP(**open_clip.get_model_config(network), quick_gelu=quick_gelu)
    return randomise(net, seed)
