"""Features of pictures, kept with a key that says what they were computed from and with.

    python -m evaluation.features --of NPZ SOURCE [SOURCE ...] --extractor efficientnet-lite2
    python -m evaluation.features --of NPZ SOURCE [SOURCE ...] --protocol coco30k-clean [--matching JSONL]

A source is an image shard, another zip, a folder, a picture or an asset's name. A file whose key fits is left as it is;
an extraction that was interrupted goes on from the last thousand pictures that it wrote beside it, in `state/`.
"""

import argparse
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.picture_files import Entry, digests_of, entries, files_sha256, matching, source_of
from evaluation.pictures import CHOICES, Reading, add_up
from evaluation.prompts import read_prompts
from wuerstchen.files import atomic_path
from wuerstchen.progress import progress
from wuerstchen.shards import read_info

if TYPE_CHECKING:
    from evaluation.extractors import Extractor

CHUNK = 64
PART = 16 * CHUNK  # pictures that an interruption costs at most; whole chunks, so that no batch depends on it


@dataclass(frozen=True)
class FeatureSet:
    """Features (n, D) and logits (n, classes), float32, of the images `ids`, and their provenance.

    `key` is {"images_sha256", "extractor": {"name", "sha256"}, "preprocessing", "versions"} and, of other files than
    image shards or shards made of such, "pictures": what `pictures.describe` tells of them and the choices made in
    reading them.
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

    @property
    def lossy(self) -> int:
        """How many of the pictures were saved with loss, in JPEG and its like."""
        return self.key.get("pictures", {}).get("lossy", 0)

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


@dataclass(frozen=True)
class Preparation:
    """What is done to each picture before the extractor's own preprocessing, such as a protocol's crop and filter."""

    name: str
    apply: Callable[[np.ndarray], np.ndarray]


def write_features_of(
    listed: Sequence[Entry], extractor: "Extractor", preprocessing: str, out: Path, prepare: Preparation | None = None
) -> bool:
    """Features of all pictures, in their order, as one npz; False where it stands already and its key fits.

    Its key's preprocessing is "<preparation>/<preprocessing>" where there is a preparation. Raises ValueError where
    `extract` and `pictures.decode` do.
    """
    named = f"{prepare.name}/{preprocessing}" if prepare else preprocessing
    wanted = {"extractor": {"name": extractor.name, "sha256": extractor.sha256}, "preprocessing": named}
    if _stands(out, listed, wanted) is not None:
        return False
    state = out.parent / "state" / out.stem
    parts = []
    for start in range(0, len(listed), PART):
        some = listed[start : start + PART]
        path = state / f"{start // PART:04d}.npz"
        part = _stands(path, some, wanted)
        if part is None:
            part = _features_of(some, extractor, preprocessing, wanted, prepare)
            if len(listed) > PART:
                write_features(path, part)
        parts.append(part)
    write_features(out, _joined(parts, listed, wanted))
    shutil.rmtree(state, ignore_errors=True)
    return True


def _features_of(
    listed: Sequence[Entry], extractor: "Extractor", preprocessing: str, wanted: dict, prepare: Preparation | None
) -> FeatureSet:
    """The features of a part; its key has "files", the digests by id, and a record of its "pictures"."""
    reading = Reading(listed)
    pictures = ((name, prepare.apply(pixels) if prepare else pixels) for name, pixels in reading)
    ids, features, logits = extract(pictures, extractor, preprocessing, len(listed))
    files = dict(reading.digests)
    key = wanted | {"images_sha256": files_sha256(files.items()), "files": files, "pictures": add_up(reading.records)}
    return FeatureSet(ids, features, logits, key)


def _stands(path: Path, listed: Sequence[Entry], wanted: dict) -> FeatureSet | None:
    """The features at `path` if they are of these very pictures, this extractor and preprocessing."""
    if not path.is_file():
        return None
    try:
        there = read_features(path)
    except ValueError:  # damaged: written anew
        return None
    if there.ids != [entry.id for entry in listed] or any(there.key.get(name) != wanted[name] for name in wanted):
        return None
    return there if there.key.get("images_sha256") == files_sha256(digests_of(listed)) else None


def _joined(parts: Sequence[FeatureSet], listed: Sequence[Entry], wanted: dict) -> FeatureSet:
    files = [item for part in parts for item in part.key["files"].items()]
    key = wanted | {
        "images_sha256": files_sha256(files),
        "versions": library_versions("numpy", "pillow", "timm", "torch"),
    }
    shards = dict.fromkeys(entry.path for entry in listed if entry.shard)
    sources = [record for path in shards if (record := read_info(path).get("pictures"))]
    if not all(entry.shard for entry in listed):
        key["pictures"] = add_up(part.key["pictures"] for part in parts) | {"choices": CHOICES}
    elif sources:  # a model's own pictures, which `evaluation.sample` put into shards
        key["pictures"] = add_up(sources) | {"choices": CHOICES}
    return FeatureSet(
        [name for part in parts for name in part.ids],
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.logits for part in parts]),
        key,
    )


def main(argv: list[str] | None = None) -> None:
    """Command line: features of one or more sets of images; to load the network takes longer than to use it."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.features", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--of",
        nargs="+",
        action="append",
        required=True,
        type=Path,
        metavar=("NPZ", "SOURCE"),
        help="the file to write and where its pictures are, in order: image shards, zips, folders; may be repeated",
    )
    parser.add_argument(
        "--matching",
        type=Path,
        metavar="JSONL",
        help="only the pictures that these prompts name as their images; all, where a protocol's reference is all",
    )
    parser.add_argument("--protocol", help="of evaluation.protocols, in place of the three options below")
    parser.add_argument("--extractor", default="efficientnet-lite2", help="name of the network (default: %(default)s)")
    parser.add_argument(
        "--preprocessing", default="none-128", help="none-128 (default) or bicubic-128 for square pictures of any size"
    )
    parser.add_argument(
        "--prepare", default="none", metavar="NAME", help="before that, such as centre-square-lanczos-256"
    )
    options = parser.parse_args(argv)
    # torch and timm: seconds that the readers of features need not pay
    from evaluation import extractors, protocols

    try:
        matched = options.matching
        if options.protocol:
            protocol = protocols.find(options.protocol)
            options.extractor, options.preprocessing = protocol.extractor, protocol.preprocessing
            options.prepare = protocol.preparation
            matched = matched if protocol.reference == "matched" else None
        prepare = protocols.preparation(options.prepare)
        extractor = extractors.load(options.extractor)
        for out, *sources in options.of:
            if not sources:
                raise ValueError(f"--of {out}: name the image shards after it")
            listed = entries(map(source_of, sources))
            if matched:
                listed = matching(listed, read_prompts(matched))
            write_features_of(listed, extractor, options.preprocessing, out, prepare)
    except (ValueError, ModuleNotFoundError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
