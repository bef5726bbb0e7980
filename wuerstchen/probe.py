"""The probe decoder: pictures straight from the compressor's latents, to see what Stage C decides (appendix D)."""

from torch import Tensor, nn


class ProbeDecoder(nn.Module):
    """Latents (n, c_in, h, w) to small pictures (n, 3, 16 h, 16 w) of about [0, 1]; each stage doubles the side.

    Defaults: the paper's four stages, 3,858,371 parameters (its 3.9M). It calls the 2x2 convolutions of stride 2
    downsampling layers; to come from latents to pictures they must be transposed.
    """

    def __init__(self, c_in: int = 16, widths: tuple[int, ...] = (512, 256, 128, 64)):
        super().__init__()
        layers: list[nn.Module] = []
        for c, width in zip((c_in, *widths), widths, strict=False):
            layers += [
                nn.ConvTranspose2d(c, width, 2, stride=2),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GELU(),
                nn.BatchNorm2d(width),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 3, 1))

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)
