"""Published test data that no package carries: captions, prompts and photographs, where a machine has them."""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("WUERSTCHEN_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def published(name: str) -> Path:
    """A file or folder of the test data; the test is skipped where it is not."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"no {name} in {FOLDER}; set WUERSTCHEN_TEST_DATA to a folder that has it")
    return path


def photos(count: int) -> list[Path]:
    """The first photographs of COCO's validation set there."""
    return sorted(published("photos_coco_mini/val2017").glob("*.jpg"))[:count]
