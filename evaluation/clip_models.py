"""CLIP and the scorers made of it, through open_clip: weights, preprocessing and tokens.

clip-b32, clip-l14, clip-l14-336  OpenAI's (Radford et al. 2021): CLIPScore, CMMD
clip-h                            LAION's ViT-H/14 (Ilharco et al. 2021), from which the next two were trained
pickscore                         Kirstain et al. 2023
hpsv2.1                           Human Preference Score v2 (Wu et al. 2023), version 2.1

Weights lie where `wuerstchen.assets` has them, as their authors publish them: tensors in open_clip's or transformers'
names, or OpenAI's TorchScript.
"""

import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from evaluation.preference_model import PreferenceModel, convert_hf_clip_state_dict, unit
from wuerstchen import weights
from wuerstchen.assets import verified
from wuerstchen.linear import pack_linears

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
BATCH = 16


@dataclass(frozen=True)
class Clip:
    """One published model."""

    asset: str
    network: str
    """open_clip's name of the architecture. Sizes are those of the file, heads as wide as in that architecture."""
    preprocessing: str
    quick_gelu: bool = False
    fixed_scale: float | None = None
    """What its authors multiply the cosine by, where that is not exp(logit_scale)."""


MODELS = {
    "clip-b32": Clip("clip-b32", "ViT-B-32", "short-side-crop-224", quick_gelu=True),
    "clip-l14": Clip("clip-l14", "ViT-L-14", "short-side-crop-224", quick_gelu=True),
    "clip-l14-336": Clip("clip-l14-336", "ViT-L-14-336", "short-side-crop-336", quick_gelu=True),
    "clip-h": Clip("clip-h/open-clip", "ViT-H-14", "short-side-crop-224"),
    "pickscore": Clip("pickscore", "ViT-H-14", "short-side-crop-224"),
    "hpsv2.1": Clip("hpsv2.1", "ViT-H-14", "long-side-bars-224", fixed_scale=100.0),
}
SCORERS = ("pickscore", "hpsv2.1")


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's bicubic resize, uint8 RGB to uint8 RGB."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def centre(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of a picture at least that large; of an odd margin the smaller half is above and on the left."""
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def normalised(pixels: Tensor) -> Tensor:
    """(3, h, w) in [0, 1] by CLIP's mean and deviation."""
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


def unit_range(picture: np.ndarray) -> Tensor:
    """uint8 RGB (h, w, 3) -> float32 (3, h, w) in [0, 1]."""
    return torch.tensor(picture).permute(2, 0, 1).float().div(255)


def short_side(picture: np.ndarray, size: int) -> Tensor:
    """CLIP's own, as transformers has it: the short side becomes `size`, then the centre. The sides' ends are lost."""
    height, width = picture.shape[:2]
    short = min(height, width)
    new = [int(size * side / short) if side > short else size for side in (height, width)]
    return normalised(unit_range(centre(resized(picture, *new), size, size)))


def square_first(picture: np.ndarray, size: int) -> Tensor:
    """CMMD's: the central square, then its resize."""
    side = min(picture.shape[:2])
    return normalised(unit_range(resized(centre(picture, side, side), size, size)))


def long_side(picture: np.ndarray, size: int) -> Tensor:
    """HPS v2's: the long side becomes `size`, by torch's antialiased bicubic on floats; black bars make it a square."""
    scale = size / max(picture.shape[:2])
    height, width = (round(side * scale) for side in picture.shape[:2])
    pixels = unit_range(picture)
    if scale != 1:
        pixels = F.interpolate(pixels[None], (height, width), mode="bicubic", antialias=True)[0]
    above, left = (size - height) // 2, (size - width) // 2
    return normalised(F.pad(pixels, (left, size - width - left, above, size - height - above)))


# uint8 RGB (height, width, 3) of any size -> float32 (3, s, s)
PREPROCESSINGS: dict[str, Callable[[np.ndarray], Tensor]] = {
    "short-side-crop-224": lambda picture: short_side(picture, 224),
    "short-side-crop-336": lambda picture: short_side(picture, 336),
    "square-crop-336": lambda picture: square_first(picture, 336),
    "long-side-bars-224": lambda picture: long_side(picture, 224),
}


