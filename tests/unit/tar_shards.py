"""Small webdataset-style tar shards for tests."""

import io
import json
import tarfile

import numpy as np
from PIL import Image

GOOD = {"aesthetic": 6.0, "pwatermark": 0.1, "punsafe": 0.0}


def picture(number: int, size: tuple[int, int] = (160, 140), kind: str = "JPEG") -> bytes:
    """A smooth picture of its own, encoded; size is (width, height)."""
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def sample(number: int, **about) -> dict[str, bytes]:
    """Members of a whole sample, by extension."""
    return {
        "jpg": picture(number),
        "txt": f"picture number {number}".encode(),
        "json": json.dumps({**GOOD, **about}).encode(),
    }


def write(path, samples: list[dict[str, bytes]]) -> None:
    """A tar of these samples, named 000000000, 000000001, and so on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for i, members in enumerate(samples):
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{i:09d}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def prepared(folder, shards: int = 3, each: int = 8) -> str:
    """Shards of whole samples, scanned and selected; returns their pattern."""
    from wuerstchen import selection

    for i in range(shards):
        write(folder / f"{i:06d}.tar", [sample(100 * i + j) for j in range(each)])
    pattern = f"{folder}/{{000000..{shards - 1:06d}}}.tar"
    selection.main(["scan", "--data", pattern, "--out", str(folder / "scans"), "--workers", "1"])
    selection.main(
        ["select", "--data", pattern, "--scans", str(folder / "scans"), "--size", "64", "4096",
         "--out", str(folder / "selection.safetensors")]
    )  # fmt: skip
    return pattern
