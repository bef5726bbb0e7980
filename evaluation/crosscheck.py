"""torch-fidelity and clean-fid on a study's own image shards, beside our values on the same pictures and weights.

    python -m evaluation.crosscheck --images ZIP ... --reference ZIP ... --weights FILE --out JSON

Both packages resize and compute by their own code, with torch-fidelity's network (clean-fid's own for legacy_pytorch)
from the one weight file: the TorchScript file that clean-fid would download has the same weights. Where one fails,
as clean-fid 0.1.35 does with SciPy 1.18, its value is null and its error is kept.
"""

import argparse
import contextlib
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from evaluation import frechet, inception_score, kid
from evaluation.features import count_images, extract, library_versions
from evaluation.images import decode, images_sha256, iter_images
from evaluation.inception import Inception
from wuerstchen.assets import locate
from wuerstchen.files import write_json

SEED = 2020  # torch-fidelity's own
SPLITS = inception_score.SPLITS
BATCH = 16  # of both packages
# How each tool's value is called, and the preprocessing under which ours must be the same.
MATCHING = {
    "torch-fidelity": "tf1-299",
    "clean-fid clean": "pil-float-299",
    "clean-fid legacy_pytorch": "torch-299",
    "clean-fid legacy_tensorflow": "tf1-299",
}


class Pictures(Dataset):
    """Shards' pictures as torch-fidelity takes a data set: uint8 (3, height, width) each, decoded when asked for."""

    def __init__(self, shards: Sequence[Path]):
        self._names: list[tuple[Path, str]] = []
        for shard in shards:
            with zipfile.ZipFile(shard) as archive:
                self._names += [(shard, name) for name in archive.namelist() if name.endswith(".png")]
        self._open: tuple[Path, zipfile.ZipFile] | None = None

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Tensor:
        shard, name = self._names[index]
        if self._open is None or self._open[0] != shard:
            self._open = shard, zipfile.ZipFile(shard)
        return torch.tensor(decode(self._open[1].read(name), f"{shard}: {name}")).permute(2, 0, 1)


def subset_size(n: int, m: int) -> int:
    """Size of KID's 100 subsets for sets of n and m pictures: 1000, or fewer of smaller sets."""
    return min(kid.SUBSET_SIZE, n, m)


