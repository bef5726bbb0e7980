"""A user's own pictures: a jsonl of captions beside a folder of image files."""

import hashlib
import json
import os
import re
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from wuerstchen.shards import encode_png

MAX_PIXELS = 64_000_000
# Prompts add "-long" to the id of a picture, and stay within 64 characters.
MAX_ID = 59
NAME = re.compile(rf"[a-z0-9-]{{1,{MAX_ID}}}")
SPLITS = ("train", "validation", "test")
TEXTS = ("image", "caption", "id", "artist", "thing", "group", "subgroup", "description", "split")


def slug(image: str) -> str:
    """An id from a relative path: "Birds/robin 1.jpg" -> "birds-robin-1"; long or foreign names end in a digest."""
    stem = str(PurePosixPath(image).with_suffix("")).lower()
    text = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")
    if stem.isascii() and text and len(text) <= MAX_ID:
        return text
    return f"{text[:45] or 'picture'}-{hashlib.sha256(image.encode()).hexdigest()[:10]}"


def read_captions(captions: str | Path) -> tuple[list[dict], dict[str, Path], list[str]]:
    """Rows for the index (those that give a split keep it), image files by id, and all problems of the caption file.

    Each line: {"image": path relative to the file's folder, "caption": text}, optionally id, artist, thing, group,
    subgroup, description and split. Only the text is checked here; `load_picture` checks the pictures.
    """
    captions = Path(captions)
    if not captions.is_file():
        return [], {}, [f"{captions}: no such file; data.captions must name a jsonl of captions"]
    root = Path(os.path.realpath(captions.parent))
    rows: list[dict] = []
    files: dict[str, Path] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    for number, line in enumerate(captions.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        where = f"{captions.name}, line {number}"
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            problems.append(f"{where}: not a line of JSON in UTF-8 ({error})")
            continue
        if not isinstance(entry, dict):
            problems.append(f"{where}: expected an object with 'image' and 'caption'")
            continue
        found = _check_texts(entry) + _check_image(entry.get("image"), root)
        if not found:
            row, file = _row(entry), root / entry["image"]
            if row["id"] in lines:
                found.append(f"id {row['id']!r} is already used in line {lines[row['id']]}; give each picture its own")
            else:
                rows.append(row)
                files[row["id"]], lines[row["id"]] = file, number
        problems += [f"{where}: {problem}" for problem in found]
    if not rows and not problems:
        problems.append(f"{captions}: no pictures")
    return rows, files, problems


def _check_texts(entry: dict[str, Any]) -> list[str]:
    problems = []
    for key in TEXTS:
        value = entry.get(key)
        if value is None and key not in ("image", "caption"):
            continue
        if not isinstance(value, str) or not value.strip():
            problems.append(f"{key!r} must be a text that is not empty, found {json.dumps(value)}")
        elif key in ("id", "artist") and not NAME.fullmatch(value):
            problems.append(f"{key!r} must match [a-z0-9-]{{1,{MAX_ID}}}, found {value!r}")
        elif key == "split" and value not in SPLITS:
            problems.append(f"'split' must be one of {', '.join(SPLITS)}, found {value!r}")
    return problems


def _check_image(image: Any, root: Path) -> list[str]:
    if not isinstance(image, str) or not image.strip():
        return []
    path = PurePosixPath(image)
    if "\0" in image or "\\" in image:
        return [f"image {image!r} must be a plain path with '/' between folders"]
    if path.is_absolute():
        return [f"image {image!r} is an absolute path; it must be relative to the folder of the captions"]
    if ".." in path.parts:
        return [f"image {image!r} has '..'; it must stay in the folder of the captions"]
    real = Path(os.path.realpath(root / path))
    if not real.is_relative_to(root):
        return [f"image {image!r} is a link that leaves the folder of the captions"]
    if not real.is_file():
        return [f"image {image!r}: no such file"]
    return []


def _row(entry: dict[str, Any]) -> dict:
    caption = " ".join(entry["caption"].split())
    group = entry.get("group") or "pictures"
    row = {
        "id": entry.get("id") or slug(entry["image"]),
        "artist": entry.get("artist") or "pictures",
        "thing": entry.get("thing") or caption.casefold(),
        "name": caption,
        "caption": caption,
        "description": " ".join((entry.get("description") or caption).split()),
        "group": group,
        "subgroup": entry.get("subgroup") or group,
        "special": None,
    }
    return row | ({"split": entry["split"]} if entry.get("split") else {})


def load_picture(path: Path, size: int) -> bytes:
    """PNG bytes (RGB, `size` x `size`) of an image file: upright, on white, padded to a square, resized bicubic.

    Raises ValueError when the file is not a whole picture, or has more than 64 million pixels.
    """
    try:
        with warnings.catch_warnings():
            # Our own limit is lower than Pillow's, and an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ValueError(f"{picture.width} x {picture.height} pixels are more than {MAX_PIXELS}")
                rgb = to_rgb(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS} pixels") from None
    except (OSError, SyntaxError, EOFError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"not a readable picture ({reason.replace(str(path), path.name)})") from None
    scale = size / max(rgb.size)
    # Resized before it is padded: a long thin picture would make a huge square.
    small = rgb.resize([max(1, round(side * scale)) for side in rgb.size], Image.Resampling.BICUBIC)
    square = Image.new("RGB", (size, size), "white")
    square.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return encode_png(square)


def to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB of any picture: transparency on white, 16-bit greys scaled, palettes and CMYK converted."""
    if picture.mode.startswith("I"):  # Pillow clips 16-bit greys at 255 instead of scaling them
        grey = np.asarray(picture).astype(np.float64) / 257
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")
