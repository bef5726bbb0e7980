"""Photographs of the test data, which lie outside the repository."""

import os
from pathlib import Path

import pytest

PHOTOS = (
    Path(os.environ.get("WUERSTCHEN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")) / "photos_coco_mini"
)


def photos(count: int) -> list[Path]:
    """The first photographs of val2017; skips the test where there are none."""
    files = sorted((PHOTOS / "val2017").glob("*.jpg"))[:count]
    if len(files) < count:
        pytest.skip(f"no {count} photographs at {PHOTOS}; set WUERSTCHEN_TEST_DATA to a folder with photos_coco_mini")
    return files
