"""Stage A: the f4 VQGAN (paper, 3.1 and E.1) and its discriminator."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from wuerstchen.blocks import LayerNorm2d, xavier_
from wuerstchen.presets import StageAConfig


class ReplicationPad(nn.Module):
    """Repeat the border once: `nn.ReplicationPad2d(1)`, whose compiled gradient fails for channels-last maps."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[..., :1], x, x[..., -1:]], dim=-1)
        return torch.cat([x[..., :1, :], x, x[..., -1:, :]], dim=-2)


class MixingBlock(nn.Module):
    """Depthwise convolution and channel MLP, each scaled by a learned scalar that starts at zero (identity)."""

    def __init__(self, c: int):
        super().__init__()
        self.norm = LayerNorm2d(c)
        self.depthwise = nn.Sequential(ReplicationPad(), nn.Conv2d(c, c, 3, groups=c))
        self.channelwise = nn.Sequential(nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c))
        self.gammas = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        g = self.gammas
        x = x + self.depthwise(self.norm(x) * (1 + g[0]) + g[1]) * g[2]
        y = (self.norm(x) * (1 + g[3]) + g[4]).permute(0, 2, 3, 1)
        return x + self.channelwise(y).permute(0, 3, 1, 2) * g[5]


class VectorQuantizer(nn.Module):
    """Nearest codebook entry with straight-through gradients (van den Oord et al., 2017)."""

    def __init__(self, dimensions: int, size: int):
        super().__init__()
        self.codebook = nn.Embedding(size, dimensions)
        nn.init.uniform_(self.codebook.weight, -1 / size, 1 / size)

    @torch.no_grad()
    def revive(self, x: Tensor, indices: Tensor, random: torch.Generator) -> None:
        """Move the codes that a batch did not use onto random vectors of it, lest most of the codebook stay unused.

        x: the latents (n, d, h, w) that `forward` quantised to `indices`.
        """
        flat = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).float()
        unused = torch.ones(len(self.codebook.weight), dtype=torch.bool)
        unused[indices.flatten()] = False
        chosen = torch.randint(len(flat), (int(unused.sum()),), generator=random)
        self.codebook.weight[unused] = flat[chosen]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (n, d, h, w). Returns the quantised map, indices (n, h, w) and codebook loss + 0.25 commitment loss."""
        flat = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).float()
        codes = self.codebook.weight.float()
        indices = (codes.square().sum(1) - 2 * flat @ codes.T).argmin(1)
        chosen = codes[indices]
        loss = F.mse_loss(chosen, flat.detach()) + 0.25 * F.mse_loss(flat, chosen.detach())
        n, _, h, w = x.shape
        quantised = (flat + (chosen - flat).detach()).reshape(n, h, w, -1).permute(0, 3, 1, 2)
        return quantised, indices.reshape(n, h, w), loss


class StageA(nn.Module):
    """Encoder, codebook and decoder. Images are (n, 3, h, w) in [0, 1], latents (n, c_latent, h / 4, w / 4)."""

    def __init__(self, config: StageAConfig):
        super().__init__()
        self.config = config
        widths = [config.width // 2**i for i in reversed(range(config.levels))]
        self.in_block = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, widths[0], 1))
        down: list[nn.Module] = []
        for i, width in enumerate(widths):
            if i:
                down.append(nn.Conv2d(widths[i - 1], width, 4, stride=2, padding=1))
            down.append(MixingBlock(width))
        down.append(
            nn.Sequential(nn.Conv2d(widths[-1], config.c_latent, 1, bias=False), nn.BatchNorm2d(config.c_latent))
        )
        self.down_blocks = nn.Sequential(*down)
        self.vquantizer = VectorQuantizer(config.c_latent, config.codebook_size)
        up: list[nn.Module] = [nn.Sequential(nn.Conv2d(config.c_latent, widths[-1], 1))]
        for i, width in enumerate(reversed(widths)):
            up.extend(MixingBlock(width) for _ in range(1 if i else config.bottleneck_blocks))
            if i < config.levels - 1:
                up.append(nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1))
        self.up_blocks = nn.Sequential(*up)
        self.out_block = nn.Sequential(nn.Conv2d(widths[0], 12, 1), nn.PixelShuffle(2))
        xavier_(self)

    def encode(self, images: Tensor) -> Tensor:
        """Unquantised latents at the encoder's own scale; divide by `config.scale_factor` for the diffusion stages."""
        return self.down_blocks(self.in_block(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Images in about [0, 1], not clamped, from latents at the encoder's scale."""
        return self.out_block(self.up_blocks(latents))

    def forward(
        self, images: Tensor, keep: Tensor, revive: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct; where `keep` (n,) is False the quantisation is dropped (E.1). Returns images, indices, loss.

        With a generator `revive`, unused codes are moved onto latents first.
        """
        latents = self.encode(images)
        if revive is not None:
            self.vquantizer.revive(latents, self.vquantizer(latents)[1], revive)
        quantised, indices, loss = self.vquantizer(latents)
        mixed = torch.where(keep.view(-1, 1, 1, 1), quantised, latents.float())
        return self.decode(mixed), indices, loss


class Discriminator(nn.Module):
    """Patch discriminator of strided spectral-norm convolutions with instance norm; returns logits (n, 1, h', w')."""

    def __init__(self, width: int = 512, depth: int = 6):
        super().__init__()
        first = max(width // 2 ** (depth - 3), 16)
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(3, first, 3, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        c = first
        for _ in range(depth - 1):
            out = min(2 * c, width)
            layers += [
                spectral_norm(nn.Conv2d(c, out, 3, stride=2, padding=1)),
                nn.InstanceNorm2d(out),
                nn.LeakyReLU(0.2),
            ]
            c = out
        layers.append(nn.Conv2d(c, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
