"""Stage B: the U-Net that turns compressor latents into Stage A's latents (paper, 3.1 and E.2).

The same U-Net, without compressor latents and with another block order, is the baseline LDM of E.4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.blocks import (
    AttentionBlock,
    LayerNorm2d,
    ResBlock,
    TimestepBlock,
    init_blocks_,
    timestep_embedding,
    wide,
    xavier_,
)
from wuerstchen.diffusion import OBJECTIVES
from wuerstchen.presets import UNetConfig


def resized(mapped: Tensor, shuffle: int, grid: tuple[int, int]) -> Tensor:
    """Mapped compressor latents (n, c * shuffle^2, h, w) at the size of a level, (n, c, *grid), float32 or more.

    Shuffle 1 is the released code's bicubic resize. (It maps after the resize; that is the same, as the weights of a
    resize add up to one.) Otherwise each latent becomes shuffle^2 positions first, and a simpler resize will do.
    """
    x = wide(mapped)
    if shuffle == 1:
        return F.interpolate(x, grid, mode="bicubic", align_corners=True, antialias=True)
    x = F.pixel_shuffle(x, shuffle).contiguous(memory_format=torch.channels_last)
    return F.interpolate(x, grid, mode="bilinear" if grid[0] > x.shape[-2] else "area")


class UNet(nn.Module):
    """U-Net of ResBlocks with text conditioning and, in Stage B, compressor latents beside each block's input.

    The letters of `config.levels` give the blocks of a level: C residual, T affine timestep, A attention to the map
    and the text, t cross-attention to the timestep as one token (the baseline's way).
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        if config.objective not in OBJECTIVES:
            raise ValueError(f"objective: {config.objective!r} is not known; use one of {', '.join(OBJECTIVES)}")
        self.config = config
        widths, c_cond = config.widths, config.c_cond
        self.clip_mapper = nn.Linear(config.c_text, c_cond)
        # one mapper for each level of each direction, None where compressor latents are not injected
        injected = [bool(config.c_image) and inject for inject in config.inject_image]
        self.effnet_mappers = nn.ModuleList(
            nn.Conv2d(config.c_image, c_cond * config.image_shuffle**2, 1) if inject else None
            for inject in injected + injected[::-1]
        )
        self.embedding = nn.Sequential(
            nn.PixelUnshuffle(config.patch),
            nn.Conv2d(config.c_in * config.patch**2, widths[0], 1),
            LayerNorm2d(widths[0]),
        )
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        last = len(widths) - 1
        for i, width in enumerate(widths):
            level = nn.ModuleList()
            if i:
                level.append(nn.Sequential(LayerNorm2d(widths[i - 1]), nn.Conv2d(widths[i - 1], width, 2, stride=2)))
            for _ in range(config.down[i]):
                level.extend(self._block(kind, i, c_cond * injected[i]) for kind in config.levels[i])
            self.down_blocks.append(level)
        for i in reversed(range(len(widths))):
            level = nn.ModuleList()
            for j in range(config.up[last - i]):
                c_skip = widths[i] * (i < last and j == 0) + c_cond * injected[i]
                level.extend(self._block(kind, i, c_skip) for kind in config.levels[i])
            if i:
                level.append(
                    nn.Sequential(LayerNorm2d(widths[i]), nn.ConvTranspose2d(widths[i], widths[i - 1], 2, stride=2))
                )
            self.up_blocks.append(level)
        self.clf = nn.Sequential(
            LayerNorm2d(widths[0]),
            nn.Conv2d(widths[0], 2 * config.c_in * config.patch**2, 1),
            nn.PixelShuffle(config.patch),
        )
        self.reset_parameters()

    def _block(self, kind: str, level: int, c_skip: int) -> nn.Module:
        config = self.config
        width, heads = config.widths[level], config.heads[level]
        if kind == "C":
            return ResBlock(width, c_skip, dropout=config.dropout)
        if kind == "T":
            return TimestepBlock(width, config.c_timestep)
        if kind == "A":
            return AttentionBlock(width, config.c_cond, heads, dropout=config.dropout)
        if kind == "t":
            return AttentionBlock(width, config.c_timestep, heads, dropout=config.dropout, attend_self=False)
        raise ValueError(f"unknown block {kind!r} in levels {config.levels}: use C, T, A or t")

    def reset_parameters(self) -> None:
        """Xavier, but small conditioning and input layers and a zero output layer."""
        xavier_(self)
        for mapper in (self.clip_mapper, *filter(None, self.effnet_mappers)):
            nn.init.normal_(mapper.weight, std=0.02)
        nn.init.xavier_uniform_(self.embedding[1].weight, 0.02)
        nn.init.zeros_(self.clf[1].weight)
        for blocks in (self.down_blocks, self.up_blocks):
            init_blocks_(blocks, sum(self.config.down))

    def condition(self, text: Tensor, image: Tensor | None = None, size: tuple[int, int] | None = None) -> dict:
        """All that does not depend on the timestep, computed once per image.

        text: (n, l, c_text); image: compressor latents (n, c_image, h, w) or None; size: height and width of the
        latents to be denoised. Returns keys and values per attention block and one map per level of each direction.
        """
        tokens = F.layer_norm(self.clip_mapper(text), (self.config.c_cond,), eps=1e-6)
        keys_values = [
            block.keys_values(tokens)
            for level in (*self.down_blocks, *self.up_blocks)
            for block in level
            if isinstance(block, AttentionBlock) and block.attention.attend_self
        ]
        maps: list[Tensor | None] = [None] * len(self.effnet_mappers)
        if image is not None:
            levels = len(self.config.widths)
            for i, mapper in enumerate(self.effnet_mappers):
                if mapper is not None:
                    factor = self.config.patch * 2 ** (i if i < levels else 2 * levels - 1 - i)
                    grid = (size[0] // factor, size[1] // factor)
                    maps[i] = resized(mapper(image), self.config.image_shuffle, grid)
        return {"keys_values": keys_values, "maps": maps}

    def forward(self, x: Tensor, t: Tensor, condition: dict) -> tuple[Tensor, Tensor]:
        """x: noised latents (n, c_in, h, w), h and w multiples of patch * 2 ** (levels - 1); t: (n,) in [0, 1];
        condition: from `condition()`. Returns A, B like x; with the objective "sigmoid" B lies in [0.001, 0.999].
        """
        embedding = timestep_embedding(t, self.config.c_timestep).to(x.dtype)
        keys_values = iter(condition["keys_values"])
        x = self.embedding(x)
        skips: list[Tensor] = []
        for i, level in enumerate((*self.down_blocks, *self.up_blocks)):
            up = i - len(self.down_blocks)
            skip = skips[-1 - up] if up > 0 else None  # the deepest level's own output needs no skip
            for block in level:
                if isinstance(block, ResBlock):
                    parts = [part for part in (skip, condition["maps"][i]) if part is not None]
                    x = block(x, torch.cat([p.to(x.dtype) for p in parts], dim=1) if parts else None)
                    skip = None  # only the first block of a level sees the encoder's output
                elif isinstance(block, TimestepBlock):
                    x = block(x, embedding)
                elif isinstance(block, AttentionBlock):
                    attends_text = block.attention.attend_self
                    x = block(x, next(keys_values) if attends_text else block.keys_values(embedding[:, None]))
                else:
                    x = block(x)
            if up < 0:
                skips.append(x)
        a, b = wide(self.clf(x)).chunk(2, dim=1)
        return a, b.sigmoid() * (1 - 2e-3) + 1e-3 if self.config.objective == "sigmoid" else b
