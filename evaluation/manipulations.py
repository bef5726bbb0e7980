"""The thirteen mild manipulations of the paper's Table 3 (Appendix B), each a pure function of uint8 RGB pictures.

A picture comes at twice the final size. The reference is its antialiased bicubic reduction; `nearest` and `bilinear`
reduce it in another way, all others change the reference. The paper names neither order, chroma subsampling nor
palette: what is chosen here stands in `CHOICES` and is written beside every result.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageEnhance, features

CHOICES = {
    "order": "bicubic reduction to half the size in uint8 first, then the manipulation; "
    "nearest and bilinear reduce the full-size picture instead",
    "reference": "Pillow bicubic, antialiased, uint8",
    "jpeg": "Pillow, chroma 4:2:0, its standard quantisation tables at the named quality, decoded again to uint8",
    "jpeg_library": f"libjpeg {features.version('jpg')}"
    + (f" (turbo {features.version('libjpeg_turbo')})" if features.check("libjpeg_turbo") else ""),
    "nearest": "Pillow nearest",
    "bilinear": "Pillow bilinear, antialiased",
    "palette": "Pillow convert('P'): 216-colour web palette with Floyd-Steinberg dither",
    "brightness": "Pillow ImageEnhance.Brightness, factor 1.1 or 0.9, pivot black",
    "contrast": "Pillow ImageEnhance.Contrast, factor 1.1 or 0.9, pivot the picture's mean grey",
}


def _jpeg(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    def apply(picture: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="JPEG", quality=quality, subsampling="4:2:0")
        return np.asarray(Image.open(file).convert("RGB"))

    return apply


def _palette(picture: np.ndarray) -> np.ndarray:
    indexed = Image.fromarray(picture).convert("P", palette=Image.Palette.WEB, dither=Image.Dither.FLOYDSTEINBERG)
    return np.asarray(indexed.convert("RGB"))


def _enhance(kind: type, factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda picture: np.asarray(kind(Image.fromarray(picture)).enhance(factor))


def _reduce(resample: Image.Resampling) -> Callable[[np.ndarray], np.ndarray]:
    def apply(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        if height % 2 or width % 2:
            raise ValueError(f"a picture of even height and width is needed to halve it, got {height}x{width}")
        return np.asarray(Image.fromarray(picture).resize((width // 2, height // 2), resample))

    return apply


# Paper's order; `reference`, RESAMPLINGS act on the full-size picture, COLOURS_AND_CODECS on the reference.
reference = _reduce(Image.Resampling.BICUBIC)
RESAMPLINGS = {"nearest": _reduce(Image.Resampling.NEAREST), "bilinear": _reduce(Image.Resampling.BILINEAR)}
COLOURS_AND_CODECS = {
    **{f"jpeg-{quality}": _jpeg(quality) for quality in (95, 90, 80, 70, 60, 50)},
    "palette": _palette,
    "brightness-up": _enhance(ImageEnhance.Brightness, 1.1),
    "brightness-down": _enhance(ImageEnhance.Brightness, 0.9),
    "contrast-up": _enhance(ImageEnhance.Contrast, 1.1),
    "contrast-down": _enhance(ImageEnhance.Contrast, 0.9),
}
NAMES = (
    "jpeg-95",
    "jpeg-90",
    "jpeg-80",
    "jpeg-70",
    "jpeg-60",
    "jpeg-50",
    "nearest",
    "bilinear",
    "palette",
    "brightness-up",
    "brightness-down",
    "contrast-up",
    "contrast-down",
)


def fan_out(picture: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The reference and the named manipulations of one uint8 picture (2h, 2w, 3): name -> uint8 (h, w, 3).

    Raises ValueError for an unknown name or a picture that is not uint8 RGB of even sides.
    """
    check_names(names)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a uint8 picture of shape (height, width, 3) needed, got {picture.dtype} {picture.shape}")
    reduced = reference(picture)
    variants = {"reference": reduced}
    for name in names:
        variants[name] = RESAMPLINGS[name](picture) if name in RESAMPLINGS else COLOURS_AND_CODECS[name](reduced)
    return variants


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError that names an unknown or doubled manipulation and lists the known ones."""
    for name in names:
        if name not in NAMES:
            raise ValueError(f"unknown manipulation {name!r}; known are: {', '.join(NAMES)}")
    if len(set(names)) != len(names):
        raise ValueError(f"a manipulation is named twice in: {', '.join(names)}")


def psnr(picture: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures of one shape; infinite where they are equal."""
    error = ((picture.astype(np.float64) - other.astype(np.float64)) ** 2).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
