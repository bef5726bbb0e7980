"""The Inception network of FID, KID and Inception Score: TensorFlow's of 2015-12-05, with 1008 classes.

It differs from the usual Inception v3 (Szegedy et al. 2016): its average pools leave the padding out of the mean, and
the last block has a maximum pool in the place of one. Its weights are known as pt_inception-2015-12-05-6726825d.pth
(pytorch-fid), weights-inception-2015-12-05-6726825d.pth (torch-fidelity; the same bytes) and inception-2015-12-05.pt
(TorchScript; clean-fid). Only what is computed with them may be called FID.

Inputs are scaled as by the tool whose resize it is: x / 127.5 - 1 after `torch`, (x - 128) / 128 after all others.
"""

import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation import resizes
from wuerstchen.assets import find, locate
from wuerstchen.files import sha256_file

EPSILON = 1e-3  # of the batch norms
FEATURES, CLASSES = 2048, 1008

# Of each block, its kind; of each kind, its convolutions by their names in a torch file and in the TorchScript file.
STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
BLOCKS = {
    "Mixed_5b": "A", "Mixed_5c": "A", "Mixed_5d": "A", "Mixed_6a": "B", "Mixed_6b": "C", "Mixed_6c": "C",
    "Mixed_6d": "C", "Mixed_6e": "C", "Mixed_7a": "D", "Mixed_7b": "E", "Mixed_7c": "E",
}  # fmt: skip
KINDS: dict[str, dict[str, str]] = {
    "A": {
        "branch1x1": "conv",
        "branch5x5_1": "tower_conv", "branch5x5_2": "tower_conv_1",
        "branch3x3dbl_1": "tower_1_conv", "branch3x3dbl_2": "tower_1_conv_1", "branch3x3dbl_3": "tower_1_conv_2",
        "branch_pool": "tower_2_conv",
    },
    "B": {
        "branch3x3": "conv",
        "branch3x3dbl_1": "tower_conv", "branch3x3dbl_2": "tower_conv_1", "branch3x3dbl_3": "tower_conv_2",
    },
    "C": {
        "branch1x1": "conv",
        "branch7x7_1": "tower_conv", "branch7x7_2": "tower_conv_1", "branch7x7_3": "tower_conv_2",
        "branch7x7dbl_1": "tower_1_conv", "branch7x7dbl_2": "tower_1_conv_1", "branch7x7dbl_3": "tower_1_conv_2",
        "branch7x7dbl_4": "tower_1_conv_3", "branch7x7dbl_5": "tower_1_conv_4",
        "branch_pool": "tower_2_conv",
    },
    "D": {
        "branch3x3_1": "tower_conv", "branch3x3_2": "tower_conv_1",
        "branch7x7x3_1": "tower_1_conv", "branch7x7x3_2": "tower_1_conv_1",
        "branch7x7x3_3": "tower_1_conv_2", "branch7x7x3_4": "tower_1_conv_3",
    },
    "E": {
        "branch1x1": "conv",
        "branch3x3_1": "tower_conv", "branch3x3_2a": "tower_mixed_conv", "branch3x3_2b": "tower_mixed_conv_1",
        "branch3x3dbl_1": "tower_1_conv", "branch3x3dbl_2": "tower_1_conv_1",
        "branch3x3dbl_3a": "tower_1_mixed_conv", "branch3x3dbl_3b": "tower_1_mixed_conv_1",
        "branch_pool": "tower_2_conv",
    },
}  # fmt: skip
# All others keep the size of their input.
UNPADDED = {"Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_4a_3x3"}
STRIDED = {"Conv2d_1a_3x3", "Mixed_6a.branch3x3", "Mixed_6a.branch3x3dbl_3", "Mixed_7a.branch3x3_2"}
STRIDED |= {"Mixed_7a.branch7x7x3_4"}