class Tokens:
    """CLIP's byte pairs between start and end mark, cut at the context length with the end mark kept."""

    def __init__(self, context_length: int):
        from open_clip.tokenizer import SimpleTokenizer

        self.context_length = context_length
        self._tokenizer = SimpleTokenizer(context_length=context_length)

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text)) + 2

    def __call__(self, texts: list[str]) -> Tensor:
        """(n, longest of them), int64, filled up with 0: what follows a text's end mark is never looked at."""
        tokens = self._tokenizer(texts)
        return tokens[:, : int(tokens.argmax(dim=1).max()) + 1]


class Block(nn.Module):
    """A residual block of open_clip's transformers whose matrices can all be packed: theirs hides three of four."""

    def __init__(self, block: nn.Module):
        super().__init__()
        attention, self.heads = block.attn, block.attn.num_heads
        self.ln_1, self.ln_2, self.mlp, self.out = block.ln_1, block.ln_2, block.mlp, attention.out_proj
        with torch.device("meta"):
            self.qkv = nn.Linear(attention.embed_dim, 3 * attention.embed_dim)
        self.qkv.weight, self.qkv.bias = attention.in_proj_weight, attention.in_proj_bias

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        q, k, v = self.qkv(self.ln_1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2))
        return x + self.mlp(self.ln_2(x))


