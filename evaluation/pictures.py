"""Pictures of any source as uint8 RGB: a folder, a zip, image shards or single files, of whatever people save.

    python -m evaluation.pictures SOURCE [SOURCE ...]        prints what is in it

Each kind of picture is either read as `CHOICES` says or refused with its name; none is left out. What a JPEG has lost,
or what was damaged in it without its end being cut off, cannot be seen: it has no checksum.
"""

import argparse
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from evaluation import images
from evaluation.images import MAX_PIXELS
from evaluation.picture_files import SUFFIXES, Entry, entries, listing
from wuerstchen.progress import progress

FORMATS = tuple(SUFFIXES)  # those whose decoders run no other program
EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 258  # tags of EXIF and of TIFF

CHOICES = {
    "grey": "the one channel three times",
    "palette": "its colours",
    "alpha": "composited on white",
    "cmyk": "Pillow's conversion, without a colour profile",
    "16-bit": "the higher of the two bytes",
    "orientation": "not applied, as in other tools: pixels as they are stored; Pillow itself applies a TIFF's",
    "misnamed": "the content says what it is, not the suffix",
    "colour profile": "not applied",
    "several pictures in one file": "refused; of a JPEG with previews the first",
    "32-bit, floats, Lab": "refused",
    "more pixels": f"than {MAX_PIXELS:,}: refused",
}


@dataclass(frozen=True)
class Picture:
    """A decoded picture. `notes` are keys of CHOICES that it gave occasion for; `format` is its content's."""

    pixels: np.ndarray
    """uint8 (height, width, 3)"""
    format: str
    lossy: bool
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """What `add_up` adds up."""
        height, width = self.pixels.shape[:2]
        return {
            "n": 1,
            "formats": {self.format: 1},
            "lossy": int(self.lossy),
            "sizes": {f"{width}x{height}": 1},
            "notes": dict.fromkeys(self.notes, 1),
        }


def decode(content: bytes, where: str) -> Picture:
    """The picture in a file's bytes. `where` ends in the file's name.

    Raises ValueError naming `where` for an empty, truncated or otherwise broken file, for one of no known format, and
    for what CHOICES refuses.
    """
    if not content:
        raise ValueError(f"{where}: an empty file")
    problem = None
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                problem = f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}"
            elif image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                problem = f"{image.n_frames} pictures in one file; give the one to measure"
            elif image.mode not in (*EIGHT_BIT, *SIXTEEN_BIT):
                problem = f"pixels of mode {image.mode} are not 8-bit or 16-bit grey or colour; convert them first"
            elif image.mode in SIXTEEN_BIT and "transparency" in image.info:
                problem = "16-bit grey with a transparent level; convert it first"
            else:
                return _picture(image, content, where)
    except Image.DecompressionBombError:
        problem = f"more than {MAX_PIXELS} pixels"
    except UnidentifiedImageError:
        problem = f"not a whole picture of a known format ({', '.join(FORMATS)})"
    except Exception as error:  # a damaged picture fails in a dozen ways, each decoder in its own
        problem = f"not a whole picture ({error})"
    raise ValueError(f"{where}: {problem}")


def _picture(image: Image.Image, content: bytes, where: str) -> Picture:
    format_ = "JPEG" if image.format == "MPO" else image.format
    notes = {
        "grey": image.mode in ("1", "L", "LA", "La", *SIXTEEN_BIT),
        "palette": image.mode in ("P", "PA"),
        "cmyk": image.mode == "CMYK",
        "16-bit": image.mode in SIXTEEN_BIT or _bits(image, content) == 16,
        "orientation": image.getexif().get(ORIENTATION, 1) != 1,
        "misnamed": PurePosixPath(where).suffix.lower() not in SUFFIXES[format_],
    }
    if image.mode in SIXTEEN_BIT:
        levels = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        pixels = np.repeat(levels[:, :, None], 3, axis=2)
    elif "A" in image.mode.upper() or "transparency" in image.info:
        pixels, notes["alpha"] = _on_white(image)
    else:
        pixels = np.array(image.convert("RGB"))
    return Picture(pixels, format_, _is_lossy(image, content), tuple(name for name, is_so in notes.items() if is_so))


