"""GALIP (Tao et al. 2023) from its official checkpoint, which holds the part of CLIP ViT-B/32 that it draws with.

The text encoder is CLIP's own, an asset of its own. All runs in float32, as the authors' sampling does on a CPU.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from evaluation import clip_models
from evaluation.generators import Settings, check_settings
from evaluation.generators.batched import Batched, best_device
from evaluation.preference_model import PreferenceModel
from wuerstchen import weights
from wuerstchen.assets import ASSETS, locate
from wuerstchen.deep_fusion import NOISE, Decoder, Fusion, read_generator, width_of
from wuerstchen.sampling import to_uint8
from wuerstchen.seeds import generator

FILE = "galip/generator"  # an asset
TEXT = "clip-b32"
SENTENCE = 512
GRID, CODE = 7, 64  # CLIP's 7x7 patches, and the channels of the maps that go into it
SIZES = (8, 16, 32, 64, 128, 224)
PROMPTED = range(1, 9)  # CLIP's blocks that are given a token made of noise and text
SHARE = 0.1  # of what CLIP adds
HEAD = 64  # channels of each of CLIP's attention heads


class MappingBlock(nn.Module):
    """A residual block of two convolutions, each before a fusion."""

    def __init__(self, c_cond: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(CODE, CODE // 2, 3, padding=1), nn.Conv2d(CODE // 2, CODE, 3, padding=1)
        self.fuse1, self.fuse2 = Fusion(c_cond, CODE // 2), Fusion(c_cond, CODE)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return x + self.fuse2(self.conv2(self.fuse1(self.conv1(x), cond)), cond)


class PromptedClip(nn.Module):
    """CLIP's picture transformer on maps instead of patches; some blocks see one token more."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        from open_clip.transformer import QuickGELU, Transformer

        self.conv1 = nn.Conv2d(3, width, 32, stride=32, bias=False)  # in the checkpoint, and never used
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(GRID**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, depth, width // HEAD, act_layer=QuickGELU)

    def forward(self, x: Tensor, prompts: Tensor) -> Tensor:
        """Maps (n, width, 7, 7) and prompts (n, 8, width) -> (n, width, 7, 7)."""
        tokens = torch.cat([self.class_embedding.expand(len(x), 1, -1), x.flatten(2).transpose(1, 2)], 1)
        tokens = self.ln_pre(tokens + self.positional_embedding)
        for i, block in enumerate(self.transformer.resblocks):
            if i in PROMPTED:
                prompt = prompts[:, PROMPTED.index(i)].unsqueeze(1)
                tokens = block(torch.cat([tokens, prompt], 1))[:, :-1]
            else:
                tokens = block(tokens)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (GRID, GRID))


class Adapter(nn.Module):
    """From noise as maps to maps for the decoder, by way of CLIP."""

    def __init__(self, c_out: int, c_cond: int, width: int, depth: int):
        super().__init__()
        self.FBlocks = nn.ModuleList(MappingBlock(c_cond) for _ in range(4))
        self.conv_fuse = nn.Conv2d(CODE, width, 5, padding=2)
        self.CLIP_ViT = PromptedClip(width, depth)
        self.conv = nn.Conv2d(width, c_out, 5, padding=2)
        self.fc_prompt = nn.Linear(c_cond, width * len(PROMPTED))

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        for block in self.FBlocks:
            x = block(x, cond)
        maps = self.conv_fuse(x)
        return self.conv(maps + SHARE * self.CLIP_ViT(maps, self.fc_prompt(cond).unflatten(1, (len(PROMPTED), -1))))


class Galip(Decoder):
    """Noise (n, 100) and CLIP's texts (n, 512), as they are, to pictures (n, 3, 224, 224) in about [-1, 1]."""

    def __init__(self, width: int, clip_width: int = 768, clip_depth: int = 12):
        super().__init__(width, NOISE + SENTENCE, SIZES)
        self.fc_code = nn.Linear(NOISE, CODE * GRID**2)
        self.mapping = Adapter(8 * width, NOISE + SENTENCE, clip_width, clip_depth)

    def forward(self, noise: Tensor, text: Tensor) -> Tensor:
        cond = torch.cat([noise, text], 1)
        return self.decode(self.mapping(self.fc_code(noise).unflatten(1, (CODE, GRID, GRID)), cond), cond)


def load_generator(path: Path, device: str = "cpu") -> Galip:
    """From an official checkpoint, whose sizes it has. Raises ValueError that names what does not fit."""
    tensors = read_generator(path)
    width = width_of(tensors, path)
    if "mapping.CLIP_ViT.class_embedding" not in tensors:
        raise ValueError(f"{path}: tensor mapping.CLIP_ViT.class_embedding is missing")
    depth = sum(name.endswith(".ln_1.weight") for name in tensors)
    with torch.device("meta"):
        network = Galip(width, len(tensors["mapping.CLIP_ViT.class_embedding"]), depth)
    return weights.assign(network, tensors, path, torch.float32, device)


class GalipGenerator(Batched):
    """GALIP, 224x224. folder: where its checkpoint lies under its own name; None: where the asset is.

    load_text: what loads a CLIP onto a device.
    """

    batch_size = 16

    def __init__(
        self,
        folder: Path | None,
        settings: Settings,
        device: str | None = None,
        load_text: Callable[[str], PreferenceModel] = lambda device: clip_models.load(TEXT, device=device),
    ):
        super().__init__()
        check_settings(settings, {})
        self.device = device or best_device()
        self.file = folder / Path(ASSETS[FILE].source.path).name if folder else locate(FILE)
        self.network = load_generator(self.file, self.device)
        self.text = load_text(self.device)

    @torch.inference_mode()
    def batch(self, prompts: list[dict], seed: int) -> np.ndarray:
        # one at a time, so that none is filled up to another's length
        texts = [self.text.model.encode_text(self.text.tokenize([p["prompt"]]).to(self.device)) for p in prompts]
        noise = torch.stack([torch.randn(NOISE, generator=generator(seed, p["id"], "galip")) for p in prompts])
        pictures = self.network(noise.to(self.device), torch.cat(texts))
        if not pictures.isfinite().all():
            raise ValueError(f"{self.file}: a picture of prompts {prompts[0]['id']} and following is not finite")
        return to_uint8((pictures + 1) / 2)

    def describe(self) -> dict:
        return {
            "sampler": None,
            "guidance": None,
            "weights_sha256": weights.digest(self.file),
            "text_encoder": {"name": self.text.name, "sha256": self.text.sha256},
            "precision": "float32",
        }
