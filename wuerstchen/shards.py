"""Image shards: stored zip files of PNGs whose last member, shard.json, says what they hold."""

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from wuerstchen.files import atomic_path

ID = re.compile(r"[a-z0-9-]{1,64}")
LAST = "shard.json"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode_png(picture: Image.Image) -> bytes:
    """PNG bytes of a picture, encoded for speed rather than size."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_shard(
    path: str | Path,
    pictures: Mapping[str, Image.Image | bytes] | Iterable[tuple[str, Image.Image | bytes]],
    info: dict[str, Any],
) -> None:
    """Write pictures (PIL images or PNG bytes) by id, in their order, and `info` with the ids added as shard.json.

    Atomic and reproducible: equal pictures and info give equal bytes. Raises ValueError for a bad or repeated id, for
    bytes that are not PNG, and for no pictures at all.
    """
    items = pictures.items() if isinstance(pictures, Mapping) else pictures
    ids: list[str] = []
    seen: set[str] = set()
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, picture in items:
            if not ID.fullmatch(name) or name in seen:
                raise ValueError(f"{path}: picture id {name!r} must match [a-z0-9-]{{1,64}} and be unique")
            png = picture if isinstance(picture, bytes) else encode_png(picture)
            if not png.startswith(PNG_SIGNATURE):
                raise ValueError(f"{path}: picture {name} is not a PNG")
            archive.writestr(_member(f"{name}.png"), png)
            ids.append(name)
            seen.add(name)
        if not ids:
            raise ValueError(f"{path}: a shard needs at least one picture")
        text = json.dumps({**info, "ids": ids}, indent=1, ensure_ascii=False, allow_nan=False)
        archive.writestr(_member(LAST), text.encode())


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.create_system = 3
    member.external_attr = 0o644 << 16
    return member


def read_info(path: str | Path) -> dict[str, Any]:
    """The content of shard.json, the PNGs left unread. Raises ValueError naming the file when it is no whole shard."""
    with _opened(Path(path)) as archive:
        return _info(Path(path), archive)


def read_shard(path: str | Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The content of shard.json and the PNG bytes by id, in the order of the file.

    Raises ValueError naming the file when it is not a whole shard: truncated, compressed, without its last member,
    with members other than its ids, or with something that is not a PNG. Nothing here can expand: members are stored,
    and together may not claim more bytes than the file has.
    """
    path = Path(path)
    with _opened(path) as archive:
        info = _info(path, archive)
        pngs = {name: archive.read(f"{name}.png") for name in info["ids"]}
    for name, png in pngs.items():
        if not png.startswith(PNG_SIGNATURE):
            raise ValueError(f"{path}: {name}.png is not a PNG")
    return info, pngs


def read_picture(path: str | Path, name: str) -> bytes:
    """The PNG bytes of one of a shard's ids. Raises ValueError naming the file when it cannot be read."""
    with _opened(Path(path)) as archive:
        return archive.read(f"{name}.png")


def read_pictures(path: str | Path, names: Iterable[str]) -> list[bytes]:
    """The same of several ids, of a shard that may be too large to be held in memory."""
    with _opened(Path(path)) as archive:
        return [archive.read(f"{name}.png") for name in names]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        raise ValueError(f"{path}: no such image shard")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path}: not a whole zip file ({error})") from None


def _info(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    members = archive.infolist()
    if not members or members[-1].filename != LAST:
        raise ValueError(f"{path}: the last member is not {LAST}, so this is not a whole shard")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError(f"{path}: members must be stored, not compressed")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError(f"{path}: its members claim more bytes than the file has")
    try:
        info = json.loads(archive.read(members[-1]))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f"{path}: {LAST} is not JSON") from None
    ids = info.get("ids") if isinstance(info, dict) else None
    if not isinstance(ids, list) or not all(isinstance(name, str) and ID.fullmatch(name) for name in ids):
        raise ValueError(f"{path}: {LAST} needs 'ids', a list of names that match [a-z0-9-]{{1,64}}")
    if len(set(ids)) != len(ids) or [member.filename for member in members[:-1]] != [f"{name}.png" for name in ids]:
        raise ValueError(f"{path}: the members are not the pictures that 'ids' in {LAST} lists")
    return info