class Blocks(nn.Module):
    """A transformer of open_clip's in such blocks."""

    def __init__(self, transformer: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList(Block(block) for block in transformer.resblocks)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """(n, l, c) -> (n, l, c); causal: each place sees itself and those before it."""
        for block in self.blocks:
            x = block(x, causal)
        return x


class Towers(nn.Module):
    """open_clip's CLIP, rewritten for use only; it also would have all texts filled up to 77 tokens."""

    def __init__(self, clip: nn.Module):
        super().__init__()
        self.clip = clip
        clip.transformer, clip.visual.transformer = Blocks(clip.transformer), Blocks(clip.visual.transformer)
        pack_linears(clip)

    @property
    def logit_scale(self) -> Tensor:
        return self.clip.logit_scale

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(n, 3, s, s) -> (n, d)."""
        return self.clip.encode_image(pixels)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(n, length), at most the context length, -> (n, d): the end mark's, which is the highest token."""
        clip, length = self.clip, tokens.shape[1]
        x = clip.transformer(clip.token_embedding(tokens) + clip.positional_embedding[:length], causal=True)
        return clip.ln_final(x[torch.arange(len(x)), tokens.argmax(dim=1)]) @ clip.text_projection


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: tensors and code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a published file under open_clip's names. Raises ValueError where it has others.

    A TorchScript archive holds code, so that only a file of known digest should be given.
    """
    if is_torchscript(path):
        tensors = torch.jit.load(path, map_location="cpu").state_dict()
        sizes = ("input_resolution", "context_length", "vocab_size")
        return {name: tensor for name, tensor in tensors.items() if name not in sizes}
    tensors = weights.read(path)
    tensors = tensors.get("state_dict", tensors)
    hugging_face = any(name.startswith("text_model.") for name in tensors)
    return convert_hf_clip_state_dict(tensors) if hugging_face else dict(tensors)


def sizes(clip: Clip, tensors: Mapping[str, Tensor], source: str | Path) -> dict[str, Any]:
    """open_clip's configuration of the network that has these tensors. Raises ValueError naming `source`.

    Shapes say all but the number of heads. That a file has the published sizes is for its digest to say.
    """
    import open_clip

    config = open_clip.get_model_config(clip.network)
    text, vision = config["text_cfg"], config["vision_cfg"]
    head = text["width"] // text["heads"]
    try:
        vision["width"], _, vision["patch_size"], _ = tensors["visual.conv1.weight"].shape
        grid = math.isqrt(len(tensors["visual.positional_embedding"]) - 1)
        text["vocab_size"], text["width"] = tensors["token_embedding.weight"].shape
        text["context_length"] = len(tensors["positional_embedding"])
        config["embed_dim"] = tensors["text_projection"].shape[1]
    except KeyError as error:
        raise ValueError(f"{source}: tensor {error.args[0]} is missing") from None
    vision["image_size"], text["heads"] = grid * vision["patch_size"], text["width"] // head
    for tower, prefix in ((text, "transformer."), (vision, "visual.transformer.")):
        tower["layers"] = sum(name.startswith(prefix) and name.endswith(".ln_1.weight") for name in tensors)
    return config


def build(clip: Clip, tensors: Mapping[str, Tensor], source: str | Path, dtype: torch.dtype, device: str) -> Towers:
    """The network with these weights, for use only; logit_scale stays in float32, in which its exponential is needed.

    Raises ValueError naming `source` and the first tensor that is missing, extra or misshapen.
    """
    import open_clip

    with torch.device("meta"):
        network = open_clip.CLIP(**sizes(clip, tensors, source), quick_gelu=clip.quick_gelu)
    weights.assign(network, tensors, source, dtype, device)
    network.logit_scale = nn.Parameter(tensors["logit_scale"].to(device, torch.float32), requires_grad=False)
    network.attn_mask = None  # its own text tower's, and still without values
    return Towers(network).eval()


def load(name: str, precision: str = "fp32", device: str | None = None) -> PreferenceModel:
    """A model of the table above with what goes before its towers; its score's metric is its name.

    precision: of the towers; what is not "fp32" is part of the name. device: torch's name, by default a GPU if there
    is one. Raises ValueError for an unknown name or precision, and for weights that are missing or not the published
    ones.
    """
    if name not in MODELS:
        raise ValueError(f"unknown CLIP {name!r}; known are: {', '.join(MODELS)}")
    path, digest = verified(MODELS[name].asset)
    return load_file(name, MODELS[name], path, digest, precision, device)


def load_file(
    name: str, clip: Clip, path: Path, sha256: str, precision: str = "fp32", device: str | None = None
) -> PreferenceModel:
    """The model `clip` from a file of digest `sha256`; see `load`."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}; known are: {', '.join(PRECISIONS)}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return wrap(name, clip, build(clip, read(path), path, PRECISIONS[precision], device), sha256)


def wrap(name: str, clip: Clip, towers: Towers, sha256: str) -> PreferenceModel:
    """The network with its tokens and preprocessing."""
    tokens, dtype = Tokens(towers.clip.context_length), next(towers.parameters()).dtype
    precision = next(name for name, known in PRECISIONS.items() if known == dtype)
    return PreferenceModel(
        name=name if precision == "fp32" else f"{name}-{precision}",
        sha256=sha256,
        model=towers,
        preprocess=PREPROCESSINGS[clip.preprocessing],
        tokenize=tokens,
        count_tokens=tokens.count,
        context_length=tokens.context_length,
        preprocessing=clip.preprocessing,
        metric=name,
        fixed_scale=clip.fixed_scale,
    )


class ClipImages:
    """CLIP's image embeddings as features, of length 1: what CMMD compares. There are no logits."""

    def __init__(self, model: PreferenceModel):
        self.name, self.sha256, self._towers = model.name, model.sha256, model.model

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray, preprocessing: str) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, d) and logits (n, 0), float32, of uint8 RGB (n, height, width, 3).

        Raises ValueError for a preprocessing that is none of `PREPROCESSINGS`.
        """
        if preprocessing not in PREPROCESSINGS:
            raise ValueError(f"unknown preprocessing {preprocessing!r}; CLIP has: {', '.join(PREPROCESSINGS)}")
        prepare, weight, features = PREPROCESSINGS[preprocessing], next(self._towers.parameters()), []
        for start in range(0, len(pictures), BATCH):
            pixels = torch.stack([prepare(picture) for picture in pictures[start : start + BATCH]])
            features.append(unit(self._towers.encode_image(pixels.to(weight.device, weight.dtype))))
        return np.concatenate(features), np.zeros((len(pictures), 0), np.float32)
