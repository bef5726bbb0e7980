"""Networks rewritten for sampling: the same functions with fewer products and fewer passes over memory.

`for_sampling` changes a network in place. It computes the same but for rounding, and can neither be trained nor saved
any more. What is folded depends on the weights alone, so that is done once, when a pipeline is built.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from wuerstchen.blocks import Attention, ResBlock, TimestepBlock, wide
from wuerstchen.linear import Linear
from wuerstchen.stage_a import MixingBlock
from wuerstchen.stage_b import UNet

# Numbers in what a channel MLP works on at once on a CPU: that stays in its caches, and is small enough to be memory
# that was used before. The system clears the pages of larger arrays each time, which takes longer than the arithmetic.
WORKSET = 2**20


def parts(x: Tensor, width: int) -> Iterator[Tensor]:
    """Rows of x (n, l, c) such that a map of `width` channels over them fits the workset; on a GPU all at once."""
    return x.split(x.shape[1] if x.device.type != "cpu" else max(WORKSET // (len(x) * width), 1), dim=1)


def joined(tensors: list[Tensor]) -> Tensor:
    """Rows put together again."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)


class ChannelMLP(nn.Module):
    """The channel MLP of a residual block: linear layer, GELU, global response normalisation, linear layer.

    The normalisation is x (1 + gamma N) + beta, with one N for each image and channel. Its beta is in the second
    layer's bias, so one pass over the widest map of the network is left of four.
    """

    def __init__(self, mlp: nn.Sequential):
        super().__init__()
        first, _, norm, _, second = mlp
        beta = wide(norm.beta.detach()).flatten()
        self.register_buffer("gamma", wide(norm.gamma.detach()).flatten())
        self.first = Linear(first.weight, first.bias, first, gelu=True)
        self.second = Linear(second.weight, wide(second.bias) + wide(second.weight) @ beta, second)

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, h, w, c_in). Returns (n, h, w, c_out)."""
        grid, x = x.shape[1:3], x.flatten(1, 2)
        images = x.split(1) if x.device.type == "cpu" else [x]
        return torch.cat([self.mixed(image) for image in images]).unflatten(1, grid)

    def mixed(self, x: Tensor) -> Tensor:
        """x: (n, l, c_in). Returns (n, l, c_out)."""
        maps = [self.first(part) for part in parts(x, self.first.out_features)]
        # on CPUs a norm over any but the last dimension takes several times as long as squares and their sum
        energy = sum(wide(y).square().sum(1, keepdim=True) for y in maps).sqrt()
        gain = (1 + self.gamma * (energy / (energy.mean(-1, keepdim=True) + 1e-6))).to(x.dtype)
        return joined([self.second(y.mul_(gain)) for y in maps])


class CachedAttention(Attention):
    """Attention whose matrix for the map is apart from that for the text, which is used once per image."""

    def __init__(self, attention: Attention):
        nn.Module.__init__(self)
        project, out = attention.in_proj, attention.out_proj
        self.heads, self.dropout, self.attend_self = attention.heads, 0.0, True
        self.in_proj, self.out_proj = Linear(project.weight, project.bias, project), Linear(out.weight, out.bias, out)
        c = project.in_features
        self.text_proj = nn.Linear(c, 2 * c, device="meta")
        self.text_proj.weight, self.text_proj.bias = (nn.Parameter(p[c:].detach()) for p in project.parameters())

    def keys_values(self, tokens: Tensor) -> Tensor:
        return self.text_proj(tokens)


class AffineTimestep(TimestepBlock):
    """x (1 + a) + b in one pass, with the 1 in the mapper's bias."""

    def __init__(self, block: TimestepBlock):
        nn.Module.__init__(self)
        self.mapper = block.mapper
        bias = self.mapper.bias.detach().clone()
        bias[: len(bias) // 2] += 1
        self.mapper.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        a, b = self.mapper(embedding)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(b, x, a)


class FoldedMixingBlock(nn.Module):
    """Stage A's block with its six scalars folded into the layers beside them."""

    def __init__(self, block: MixingBlock):
        super().__init__()
        g = wide(block.gammas.detach())
        self.norm, (self.pad, self.depthwise) = block.norm, block.depthwise
        weight, bias = wide(self.depthwise.weight.detach()), wide(self.depthwise.bias.detach())
        # the border that the pad repeats is shifted by g1 like all else, so the shift may come after it
        folded = (weight * (1 + g[0]) * g[2], (bias + g[1] * weight.sum((1, 2, 3))) * g[2])
        for name, value in zip(("weight", "bias"), folded, strict=True):
            setattr(self.depthwise, name, nn.Parameter(value.to(self.depthwise.weight.dtype), requires_grad=False))
        first, _, second = block.channelwise
        weight, bias = wide(first.weight.detach()), wide(first.bias.detach())
        self.first = Linear(weight * (1 + g[3]), bias + g[4] * weight.sum(1), first, gelu=True)
        self.second = Linear(wide(second.weight.detach()) * g[5], wide(second.bias.detach()) * g[5], second)

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, c, h, w) to the same shape."""
        x = x + self.depthwise(self.pad(self.norm(x)))
        y = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        y = joined([self.second(self.first(part)) for part in parts(y, self.first.out_features)])
        return x + y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def fold_image_mappers(unet: UNet) -> None:
    """Fold the 1x1 convolutions of the compressor latents into the layers that read what they map to.

    Of each residual block's first matrix, the part for `c_cond` mapped channels becomes one for the latents' own 16.
    To resize the latents is the same as to resize what they are mapped to, as the weights of a resize add up to one.
    """
    for level, mapper in zip((*unet.down_blocks, *unet.up_blocks), unet.effnet_mappers, strict=True):
        if mapper is None:
            continue
        mapping, shift = wide(mapper.weight.detach()).flatten(1), wide(mapper.bias.detach())
        for block in level:
            if isinstance(block, ResBlock):
                first = block.channelwise[0]
                own, mapped = wide(first.weight.detach()).split([first.in_features - len(mapping), len(mapping)], 1)
                weight = torch.cat([own, mapped @ mapping], dim=1)
                block.channelwise[0] = Linear(weight, wide(first.bias) + mapped @ shift, first)
    unet.effnet_mappers = nn.ModuleList(mapper and nn.Identity() for mapper in unet.effnet_mappers)


@torch.no_grad()
def for_sampling(network: nn.Module, pack: bool = False) -> nn.Module:
    """Rewrite a Stage A, Stage B or Stage C in place, channels last in memory; returns it.

    pack: on a CPU, pack the matrices. The compiler cannot read them then.
    """
    if isinstance(network, UNet) and network.config.image_shuffle == 1:
        fold_image_mappers(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, ResBlock):
                child.channelwise = ChannelMLP(child.channelwise)
            elif isinstance(child, Attention):
                module.attention = CachedAttention(child)
            elif isinstance(child, TimestepBlock):
                setattr(module, name, AffineTimestep(child))
            elif isinstance(child, MixingBlock):
                setattr(module, name, FoldedMixingBlock(child))
    if pack and torch.backends.mkldnn.is_available():
        for module in network.modules():
            if isinstance(module, Linear) and module.weight.device.type == "cpu":
                module.pack()
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
