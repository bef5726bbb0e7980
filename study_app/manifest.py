"""A study's pictures: taken from image shards, encoded once to one size and codec, listed under names that say nothing.

The manifest says which picture is whose and never leaves the server. It is written once; the store holds its digest.
"""

import hashlib
import io
import os
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.images import decode
from study_app.pairs import Pool, Trial
from study_app.tokens import random_id
from wuerstchen.files import read_json, read_jsonl, sha256_file, write_json
from wuerstchen.shards import ID, read_shard

SUFFIX = ".webp"  # lossless: a lossy codec may suit one model's pictures better than the other's
CONTROL = "control"  # stands for a model's name where the scrambled picture of a control is shown
ANCHORS = 60  # pairs at most that many participants see
CONTROLS = 20
TILES = 8  # a control's scrambled picture has its tiles, 8 x 8, in another order
MAX_PROMPT = 2_000  # characters
# formatting characters that reorder or hide text; joiners stay, as emoji and several scripts need them
_HIDDEN = frozenset("\u00ad\u200b\u200e\u200f\u061c\u2060\ufeff\u2028\u2029") | frozenset(
    map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xE0000, 0xE0080)])
)
DEFAULTS = {"target_votes": 50, "alias_min_votes": 20, "min_exposure_ms": 800}


@dataclass(frozen=True)
class Entry:
    """One prompt: its text, the picture of each model, and for a control the scrambled picture and whose it is."""

    prompt: str
    pictures: Mapping[str, str]
    control: tuple[str, str] | None


@dataclass(frozen=True)
class Study:
    """A study as its manifest describes it. `models` are two; sizes in pixels."""

    name: str
    title: str
    models: tuple[str, str]
    seed: int
    width: int
    height: int
    target_votes: int
    alias_min_votes: int
    min_exposure_ms: int
    anchors: tuple[str, ...]
    entries: Mapping[str, Entry]
    folder: Path
    sha256: str

    @cached_property
    def owners(self) -> dict[str, str]:
        """The prompt id of each picture."""
        owners = {picture: name for name, entry in self.entries.items() for picture in entry.pictures.values()}
        return owners | {entry.control[0]: name for name, entry in self.entries.items() if entry.control}

    def pool(self, unfit: Collection[str]) -> Pool:
        """What may be shown when these pictures may not."""
        away = {self.owners[picture] for picture in unfit}
        return Pool(
            prompts=[name for name in self.entries if name not in away],
            anchors=[name for name in self.anchors if name not in away],
            controls=[name for name, entry in self.entries.items() if entry.control and name not in away],
        )

    def sides(self, trial: Trial) -> tuple[tuple[str, str], tuple[str, str]]:
        """(model, picture) of the left and of the right side."""
        entry = self.entries[trial.prompt]
        if trial.kind == "control":
            assert entry.control is not None
            picture, model = entry.control
            pair = ((model, entry.pictures[model]), (CONTROL, picture))
        else:
            first, second = self.models
            pair = ((first, entry.pictures[first]), (second, entry.pictures[second]))
        return pair if trial.first_left else (pair[1], pair[0])

    def picture_path(self, picture: str) -> Path:
        """Where a picture lies."""
        return self.folder / "pictures" / f"{picture}{SUFFIX}"


def visible(text: str) -> str:
    """A prompt without control characters and without those that hide or reorder what is around them."""
    kept = (" " if c in "\t\r\n" else c for c in text if c in "\t\r\n" or unicodedata.category(c) != "Cc")
    return "".join(c for c in kept if c not in _HIDDEN).strip()


def scrambled(pixels: np.ndarray, seed: int) -> np.ndarray:
    """A picture (height, width, 3) with its tiles in another order; the rest that no tile covers stays in place."""
    height, width = pixels.shape[0] // TILES, pixels.shape[1] // TILES
    tiles = [
        pixels[y * height : (y + 1) * height, x * width : (x + 1) * width] for y in range(TILES) for x in range(TILES)
    ]
    out = pixels.copy()
    for place, tile in enumerate(np.random.default_rng(seed).permutation(len(tiles))):
        y, x = divmod(place, TILES)
        out[y * height : (y + 1) * height, x * width : (x + 1) * width] = tiles[tile]
    return out


def encoded(pixels: np.ndarray, size: tuple[int, int]) -> bytes:
    """Lossless WebP without any metadata, of (width, height) `size`."""
    picture = Image.fromarray(pixels)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=30, method=2, exif=b"", icc_profile=b"", xmp=b"")
    return buffer.getvalue()


def _shards(results: Path, model: str, prompts: str) -> list[Path]:
    paths = sorted((results / "images" / model / prompts).glob("*.zip"))
    if not paths:
        raise ValueError(f"models: {model} has no pictures of {prompts} in {results / 'images' / model / prompts}")
    return paths


