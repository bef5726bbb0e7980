"""DF-GAN (Tao et al. 2022): its generator, which loads the official checkpoints too, and its one-way discriminator."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.deep_fusion import NOISE, SLOPE, Decoder
from wuerstchen.seeds import generator

TRUNCATION = 0.86  # of the official configuration for COCO
SENTENCE = 256  # dimensions of the official text encoder's sentences


class DFGan(Decoder):
    """Noise (n, 100) and sentences (n, c_text) to pictures (n, 3, size, size) in [-1, 1]; size is a power of two."""

    def __init__(self, width: int, size: int = 256, c_text: int = SENTENCE):
        super().__init__(width, NOISE + c_text, [2**level for level in range(3, _levels(size) + 1)])
        self.fc = nn.Linear(NOISE, 8 * width * 4 * 4)

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        x = self.fc(noise).unflatten(1, (-1, 4, 4))
        return self.decode(x, torch.cat([noise, sentence], 1)).tanh()


class DownBlock(nn.Module):
    """Half the size: a strided and a plain convolution, scaled by a learned number that starts at 0, beside a mean."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv_r = nn.Sequential(
            nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
            nn.LeakyReLU(SLOPE),
        )
        self.conv_s = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv_s(x), 2) + self.gamma * self.conv_r(x)


class Discriminator(nn.Module):
    """One number for a picture and a sentence together; there is none for the picture alone ("one-way")."""

    def __init__(self, width: int, size: int, c_text: int):
        super().__init__()
        channels = [width * min(2**level, 8) for level in range(_levels(size) - 1)]
        self.conv_img = nn.Conv2d(3, width, 3, padding=1)
        self.DBlocks = nn.Sequential(*map(DownBlock, channels, channels[1:]))
        self.joint_conv = nn.Sequential(
            nn.Conv2d(channels[-1] + c_text, 2 * width, 3, padding=1, bias=False),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * width, 1, 4, bias=False),
        )

    def features(self, pictures: Tensor) -> Tensor:
        """Pictures (n, 3, size, size) in [-1, 1] to maps (n, 8 width, 4, 4)."""
        return self.DBlocks(self.conv_img(pictures))

    def judge(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Maps and sentences (n, c_text) to numbers (n,): high for a real picture of what the sentence says."""
        everywhere = sentence[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return self.joint_conv(torch.cat([features, everywhere], 1)).flatten()


def _levels(size: int) -> int:
    """How often a side of 1 is doubled to `size`. Raises ValueError unless that is 32 or more, and a power of two."""
    levels = size.bit_length() - 1
    if size != 2**levels or levels < 5:
        raise ValueError(f"DF-GAN's pictures have sides that are powers of two, from 32; {size} is none")
    return levels


def matching_aware_penalty(judged: Tensor, real: Tensor, sentence: Tensor, weight: float, power: float) -> Tensor:
    """Gradient penalty at real pictures with their own sentences, around which it keeps the discriminator smooth.

    weight and power: the paper's k and p. As in the authors' code the length is that of both gradients together, where
    the paper adds up two lengths. `real` and `sentence` need gradients.
    """
    gradients = torch.autograd.grad(judged.sum(), (real, sentence), create_graph=True)
    squares = sum(gradient.float().square().flatten(1).sum(1) for gradient in gradients)
    # of a length of exactly 0 the gradient would not be finite
    return weight * (squares + 1e-12).sqrt().pow(power).mean()


def sentences_of(tokens: Tensor) -> Tensor:
    """Text tokens (n, l, d), zero after the end, to sentences (n, d): their mean."""
    return tokens.float().sum(1) / tokens.any(-1, keepdim=True).sum(1).clamp(min=1)


def truncated_normal(seed: int, name: str) -> Tensor:
    """Noise (100,) of a picture: normal, cut at two deviations, times TRUNCATION."""
    uniform = torch.rand(NOISE, generator=generator(seed, name, "df-gan"), dtype=torch.float64)
    low = torch.special.ndtr(torch.tensor(-2.0, dtype=torch.float64))
    return TRUNCATION * torch.special.ndtri(low + uniform * (1 - 2 * low)).float()