def _on_white(image: Image.Image) -> tuple[np.ndarray, bool]:
    """RGB on white, and whether any pixel was transparent at all."""
    straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
    on_white = Image.alpha_composite(Image.new("RGBA", straight.size, "white"), straight)
    return np.array(on_white.convert("RGB")), straight.getchannel("A").getextrema()[0] < 255


def _bits(image: Image.Image, content: bytes) -> int:
    """Bits of a channel in the file; Pillow itself gives colours of 16 bits as their higher bytes."""
    if image.format == "PNG":
        return content[24]
    if image.format == "TIFF":
        return max(np.atleast_1d(image.tag_v2.get(BITS_PER_SAMPLE, 8)).tolist())
    return 8


def _is_lossy(image: Image.Image, content: bytes) -> bool:
    """Whether the format may have changed pixels when it was written."""
    if image.format == "WEBP":
        return b"VP8L" not in _chunks(content)
    if image.format == "TIFF":
        return image.info.get("compression") in LOSSY_TIFF
    return image.format in ("JPEG", "MPO", "AVIF")


def _chunks(webp: bytes) -> list[bytes]:
    """Names of a WebP file's chunks."""
    names, at = [], 12
    while at + 8 <= len(webp):
        names.append(webp[at : at + 4])
        length = int.from_bytes(webp[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return names


def picture_of(entry: Entry, content: bytes) -> Picture:
    """The picture in an entry's bytes; of an image shard a PNG, read as `images.iter_images` reads it."""
    if entry.shard:
        return Picture(images.decode(content, entry.where), "PNG", False)
    return decode(content, entry.where)


@dataclass
class Reading:
    """Pictures as they are read; and what was read, (id, SHA-256 of the file) and the record of each."""

    listed: Sequence[Entry]
    digests: list[tuple[str, str]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.listed)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Ids and uint8 RGB pictures, in their order, once."""
        for entry in self.listed:
            content = entry.read()
            picture = picture_of(entry, content)
            self.digests.append((entry.id, hashlib.sha256(content).hexdigest()))
            self.records.append(picture.record())
            yield entry.id, picture.pixels


def iter_pictures(sources: str | Path | Iterable[str | Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Ids and pictures, uint8 (height, width, 3), of folders, zips, image shards or files, in `entries`' order.

    Raises ValueError naming the file where one cannot be read, and as `picture_files.listing` does.
    """
    for entry in entries(sources):
        yield entry.id, picture_of(entry, entry.read()).pixels


def add_up(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One record of many: {"n", "formats", "lossy", "sizes", "notes"}, the last four counted over n pictures."""
    total: dict[str, Any] = {"n": 0, "formats": Counter(), "lossy": 0, "sizes": Counter(), "notes": Counter()}
    for record in records:
        for name, count in record.items():
            total[name] += Counter(count) if isinstance(count, dict) else count
    return {name: dict(sorted(value.items())) if isinstance(value, Counter) else value for name, value in total.items()}


def describe(sources: str | Path | Iterable[str | Path]) -> dict[str, Any]:
    """What sources hold, all of it decoded: {"n", "formats", "lossy", "sizes", "notes", "others"}.

    lossy: how many were saved with loss; sizes: how many of each "WIDTHxHEIGHT"; notes: how many by keys of CHOICES;
    others: names of files that are no pictures. Raises ValueError as `iter_pictures` does.
    """
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    listed = progress(entries(sources), what="pictures", unit="pictures")
    record = add_up(picture_of(entry, entry.read()).record() for entry in listed)
    return record | {"others": [name for source in sources for name in listing(source)[1]]}


def main(argv: list[str] | None = None) -> None:
    """Command line: the description as JSON."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.pictures", description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="a folder, zip, image shard or file")
    options = parser.parse_args(argv)
    try:
        described = describe(options.sources)
    except ValueError as error:
        raise SystemExit(f"pictures: {error}") from None
    print(json.dumps(described | {"choices": {name: CHOICES[name] for name in described["notes"]}}, indent=1))


if __name__ == "__main__":
    main()
