"""Release the weights of a finished study: fp16 safetensors with their histories and usage, and a model card.

python -m wuerstchen.release --study results/emoji-long --out wuerstchen/released/emoji
"""

import argparse
import csv
import hashlib
import io
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from wuerstchen import weights
from wuerstchen.files import as_json, atomic_path
from wuerstchen.model_card import card
from wuerstchen.unpack import as_type

STAGES = ("a", "b", "c", "baseline-ldm")
FILE_BYTES = 15 * 2**20
ALL_BYTES = 60 * 10**6
HISTORY_ROWS = 400


def half(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in fp16. Raises ValueError that names one which has no such values."""
    halved = as_type(tensors, torch.float16)
    for name, tensor in halved.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{path}: tensor {name} reaches {tensors[name].abs().max():g}; fp16 ends at 65504")
    return halved


def thinned(history: str, rows: int = HISTORY_ROWS) -> str:
    """About `rows` evenly spaced rows of a history.csv, with all that have a validation loss, and the last one."""
    reader = csv.DictReader(io.StringIO(history))
    whole = list(reader)
    stride = -(-len(whole) // rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, reader.fieldnames, lineterminator="\n")
    writer.writeheader()
    last = len(whole) - 1
    writer.writerows(row for n, row in enumerate(whole) if n % stride == 0 or row["validation_loss"] or n == last)
    return text.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read(path: Path) -> bytes:
    """Raises ValueError where a finished study has no such file."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; release a study that has finished, with {', '.join(STAGES)} and a scorer")
    return path.read_bytes()


def contents(study: Path) -> dict[str, bytes]:
    """All files of a release by name. Raises ValueError where something is missing or too large."""
    split, summary = (json.loads(read(study / name)) for name in ("data/split.json", "summary.json"))
    name, about = summary["study"], {"split_sha256": split["sha256"], "released": summary["study"]}
    files = {"config.yaml": read(study / "config.yaml")}
    for stage in STAGES:
        path, place = study / "train" / stage, f"train/{stage}"
        read(path / "model.safetensors")
        tensors, metadata = weights.load(path / "model.safetensors")
        halved = half(path / "model.safetensors", tensors)
        files[f"{place}/model.safetensors"] = to_bytes(halved, {weights.KEY: json.dumps(metadata | about)})
        files[f"{place}/history.csv"] = thinned(read(path / "history.csv").decode()).encode()
        files[f"{place}/usage.json"] = as_json(json.loads(read(path / "usage.json")) | {"released": name}).encode()
    scorer = study / "scorer"
    read(scorer / "model.safetensors")
    model = to_bytes(half(scorer / "model.safetensors", load_file(scorer / "model.safetensors")))
    config = json.loads(read(scorer / "config.json"))
    if config["split_sha256"] != split["sha256"]:
        raise ValueError(f"{scorer}/config.json: trained on another split than {study}/data/split.json says")
    files["scorer/model.safetensors"] = model
    files["scorer/config.json"] = as_json(config | {"model_sha256": digest(model)}).encode()
    files["scorer/history.csv"] = read(scorer / "history.csv")
    files["scorer/usage.json"] = as_json(json.loads(read(scorer / "usage.json")) | {"released": name}).encode()
    require_small(files)
    sizes = {name: (len(data), digest(data)) for name, data in files.items() if name.endswith(".safetensors")}
    usages = {stage: json.loads(files[f"train/{stage}/usage.json"]) for stage in STAGES}
    config = files["config.yaml"].decode()
    return files | {"README.md": card(config, split, summary, usages, sizes).encode()}


def require_small(files: dict[str, bytes]) -> None:
    """Raises ValueError where a file, or all together, are too large for a repository."""
    for name, data in files.items():
        if len(data) > FILE_BYTES:
            raise ValueError(f"{name} would have {len(data):,} bytes; a released file has at most {FILE_BYTES:,}")
    if (total := sum(map(len, files.values()))) > ALL_BYTES:
        raise ValueError(f"the release would have {total:,} bytes; it has at most {ALL_BYTES:,}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", required=True, type=Path, metavar="DIR", help="results of a study that has finished")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    args = parser.parse_args(argv)
    try:
        files = contents(args.study)
    except ValueError as error:
        raise SystemExit(f"release: {error}") from None
    for name, data in files.items():
        with atomic_path(args.out / name) as temporary:
            temporary.write_bytes(data)
    print(f"{args.out}: {len(files)} files, {sum(map(len, files.values())):,} bytes")


if __name__ == "__main__":
    main()
