"""Images to measure: shards in, RGB arrays out, and one digest for a list of images."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.picture_files import files_sha256
from wuerstchen.shards import encode_png, read_shard, write_shard

__all__ = ["MAX_PIXELS", "decode", "encode_png", "images_sha256", "iter_images", "pngs_sha256"]
__all__ += ["read_shard", "write_shard"]

MAX_PIXELS = 64_000_000


def decode(png: bytes, where: str) -> np.ndarray:
    """RGB uint8 (height, width, 3) of a PNG. Raises ValueError naming `where` when it is broken, or above 64 Mpx."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{where}: {picture.width} x {picture.height} pixels are more than {MAX_PIXELS}")
            return np.asarray(picture.convert("RGB"))
    except Image.DecompressionBombError:
        raise ValueError(f"{where}: more than {MAX_PIXELS} pixels") from None
    except (OSError, SyntaxError, EOFError):
        raise ValueError(f"{where}: not a whole PNG") from None


def _iter_pngs(paths: Iterable[str | Path]) -> Iterator[tuple[str, bytes, Path]]:
    seen: dict[str, Path] = {}
    for path in map(Path, paths):
        _, pngs = read_shard(path)
        for name, png in pngs.items():
            if name in seen:
                raise ValueError(f"{path}: image {name} is already in {seen[name]}")
            seen[name] = path
            yield name, png, path


def iter_images(paths: Iterable[str | Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Ids and images, uint8 (height, width, 3), of shards in their order, one shard in memory at a time.

    Raises ValueError naming the shard when it is broken or repeats an id of an earlier one.
    """
    for name, png, path in _iter_pngs(paths):
        yield name, decode(png, f"{path}: {name}.png")


def images_sha256(paths: Iterable[str | Path]) -> str:
    """Digest of an image list: SHA-256 over the sorted lines "id sha256-of-the-PNG", each ended by a newline.

    How the images are cut into shards does not matter.
    """
    return pngs_sha256((name, png) for name, png, _ in _iter_pngs(paths))


def pngs_sha256(pngs: Iterable[tuple[str, bytes]]) -> str:
    """The same digest of (id, PNG bytes) pairs."""
    return files_sha256((name, hashlib.sha256(png).hexdigest()) for name, png in pngs)