def convolutions() -> dict[str, str]:
    """Name of each convolution in a torch file, such as "Mixed_5b.branch1x1", and in TorchScript: "mixed_conv"."""
    names = {name: "conv" + (f"_{i}" if i else "") for i, name in enumerate(STEM)}
    for i, (block, kind) in enumerate(BLOCKS.items()):
        script = "mixed" + (f"_{i}" if i else "")
        names |= {f"{block}.{branch}": f"{script}_{tower}" for branch, tower in KINDS[kind].items()}
    return names


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a weight file under the names of the torch file.

    Raises ValueError for a TorchScript file, which is a program, unless its digest is that of the asset table.
    """
    if not (zipfile.is_zipfile(path) and _is_script(path)):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in a dozen ways, of zipfile, pickle and torch
            raise ValueError(f"{path}: not a file of tensors ({' '.join(str(error).split())[:200]})") from None
    expected, actual = find("inception-torchscript").sha256, sha256_file(path)
    if actual != expected:
        raise ValueError(f"{path}: a TorchScript program of sha256 {actual}; only that of {expected} is run")
    return from_torchscript(torch.jit.load(path, map_location="cpu").state_dict())


def _is_script(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def from_torchscript(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the TorchScript file under the names of the torch file; batch norms without weights get ones.

    Raises ValueError naming a tensor that has no place there.
    """
    roles = {"weight": "conv.weight", "beta": "bn.bias", "bias": "bn.bias", "mean": "bn.running_mean"}
    roles |= {"running_mean": "bn.running_mean", "var": "bn.running_var", "running_var": "bn.running_var"}
    places = {script: name for name, script in convolutions().items()}
    renamed = {}
    for key, tensor in tensors.items():
        module, _, role = key.removeprefix("layers.").rpartition(".")
        flat = module.replace(".", "_")
        place = places.get(flat) or places.get(flat.removesuffix("_conv").removesuffix("_bn"))
        if module == "output":
            renamed[f"fc.{role}"] = tensor
        elif place and role == "weight" and tensor.ndim == 1:
            renamed[f"{place}.bn.weight"] = tensor
        elif place and role in roles:
            renamed[f"{place}.{roles[role]}"] = tensor
            renamed.setdefault(f"{place}.bn.weight", torch.ones(tensor.shape[0]))
        elif role != "num_batches_tracked":
            raise ValueError(f"tensor {key} has no place in the Inception network")
    return renamed


