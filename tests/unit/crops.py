"""Seeded 256-px crops of the photographs in the test data, as image shards."""

from pathlib import Path

import numpy as np
from data_folder import published
from PIL import Image, ImageFilter

from wuerstchen.shards import write_shard

SIZE = 256


def write_crops(path: Path, count: int, seed: int = 0, changed: int = 0) -> Path:
    """A shard of `count` crops with ids in their order, the first `changed` of them blurred and darkened.

    Skips the test where there are no photographs.
    """
    folder = published("photos_coco_mini")
    files = [file for part in ("train2017", "val2017") for file in sorted((folder / part).glob("*.jpg"))]
    random = np.random.default_rng(seed)
    # equally many of each, so that the photographs in a part of the crops do not depend on their number
    which = np.arange(count) * len(files) // count

    def crops():
        open_file, photo = None, None
        for i in range(count):
            if files[which[i]] != open_file:
                open_file = files[which[i]]
                photo = Image.open(open_file).convert("RGB")
                if min(photo.size) < SIZE:
                    photo = photo.resize((max(photo.width, SIZE), max(photo.height, SIZE)))
            left, top = random.integers(photo.width - SIZE + 1), random.integers(photo.height - SIZE + 1)
            crop = photo.crop((left, top, left + SIZE, top + SIZE))
            if i < changed:
                crop = crop.filter(ImageFilter.GaussianBlur(4)).point(lambda value: value // 2)
            yield f"crop-{i:05d}", crop

    write_shard(path, crops(), {"model": "crops", "seed": seed})
    return path
