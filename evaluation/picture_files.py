"""Lists of picture files: folders, zips, image shards and single files, by ids that their names give.

Nothing is decoded here. What a zip may unpack to is bounded before a byte of it is read.
"""

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from wuerstchen.assets import ASSETS, locate
from wuerstchen.shards import ID, LAST, read_info

SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
SIGNATURES = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*|RIFF....WEBP|....ftypavif", re.DOTALL)

MAX_BYTES = 256 * 2**20  # of one picture's file, packed or not
MAX_EXPANSION = 20  # a zip's pictures unpack to at most so many times its bytes: they are compressed as they are
FREE_EXPANSION = 64 * 2**20  # so much any zip may unpack to


@dataclass(frozen=True)
class Entry:
    """One picture's file: a file, or a member of a zip. `shard`: of an image shard, where all are PNG."""

    id: str
    path: Path
    member: str | None = None
    shard: bool = False

    @property
    def where(self) -> str:
        """What an error calls it."""
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"

    def read(self) -> bytes:
        """The file's bytes. Raises ValueError naming it where it is too large, damaged in its zip or not readable."""
        try:
            if self.member is not None:
                return _archive(self.path, self.path.stat().st_mtime_ns).read(self.member)
            size = self.path.stat().st_size
            content = self.path.read_bytes() if size <= MAX_BYTES else b""
        except Exception as error:  # zipfile, zlib, bz2 and lzma each have their own
            raise ValueError(f"{self.where}: cannot be read ({error})") from None
        if size > MAX_BYTES:
            raise ValueError(f"{self.where}: {size:,} bytes, over {MAX_BYTES:,}")
        return content


