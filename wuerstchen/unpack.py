"""Released weights: where they lie, and their files as the trainings left them, for a study that does not train them.

A release (wuerstchen/release.py) is a study's folder in small: config.yaml, train/{stage}/ and scorer/, in fp16.

python -m wuerstchen.unpack --weights wuerstchen/released/emoji --preset emoji --split results/emoji/data/split.json
    --stages a b c baseline-ldm --out results/emoji/train --scorer results/emoji/scorer
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wuerstchen import weights
from wuerstchen.files import atomic_path, read_json, sha256_file, write_json

RELEASED = Path(__file__).parent / "released"
NAMES = ("emoji",)
BESIDE = ("history.csv", "usage.json")  # what stands beside a stage's weights


def training_folder(source: str | Path) -> Path:
    """The folder train/ of a release by its name, and any other path as it is.

    Raises ValueError where the release holds no weights.
    """
    if str(source) not in NAMES:
        return Path(source)
    folder = RELEASED / str(source) / "train"
    if not (folder / "c" / "model.safetensors").is_file():
        raise ValueError(f"model {source}: {folder} holds no weights; get the whole repository, or train the study")
    return folder


def as_type(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors with their floating-point numbers in another precision; whole numbers stay as they are."""
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def require_same_study(path: Path, metadata: Mapping[str, object], preset: str, split_sha256: str) -> None:
    """Raises ValueError where weights were trained with another preset, or on another split of the pictures."""
    if metadata["preset"] != preset:
        raise ValueError(f"{path}: weights of the preset {metadata['preset']}, but the config's is {preset}")
    if (trained_on := metadata.get("split_sha256")) != split_sha256:
        raise ValueError(
            f"{path}: trained on the split {trained_on}, but this study's pictures are split as {split_sha256}:"
            " what it has seen would be measured as held out. Use the data and seed that it was trained with, or train"
        )


def copy_beside(source: Path, out: Path) -> None:
    """Copy what stands beside the weights of a folder."""
    for name in BESIDE:
        with atomic_path(out / name) as temporary:
            shutil.copyfile(source / name, temporary)


def unpack(folder: Path, preset: str, split: Path, stages: Sequence[str], out: Path, scorer: Path | None) -> None:
    """Write the stages of a release to `out`/{stage}/, in float32, and its scorer to the folder `scorer`.

    Raises ValueError where a file is missing, or where the release is of another preset or split.
    """
    split_sha256 = read_json(split)["sha256"]
    loaded = {}
    for stage in stages:
        path = folder / "train" / stage / "model.safetensors"
        loaded[stage] = weights.load(path)
        require_same_study(path, loaded[stage][1], preset, split_sha256)
    for stage, (tensors, metadata) in loaded.items():
        copy_beside(folder / "train" / stage, out / stage)
        weights.save(out / stage / "model.safetensors", as_type(tensors, torch.float32), metadata)
    if scorer:
        path, config = folder / "scorer", read_json(folder / "scorer" / "config.json")
        require_same_study(path / "config.json", config | {"preset": preset}, preset, split_sha256)
        with atomic_path(scorer / "model.safetensors") as temporary:
            save_file(as_type(load_file(path / "model.safetensors"), torch.float32), temporary)
        copy_beside(path, scorer)
        write_json(scorer / "config.json", config | {"model_sha256": sha256_file(scorer / "model.safetensors")})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Released weights as the trainings left them, in float32.")
    parser.add_argument("--weights", required=True, type=Path, metavar="DIR", help="a release")
    parser.add_argument("--preset", required=True, help="that the study has; others' weights are refused")
    parser.add_argument("--split", required=True, type=Path, metavar="JSON", help="the study's; another is refused")
    parser.add_argument("--stages", required=True, nargs="+", metavar="STAGE")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="gets a folder for each stage")
    parser.add_argument("--scorer", type=Path, metavar="DIR", help="where the release's scorer goes")
    args = parser.parse_args(argv)
    try:
        unpack(args.weights, args.preset, args.split, args.stages, args.out, args.scorer)
    except (ValueError, OSError) as error:
        raise SystemExit(f"weights: {error}") from None


if __name__ == "__main__":
    main()
