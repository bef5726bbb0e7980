"""CLIP's text encoders (Radford et al., 2021; Ilharco et al., 2021) as the models were trained with them.

Würstchen has CLIP-H and CLIP-bigG: prompts are padded to 77 tokens, the padding is masked, and the tokens are those of
the last layer after the final norm. Stable Diffusion, whose text encoders the baseline LDM has, masks no padding. 1.4
has CLIP-L; 2.1 has CLIP-H without its last layer (`clip-h-penultimate`), padded with token 0 as OpenCLIP does.
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
from wuerstchen.assets_table import TOKENIZERS
from wuerstchen.presets import TextConfig
from wuerstchen.text import TextEncoder

END = "<|endoftext|>"


@dataclass(frozen=True)
class ClipConfig:
    """The text half of a CLIP. The channel MLP is four times as wide."""

    width: int
    depth: int
    heads: int
    vocabulary: int = 49408
    length: int = 77
    activation: str = "gelu"  # the exact one; "quick-gelu": OpenAI's x * sigmoid(1.702 x)
    masked: bool = True  # whether padding is kept from being attended to
    padding: str = END


SIZES = {
    "clip-h": ClipConfig(1024, 24, 16),
    "clip-bigg": ClipConfig(1280, 32, 20),
    "clip-l": ClipConfig(768, 12, 12, activation="quick-gelu", masked=False),
    "clip-h-penultimate": ClipConfig(1024, 23, 16, masked=False, padding="!"),
}


def quick_gelu(x: Tensor) -> Tensor:
    """The GELU of OpenAI's CLIP."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": F.gelu, "quick-gelu": quick_gelu}


class ClipText(nn.Module):
    """CLIP's text transformer (Radford et al., 2021) built of torch's own layers."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config, width = config, config.width
        self.words = nn.Embedding(config.vocabulary, width)
        self.positions = nn.Embedding(config.length, width)
        act = ACTIVATIONS[config.activation]
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, config.heads, 4 * width, 0.0, act, batch_first=True, norm_first=True)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        """ids: (n, l) of tokens; real: (n, l), False where they are padding. Returns tokens (n, l, width)."""
        length = ids.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)
        x = self.words(ids) + self.positions.weight[:length]
        for layer in self.layers:
            x = layer(x, later, ~real if self.config.masked else None)
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


class Clip(TextEncoder):
    """Unpooled tokens of CLIP's text encoder. The networks see the padding too, so it is as in their training."""

    def __init__(self, config: TextConfig, model: ClipText, tokenizer: Path):
        super().__init__(config, Tokenizer.from_file(str(tokenizer)))
        self.model = model
        self.padding = self.tokenizer.token_to_id(model.config.padding)
        if self.tokenizer.token_to_id(END) is None:
            raise ValueError(f"{tokenizer}: there is no {END}; this is not a tokenizer of CLIP's")

    @torch.no_grad()
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
        batches = zip(ids.split(batch_size), real.split(batch_size), strict=True)
        tokens = [self.model(some.to(where), kept.to(where)) for some, kept in batches]
        return torch.cat(tokens)


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
    """One of `SIZES` from located assets. Raises ValueError that says which is missing."""
    tokenizer = TOKENIZERS.get(config.encoder, f"{config.encoder}/tokenizer")
    files = locate(f"{config.encoder}/text"), locate(tokenizer)
    return load_clip_files(config, SIZES[config.encoder], *files, dtype, device)
