"""Pictures of any size made comparable: a named crop, then a named filter down or up to a square."""

import numpy as np
from PIL import Image

FILTERS = {name.lower(): Image.Resampling[name] for name in ("NEAREST", "BOX", "BILINEAR", "BICUBIC", "LANCZOS")}


def centre_square(picture: np.ndarray) -> np.ndarray:
    """The square of the shorter side's length from the middle of a uint8 picture (h, w, 3); an odd rest stays below
    and on the right."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def whole_square(picture: np.ndarray) -> np.ndarray:
    """The picture itself. Raises ValueError unless it is square: nothing is squashed unasked."""
    height, width = picture.shape[:2]
    if height != width:
        raise ValueError(f"a square picture is needed where nothing is cropped, got {width}x{height}; centre crops it")
    return picture


CROPS = {"none": whole_square, "centre": centre_square}


def resize(picture: np.ndarray, size: tuple[int, int], filter_: str) -> np.ndarray:
    """A uint8 picture at `size` (height, width) by one of Pillow's FILTERS, which are antialiased (nearest is not)."""
    height, width = size
    return np.asarray(Image.fromarray(picture).resize((width, height), FILTERS[filter_]))


def prepare(picture: np.ndarray, size: int, crop: str = "centre", filter_: str = "bicubic") -> np.ndarray:
    """A uint8 picture (h, w, 3) as (size, size, 3), by one of CROPS and one of FILTERS."""
    return resize(CROPS[crop](picture), (size, size), filter_)
