"""Perceptual losses of Stage A by name: LPIPS (the paper's), and the one that the emoji study installs by pip."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.assets import locate
from wuerstchen.compressor import efficientnet_lite


class PerceptualLoss(nn.Module):
    """Mean squared distance of channel-normalised EfficientNet-Lite1 features at strides 2, 4 and 8 (LPIPS without its
    learned weights). Images (n, 3, h, w) in [0, 1]."""

    def __init__(self, pretrained: bool = True):
        super().__init__()
        net = efficientnet_lite(1, pretrained)
        self.stages = nn.ModuleList([nn.Sequential(net.conv_stem, net.bn1), *net.blocks[:3]]).requires_grad_(False)
        self.eval()

    def features(self, x: Tensor) -> list[Tensor]:
        x = (x - 0.5) / 0.5
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(F.normalize(x, dim=1, eps=1e-6))
        return maps

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            targets = self.features(y)
        pairs = zip(self.features(x), targets, strict=True)
        return torch.stack([(a.float() - b.float()).square().sum(1).mean() for a, b in pairs]).mean()


class Lpips(nn.Module):
    """LPIPS (Zhang et al., 2018) on VGG16, by its authors' package, which carries the learned weights but not VGG's.

    backbone: torchvision's ImageNet weights of VGG16. Images (n, 3, h, w) in [0, 1]. Computed in float32: distances of
    normalised features drown in half precision.
    """

    def __init__(self, backbone: Path):
        super().__init__()
        import lpips

        self.lpips = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)  # random: nothing is downloaded
        self.load(backbone)
        self.requires_grad_(False).eval()

    def load(self, path: Path) -> None:
        """Load VGG16's convolutions, strictly; its classifier is not used."""
        try:
            theirs = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(f"--lpips: {path} cannot be read as weights ({type(error).__name__})") from None
        named = {name.partition(".")[2]: name for name in self.lpips.net.state_dict()}  # "slice1.0.weight"
        wanted = {f"features.{rest}": name for rest, name in named.items()}
        features = {name: tensor for name, tensor in theirs.items() if name.startswith("features.")}
        if wrong := sorted(set(features) ^ set(wanted)):
            kind = "extra" if wrong[0] in theirs else "missing"
            raise ValueError(f"--lpips: {path} is not VGG16: {wrong[0]} is {kind}")
        self.lpips.net.load_state_dict({wanted[name]: tensor for name, tensor in features.items()})

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.lpips(x.float(), y.float(), normalize=True).mean()


def perceptual_loss(kind: str, backbone: Path | None = None) -> nn.Module:
    """The loss of a recipe's `perceptual`. backbone: LPIPS' VGG16; None is the located asset.

    Raises ValueError where the loss is not known, or the backbone is not there.
    """
    if kind == "efficientnet-lite1":
        return PerceptualLoss()
    if kind != "lpips":
        raise ValueError(f"perceptual: {kind!r} is not known; use lpips or efficientnet-lite1")
    return Lpips(backbone or locate("vgg16"))
