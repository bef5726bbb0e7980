"""clean-fid and torch-fidelity with one Inception network of seeded random weights: the published ones are not here."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from cleanfid import fid as cleanfid
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.utils import get_featuresdict_from_dataset

Change = Callable[[np.ndarray], np.ndarray]  # of a uint8 picture (h, w, 3)
TORCH_FIDELITY_BATCH, CLEANFID_BATCH = 64, 32  # their defaults


class _Unloaded(FeatureExtractorInceptionV3):
    def load_state_dict(self, *_: object, **__: object) -> None:
        """Keep the fresh weights."""


def write_weights(path: Path, seed: int = 0) -> Path:
    """A file with the names and shapes of the published one; activations keep their size in depth."""
    torch.save({}, path)
    network = _Unloaded("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=random)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.8, 1.2, generator=random)
            module.bias.normal_(0, 0.1, generator=random)
            module.running_mean.normal_(0, 0.1, generator=random)
            module.running_var.uniform_(0.7, 1.3, generator=random)
        elif isinstance(module, nn.Linear):
            module.weight.normal_(0, 1, generator=random)
            module.bias.normal_(0, 1, generator=random)
    # What the features of all pictures have in common would make one class the surest of every picture. The classes do
    # without it, as far as a picture of noise has it, so that the Inception Score of photographs is well above 1.
    noise = torch.randint(0, 256, (1, 3, 299, 299), generator=random, dtype=torch.uint8)
    with torch.inference_mode():
        common = nn.functional.normalize(network(noise)[0][0], dim=0)
        network.fc.weight -= torch.outer(network.fc.weight @ common, common)
    # a plain dictionary without counters, as the published file is
    torch.save({key: t.clone() for key, t in network.state_dict().items() if "num_batches" not in key}, path)
    return path


class _Pictures(Dataset):
    """The pictures of a folder as torch-fidelity takes them, changed as they are read."""

    def __init__(self, paths: Sequence[Path], change: Change):
        self.paths, self.change = paths, change

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as picture:
            changed = self.change(np.asarray(picture.convert("RGB")))
        return torch.from_numpy(np.array(changed)).permute(2, 0, 1)


class TorchFidelity:
    """torch-fidelity: its resize, network, loader of four processes and distance."""

    name, protocol = "torch-fidelity", "tf1-299"

    def __init__(self, weights: Path):
        self.network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
        )

    def features(self, folder: Path, change: Change) -> np.ndarray:
        """Features (n, 2048) of the folder's pictures, sorted by name: one pass."""
        dataset = _Pictures(sorted(folder.iterdir()), change)
        batch = min(TORCH_FIDELITY_BATCH, len(dataset))
        found = get_featuresdict_from_dataset(
            dataset, self.network, batch, cuda=False, save_cpu_ram=False, verbose=False
        )
        return found["2048"].numpy()

    def distance(self, changed: np.ndarray, reference: np.ndarray) -> float:
        """Its Frechet distance, by eigenvalues of the product of covariances."""
        one, two = (fid_features_to_statistics(torch.from_numpy(some)) for some in (changed, reference))
        return float(fid_statistics_to_metric(one, two, verbose=False)["frechet_inception_distance"])


class _Script(nn.Module):
    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class CleanFID:
    """clean-fid's mode "clean": its resize, its wrapper of a TorchScript network, loaders and distance.

    The TorchScript file is traced from torch-fidelity's network, batch norms apart as in the published one.
    """

    name, protocol = "clean-fid", "pil-float-299"

    def __init__(self, weights: Path):
        layers = list(TorchFidelity(weights).network.children())[:-1]
        with torch.no_grad():
            traced = torch.jit.trace(nn.Sequential(*layers, nn.Flatten()).eval(), torch.zeros(2, 3, 299, 299))
        torch.jit.script(_Script(traced)).save(str(weights.parent / "inception-2015-12-05.pt"))
        self.network = InceptionV3W(str(weights.parent), download=False).eval()

    def features(self, folder: Path, change: Change) -> np.ndarray:
        """Features (n, 2048) of the folder's pictures, sorted by name: one pass."""
        return cleanfid.get_folder_features(
            str(folder), self.network, num_workers=torch.get_num_threads(), batch_size=CLEANFID_BATCH,
            device=torch.device("cpu"), mode="clean", custom_image_tranform=change, verbose=False,
        )  # fmt: skip

    def distance(self, changed: np.ndarray, reference: np.ndarray) -> float:
        """Its Frechet distance, by scipy.linalg.sqrtm."""
        return float(cleanfid.fid_from_feats(changed, reference))
