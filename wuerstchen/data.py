"""The captioned pictures of a study: index, split by (artist, thing), and the rendered pictures.

The pictures are two artists' emoji from installed packages, or a user's own folder with captions.
"""

import argparse
import functools
import io
import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from wuerstchen import emoji, folder
from wuerstchen.assets import locate
from wuerstchen.files import read_jsonl, sha256_file, sha256_text, write_json, write_jsonl
from wuerstchen.progress import progress
from wuerstchen.seeds import derive
from wuerstchen.shards import read_shard, write_shard

Draw = Callable[[Path, int], bytes]
COLUMNS = "id artist thing name caption description group subgroup special split image".split()
SPLITS = ("train", "validation", "test")
# Share of the (artist, thing) pairs in each held-out split.
HELD_OUT = 0.1


def assign_splits(rows: list[dict], seed: int) -> dict[str, str]:
    """Split of each picture by id: "train", "validation" or "test"; 80/10/10 of the (artist, thing) pairs.

    A thing that k artists draw is held out for one of them only, so its other drawings are in train: a k-th of the
    pairs of 10 k % of the things. Special families (flags, keycaps, clocks) are split each on its own. Artists take
    turns. Depends on seed, ids, artists and things alone, not on the order of `rows`. A row with a "split" keeps it.
    """
    pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
    artists: dict[tuple[str | None, str], set[str]] = defaultdict(set)
    for row in rows:
        if row.get("split") is None:
            pairs[row["artist"], row["thing"]].append(row["id"])
            artists[row["special"], row["thing"]].add(row["artist"])
    families: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (special, thing), drawn_by in artists.items():
        families[special or "", tuple(sorted(drawn_by))].append(thing)

    split = {row["id"]: row.get("split") or "train" for row in rows}
    for (special, drawn_by), things in sorted(families.items()):
        things.sort(key=lambda thing: (derive(seed, "split", special, thing), thing))
        count = round(min(HELD_OUT * len(drawn_by), 0.5) * len(things))
        for name, chosen in (("test", things[:count]), ("validation", things[count : 2 * count])):
            for turn, thing in enumerate(chosen):
                for picture in pairs[drawn_by[turn % len(drawn_by)], thing]:
                    split[picture] = name
    for name in SPLITS:
        if name not in split.values():
            raise ValueError(
                f"none of the {len(rows)} pictures is in the {name} split: add pictures (10 different things or more), "
                "or give each row a 'split'"
            )
    return split


def split_digest(rows: list[dict]) -> str:
    """SHA-256 over the sorted lines "id split", each ended by a newline."""
    return sha256_text("".join(sorted(f"{row['id']} {row['split']}\n" for row in rows)))


def split_counts(rows: list[dict]) -> dict[str, dict]:
    """Pictures of each split: total, "general" and each special family, and per artist."""
    counts = {}
    for name in SPLITS:
        mine = [row for row in rows if row["split"] == name]
        kinds = Counter(row["special"] or "general" for row in mine)
        counts[name] = {
            "total": len(mine),
            **dict(sorted(kinds.items())),
            "artists": dict(sorted(Counter(row["artist"] for row in mine).items())),
        }
    return counts


