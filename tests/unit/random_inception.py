"""The FID Inception network with seeded random weights, in the format of its files and in the tools that read them."""

from pathlib import Path

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

TORCH_FILE = "pt_inception-2015-12-05-6726825d.pth"


class _Unloaded(FeatureExtractorInceptionV3):
    def load_state_dict(self, *_: object, **__: object) -> None:
        """Keep torch-fidelity's fresh weights."""


def write(folder: Path, seed: int = 0) -> Path:
    """A file with the names and shapes of the published one, under its name; activations keep their size in depth."""
    path = Path(folder) / TORCH_FILE
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


def torch_fidelity(path: Path) -> FeatureExtractorInceptionV3:
    """torch-fidelity's own network from that file; called with uint8 (n, 3, h, w) it gives features and logits."""
    features = ["2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("inception-v3-compat", features, feature_extractor_weights_path=str(path))
