"""The Semantic Compressor: an ImageNet backbone projected to 16 normalised channels (paper, 3.1 and E.2)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.assets import locate
from wuerstchen.presets import CompressorConfig
from wuerstchen.weights import load_module, read

RIDGE = 1e-2  # of the mean variance of what is regressed on


def load_by_order(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint whose tensors come in the order of the model's, under other names.

    Raises ValueError that names the first pair of tensors with different shapes, or the counts if these differ.
    """
    theirs = list(torch.load(path, map_location="cpu", weights_only=True).items())
    ours = list(model.state_dict().items())
    if len(theirs) != len(ours):
        raise ValueError(f"{path}: {len(theirs)} tensors where the model has {len(ours)}")
    for (name, tensor), (other, value) in zip(ours, theirs, strict=True):
        if tensor.shape != value.shape or name.split(".")[-1] != other.split(".")[-1]:
            raise ValueError(f"{path}: {other} {tuple(value.shape)} where the model has {name} {tuple(tensor.shape)}")
    model.load_state_dict({name: value for (name, _), (_, value) in zip(ours, theirs, strict=True)})


def efficientnet_lite(number: int, pretrained: bool = True) -> nn.Module:
    """timm's `tf_efficientnet_lite<number>` with the ImageNet weights that a pip package carries; number 0 or 1."""
    import timm

    model = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False)
    if pretrained:
        load_by_order(model, locate(f"efficientnet-lite{number}"))
    return model.eval()


def _stages(config: CompressorConfig, pretrained: bool) -> nn.ModuleList:
    """The first `config.stages` stages of the backbone; they end in `c_features` channels at stride 32 / unshuffle."""
    if config.backbone == "efficientnet_lite0":
        net = efficientnet_lite(0, pretrained)
        stem, head = nn.Sequential(net.conv_stem, net.bn1), nn.Sequential(net.conv_head, net.bn2)
        return nn.ModuleList([stem, *net.blocks, head][: config.stages])
    if config.backbone in ("efficientnet_v2_s", "efficientnet_v2_l"):
        import torchvision.models

        net = getattr(torchvision.models, config.backbone)(weights=None)
        if pretrained:
            path = locate(config.backbone.replace("_", "-"))
            load_module(net, read(path), "", path)
        return nn.ModuleList(net.features[: config.stages])
    raise ValueError(f"compressor.backbone: {config.backbone!r}; use efficientnet_lite0, efficientnet_v2_s or _l")


def resize_bicubic(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The whole picture at that height and width, bicubic as in the paper (3.1), antialiased."""
    return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def resize_and_crop(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The released code's way: bilinear, antialiased, until that height and width are covered; then their centre."""
    (h, w), (height, width) = images.shape[-2:], size
    wide = height * w > width * h
    whole = (height, height * w // h) if wide else (width * h // w, width)
    images = F.interpolate(images, whole, mode="bilinear", antialias=True, align_corners=False)
    top, left = round((whole[0] - height) / 2), round((whole[1] - width) / 2)
    return images[..., top : top + height, left : left + width]


# How pictures come to the size that the backbone sees (`CompressorConfig.resize`).
RESIZES = {"bicubic": resize_bicubic, "bilinear-crop": resize_and_crop}


class SemanticCompressor(nn.Module):
    """Images (n, 3, h, w) in [0, 1] to latents (n, c_latent, h / 32, w / 32), each channel of zero mean, unit variance.

    The first stages are frozen where `config.trained_blocks` says so: `trunk` computes what they give, once per
    picture, and `head` the rest, which is trained with Stage B.
    """

    def __init__(self, config: CompressorConfig, pretrained: bool = False):
        super().__init__()
        if config.resize not in RESIZES:
            raise ValueError(f"compressor.resize: {config.resize!r} is not known; use one of {', '.join(RESIZES)}")
        self.config = config
        self.backbone = _stages(config, pretrained)
        c_in, c_out = config.c_features * config.unshuffle**2, config.c_latent
        self.mapper = nn.Sequential(nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))
        self.frozen = max(len(self.backbone) - config.trained_blocks, 0)
        self.backbone[: self.frozen].requires_grad_(False)

    def train(self, mode: bool = True) -> "SemanticCompressor":
        """The backbone keeps its ImageNet statistics; only the final normalisation learns from batches."""
        super().train(mode)
        self.backbone.eval()
        return self

    def preprocess(self, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Resize to `size` as `config.resize` says and normalise; images (n, 3, h, w) in [0, 1].

        size: height and width; None is a square of `input_size`. The paper trains at other sizes too.
        """
        size = size or (self.config.input_size,) * 2
        if images.shape[-2:] != size:
            images = RESIZES[self.config.resize](images, size)
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (self.config.mean, self.config.std))
        return (images - mean) / std

    def trunk(self, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Output of the frozen stages for images in [0, 1], seen at `size`."""
        x = self.preprocess(images, size)
        for stage in self.backbone[: self.frozen]:
            x = stage(x)
        return x

    def head(self, x: Tensor) -> Tensor:
        """Latents from the output of `trunk`, always in float32.

        In half precision a channel's mean can drown its variance before the normalisation, and then it is lost; and on
        CPUs the gradient of a 5x5 depthwise convolution takes twenty times as long.
        """
        with torch.autocast(x.device.type, enabled=False):
            return self.mapper(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """What is projected to the latents, (n, c_features * unshuffle^2, h, w), from the output of `trunk`."""
        x = x.float()
        for stage in self.backbone[self.frozen :]:
            x = stage(x)
        return F.pixel_unshuffle(x, self.config.unshuffle)

    @torch.no_grad()
    def fit(self, trunk: Tensor, pictures: Tensor) -> None:
        """Start with the projection from which a linear map tells the most of pictures in small.

        trunk: output of `trunk`, (n, ...); pictures: (n, c, k * h, k * w) for latents of h x w, so that k x k pixels
        belong to each. Reduced-rank regression (Izenman, 1975) over all positions; the channels come out uncorrelated.
        """
        n, sums, products = 0, 0.0, 0.0
        for some, small in zip(trunk.split(64), pictures.split(64), strict=True):
            x = self.features(some)
            y = F.pixel_unshuffle(small, small.shape[-1] // x.shape[-1])
            both = torch.cat([x, y], 1).permute(0, 2, 3, 1).flatten(0, 2).double()
            n, sums, products = n + len(both), sums + both.sum(0), products + both.T @ both
        mean = sums / n
        covariance = products / n - mean.outer(mean)
        c = self.mapper[0].in_channels
        of_features = covariance[:c, :c]
        ridged = of_features + RIDGE * of_features.diagonal().mean() * torch.eye(c)
        regression = torch.linalg.solve(ridged, covariance[:c, c:])
        told = regression.T @ of_features @ regression  # covariance of what the regression tells
        weight = regression @ torch.linalg.eigh(told).eigenvectors[:, -self.config.c_latent :]
        projection, norm = self.mapper
        projection.weight.copy_(weight.T[:, :, None, None])
        norm.running_mean.copy_(mean[:c] @ weight)
        norm.running_var.copy_((weight * (of_features @ weight)).sum(0))

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        return self.head(self.trunk(images, size))
