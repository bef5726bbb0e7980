"""A small folder of captioned pictures: the same things as two artists drew them.

PYTHONPATH=. python tests/tiny_pictures.py FOLDER [THINGS]
"""

import sys
from pathlib import Path

from wuerstchen import emoji
from wuerstchen.files import write_jsonl
from wuerstchen.seeds import derive

ARTISTS = ["openmoji", "twemoji"]
KEYS = ("id", "artist", "thing", "caption", "description", "group", "subgroup")


def make(folder: Path, things: int) -> Path:
    """Write pictures of `things` things by each artist, and captions.jsonl; return the latter's path."""
    rows, files = emoji.listing()
    drawn: dict[str, list[dict]] = {}
    for row in rows:
        if row["special"] is None:
            drawn.setdefault(row["thing"], []).append(row)
    by_two = [thing for thing, pictures in drawn.items() if sorted(p["artist"] for p in pictures) == ARTISTS]
    folder.mkdir(parents=True, exist_ok=True)
    captions = []
    for thing in sorted(by_two, key=lambda thing: derive("tests", thing))[:things]:
        for row in drawn[thing]:
            (folder / f"{row['id']}.png").write_bytes(emoji.render(files[row["id"]], 128))
            captions.append({"image": f"{row['id']}.png", **{key: row[key] for key in KEYS}})
    write_jsonl(folder / "captions.jsonl", captions)
    return folder / "captions.jsonl"


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 120)
