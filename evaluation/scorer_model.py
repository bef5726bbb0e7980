"""EmojiScore's CLIP: two locked towers with a projection each, and how its files are read.

image  ImageNet EfficientNet-Lite2, its last three resolutions pooled (2 x 2 averages and the maximum): emoji are told
       apart by shape and colour more than by the ImageNet classes that the last layer alone is good at;
text   all-MiniLM-L6-v2, mean of its tokens.
"""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.extractors import preprocess, renamed_by_order
from evaluation.preference_model import PreferenceModel
from wuerstchen.assets import locate
from wuerstchen.files import read_json, sha256_file, sha256_text

NAME = "emoji-score-clip"
METRIC = "emoji-score"
NETWORK = "tf_efficientnet_lite2"
STAGES = (2, 3, 4)
PREPROCESSING = "bicubic-128"
EMBED_DIM = 512
CONTEXT_LENGTH = 64
TRAINED = ("logit_scale", "visual.mean", "visual.deviation", "visual.head.weight", "text.proj.weight")


class PooledStages(nn.Module):
    """Image tower: a locked timm network's last resolutions, pooled, standardised and projected."""

    def __init__(self, trunk: nn.Module, embed_dim: int):
        super().__init__()
        self.trunk = trunk
        # Four averages and one maximum for each channel.
        width = 5 * sum(trunk.feature_info[stage]["num_chs"] for stage in STAGES)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.head = nn.Linear(width, embed_dim, bias=False)

    def pooled(self, pixels: Tensor) -> Tensor:
        """(n, 3, height, width) in [-1, 1] -> (n, features), neither standardised nor projected."""
        maps = self.trunk.forward_intermediates(pixels, indices=list(STAGES), intermediates_only=True)
        grids = [F.adaptive_avg_pool2d(x, 2).flatten(1) for x in maps]
        return torch.cat([*grids, *(x.amax((2, 3)) for x in maps)], 1)

    def standard(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.standard(self.pooled(pixels)))


def tower_digests() -> dict[str, str]:
    """SHA-256 of the files of the locked towers."""
    return {
        "efficientnet-lite2": sha256_file(locate("efficientnet-lite2")),
        "all-minilm-l6-v2": sha256_file(locate("minilm/text")),
        "all-minilm-l6-v2 tokenizer": sha256_file(locate("minilm/tokenizer")),
    }


def build() -> nn.Module:
    """The open_clip model with its locked towers loaded and its projections untrained, in evaluation mode."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import open_clip
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    model = open_clip.CustomTextCLIP(
        embed_dim=EMBED_DIM,
        vision_cfg={"timm_model_name": NETWORK, "timm_proj": "none", "image_size": 128},
        text_cfg={
            "hf_model_name": str(locate("minilm/config").parent),
            "hf_proj_type": "linear",
            "hf_pooler_type": "mean_pooler",
            "context_length": CONTEXT_LENGTH,
        },
    )
    trunk = model.visual.trunk
    tensors = torch.load(locate("efficientnet-lite2"), map_location="cpu", weights_only=True)
    # The classifier's weight and bias come last in the file; here it went with `timm_proj: none`.
    tensors = dict(list(tensors.items())[:-2])
    trunk.load_state_dict(renamed_by_order(tensors, trunk.state_dict()))
    model.visual = PooledStages(trunk.to(memory_format=torch.channels_last), EMBED_DIM)
    model.requires_grad_(False)
    return model.eval()


class Tokens:
    """MiniLM's word pieces: padded to the longest text of a batch, cut at CONTEXT_LENGTH with the end mark kept."""

    def __init__(self):
        from tokenizers import Tokenizer

        path = str(locate("minilm/tokenizer"))
        self._whole, self._cut = Tokenizer.from_file(path), Tokenizer.from_file(path)
        self._whole.no_truncation()
        self._whole.no_padding()
        self._cut.enable_truncation(CONTEXT_LENGTH)
        self._cut.enable_padding(pad_id=0)

    def count(self, text: str) -> int:
        return len(self._whole.encode(text).ids)

    def __call__(self, texts: list[str]) -> Tensor:
        return torch.tensor([encoding.ids for encoding in self._cut.encode_batch(texts)])


def to_pixels(picture: np.ndarray) -> Tensor:
    """uint8 RGB (height, width, 3), square -> float (3, 128, 128) in [-1, 1]."""
    return preprocess(picture[None], PREPROCESSING)[0].sub(127.5).div(127.5)


def load(folder: str | Path) -> PreferenceModel:
    """The scorer that `main` wrote to a folder.

    Raises ValueError where its two files do not belong together, or the installed towers are not the ones it was
    trained with.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    weights, config = folder / "model.safetensors", read_json(folder / "config.json")
    digest = sha256_file(weights)
    if config["model_sha256"] != digest:
        raise ValueError(f"{weights}: SHA-256 is {digest}, but config.json says {config['model_sha256']}")
    for name, installed in tower_digests().items():
        if config["towers"].get(name) != installed:
            raise ValueError(
                f"{folder}: trained with {name} of SHA-256 {config['towers'].get(name)}, but {installed} is installed"
            )
    model = build()
    missing, unexpected = model.load_state_dict(load_file(weights), strict=False)
    if unexpected or set(missing) & set(TRAINED):
        raise ValueError(f"{weights}: its tensors are not {', '.join(TRAINED)}")
    return wrap(model, sha256_text("\n".join([digest, *config["towers"].values()])))


def wrap(model: nn.Module, sha256: str) -> PreferenceModel:
    """The model with its tokens and preprocessing."""
    tokens = Tokens()
    return PreferenceModel(
        name=NAME,
        sha256=sha256,
        model=model,
        preprocess=to_pixels,
        tokenize=tokens,
        count_tokens=tokens.count,
        context_length=CONTEXT_LENGTH,
        preprocessing=PREPROCESSING,
        metric=METRIC,
    )