def longest_tokens(rows: list[dict]) -> int:
    """Word pieces of the longest caption or description in the text encoder's vocabulary, start and end included."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(locate("minilm/tokenizer")))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = {row[key] for row in rows for key in ("caption", "description")}
    return max(len(encoding.ids) for encoding in tokenizer.encode_batch(sorted(texts)))


def _attempt(job: tuple[str, Path], draw: Draw, size: int) -> tuple[str, bytes | str]:
    picture, path = job
    try:
        return picture, draw(path, size)
    except ValueError as error:
        return picture, f"{path}: {error}"


def draw_all(files: dict[str, Path], draw: Draw, size: int) -> tuple[dict[str, bytes], list[str]]:
    """PNG bytes by id in the order of `files`, and the problems of pictures that could not be read.

    Uses the cores that this process may use. `draw` is a function of a module, since processes are spawned.
    """
    workers = min(len(os.sched_getaffinity(0)), 1 + len(files) // 200)
    shown = functools.partial(progress, what=f"pictures at {size} px", unit="pictures", total=len(files))
    attempt = functools.partial(_attempt, draw=draw, size=size)
    if workers == 1:
        results = list(shown(map(attempt, files.items())))
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            results = list(shown(pool.map(attempt, files.items(), chunksize=32)))
    pngs = {picture: result for picture, result in results if isinstance(result, bytes)}
    return pngs, [result for _, result in results if isinstance(result, str)]


def read_source(source: str, captions: str | None) -> tuple[list[dict], dict[str, Path], Draw, list[str], list[dict]]:
    """Rows (without split), files by id, the function that draws a file, problems, and licences of a source.

    Raises ValueError for an unknown source, or a folder without captions.
    """
    if source == "emoji":
        rows, files = emoji.listing()
        return rows, files, emoji.render, [], emoji.licences()
    if source != "folder":
        raise ValueError(f"data.source is {source!r}; it must be emoji or folder")
    if not captions:
        raise ValueError("data.source folder needs data.captions, a jsonl of images and captions")
    rows, files, problems = folder.read_captions(captions)
    return rows, files, folder.load_picture, problems, []


def _stop_at(problems: list[str]) -> None:
    if problems:
        raise ValueError(f"{len(problems)} problem(s) with the pictures:\n" + "\n".join(f"  {p}" for p in problems))


def build(source: str, captions: str | None, size: int, seed: int, out: str | Path) -> dict:
    """Write index.jsonl, pictures.zip (RGB, `size` x `size`) and split.json into `out`; return what split.json says.

    Raises ValueError that lists every bad row and picture at once.
    """
    out = Path(out)
    rows, files, draw, problems, licences = read_source(source, captions)
    pngs, unreadable = draw_all(files, draw, size)
    _stop_at(problems + unreadable)
    split = assign_splits(rows, seed)
    rows = sorted(
        ({**row, "split": split[row["id"]], "image": f"{row['id']}.png"} for row in rows), key=lambda row: row["id"]
    )
    rows = [{column: row[column] for column in COLUMNS} for row in rows]
    write_jsonl(out / "index.jsonl", rows)
    index_sha256 = sha256_file(out / "index.jsonl")
    write_shard(out / "pictures.zip", ((row["id"], pngs[row["id"]]) for row in rows), {"index_sha256": index_sha256})
    summary = {
        "sha256": split_digest(rows),
        "seed": seed,
        "counts": split_counts(rows),
        "things": len({(row["special"], row["thing"]) for row in rows}),
        "longest_tokens": longest_tokens(rows),
        "index_sha256": index_sha256,
        "size": size,
        "source": source,
        "licences": licences,
    }
    write_json(out / "split.json", summary)
    return summary


def robustness(
    index: str | Path, source: str, captions: str | None, artist: str, count: int, size: int, seed: int, out: str | Path
) -> None:
    """Write `count` seeded pictures of one artist, special families left out, as a shard at `size` px (Table 3).

    Raises ValueError when the artist has fewer pictures.
    """
    rows = [row for row in read_jsonl(index) if row["artist"] == artist and row["special"] is None]
    if len(rows) < count:
        raise ValueError(
            f"robustness.count is {count}, but {index} has {len(rows)} pictures of {artist!r} (flags, keycaps and "
            "clocks left out); lower robustness.count or remove the set from robustness.sets"
        )
    rows = sorted(rows, key=lambda row: (derive(seed, "robustness", row["id"]), row["id"]))[:count]
    chosen = sorted(row["id"] for row in rows)
    _, files, draw, problems, _ = read_source(source, captions)
    _stop_at(problems)
    pngs, unreadable = draw_all({picture: files[picture] for picture in chosen}, draw, size)
    _stop_at(unreadable)
    write_shard(out, pngs, {"set": artist, "seed": seed, "size": size, "index_sha256": sha256_file(index)})


def load_index(data: str | Path) -> list[dict]:
    """Rows of a data folder's index.jsonl, sorted by id."""
    return read_jsonl(Path(data) / "index.jsonl")


def load_pictures(data: str | Path, rows: list[dict] | None = None) -> np.ndarray:
    """Pictures of the given rows (all of the index by default), in their order: uint8, (N, 3, height, width), 0..255.

    Raises ValueError when pictures.zip does not belong to index.jsonl or lacks a picture.
    """
    data = Path(data)
    info, pngs = read_shard(data / "pictures.zip")
    if info.get("index_sha256") != sha256_file(data / "index.jsonl"):
        raise ValueError(f"{data}: pictures.zip was not made for this index.jsonl; make both anew")
    rows = load_index(data) if rows is None else rows
    if missing := [row["id"] for row in rows if row["id"] not in pngs]:
        raise ValueError(f"{data / 'pictures.zip'}: no picture {missing[0]} ({len(missing)} missing)")
    pictures = [np.asarray(Image.open(io.BytesIO(pngs[row["id"]])).convert("RGB")) for row in rows]
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", choices=("emoji", "folder"), default="emoji")
    parser.add_argument("--captions", help="jsonl of image and caption (source folder)")
    parser.add_argument("--size", type=int, default=128, help="side of the square pictures in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="folder of the data; a zip with --robustness")
    parser.add_argument("--robustness", metavar="SET", help="draw pictures of this artist for the robustness study")
    parser.add_argument("--index", help="index.jsonl (with --robustness)")
    parser.add_argument("--count", type=int, default=500, help="number of pictures (with --robustness)")
    args = parser.parse_args(argv)
    if args.robustness and not args.index:
        parser.error("--robustness needs --index")
    try:
        if args.robustness:
            robustness(
                args.index, args.source, args.captions, args.robustness, args.count, args.size, args.seed, args.out
            )
        else:
            summary = build(args.source, args.captions, args.size, args.seed, args.out)
            totals = ", ".join(f"{name} {summary['counts'][name]['total']}" for name in SPLITS)
            print(f"{totals} pictures of {summary['things']} things; longest text {summary['longest_tokens']} tokens")
    except ValueError as error:
        raise SystemExit(f"data: {error}") from None


if __name__ == "__main__":
    main()
