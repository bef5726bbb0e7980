"""Text encoders: prompts to unpooled tokens of fixed length."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn

from wuerstchen.assets import locate
from wuerstchen.files import read_json
from wuerstchen.presets import TextConfig
from wuerstchen.progress import progress


class BertEncoder(nn.Module):
    """BERT's encoder (Devlin et al., 2019) built of torch's own layers, for weights in Hugging Face's naming.

    transformers has the same network, but to import it takes longer than to encode a study's prompts.
    """

    def __init__(self, config: dict):
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.types = nn.Embedding(config["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, eps)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, config["num_attention_heads"], config["intermediate_size"], 0.0, F.gelu, eps, batch_first=True
            )
            for _ in range(config["num_hidden_layers"])
        )

    def load(self, tensors: dict[str, Tensor]) -> "BertEncoder":
        """Load Hugging Face's tensors, strictly but for the pooler, which is not used."""
        names = {"words": "word_embeddings", "positions": "position_embeddings", "types": "token_type_embeddings"}
        state = {f"{ours}.weight": tensors[f"embeddings.{theirs}.weight"] for ours, theirs in names.items()}
        parts = {
            "self_attn.out_proj": "attention.output.dense",
            "norm1": "attention.output.LayerNorm",
            "linear1": "intermediate.dense",
            "linear2": "output.dense",
            "norm2": "output.LayerNorm",
        }
        for kind in ("weight", "bias"):
            state[f"norm.{kind}"] = tensors[f"embeddings.LayerNorm.{kind}"]
            for i in range(len(self.layers)):
                theirs = f"encoder.layer.{i}"
                qkv = [tensors[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
                state[f"layers.{i}.self_attn.in_proj_{kind}"] = torch.cat(qkv)
                for ours, name in parts.items():
                    state[f"layers.{i}.{ours}.{kind}"] = tensors[f"{theirs}.{name}.{kind}"]
        self.load_state_dict(state)
        return self.eval()

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (n, l) without padding. Returns the last layer's tokens (n, l, width)."""
        x = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types.weight[0])
        for layer in self.layers:
            x = layer(x)
        return x


class TextEncoder:
    """What all text encoders share: a tokenizer, and prompts cut to a length."""

    def __init__(self, config: TextConfig, tokenizer: Tokenizer):
        self.config, self.tokenizer = config, tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()

    def encode(self, prompts: Sequence[str], batch_size: int = 8) -> Tensor:
        """Tokens of each prompt, (n, length, dimensions)."""
        raise NotImplementedError

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Number of word pieces of each prompt, start and end marks included, before any truncation."""
        return [len(encoding.ids) for encoding in self.tokenizer.encode_batch(list(prompts))]

    def truncated(self, prompts: Sequence[str]) -> int:
        """How many of the prompts are longer than the encoder takes and lose their end."""
        return sum(length > self.config.length for length in self.lengths(prompts))

    def pieces(self, encoding: Encoding) -> list[int]:
        """A prompt's word pieces; of a long one as many as fit, its end mark kept."""
        ids, length = encoding.ids, self.config.length
        return ids if len(ids) <= length else [*ids[: length - 1], ids[-1]]


class MiniLM(TextEncoder):
    """Unpooled last-layer tokens of all-MiniLM-L6-v2, from its pip package; positions after the end are zero."""

    def __init__(self, config: TextConfig):
        from safetensors.torch import load_file

        super().__init__(config, Tokenizer.from_file(str(locate("minilm/tokenizer"))))
        self.model = BertEncoder(read_json(locate("minilm/config"))).load(load_file(locate("minilm/text")))

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str], batch_size: int = 8) -> Tensor:
        """Tokens of each prompt, float32 (n, length, dimensions). Longer prompts lose their end.

        Prompts of one length share batches of a fixed shape, so that no token depends on what else is encoded.
        """
        tokens = torch.zeros(len(prompts), self.config.length, self.config.dimensions)
        groups: dict[int, list[tuple[int, list[int]]]] = {}
        for row, encoding in enumerate(self.tokenizer.encode_batch(list(prompts))):
            pieces = self.pieces(encoding)
            groups.setdefault(len(pieces), []).append((row, pieces))
        batches = [
            (size, group[start : start + batch_size])
            for size, group in sorted(groups.items())
            for start in range(0, len(group), batch_size)
        ]
        for size, batch in progress(batches, what="text tokens", unit="batches"):
            ids = torch.zeros(batch_size, size, dtype=torch.long)
            ids[: len(batch)] = torch.tensor([pieces for _, pieces in batch])
            hidden = self.model(ids)
            tokens[[row for row, _ in batch], :size] = hidden[: len(batch)]
        return tokens.clone()


def text_encoder(config: TextConfig, dtype: torch.dtype = torch.float32, device: str = "cpu") -> TextEncoder:
    """The text encoder that a preset names: minilm (always float32 on the CPU) or one of CLIP's.

    Raises ValueError for another one, or where its files are missing.
    """
    if config.encoder == "minilm":
        return MiniLM(config)
    from wuerstchen.clip import SIZES, load_clip

    if config.encoder in SIZES:
        return load_clip(config, dtype, device)
    raise ValueError(f"text.encoder: {config.encoder!r} is not known; there are minilm, {', '.join(SIZES)}")
