"""Features of the images in zip shards, kept with a key that says what they were computed from and with.

python -m evaluation.features --images ZIP [ZIP ...] --extractor efficientnet-lite2 --out NPZ
"""

import argparse
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.images import images_sha256, iter_images
from wuerstchen.files import atomic_path
from wuerstchen.progress import progress

if TYPE_CHECKING:
    from evaluation.extractors import Extractor

CHUNK = 64


@dataclass(frozen=True)
class FeatureSet:
    """Features (n, D) and logits (n, classes), float32, of the images `ids`, and their provenance.

    `key` is {"images_sha256", "extractor": {"name", "sha256"}, "preprocessing", "versions"}.
    """

    ids: list[str]
    features: np.ndarray
    logits: np.ndarray
    key: dict[str, Any]

    def of(self, ids: Iterable[str]) -> np.ndarray:
        """Features in the order of `ids`. Raises ValueError naming ids that are absent."""
        ids = list(ids)
        absent = [name for name in ids if name not in self._rows]
        if absent:
            raise ValueError(f"no features of {len(absent)} images, such as {', '.join(absent[:3])}")
        return self.features[[self._rows[name] for name in ids]]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}


def library_versions(*packages: str) -> dict[str, str]:
    """Installed versions by package name."""
    return {package: version(package) for package in packages}


def count_images(paths: Iterable[str | Path]) -> int:
    """Number of images in shards, from their directories alone."""
    total = 0
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            total += len(archive.namelist()) - 1
    return total


def in_chunks(images: Iterable[tuple[str, np.ndarray]], size: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Ids and uint8 pictures (up to `size`, height, width, 3). Raises ValueError where the pictures differ in size."""
    images, shape = iter(images), None
    while chunk := list(islice(images, size)):
        for name, picture in chunk:
            shape = shape or picture.shape
            if picture.shape != shape:
                raise ValueError(
                    f"image {name} is {picture.shape[1]}x{picture.shape[0]} px, those before it {shape[1]}x{shape[0]}: "
                    "all images of one set need one size"
                )
        yield [name for name, _ in chunk], np.stack([picture for _, picture in chunk])


def extract(
    images: Iterable[tuple[str, np.ndarray]], extractor: "Extractor", preprocessing: str, total: int | None = None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids, features (n, D) and logits (n, classes) of (id, uint8 RGB) pairs, in their order.

    Raises ValueError for no images, differing sizes, or an extractor that returns NaN or infinity.
    """
    ids, features, logits = [], [], []
    with progress(what=extractor.name, unit="images", total=total) as bar:
        for names, pictures in in_chunks(images, CHUNK):
            pooled, classes = extractor(pictures, preprocessing)
            ids += names
            features.append(pooled)
            logits.append(classes)
            bar.update(len(names))
    if not ids:
        raise ValueError("no images to extract features from")
    features_, logits_ = np.concatenate(features), np.concatenate(logits)
    if not (np.isfinite(features_).all() and np.isfinite(logits_).all()):
        raise ValueError(f"{extractor.name} returned NaN or infinity")
    return ids, features_, logits_


def write_features(path: str | Path, feature_set: FeatureSet) -> None:
    """Write an npz atomically: ids, features, logits, key (JSON text)."""
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            ids=np.array(feature_set.ids, dtype=np.str_),
            features=feature_set.features.astype(np.float32),
            logits=feature_set.logits.astype(np.float32),
            key=np.array(json.dumps(feature_set.key, sort_keys=True)),
        )


def read_features(path: str | Path, like: FeatureSet | None = None) -> FeatureSet:
    """Read an npz of `write_features`; with `like`, insist on its extractor, weights and preprocessing.

    Raises ValueError naming the file and what is wrong: not such an npz, lengths that disagree, or another key.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids, features, logits = arrays["ids"].tolist(), arrays["features"], arrays["logits"]
            key = json.loads(str(arrays["key"]))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; evaluation.features writes it") from None
    except Exception as error:  # a damaged npz fails in a dozen ways, of zipfile, NumPy and JSON
        raise ValueError(f"{path}: not a feature file with ids, features, logits and key ({error})") from None
    if not len(ids) == len(features) == len(logits) or len(set(ids)) != len(ids):
        raise ValueError(
            f"{path}: {len(ids)} ids ({len(set(ids))} distinct), {len(features)} features and {len(logits)} logits; "
            "there should be as many of each"
        )
    feature_set = FeatureSet(ids, features, logits, key)
    if like is not None:
        for name in ("extractor", "preprocessing"):
            if key.get(name) != like.key.get(name):
                raise ValueError(
                    f"{path}: {name} is {json.dumps(key.get(name))}, but these features are compared with ones of "
                    f"{name} {json.dumps(like.key.get(name))}; compute both with the same"
                )
    return feature_set


def write_features_of(pictures: Sequence[Path], extractor: "Extractor", preprocessing: str, out: Path) -> None:
    """Features of all images of the shards, in their order, as one npz. Raises ValueError where `extract` does."""
    digest, total = images_sha256(pictures), count_images(pictures)
    ids, features, logits = extract(iter_images(pictures), extractor, preprocessing, total)
    key = {
        "images_sha256": digest,
        "extractor": {"name": extractor.name, "sha256": extractor.sha256},
        "preprocessing": preprocessing,
        "versions": library_versions("numpy", "pillow", "timm", "torch"),
    }
    write_features(out, FeatureSet(ids, features, logits, key))


def main(argv: list[str] | None = None) -> None:
    """Command line: features of one or more sets of images; to load the network takes longer than to use it."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.features", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--of",
        nargs="+",
        action="append",
        required=True,
        type=Path,
        metavar=("NPZ", "ZIP"),
        help="the file to write and the image shards, in order; may be repeated",
    )
    parser.add_argument("--extractor", default="efficientnet-lite2", help="name of the network (default: %(default)s)")
    parser.add_argument(
        "--preprocessing", default="none-128", help="none-128 (default) or bicubic-128 for square pictures of any size"
    )
    options = parser.parse_args(argv)
    from evaluation import extractors  # torch and timm: seconds that the readers of features need not pay

    try:
        extractor = extractors.load(options.extractor)
        for out, *pictures in options.of:
            if not pictures:
                raise ValueError(f"--of {out}: name the image shards after it")
            write_features_of(pictures, extractor, options.preprocessing, out)
    except (ValueError, ModuleNotFoundError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
