"""Whole CLIPs of reduced width with random weights, in the formats that the real ones are published in.

Attention heads are as wide as in the published models: that no file says.
"""

import math
import warnings
from pathlib import Path

import open_clip
import torch
from transformers import CLIPConfig, CLIPModel

from evaluation.clip_models import MODELS

LAYERS = 3
EMBEDDING = 48
HEADS = 2


def randomise(net: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights that matter on every path: fresh ones are so small that all cosines are near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        net.logit_scale.fill_(math.log(100))
    return net.eval().requires_grad_(False)


def hugging_face(seed: int = 0, layers: int = LAYERS) -> CLIPModel:
    """transformers' CLIPModel with CLIP's vocabulary and CLIP-H's pictures and heads."""
    shape = {"num_hidden_layers": layers, "num_attention_heads": HEADS, "hidden_act": "gelu"}
    text, vision = ({"hidden_size": HEADS * head, "intermediate_size": 4 * HEADS * head} for head in (64, 80))
    marks = {"vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406}
    vision |= {"image_size": 224, "patch_size": 14}
    torch.manual_seed(seed)
    config = CLIPConfig(text_config=text | shape | marks, vision_config=vision | shape, projection_dim=EMBEDDING)
    return randomise(CLIPModel(config), seed)


def with_open_clip(name: str, seed: int = 0, layers: int = LAYERS, embedding: int = EMBEDDING) -> torch.nn.Module:
    """open_clip's own network of a published model, with two heads in each of a few layers."""
    config = open_clip.get_model_config(MODELS[name].network)
    config["embed_dim"] = embedding
    text, vision = config["text_cfg"], config["vision_cfg"]
    text |= {"layers": layers, "width": HEADS * text["width"] // text["heads"], "heads": HEADS}
    vision |= {"layers": layers, "width": HEADS * vision.get("head_width", 64)}
    torch.manual_seed(seed)
    return randomise(open_clip.CLIP(**config, quick_gelu=MODELS[name].quick_gelu), seed)


def save_hpsv2(model: torch.nn.Module, path: Path) -> None:
    """As HPS v2.1 is published: open_clip's names, in half precision, beside the epoch."""
    half = {name: tensor.half() for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": half}, path)


def save_torchscript(model: torch.nn.Module, path: Path) -> None:
    """As OpenAI publishes its models: tensors and code, and three sizes among the tensors. The model is changed."""
    size = model.visual.image_size[0]
    for name, value in {"input_resolution": size, "context_length": 77, "vocab_size": 49408}.items():
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    model.__dict__["attn_mask"] = model._buffers.pop("attn_mask")  # TorchScript would save it, and theirs has none
    example = torch.zeros(1, 3, size, size), torch.ones(1, 77, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but is what these files are
        torch.jit.save(torch.jit.trace(model, example, check_trace=False), path)
