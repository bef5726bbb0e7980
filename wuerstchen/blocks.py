"""The building blocks that Stages B and C and the baseline share (paper, sections 3.1, 3.2 and appendix E).

Feature maps are (n, c, h, w) tensors. Every block adds to its input or scales it, so a stack of blocks starts close to
the identity.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def wide(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()


def timestep_embedding(t: Tensor, dimensions: int = 64, max_positions: float = 10000.0) -> Tensor:
    """Sinusoidal embedding of continuous timesteps.

    t: (n,) in [0, 1], never used in half precision: that would merge neighbouring timesteps. Returns (n, dimensions):
    sines, then cosines.
    """
    t, half = wide(t), dimensions // 2
    steps = torch.arange(half, device=t.device, dtype=t.dtype)
    frequencies = torch.exp(steps * (-math.log(max_positions) / (half - 1)))
    angles = (t * max_positions)[:, None] * frequencies[None]
    embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
    return F.pad(embedding, (0, dimensions % 2))


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of (n, c, h, w), without learned scale and shift."""

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.channels, self.eps = channels, eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), (self.channels,), eps=self.eps).permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Global response normalisation of ConvNeXt V2 on maps (n, h, w, c); the identity at initialisation."""

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        energy = torch.linalg.vector_norm(wide(x), dim=(1, 2), keepdim=True)
        gain = (energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)).to(x.dtype)
        return self.gamma * (x * gain) + self.beta + x


class ResBlock(nn.Module):
    """ConvNeXt-like block: depthwise 3x3, layer norm, then a channel MLP that also sees `c_skip` extra channels."""

    def __init__(self, c: int, c_skip: int = 0, kernel_size: int = 3, dropout: float = 0.0):
        super().__init__()
        self.depthwise = nn.Conv2d(c, c, kernel_size, padding=kernel_size // 2, groups=c)
        self.norm = LayerNorm2d(c)
        self.channelwise = nn.Sequential(
            nn.Linear(c + c_skip, 4 * c),
            nn.GELU(),
            GlobalResponseNorm(4 * c),
            nn.Dropout(dropout),
            nn.Linear(4 * c, c),
        )

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        y = self.norm(self.depthwise(x))
        if skip is not None:
            y = torch.cat([y, skip.to(y.dtype)], dim=1)
        return x + self.channelwise(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TimestepBlock(nn.Module):
    """Affine conditioning on the timestep: x (1 + a) + b, with a and b linear in the embedding."""

    def __init__(self, c: int, c_timestep: int):
        super().__init__()
        self.mapper = nn.Linear(c_timestep, 2 * c)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        a, b = self.mapper(embedding)[:, :, None, None].chunk(2, dim=1)
        return x * (1 + a) + b


class Attention(nn.Module):
    """Multi-head attention from a map to itself (optional) and to conditioning tokens, in one softmax."""

    def __init__(self, c: int, heads: int, dropout: float = 0.0, attend_self: bool = True):
        super().__init__()
        if c % heads:
            raise ValueError(f"width {c} is not a multiple of the number of heads, {heads}")
        self.heads, self.dropout, self.attend_self = heads, dropout, attend_self
        self.in_proj = nn.Linear(c, 3 * c)
        self.out_proj = nn.Linear(c, c)

    def keys_values(self, tokens: Tensor) -> Tensor:
        """Keys and values of conditioning tokens (n, l, c), as one (n, l, 2c) tensor."""
        c = tokens.shape[-1]
        return F.linear(tokens, self.in_proj.weight[c:], self.in_proj.bias[c:])

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (n, l, c) queries; condition: (n, m, 2c) from `keys_values`. Returns (n, l, c)."""
        n, length, c = x.shape
        if self.attend_self:
            q, kv = self.in_proj(x).split([c, 2 * c], dim=-1)
            kv = torch.cat([kv, condition.to(kv.dtype)], dim=1)
        else:
            q, kv = F.linear(x, self.in_proj.weight[:c], self.in_proj.bias[:c]), condition
        q = q.reshape(n, length, self.heads, -1).transpose(1, 2)
        k, v = kv.to(q.dtype).reshape(n, kv.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        if self.training and x.device.type == "cpu" and (length <= 256 or q.dtype != torch.float32):
            # the fused kernel's gradient takes half of a training step for the short sequences of small latents, and in
            # bf16 twice as long as this for long ones too
            weights = (q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5).softmax(-1)
            y = F.dropout(weights, dropout) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out_proj(y.transpose(1, 2).reshape(n, length, c))


class AttentionBlock(nn.Module):
    """Residual attention to the map itself and to conditioning tokens (n, m, c_cond)."""

    def __init__(self, c: int, c_cond: int, heads: int, dropout: float = 0.0, attend_self: bool = True):
        super().__init__()
        self.norm = LayerNorm2d(c)
        self.attention = Attention(c, heads, dropout, attend_self)
        self.kv_mapper = nn.Sequential(nn.SiLU(), nn.Linear(c_cond, c))

    def keys_values(self, tokens: Tensor) -> Tensor:
        """What the block attends to, (n, m, 2c). It does not depend on the timestep: compute it once per image."""
        return self.attention.keys_values(self.kv_mapper(tokens))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attention(tokens, condition).transpose(1, 2).reshape(x.shape)


def xavier_(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every convolution and linear layer below `module`."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_blocks_(module: nn.Module, depth: int) -> None:
    """Scale the last layer of each residual block by sqrt(1 / depth) and start timestep conditioning at zero."""
    for block in module.modules():
        if isinstance(block, ResBlock):
            block.channelwise[-1].weight.data *= math.sqrt(1 / depth)
        elif isinstance(block, TimestepBlock):
            nn.init.zeros_(block.mapper.weight)