class Network:
    """The network from pixels to features and logits, its batch norms folded into the convolutions before them.

    Raises ValueError naming the tensor where one is missing or not known, or where the classes are others than 1008.
    """

    def __init__(
        self, tensors: dict[str, Tensor], device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ):
        left = {key for key in tensors if not key.endswith("num_batches_tracked")}
        self._layers: dict[str, tuple[Tensor, Tensor]] = {}

        def take(key: str) -> Tensor:
            if key not in tensors:
                raise ValueError(f"the weight file has no tensor {key}")
            left.discard(key)
            return tensors[key].double()

        for name in convolutions():
            scale = take(f"{name}.bn.weight") / (take(f"{name}.bn.running_var") + EPSILON).sqrt()
            weight = take(f"{name}.conv.weight") * scale[:, None, None, None]
            bias = take(f"{name}.bn.bias") - take(f"{name}.bn.running_mean") * scale
            self._layers[name] = (
                weight.to(device, dtype or torch.float32).contiguous(memory_format=torch.channels_last),
                bias.to(device, dtype or torch.float32),
            )
        self._classifier = take("fc.weight").to(device, torch.float32)
        take("fc.bias")  # the scores' classifier goes without
        if tuple(self._classifier.shape) != (CLASSES, FEATURES):
            raise ValueError(f"fc.weight is {tuple(self._classifier.shape)}, not {(CLASSES, FEATURES)}")
        if left:
            raise ValueError(f"{len(left)} tensors of the weight file are not known, such as {min(left)}")

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, 2048) and logits without bias (n, 1008), float32, of scaled pixels (n, 3, 299, 299)."""
        x = self._conv("Conv2d_1a_3x3", pixels.to(self._layers["Conv2d_1a_3x3"][0].dtype))
        x = self._chain(x, "Conv2d_2a_3x3", "Conv2d_2b_3x3")
        x = self._chain(_halved(x), "Conv2d_3b_1x1", "Conv2d_4a_3x3")
        x = _halved(x)
        kinds = {"A": self._block_a, "B": self._block_b, "C": self._block_c, "D": self._block_d, "E": self._block_e}
        for block, kind in BLOCKS.items():
            x = torch.cat(kinds[kind](block, x), dim=1)
        features = x.float().mean(dim=(2, 3))
        return features, features @ self._classifier.T

    def _conv(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._layers[name]
        padding = (0, 0) if name in UNPADDED or name in STRIDED else (weight.shape[2] // 2, weight.shape[3] // 2)
        return F.conv2d(x, weight, bias, stride=2 if name in STRIDED else 1, padding=padding).relu_()

    def _chain(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self._conv(name, x)
        return x

    def _branch(self, x: Tensor, block: str, branch: str, count: int) -> Tensor:
        return self._chain(x, *(f"{block}.{branch}_{i + 1}" for i in range(count)))

    def _block_a(self, block: str, x: Tensor) -> list[Tensor]:
        return [
            self._conv(f"{block}.branch1x1", x),
            self._branch(x, block, "branch5x5", 2),
            self._branch(x, block, "branch3x3dbl", 3),
            self._conv(f"{block}.branch_pool", _mean_around(x)),
        ]

    def _block_b(self, block: str, x: Tensor) -> list[Tensor]:
        return [self._conv(f"{block}.branch3x3", x), self._branch(x, block, "branch3x3dbl", 3), _halved(x)]

    def _block_c(self, block: str, x: Tensor) -> list[Tensor]:
        return [
            self._conv(f"{block}.branch1x1", x),
            self._branch(x, block, "branch7x7", 3),
            self._branch(x, block, "branch7x7dbl", 5),
            self._conv(f"{block}.branch_pool", _mean_around(x)),
        ]

    def _block_d(self, block: str, x: Tensor) -> list[Tensor]:
        return [self._branch(x, block, "branch3x3", 2), self._branch(x, block, "branch7x7x3", 4), _halved(x)]

    def _block_e(self, block: str, x: Tensor) -> list[Tensor]:
        single = self._branch(x, block, "branch3x3", 1)
        double = self._branch(x, block, "branch3x3dbl", 2)
        # The last block of this network has a maximum where the paper and all other blocks have a mean.
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if block == "Mixed_7c" else _mean_around(x)
        return [
            self._conv(f"{block}.branch1x1", x),
            self._conv(f"{block}.branch3x3_2a", single),
            self._conv(f"{block}.branch3x3_2b", single),
            self._conv(f"{block}.branch3x3dbl_3a", double),
            self._conv(f"{block}.branch3x3dbl_3b", double),
            self._conv(f"{block}.branch_pool", pooled),
        ]


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, kernel_size=3, stride=2)


def _mean_around(x: Tensor) -> Tensor:
    """Mean over 3x3, at the borders over what there is of it."""
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class Inception:
    """The extractor "inception": 2048 features after the last pool, and 1008 logits without bias.

    `weights` is a file of any of the names above; the asset "inception" unless given. fp32 throughout, on GPUs too (no
    TF32); "inception-bf16" computes the convolutions in bfloat16 and has a name of its own, since its scores differ.
    """

    name = "inception"
    dtype = torch.float32

    def __init__(self, weights: Path | None = None) -> None:
        path = weights or locate("inception")
        self.sha256 = sha256_file(path)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_size = 16 if self._device.type == "cpu" else 128
        self._network = Network(read_tensors(path), self._device, self.dtype)

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray, preprocessing: str) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, 2048) and logits (n, 1008) of uint8 RGB pictures (n, height, width, 3).

        `preprocessing` is one of `resizes`, to 299: "pil-float-299". A picture's numbers do not depend on its
        neighbours: each batch is filled up to one fixed size. Raises ValueError for another size.
        """
        resize, size = resizes.parse(preprocessing)
        if size != 299:
            raise ValueError(
                f"Inception takes pictures of 299x299, preprocessing {preprocessing!r} makes {size}x{size}"
            )
        features, logits = [], []
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for start in range(0, len(pictures), self.batch_size):
                pixels = resizes.resized(pictures[start : start + self.batch_size], preprocessing)
                count = len(pixels)
                pixels = pixels.to(self._device)
                pixels = pixels / 127.5 - 1 if resize == "torch" else (pixels - 128) / 128
                filled = torch.cat([pixels, pixels[-1:].expand(self.batch_size - count, -1, -1, -1)])
                pooled, classes = self._network(filled.contiguous(memory_format=torch.channels_last))
                features.append(pooled[:count].cpu())
                logits.append(classes[:count].cpu())
        return torch.cat(features).numpy(), torch.cat(logits).numpy()


class InceptionBF16(Inception):
    """The extractor "inception-bf16": the same network with its convolutions in bfloat16, where that is in hardware."""

    name = "inception-bf16"
    dtype = torch.bfloat16