@lru_cache(maxsize=2)
def _archive(path: Path, changed: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def picture_id(name: str) -> str:
    """The id [a-z0-9-]{1,64} that a file's name without its suffix gives.

    Itself where it is one; otherwise in lower case with a hyphen for whatever else stands in it, and with eight digits
    of the name's SHA-256 where that would be empty or too long.
    """
    if ID.fullmatch(name):
        return name
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if ID.fullmatch(slug):
        return slug
    return f"{slug[:55]}-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}".lstrip("-")


def listing(source: str | Path) -> tuple[list[Entry], list[str]]:
    """The pictures of one source, and the names of the files in it that are no pictures.

    A folder is searched with all folders in it, a zip likewise, both in the order of their names; an image shard keeps
    its own order. A file counts as a picture when its suffix or, for other suffixes, its first bytes are a picture's;
    hidden files do not. Ids come from the last part of a name, or from the whole path where two last parts are equal.

    Raises ValueError naming source and file: nothing there, no pictures, two pictures of one id, a zip that is broken,
    encrypted or would unpack to more than is allowed.
    """
    source = Path(source)
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder of pictures")
    try:
        if source.is_dir():
            # what is no folder is a file, a dangling link too: that is refused, not passed over
            files = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if not path.is_dir()}
            names, others = _sorted(files, lambda name: _head(files[name]))
            return _entries(source, names, lambda name: (files[name], None)), others
        if source.suffix.lower() != ".zip" and not zipfile.is_zipfile(source):
            names, _ = _sorted([source.name], lambda name: _head(source))
            return _entries(source, names, lambda name: (source, None)), []
        with zipfile.ZipFile(source) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if members and members[-1].filename == LAST:
                ids = read_info(source)["ids"]
                return [Entry(name, source, f"{name}.png", shard=True) for name in ids], []
            _check_expansion(source, members)
            names, others = _sorted([member.filename for member in members], lambda name: _head_of(archive, name))
            return _entries(source, names, lambda name: (source, name)), others
    except zipfile.BadZipFile as error:
        raise ValueError(f"{source}: not a whole zip file ({error})") from None
    except (EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{source}: cannot be read ({error})") from None


def _check_expansion(source: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """zipfile never unpacks more than a member claims; so what they claim is what is bounded."""
    for member in members:
        if member.file_size > MAX_BYTES:
            raise ValueError(f"{source}: {member.filename} unpacks to {member.file_size:,} bytes, over {MAX_BYTES:,}")
    total, packed = sum(member.file_size for member in members), source.stat().st_size
    if total > max(FREE_EXPANSION, MAX_EXPANSION * packed):
        raise ValueError(
            f"{source}: {packed:,} bytes that unpack to {total:,}, over {MAX_EXPANSION} times as many; if you trust it,"
            " unpack it and give the folder"
        )


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(16)


def _head_of(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(16)


def _sorted(names: Iterable[str], head: Callable[[str], bytes]) -> tuple[list[str], list[str]]:
    """Names of pictures and of other files, both in order; `head` gives a file's first bytes."""
    suffixes = {suffix for of_format in SUFFIXES.values() for suffix in of_format}
    pictures, others = [], []
    for name in sorted(names):
        path = PurePosixPath(name)
        hidden = any(part.startswith(".") for part in path.parts)
        is_picture = not hidden and (path.suffix.lower() in suffixes or SIGNATURES.match(head(name)))
        (pictures if is_picture else others).append(name)
    return pictures, others


def _entries(source: Path, names: list[str], place: Callable[[str], tuple[Path, str | None]]) -> list[Entry]:
    if not names:
        raise ValueError(f"{source}: no pictures in it ({', '.join(SUFFIXES)})")
    stems = {name: PurePosixPath(name).stem for name in names}
    if len({picture_id(stem) for stem in stems.values()}) < len(names):
        stems = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    seen: dict[str, str] = {}
    listed = []
    for name in names:
        id_ = picture_id(stems[name])
        if id_ in seen:
            raise ValueError(f"{source}: {seen[id_]} and {name} both have the id {id_}; rename one")
        seen[id_] = name
        listed.append(Entry(id_, *place(name)))
    return listed


def source_of(name: str | Path) -> Path:
    """Where an asset of that name lies, or else the name itself as a path. Raises ValueError for a missing asset."""
    return locate(str(name)) if str(name) in ASSETS else Path(name)


def entries(sources: str | Path | Iterable[str | Path]) -> list[Entry]:
    """The pictures of all sources, one after another. Raises ValueError as `listing` does."""
    seen: dict[str, Entry] = {}
    for source in [sources] if isinstance(sources, str | Path) else sources:
        for entry in listing(source)[0]:
            if entry.id in seen:
                raise ValueError(f"{entry.where}: image {entry.id} is already in {seen[entry.id].path}")
            seen[entry.id] = entry
    return list(seen.values())


def matching(listed: Sequence[Entry], prompts: Iterable[dict]) -> list[Entry]:
    """Of the listed pictures those that the prompts name as their images, once each, by the first such prompt's id.

    Where names are compared, folders and suffixes do not count. Raises ValueError for a prompt without an image and for
    an image that is not listed.
    """
    by_id = {entry.id: entry for entry in listed}
    found: dict[str, Entry] = {}
    for prompt in prompts:
        if prompt["image"] is None:
            raise ValueError(f"prompt {prompt['id']} names no image, so that no real picture matches it")
        id_ = picture_id(PurePosixPath(prompt["image"]).stem)
        if id_ not in by_id:
            raise ValueError(
                f"the image {prompt['image']} of prompt {prompt['id']} is not among {len(listed)} pictures"
            )
        found.setdefault(id_, replace(by_id[id_], id=prompt["id"]))
    return list(found.values())


def digests_of(listed: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """(id, SHA-256 of the file) of each picture, none of them decoded."""
    for entry in listed:
        yield entry.id, hashlib.sha256(entry.read()).hexdigest()


def files_sha256(digests: Iterable[tuple[str, str]]) -> str:
    """Digest of an image list from (id, SHA-256 of the file): that of `images.images_sha256`, for any files."""
    lines = sorted(f"{name} {digest}\n" for name, digest in digests)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
