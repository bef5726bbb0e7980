"""Stage C: the text-conditional diffusion model on the Semantic Compressor's latents (paper, 3.2 and E.3)."""

import torch
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
from wuerstchen.presets import StageCConfig


class StageC(nn.Module):
    """A sequence of (residual, timestep, attention) blocks at one resolution; returns A and B of the A/B objective."""

    def __init__(self, config: StageCConfig):
        super().__init__()
        self.config = config
        c = config.width
        self.projection = nn.Conv2d(config.c_in, c, 1)
        self.cond_mapper = nn.Sequential(nn.Linear(config.c_text, c), nn.LeakyReLU(0.2), nn.Linear(c, c))
        self.blocks = nn.ModuleList()
        for _ in range(config.depth):
            self.blocks.append(ResBlock(c, dropout=config.dropout))
            self.blocks.append(TimestepBlock(c, config.c_timestep))
            self.blocks.append(AttentionBlock(c, c, config.heads, dropout=config.dropout))
        self.out = nn.Sequential(LayerNorm2d(c), nn.Conv2d(c, 2 * config.c_in, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier everywhere but: N(0, 0.02) for the inputs (text: `text_std`) and a zero output layer, so that at first
        A = B = 0."""
        xavier_(self)
        nn.init.normal_(self.projection.weight, std=0.02)
        for layer in (self.cond_mapper[0], self.cond_mapper[-1]):
            nn.init.normal_(layer.weight, std=self.config.text_std)
        nn.init.zeros_(self.out[1].weight)
        init_blocks_(self.blocks, self.config.depth)

    def condition(self, text: Tensor) -> list[Tensor]:
        """Keys and values of all attention blocks for text tokens (n, l, c_text); constant over the timesteps."""
        tokens = self.cond_mapper(text)
        return [block.keys_values(tokens) for block in self.blocks if isinstance(block, AttentionBlock)]

    def forward(self, x: Tensor, t: Tensor, condition: list[Tensor]) -> tuple[Tensor, Tensor]:
        """x: noised latents (n, c_in, h, w); t: (n,) in [0, 1]; condition: from `condition()`. Returns A, B like x.

        Where t and condition have several times as many rows, x is repeated for them, but only after what does not
        depend on the text.
        """
        embedding = timestep_embedding(t, self.config.c_timestep).to(x.dtype)
        x = self.projection(x)
        for i in range(self.config.depth):
            residual, timestep, attention = self.blocks[3 * i : 3 * i + 3]
            x = timestep(residual(x), embedding[: len(x)])
            if len(x) < len(t):
                x = torch.cat([x] * (len(t) // len(x)))
            x = attention(x, condition[i])
        return wide(self.out(x)).chunk(2, dim=1)
