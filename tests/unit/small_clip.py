"""CLIP's text encoders at reduced width with random weights, and its real vocabulary, as transformers saves them."""

from pathlib import Path

import torch
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def tokenizer(padding: str = "<|endoftext|>") -> CLIPTokenizer:
    """transformers' tokenizer of CLIP's vocabulary, which open_clip's package carries."""
    theirs = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(piece, piece): number for piece, number in theirs.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(theirs.bpe_ranks), pad_token=padding, model_max_length=77)


def model(width: int, depth: int, heads: int, seed: int = 0, activation: str = "gelu") -> CLIPTextModel:
    """transformers' CLIPTextModel with weights large enough for every path to matter."""
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        hidden_act=activation,
        projection_dim=width,
    )
    net = CLIPTextModel(config).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def tokens(net: CLIPTextModel, tokens_of: CLIPTokenizer, prompts: list[str]) -> torch.Tensor:
    """What diffusers' Würstchen pipelines take from a text encoder."""
    batch = tokens_of(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return net(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state


def save(folder: Path, prefix: str, net: CLIPTextModel, tokens_of: CLIPTokenizer) -> None:
    """Write both as a saved pipeline has them."""
    net.save_pretrained(folder / f"{prefix}text_encoder")
    tokens_of.save_pretrained(folder / f"{prefix}tokenizer")
