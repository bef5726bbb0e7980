"""Networks rewritten for sampling: the same functions with fewer products and fewer passes over memory.

`for_sampling` changes a network in place. It computes the same but for rounding, and can neither be trained nor saved
any more. What is folded depends on the weights alone, so that is done once, when a pipeline is built.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.blocks import Attention, ResBlock, TimestepBlock, wide
from wuerstchen.linear import Linear, can_pack
from wuerstchen.stage_a import MixingBlock
from wuerstchen.stage_b import UNet

# Numbers in what a channel MLP works on at once on a CPU: that stays in its caches, and is small enough to be memory
# that was used before. The system clears the pages of larger arrays each time, which takes longer than the arithmetic.
WORKSET = 2**20


def rows(x: Tensor) -> Tensor:
    """A map (n, c, h, w), channels last in memory, as rows (n, h w, c) of the same memory."""
    return x.permute(0, 2, 3, 1).view(x.shape[0], -1, x.shape[1])


def parts(x: Tensor, width: int) -> tuple[Tensor, ...]:
    """Rows of x (n, l, c) such that a map of `width` channels over them fits the workset; on a GPU all at once."""
    return x.split(x.shape[1] if x.device.type != "cpu" else max(WORKSET // (len(x) * width), 1), dim=1)


class FoldedResBlock(ResBlock):
    """A residual block that adds to its input in place, part by part.

    Its channel MLP is a linear layer, GELU, global response normalisation and a linear layer. The normalisation is
    x (1 + gamma N) + beta, with one N for each image and channel. Its beta is in the second layer's bias, so one pass
    over the widest map of the network is left of four.
    """

    def __init__(self, block: ResBlock):
        nn.Module.__init__(self)
        self.depthwise, self.norm = block.depthwise, block.norm
        first, _, norm, _, second = block.channelwise
        beta = wide(norm.beta.detach()).flatten()
        self.register_buffer("gamma", wide(norm.gamma.detach()).flatten())
        self.first = Linear(first.weight, first.bias, first, gelu=True)
        self.second = Linear(second.weight, wide(second.bias) + wide(second.weight) @ beta, second)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        images = [rows(y).split(1 if x.device.type == "cpu" else len(x)) for y in (x, self.depthwise(x))]
        beside = [None] * len(images[0])
        if skip is not None:
            beside = rows(skip.to(x.dtype, memory_format=torch.channels_last)).split(len(images[0][0]))
        for image, y, more in zip(*images, beside, strict=True):
            self.add_to(image, y, more)
        return x

    def add_to(self, x: Tensor, y: Tensor, skip: Tensor | None) -> None:
        """Add to rows x (n, l, c) what the channel MLP makes of y and, beside it, `skip`."""
        width = self.first.out_features
        maps = [F.layer_norm(part, part.shape[-1:], eps=self.norm.eps) for part in parts(y, width)]
        if skip is not None:
            maps = [torch.cat(pair, dim=-1) for pair in zip(maps, parts(skip, width), strict=True)]
        maps = [self.first(part) for part in maps]
        # on CPUs a norm over any but the last dimension takes several times as long as squares and their sum
        energy = sum(wide(part).square().sum(1, keepdim=True) for part in maps).sqrt()
        gain = (1 + self.gamma * (energy / (energy.mean(-1, keepdim=True) + 1e-6))).to(x.dtype)
        for own, part in zip(parts(x, width), maps, strict=True):
            own += self.second(part.mul_(gain))


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
        self.norm, self.depthwise = block.norm, block.depthwise[1]
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
        padded = F.pad(self.norm(x), (1, 1, 1, 1), mode="replicate")
        x = self.depthwise(padded).add_(x).contiguous(memory_format=torch.channels_last)
        for part in parts(rows(x), self.first.out_features):
            part += self.second(self.first(F.layer_norm(part, part.shape[-1:], eps=self.norm.eps)))
        return x


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
                setattr(module, name, FoldedResBlock(child))
            elif isinstance(child, Attention):
                module.attention = CachedAttention(child)
            elif isinstance(child, TimestepBlock):
                setattr(module, name, AffineTimestep(child))
            elif isinstance(child, MixingBlock):
                setattr(module, name, FoldedMixingBlock(child))
    if pack:
        for module in network.modules():
            if isinstance(module, Linear) and can_pack(module.weight):
                module.pack()
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
