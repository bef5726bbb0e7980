"""The model of a preference score: two towers, embeddings of unit length, and the formula of PickScore.

    score(x, y) = exp(logit_scale) * cos(E_text(x), E_image(y))        (Kirstain et al. 2023, section 4)

The towers are any open_clip model's and may run in low precision. Normalisation and dot product are in float32: scores
near 20 are 1/64 apart in float16 and 1/8 in bfloat16, which alone makes ties.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from wuerstchen.progress import progress

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PreferenceModel:
    """An open_clip model with what goes before its towers."""

    name: str
    sha256: str
    """Digest of everything that decides its scores."""
    model: "torch.nn.Module"
    """Has encode_image, encode_text and logit_scale, as open_clip's CLIP and CustomTextCLIP have."""
    preprocess: "Callable[[np.ndarray], torch.Tensor]"
    """uint8 RGB (height, width, 3) -> float (3, h, w)."""
    tokenize: "Callable[[list[str]], torch.Tensor]"
    """n texts -> integers (n, length), cut at `context_length`."""
    count_tokens: Callable[[str], int]
    """Tokens of a text before any cut, start and end marks included."""
    context_length: int
    preprocessing: str
    metric: str
    """Name of the score in its JSON."""
    fixed_scale: float | None = None
    """What the cosine is multiplied by instead of exp(logit_scale)."""
    not_negative: bool = False
    """Whether a score below 0 is 0."""

    @property
    def scale(self) -> float:
        """What the cosine is multiplied by."""
        if self.fixed_scale is not None:
            return self.fixed_scale
        return float(self.model.logit_scale.detach().float().exp())

    @property
    def protocol(self) -> str:
        """The formula in words."""
        factor = "exp(logit_scale)" if self.fixed_scale is None else f"{self.fixed_scale:g}"
        floor = ", 0 where negative" if self.not_negative else ""
        return f"{factor} x cosine of text and image embedding, normalised and multiplied in float32{floor}"

    def truncated(self, texts: Iterable[str]) -> int:
        """How many texts are longer than the text tower reads."""
        return sum(self.count_tokens(text) > self.context_length for text in texts)

    def embed_texts(self, texts: Sequence[str], batch_size: int = 32) -> dict[str, np.ndarray]:
        """Unit float32 vectors (d,) by text; a repeated text is embedded once. Texts of like length run together."""
        import torch

        unique = sorted(set(texts), key=lambda text: (self.count_tokens(text), text))
        weight = next(self.model.parameters())
        vectors: dict[str, np.ndarray] = {}
        bar = progress(what="embed texts", unit="texts", total=len(unique))
        with torch.inference_mode(), bar:
            for start in range(0, len(unique), batch_size):
                part = unique[start : start + batch_size]
                features = self.model.encode_text(self.tokenize(part).to(weight.device))
                vectors.update(zip(part, unit(features), strict=True))
                bar.update(len(part))
        return vectors

    def embed_images(
        self, images: Iterable[tuple[str, np.ndarray]], total: int | None = None, batch_size: int = 16
    ) -> dict[str, np.ndarray]:
        """Unit float32 vectors (d,) by id, of (id, uint8 RGB (height, width, 3)) pairs."""
        import torch

        weight = next(self.model.parameters())
        images, vectors = iter(images), {}
        bar = progress(what="embed images", unit="images", total=total)
        with torch.inference_mode(), bar:
            while part := list(islice(images, batch_size)):
                pixels = torch.stack([self.preprocess(image) for _, image in part])
                features = self.model.encode_image(pixels.to(weight.device, weight.dtype))
                vectors.update(zip((name for name, _ in part), unit(features), strict=True))
                bar.update(len(part))
        return vectors


def unit(features: "torch.Tensor") -> np.ndarray:
    """Features (n, d) of any precision, as float32 rows of length 1."""
    import torch

    return torch.nn.functional.normalize(features.detach().float(), dim=-1).cpu().numpy()


def score_pairs(
    texts: Mapping[str, np.ndarray], images: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]], scale: float
) -> np.ndarray:
    """Scores, float32 (n,), of (text, image id) pairs from unit vectors."""
    return np.array([np.float32(scale) * np.dot(texts[text], images[image]) for text, image in pairs], dtype=np.float32)


def convert_hf_clip_state_dict(state_dict: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """A CLIPModel of transformers (PickScore's file, say) under the names of open_clip's CLIP.

    Queries, keys and values are joined and the two projections transposed. Raises ValueError for a tensor that no CLIP
    has. The open_clip model must be built with the same activation (PickScore: `quick_gelu=False`).
    """
    import torch

    plain = {
        "logit_scale": "logit_scale",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    }
    norms = {
        "text_model.final_layer_norm": "ln_final",
        "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post",
    }
    parts = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    towers = {"text_model": "transformer", "vision_model": "visual.transformer"}
    layer = re.compile(r"(text_model|vision_model)\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
    converted: dict[str, torch.Tensor] = {}
    joined: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for name, tensor in state_dict.items():
        stem, _, kind = name.rpartition(".")
        if name.endswith("position_ids"):
            continue
        if name in plain:
            converted[plain[name]] = tensor
        elif name == "text_projection.weight":
            converted["text_projection"] = tensor.T.contiguous()
        elif name == "visual_projection.weight":
            converted["visual.proj"] = tensor.T.contiguous()
        elif stem in norms:
            converted[f"{norms[stem]}.{kind}"] = tensor
        elif match := layer.fullmatch(name):
            tower, number, part, kind = match.groups()
            block = f"{towers[tower]}.resblocks.{number}"
            if part in parts:
                converted[f"{block}.{parts[part]}.{kind}"] = tensor
            elif part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
                joined[f"{block}.attn.in_proj_{kind}"][part] = tensor
            else:
                raise ValueError(f"tensor {name} is none of a CLIPModel's")
        else:
            raise ValueError(f"tensor {name} is none of a CLIPModel's")
    for name, tensors in joined.items():
        converted[name] = torch.cat([tensors[f"self_attn.{part}_proj"] for part in "qkv"])
    return converted
