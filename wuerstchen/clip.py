"""CLIP's text encoders as the released models were trained with them: CLIP-H and CLIP-bigG (Ilharco et al., 2021).

Prompts are padded to 77 tokens and the padding is masked; the tokens are those of the last layer after the final norm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.assets import locate
from wuerstchen.presets import TextConfig
from wuerstchen.progress import progress
from wuerstchen.text import Encoder

END = "<|endoftext|>"


@dataclass(frozen=True)
class ClipConfig:
    """The text half of a CLIP. The channel MLP is four times as wide and has the exact GELU."""

    width: int
    depth: int
    heads: int
    vocabulary: int = 49408
    length: int = 77


SIZES = {"clip-h": ClipConfig(1024, 24, 16), "clip-bigg": ClipConfig(1280, 32, 20)}


class ClipText(nn.Module):
    """CLIP's text transformer (Radford et al., 2021) built of torch's own layers."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config, width = config, config.width
        self.words = nn.Embedding(config.vocabulary, width)
        self.positions = nn.Embedding(config.length, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, config.heads, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        """ids: (n, l) of tokens; real: (n, l), False where they are padding. Returns tokens (n, l, width)."""
        length = ids.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)
        x = self.words(ids) + self.positions.weight[:length]
        for layer in self.layers:
            x = layer(x, later, ~real)
        return self.norm(x)


def from_hugging_face(config: ClipConfig, tensors: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """A state dict of `ClipText` from one of transformers' CLIPTextModel.

    Released files have `text_model.` before every name, those of transformers 5 have nothing. Raises ValueError that
    names the first tensor that is missing or extra.
    """
    tensors = dict(tensors)
    prefix = "text_model." if any(name.startswith("text_model.") for name in tensors) else ""
    tensors.pop(f"{prefix}embeddings.position_ids", None)  # old files carry the numbers 0 to 76

    def take(name: str) -> Tensor:
        if prefix + name not in tensors:
            raise ValueError(f"{source}: tensor {prefix}{name} is missing")
        return tensors.pop(prefix + name)

    state = {
        "words.weight": take("embeddings.token_embedding.weight"),
        "positions.weight": take("embeddings.position_embedding.weight"),
    }
    parts = {
        "self_attn.out_proj": "self_attn.out_proj",
        "norm1": "layer_norm1",
        "linear1": "mlp.fc1",
        "linear2": "mlp.fc2",
        "norm2": "layer_norm2",
    }
    for kind in ("weight", "bias"):
        for i in range(config.depth):
            theirs = f"encoder.layers.{i}"
            qkv = [take(f"{theirs}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            state[f"layers.{i}.self_attn.in_proj_{kind}"] = torch.cat(qkv)
            for ours, name in parts.items():
                state[f"layers.{i}.{ours}.{kind}"] = take(f"{theirs}.{name}.{kind}")
        state[f"norm.{kind}"] = take(f"final_layer_norm.{kind}")
    if tensors:
        raise ValueError(f"{source}: tensor {min(tensors)} is extra ({len(tensors)} in all)")
    return state


class Clip(Encoder):
    """Unpooled tokens of CLIP's text encoder. Padding is the end mark: what the networks see there was trained so."""

    def __init__(self, config: TextConfig, model: ClipText, tokenizer: Path):
        super().__init__(config, Tokenizer.from_file(str(tokenizer)))
        self.model = model
        self.padding = self.tokenizer.token_to_id(END)
        if self.padding is None:
            raise ValueError(f"{tokenizer}: there is no {END}; this is not a tokenizer of CLIP's")

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str], batch_size: int = 8) -> Tensor:
        """Tokens of each prompt, (n, length, dimensions), in the model's precision and on its device.

        Longer prompts lose their end; `truncated` counts them.
        """
        where = self.model.words.weight.device
        ids = torch.full((len(prompts), self.config.length), self.padding)
        real = torch.zeros(ids.shape, dtype=torch.bool)
        for row, encoding in enumerate(self.tokenizer.encode_batch(list(prompts))):
            pieces = self.pieces(encoding)
            ids[row, : len(pieces)] = torch.tensor(pieces)
            real[row, : len(pieces)] = True
        batches = list(zip(ids.split(batch_size), real.split(batch_size), strict=True))
        tokens = [
            self.model(some.to(where), kept.to(where))
            for some, kept in progress(batches, what="text tokens", unit="batches")
        ]
        return torch.cat(tokens).clone()


def load_clip_files(
    config: TextConfig,
    sizes: ClipConfig,
    path: Path,
    tokenizer: Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Clip:
    """A text encoder of these sizes from its weights and its tokenizer.json."""
    with torch.device("meta"):
        model = ClipText(sizes)
    weights.assign(model, from_hugging_face(sizes, weights.read(path), path), path, dtype, device)
    return Clip(config, model, tokenizer)


def load_clip(config: TextConfig, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Clip:
    """CLIP-H or CLIP-bigG from located assets. Raises ValueError that says which is missing."""
    files = [locate(f"{config.encoder}/{part}") for part in ("text", "tokenizer")]
    return load_clip_files(config, SIZES[config.encoder], *files, dtype, device)
