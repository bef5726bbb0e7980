"""The FID Inception network with seeded random weights, in the format of its files and in the tools that read them."""

from pathlib import Path

from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from benchmarks.inception_peers import write_weights

TORCH_FILE = "pt_inception-2015-12-05-6726825d.pth"


def write(folder: Path, seed: int = 0) -> Path:
    """A file like the published one, under its name."""
    return write_weights(Path(folder) / TORCH_FILE, seed)


def torch_fidelity(path: Path) -> FeatureExtractorInceptionV3:
    """torch-fidelity's own network from that file; called with uint8 (n, 3, h, w) it gives features and logits."""
    features = ["2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("inception-v3-compat", features, feature_extractor_weights_path=str(path))