def our_values(fake: np.ndarray, real: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Ours of features (n, D) and (m, D) and logits (n, classes) of the first, with torch-fidelity's draws."""
    estimates = kid.kid_of_subsets(fake, real, SEED, subset_size(len(fake), len(real)))
    splits = inception_score.split_scores(logits, SPLITS, SEED)
    return {
        "fid": frechet.distance_of_features(fake, real),
        "kid": float(estimates.mean()),
        "kid_std": float(estimates.std()),
        "is": float(splits.mean()),
        "is_std": float(splits.std()),
    }


def torch_fidelity_features(shards: Sequence[Path], weights: Path) -> tuple[np.ndarray, np.ndarray]:
    """torch-fidelity's features (n, 2048) and logits (n, 1008), float32, of all pictures in their order."""
    from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

    cuda = torch.cuda.is_available()
    network = create_feature_extractor(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        cuda=cuda,
        feature_extractor_weights_path=str(weights),
        verbose=False,
    )
    # the layout twice as fast on CPUs; it changes no number but for rounding
    network = network.to(memory_format=torch.channels_last)
    found = get_featuresdict_from_dataset(Pictures(shards), network, BATCH, cuda, save_cpu_ram=True, verbose=False)
    return found["2048"].numpy(), found["logits_unbiased"].numpy()


def torch_fidelity_values(fake: np.ndarray, real: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """torch-fidelity's FID, KID and Inception Score by its defaults, but for the size of KID's subsets.

    KID gets the features in float64: it works in the precision of what it gets, and float32 leaves it few digits.
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    statistics = [fid_features_to_statistics(torch.from_numpy(features)) for features in (fake, real)]
    distances = kid_features_to_metric(
        torch.from_numpy(fake).double(),
        torch.from_numpy(real).double(),
        kid_subset_size=subset_size(len(fake), len(real)),
        verbose=False,
    )
    scores = isc_features_to_metric(torch.from_numpy(logits))
    return {
        "fid": fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"],
        "kid": distances["kernel_inception_distance_mean"],
        "kid_std": distances["kernel_inception_distance_std"],
        "is": scores["inception_score_mean"],
        "is_std": scores["inception_score_std"],
    }


def clean_fid_features(shards: Sequence[Path], weights: Path, mode: str) -> np.ndarray:
    """clean-fid's features (n, 2048) in the order of the ids, by "clean", "legacy_pytorch" or "legacy_tensorflow"."""
    from cleanfid.fid import get_folder_features

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        network = clean_fid_network(weights, mode, Path(scratch), device)
        # it takes one folder or zip, and finds the pictures by their suffix
        folder = Path(scratch) / "pictures"
        for shard in shards:
            shutil.unpack_archive(shard, folder, "zip")
        return get_folder_features(
            str(folder), network, num_workers=0, batch_size=BATCH, device=device, mode=mode, verbose=False
        )


def clean_fid_values(fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """clean-fid's FID of features (n, D) and (m, D)."""
    from cleanfid.fid import fid_from_feats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its call of scipy.linalg.sqrtm
        return {"fid": float(fid_from_feats(fake, real))}


def clean_fid_network(weights: Path, mode: str, scratch: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """clean-fid's function from its resized pictures to features; files that it looks for are made in `scratch`."""
    from cleanfid.features import build_feature_extractor
    from cleanfid.inception_torchscript import InceptionV3W

    if mode == "legacy_pytorch":
        checkpoints = scratch / "hub" / "checkpoints"
        checkpoints.mkdir(parents=True)
        (checkpoints / "pt_inception-2015-12-05-6726825d.pth").symlink_to(weights.resolve())
        with _hub(scratch / "hub"):
            return build_feature_extractor(mode, device, use_dataparallel=False)
    write_torchscript(weights, scratch / "inception-2015-12-05.pt")
    wrapped = InceptionV3W(str(scratch), download=False, resize_inside=mode == "legacy_tensorflow")
    return wrapped.to(device).eval()


@contextlib.contextmanager
def _hub(folder: Path) -> Iterator[None]:
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(folder))
    try:
        yield
    finally:
        torch.hub.set_dir(before)


class _Script(nn.Module):
    """What clean-fid calls of a TorchScript file: `layers` on scaled pixels, and the whole on pixels of any size."""

    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        # TensorFlow 1's resize as a shifted grid: pixel i of 299 lies at i * width / 299
        theta = torch.eye(2, 3, device=x.device).unsqueeze(0).repeat(x.shape[0], 1, 1)
        theta[:, 0, 2] += 1 / x.shape[3] - 1 / 299
        theta[:, 1, 2] += 1 / x.shape[2] - 1 / 299
        grid = nn.functional.affine_grid(theta, [x.shape[0], 3, 299, 299], align_corners=False)
        x = nn.functional.grid_sample(x.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
        return self.layers((x - 128) / 128)


def write_torchscript(weights: Path, path: Path) -> None:
    """torch-fidelity's network with these weights as a TorchScript file that clean-fid can call."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    whole = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights))
    layers = nn.Sequential(*[part for name, part in whole.named_children() if name != "fc"], nn.Flatten())
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, but is what clean-fid reads
        # the format twice as fast on CPUs; it changes no number but for rounding
        layers = layers.eval().to(memory_format=torch.channels_last)
        traced = torch.jit.trace(layers, torch.zeros(1, 3, 299, 299), check_trace=False)
        torch.jit.script(_Script(traced)).save(str(path))


def values_of(tool: str, images: Sequence[Path], reference: Sequence[Path], weights: Path) -> dict[str, float]:
    """The values of one tool of `MATCHING`."""
    if tool == "torch-fidelity":
        fake, logits = torch_fidelity_features(images, weights)
        return torch_fidelity_values(fake, torch_fidelity_features(reference, weights)[0], logits)
    mode = tool.removeprefix("clean-fid ")
    return clean_fid_values(*(clean_fid_features(shards, weights, mode) for shards in (images, reference)))


def crosscheck(images: Sequence[Path], reference: Sequence[Path], weights: Path) -> dict[str, Any]:
    """All values of all tools, with the relative difference of each from ours under the matching preprocessing."""
    extractor = Inception(weights)
    count = {"n": count_images(images), "reference_n": count_images(reference)}
    mine = {}
    for preprocessing in dict.fromkeys(MATCHING.values()):
        _, fake, logits = extract(iter_images(images), extractor, preprocessing, count["n"])
        _, real, _ = extract(iter_images(reference), extractor, preprocessing, count["reference_n"])
        mine[preprocessing] = our_values(fake, real, logits)
    tools: dict[str, Any] = {}
    for tool, preprocessing in MATCHING.items():
        try:
            values = values_of(tool, images, reference, weights)
        except Exception as error:  # what breaks in a package is a result here, and not the end of the others
            tools[tool] = {"preprocessing": preprocessing, "values": None, "error": f"{type(error).__name__}: {error}"}
            continue
        near = {key: relative_difference(mine[preprocessing][key], value) for key, value in values.items()}
        tools[tool] = {"preprocessing": preprocessing, "values": values, "relative_difference": near}
    return {
        "schema": 1,
        "kid": {"subsets": kid.SUBSETS, "subset_size": subset_size(*count.values()), "seed": SEED},
        "is": {"splits": SPLITS, "seed": SEED},
        **count,
        "images_sha256": images_sha256(images),
        "reference_sha256": images_sha256(reference),
        "extractor": {"name": extractor.name, "sha256": extractor.sha256},
        "ours": mine,
        "tools": tools,
        "versions": library_versions("torch-fidelity", "clean-fid", "numpy", "scipy", "torch", "pillow"),
    }


def relative_difference(ours: float, theirs: float) -> float:
    """|ours - theirs| / |theirs|, and 0 where both are 0."""
    return abs(ours - theirs) / abs(theirs) if theirs else float(ours != theirs)


def main(argv: list[str] | None = None) -> None:
    """Command line: one JSON with all values."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.crosscheck", description=__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="+", required=True, type=Path, metavar="ZIP", help="shards of one model")
    parser.add_argument(
        "--reference", nargs="+", required=True, type=Path, metavar="ZIP", help="shards of real pictures"
    )
    parser.add_argument("--weights", type=Path, help="Inception as a torch file (default: the asset inception)")
    parser.add_argument("--out", required=True, type=Path, metavar="JSON")
    options = parser.parse_args(argv)
    try:
        weights = options.weights or locate("inception")
        write_json(options.out, crosscheck(options.images, options.reference, weights))
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
