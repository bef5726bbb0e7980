"""The thirteen mild manipulations of the paper's Table 3 (Appendix B) and some beyond it, of uint8 RGB pictures.

The reference is the antialiased bicubic reduction of a picture. Resamplings reduce it in another way; the others change
the reference or, in the other order, the picture before its reduction. The paper names neither order, chroma
subsampling, palette nor pivot: each is a named option here, and what was chosen is written beside every result.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, features

from evaluation.prepare import resize

ORDERS = {
    "reduce-first": "bicubic reduction in uint8 first, then the manipulation",
    "manipulate-first": "the manipulation at full size, then bicubic reduction in uint8",
}
CHROMA = {"4:2:0": "chroma at half the resolution, as Pillow does by default", "4:4:4": "chroma at full resolution"}
PALETTES = {
    "web": "Pillow convert('P'): 216-colour web palette with Floyd-Steinberg dither",
    "adaptive": "Pillow quantize(256): 256 colours of each picture by median cut, without dither",
}
PIVOTS = {"mean-grey": "the picture's mean grey, as Pillow's ImageEnhance.Contrast has it", "mid-grey": "grey 128"}
OPTIONS = {"order": ORDERS, "chroma": CHROMA, "palette": PALETTES, "pivot": PIVOTS}


@dataclass(frozen=True)
class Choices:
    """What the paper leaves open, each one of OPTIONS. Raises ValueError for another value."""

    order: str = "reduce-first"
    chroma: str = "4:2:0"
    palette: str = "web"
    pivot: str = "mean-grey"

    def __post_init__(self) -> None:
        for option, value in asdict(self).items():
            if value not in OPTIONS[option]:
                raise ValueError(f"{option} {value!r} is unknown; known are: {', '.join(OPTIONS[option])}")

    def record(self) -> dict[str, str | dict[str, str]]:
        """The named options, and every choice in words."""
        turbo = f" (turbo {features.version('libjpeg_turbo')})" if features.check("libjpeg_turbo") else ""
        return {
            "options": asdict(self),
            "order": f"{ORDERS[self.order]}; resamplings reduce the full-size picture instead",
            "reference": "Pillow bicubic, antialiased, uint8",
            "jpeg": f"Pillow, chroma {self.chroma} ({CHROMA[self.chroma]}), its standard quantisation tables at the "
            "named quality, decoded again to uint8",
            "jpeg_library": f"libjpeg {features.version('jpg')}{turbo}",
            "nearest": "Pillow nearest",
            "bilinear": "Pillow bilinear, antialiased",
            "palette": PALETTES[self.palette],
            "brightness": "Pillow ImageEnhance.Brightness, factor 1.1 or 0.9, pivot black",
            "contrast": f"blended with grey in Pillow, factor 1.1 or 0.9, pivot {PIVOTS[self.pivot]}",
        }


def _codec(kind: str, **settings: int | str) -> Callable[[Image.Image, Choices], Image.Image]:
    def apply(picture: Image.Image, choices: Choices) -> Image.Image:
        file = io.BytesIO()
        chroma = {} if kind == "WEBP" else {"subsampling": choices.chroma}  # lossy WebP knows 4:2:0 alone
        picture.save(file, format=kind, **settings, **chroma)
        return Image.open(file).convert("RGB")

    return apply


def _palette(picture: Image.Image, choices: Choices) -> Image.Image:
    if choices.palette == "adaptive":
        return picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    web = picture.convert("P", palette=Image.Palette.WEB, dither=Image.Dither.FLOYDSTEINBERG)
    return web.convert("RGB")


def _brightness(factor: float) -> Callable[[Image.Image, Choices], Image.Image]:
    return lambda picture, choices: ImageEnhance.Brightness(picture).enhance(factor)


def _contrast(factor: float) -> Callable[[Image.Image, Choices], Image.Image]:
    def apply(picture: Image.Image, choices: Choices) -> Image.Image:
        if choices.pivot == "mean-grey":
            return ImageEnhance.Contrast(picture).enhance(factor)
        return Image.blend(Image.new("RGB", picture.size, (128, 128, 128)), picture, factor)

    return apply


def _blur(radius: float) -> Callable[[Image.Image, Choices], Image.Image]:
    return lambda picture, choices: picture.filter(ImageFilter.GaussianBlur(radius))


def _pillow(filter_: str) -> Callable[[np.ndarray, tuple[int, int]], np.ndarray]:
    return lambda picture, size: resize(picture, size, filter_)


def _without_antialias(mode: str) -> Callable[[np.ndarray, tuple[int, int]], np.ndarray]:
    def apply(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        import torch.nn.functional as F  # only these two need it
        from torch import from_numpy

        pixels = from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        reduced = F.interpolate(pixels, size=size, mode=mode, align_corners=False, antialias=False)
        return reduced[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()

    return apply


RESAMPLINGS: dict[str, Callable[[np.ndarray, tuple[int, int]], np.ndarray]] = {
    "nearest": _pillow("nearest"),
    "bilinear": _pillow("bilinear"),
    "box": _pillow("box"),
    "lanczos": _pillow("lanczos"),
    "torch-bilinear": _without_antialias("bilinear"),
    # OpenCV's cubic: half-pixel centres, coefficient -0.75 and no antialias, which is PyTorch's too.
    "cv2-bicubic": _without_antialias("bicubic"),
}
COLOURS_AND_CODECS: dict[str, Callable[[Image.Image, Choices], Image.Image]] = {
    **{f"jpeg-{quality}": _codec("JPEG", quality=quality) for quality in (95, 90, 80, 70, 60, 50)},
    "palette": _palette,
    "brightness-up": _brightness(1.1),
    "brightness-down": _brightness(0.9),
    "contrast-up": _contrast(1.1),
    "contrast-down": _contrast(0.9),
    **{f"webp-{quality}": _codec("WEBP", quality=quality) for quality in (90, 75, 50)},
    **{f"avif-{quality}": _codec("AVIF", quality=quality) for quality in (90, 75, 50)},
    "blur-1": _blur(1),
    "blur-2": _blur(2),
}
JPEGS = ("jpeg-95", "jpeg-90", "jpeg-80", "jpeg-70", "jpeg-60", "jpeg-50")
COLOURS = ("palette", "brightness-up", "brightness-down", "contrast-up", "contrast-down")
NAMES = (*JPEGS, "nearest", "bilinear", *COLOURS)  # the paper's, in its order
EXTRAS = tuple(name for name in (*RESAMPLINGS, *COLOURS_AND_CODECS) if name not in NAMES)


def fan_out(
    picture: np.ndarray, names: Sequence[str], choices: Choices | None = None, size: int | None = None
) -> dict[str, np.ndarray]:
    """The reference and the named manipulations of one uint8 picture (H, W, 3): name -> uint8 (h, w, 3).

    (h, w) is half of (H, W), or `size` twice where that is given; the picture must then be square. Raises ValueError
    for an unknown name, a codec that Pillow lacks, a picture that is not uint8 RGB, or sides that do not fit.
    """
    check_names(names)
    choices = choices or Choices()
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a uint8 picture of shape (height, width, 3) needed, got {picture.dtype} {picture.shape}")
    target = _target(picture, size)
    reference = resize(picture, target, "bicubic")
    variants = {"reference": reference}
    start = Image.fromarray(reference if choices.order == "reduce-first" else picture)
    for name in names:
        if name in RESAMPLINGS:
            variants[name] = RESAMPLINGS[name](picture, target)
            continue
        changed = np.asarray(COLOURS_AND_CODECS[name](start, choices))
        variants[name] = changed if choices.order == "reduce-first" else resize(changed, target, "bicubic")
    return variants


def _target(picture: np.ndarray, size: int | None) -> tuple[int, int]:
    height, width = picture.shape[:2]
    if size is None:
        if height % 2 or width % 2:
            raise ValueError(f"a picture of even height and width is needed to halve it, got {height}x{width}")
        return height // 2, width // 2
    if height != width:
        raise ValueError(f"a square picture is needed to reduce it to {size}x{size}, got {height}x{width}")
    return size, size


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for an unknown or doubled manipulation, or one whose codec this Pillow lacks."""
    for name in names:
        if name not in RESAMPLINGS and name not in COLOURS_AND_CODECS:
            raise ValueError(f"unknown manipulation {name!r}; known are: {', '.join((*NAMES, *EXTRAS))}")
        codec = name.split("-")[0]
        if codec in ("webp", "avif") and not features.check(codec):
            raise ValueError(f"manipulation {name} needs a Pillow that was built with {codec.upper()}; leave it out")
    if len(set(names)) != len(names):
        raise ValueError(f"a manipulation is named twice in: {', '.join(names)}")


def psnr(picture: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures of one shape; infinite where they are equal."""
    difference = np.subtract(picture, other, dtype=np.float64).ravel()
    error = difference @ difference / difference.size  # whole numbers all the way: exact in any order
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