def _pictures(results: Path, model: str, prompts: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """Prompt id, digest of the PNG and pixels of a model's pictures, one shard in memory at a time."""
    for path in _shards(results, model, prompts):
        for name, png in read_shard(path)[1].items():
            yield name, hashlib.sha256(png).hexdigest(), decode(png, f"{path}: {name}.png")


def _size(results: Path, model: str, prompts: str) -> tuple[int, int]:
    height, width, _ = next(_pictures(results, model, prompts))[2].shape
    return width, height


def _common_size(results: Path, models: tuple[str, str], prompts: str) -> tuple[int, int]:
    """The smaller of both models' sizes, as a difference would tell them apart. Raises ValueError for two shapes."""
    first, second = (_size(results, model, prompts) for model in models)
    if first[0] * second[1] != second[0] * first[1]:
        raise ValueError(
            f"models: {models[0]} draws {first[0]} x {first[1]} pixels, {models[1]} {second[0]} x {second[1]}; "
            "pictures that are compared should have one shape"
        )
    return min(first, second)


def _spread(names: list[str], seed: int, purpose: str, count: int) -> list[str]:
    """`count` of the names, chosen by the seed."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{purpose} {seed} {name}".encode()).digest())[:count]


def build(
    results: Path,
    models: tuple[str, str],
    prompts: str,
    folder: Path,
    *,
    title: str | None = None,
    seed: int = 0,
    target_votes: int = DEFAULTS["target_votes"],
    alias_min_votes: int = DEFAULTS["alias_min_votes"],
    min_exposure_ms: int = DEFAULTS["min_exposure_ms"],
) -> Study:
    """Encode the pictures of two models for a set of prompts into `folder` and write its manifest.json last.

    Raises ValueError where pictures or prompts are missing, or the models' pictures have different shapes.
    """
    if len(set(models)) != 2:
        raise ValueError(f"models: {' '.join(models)}; they should be two different models")
    path = results / "prompts" / f"{prompts}.jsonl"
    if not path.is_file():
        raise ValueError(f"prompts: {path} does not exist; {prompts!r} should be a set of prompts of this study")
    texts = {row["id"]: visible(row["prompt"]) for row in read_jsonl(path)}
    for name, prompt in texts.items():
        if not ID.fullmatch(name) or not 0 < len(prompt) <= MAX_PROMPT:
            raise ValueError(f"{path}: prompt {name[:80]!r} should have 1 to {MAX_PROMPT} visible characters")
    names = sorted(texts)
    anchors = _spread(names, seed, "anchors", min(ANCHORS, len(names) // 5))
    others = [name for name in names if name not in set(anchors)]
    controls = set(_spread(others, seed, "controls", min(CONTROLS, len(names) // 10)))
    size = _common_size(results, models, prompts)
    found: dict[str, dict[str, Any]] = {name: {"id": name, "prompt": texts[name], "pictures": {}} for name in names}
    for model in models:
        for name, source, pixels in _pictures(results, model, prompts):
            if name not in found:
                continue  # pictures of prompts that have since left the set
            found[name]["pictures"][model] = _store(folder, encoded(pixels, size)) | {"source_sha256": source}
            if name in controls and model == _spread(list(models), seed, name, 1)[0]:
                broken = _store(folder, encoded(scrambled(pixels, seed), size))
                found[name]["control"] = broken | {"of": model}
        missing = [name for name, entry in found.items() if model not in entry["pictures"]]
        if missing:
            raise ValueError(f"models: {model} has no picture of {len(missing)} prompts of {prompts}, as {missing[0]}")
    manifest = {
        "schema": 1,
        "name": prompts,
        "title": visible(title or prompts.replace("-", " ").capitalize()),
        "models": list(models),
        "prompts_sha256": sha256_file(path),
        "shards": {model: {p.name: sha256_file(p) for p in _shards(results, model, prompts)} for model in models},
        "seed": seed,
        "width": size[0],
        "height": size[1],
        "codec": "lossless WebP",
        "target_votes": target_votes,
        "alias_min_votes": alias_min_votes,
        "min_exposure_ms": min_exposure_ms,
        "anchors": anchors,
        "entries": [found[name] for name in names],
    }
    os.sync()  # once for thousands of pictures: the manifest says that they are there
    write_json(folder / "manifest.json", manifest)
    return load(folder)


def _store(folder: Path, picture: bytes) -> dict[str, str]:
    name = random_id()
    path = folder / "pictures" / f"{name}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)
    os.utime(path, (0, 0))  # models are encoded one after the other: the time would tell them apart
    return {"name": name, "sha256": hashlib.sha256(picture).hexdigest()}


def load(folder: Path) -> Study:
    """The study of a folder that `build` wrote. Raises ValueError where there is none, or of another schema."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such study; `python -m study_app.admin create` makes one")
    manifest = read_json(path)
    if manifest.get("schema") != 1:
        raise ValueError(f"{path}: schema {manifest.get('schema')!r}; this program reads 1")
    entries = {}
    for row in manifest["entries"]:
        control = row.get("control")
        entries[row["id"]] = Entry(
            prompt=row["prompt"],
            pictures={model: picture["name"] for model, picture in row["pictures"].items()},
            control=(control["name"], control["of"]) if control else None,
        )
    return Study(
        name=manifest["name"],
        title=manifest["title"],
        models=(manifest["models"][0], manifest["models"][1]),
        seed=manifest["seed"],
        width=manifest["width"],
        height=manifest["height"],
        target_votes=manifest["target_votes"],
        alias_min_votes=manifest["alias_min_votes"],
        min_exposure_ms=manifest["min_exposure_ms"],
        anchors=tuple(manifest["anchors"]),
        entries=entries,
        folder=folder,
        sha256=sha256_file(path),
    )


def check_pictures(study: Study) -> None:
    """Raises ValueError naming the first picture whose bytes are not those of the manifest."""
    for row in read_json(study.folder / "manifest.json")["entries"]:
        for picture in [*row["pictures"].values(), *([row["control"]] if "control" in row else [])]:
            path = study.picture_path(picture["name"])
            if not path.is_file() or sha256_file(path) != picture["sha256"]:
                raise ValueError(f"{path}: not the picture that the manifest of {study.name} lists")
