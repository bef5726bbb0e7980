"""Choose what is trained on: look at every sample of the shards once, then filter, deduplicate and check for overlap.

    python -m wuerstchen.selection scan --data 'shards/{000000..000999}.tar' --out scans
    python -m wuerstchen.selection hash --pictures coco/val2014 --out coco.hashes
    python -m wuerstchen.selection select --data 'shards/{000000..000999}.tar' --scans scans --exclude coco.hashes \\
        --validation shards/validation.safetensors --out shards/selection.safetensors

`scan` decodes every picture and writes, shard by shard, its size, its perceptual hash and its metadata; it can be run
again, or by several machines at once on other shards. `select` is a matter of minutes and depends on the scans alone:
another selection (the paper's aesthetic one) needs no second look at the pictures.

With --validation a share of the pictures is never trained on: it gets a selection of its own, on which trainings
measure their loss. Which ones these are depends on each picture's perceptual hash alone. So a picture that is held out
here is held out under any other filter and in any other shards too (the pictures of Stage C's last phase are among
those of the phases before), all its copies with it.
"""

import argparse
import functools
import json
import math
import os
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from wuerstchen import weights
from wuerstchen.files import write_text
from wuerstchen.progress import progress
from wuerstchen.webdata import CORRUPT_LIMIT, PICTURES, CorruptSample, decode, expand, read_member, stop_at_corrupt

CORRUPT = (
    "no picture",
    "no caption",
    "no metadata",
    "the picture cannot be decoded",
    "the caption is not UTF-8 text",
    "the metadata are no JSON object",
    "the shard is cut short",
)
HELD_OUT = 0.001  # share of the pictures


@dataclass(frozen=True)
class Filter:
    """Bounds of what is trained on: those of the authors' training code (sides in pixels)."""

    smallest: int = 512
    largest: int = 4096
    aesthetic: float = 5.0  # at least
    watermark: float = 0.5  # probability, at most
    unsafe: float = 0.99  # probability, at most


def perceptual_hash(picture: Image.Image) -> int:
    """The 64-bit DCT hash of a picture (pHash); scaling and mild compression change few of its bits."""
    import imagehash  # and SciPy with it: training needs neither

    return int.from_bytes(np.packbits(imagehash.phash(picture).hash.flatten()).tobytes(), "big")


def samples(path: Path) -> Iterator[dict[str, tuple[int, int]] | None]:
    """Offset and size of each sample's known members by extension, sample by sample; None where the tar is cut short.

    Members of one sample follow each other, as webdataset demands.
    """
    name, members = None, {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isreg() or member.issparse():
                    continue
                stem, _, extension = os.path.basename(member.name).partition(".")
                key = (os.path.dirname(member.name), stem)
                if key != name:
                    if members:
                        yield members
                    name, members = key, {}
                if extension.lower() in (*PICTURES, "txt", "json"):
                    members[extension.lower()] = (member.offset_data, member.size)
    except (tarfile.TarError, EOFError, OSError):
        if members:
            yield members
        yield None
        return
    if members:
        yield members


def _number(values: dict, *keys: str) -> float:
    """The first of the metadata's keys that holds a number, else NaN."""
    for key in keys:
        value = values.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return math.nan


def look(path: Path, members: dict[str, tuple[int, int]] | None) -> dict:
    """All that selection must know of a sample; "corrupt" is 0 or 1 + its place in `CORRUPT`."""
    row = {"places": (0, 0, 0, 0), "size": (0, 0), "scores": (math.nan,) * 3, "hash": 0}

    def corrupt(reason: str) -> dict:
        return row | {"corrupt": 1 + CORRUPT.index(reason)}

    if members is None:
        return corrupt("the shard is cut short")
    picture_at = next((members[kind] for kind in PICTURES if kind in members), None)
    for found, reason in (
        (picture_at, "no picture"), (members.get("txt"), "no caption"), (members.get("json"), "no metadata")
    ):  # fmt: skip
        if found is None:
            return corrupt(reason)
    try:
        read_member(path, *members["txt"]).decode()
    except (UnicodeDecodeError, CorruptSample):
        return corrupt("the caption is not UTF-8 text")
    try:
        about = json.loads(read_member(path, *members["json"]))
    except (ValueError, RecursionError):  # not UTF-8, not JSON, cut short, nested without end
        about = None
    if not isinstance(about, dict):
        return corrupt("the metadata are no JSON object")
    try:
        picture = decode(read_member(path, *picture_at))
    except CorruptSample:
        return corrupt("the picture cannot be decoded")
    return {
        "places": (*picture_at, *members["txt"]),
        "size": picture.size,
        "scores": (
            _number(about, "aesthetic", "AESTHETIC_SCORE", "aesthetic_score"),
            _number(about, "pwatermark"),
            _number(about, "punsafe"),
        ),
        "hash": perceptual_hash(picture),
        "corrupt": 0,
    }


def scan(path: Path, out: Path) -> Path:
    """Scan a shard into `out`/<name>.safetensors, unless that was done for a file of this size and age."""
    target = out / f"{path.stem}.safetensors"
    stat = path.stat()
    about = {"shard": path.name, "bytes": stat.st_size, "modified": stat.st_mtime_ns}
    if target.exists() and weights.metadata(target) == about:
        return target
    rows = [look(path, members) for members in samples(path)]
    columns = {
        "places": torch.tensor([row["places"] for row in rows], dtype=torch.int64).reshape(-1, 4),
        "size": torch.tensor([row["size"] for row in rows], dtype=torch.int32).reshape(-1, 2),
        "scores": torch.tensor([row["scores"] for row in rows], dtype=torch.float32).reshape(-1, 3),
        "hash": torch.from_numpy(np.array([row["hash"] for row in rows], dtype=np.uint64).view(np.int64)),
        "corrupt": torch.tensor([row["corrupt"] for row in rows], dtype=torch.uint8),
    }
    weights.save(target, columns, about)
    return target


def scan_all(paths: Sequence[Path], out: Path, workers: int) -> None:
    """Scan shards, `workers` at a time."""
    if len({path.stem for path in paths}) != len(paths):
        raise ValueError("--data: two shards have one name; their scans would overwrite each other")
    one = functools.partial(scan, out=out)
    if workers == 1:
        list(progress(map(one, paths), what="scan", unit="shards", total=len(paths)))
        return
    with ProcessPoolExecutor(workers) as pool:
        list(progress(pool.map(one, paths), what="scan", unit="shards", total=len(paths)))


def read_hashes(path: Path) -> np.ndarray:
    """Hashes of a list, sixteen hexadecimal digits a line, as uint64."""
    hashes = []
    for number, line in enumerate(path.read_text().split(), 1):
        try:
            if len(line) != 16:
                raise ValueError
            hashes.append(int(line, 16))
        except ValueError:
            raise ValueError(f"{path}, line {number}: {line[:40]!r} should be sixteen hexadecimal digits") from None
    return np.array(hashes, dtype=np.uint64)


def hash_folder(folder: Path, out: Path) -> int:
    """Write the hashes of all pictures below a folder, one a line; returns how many.

    Raises ValueError naming a picture that cannot be read: an evaluation picture must not be passed over.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix[1:].lower() in PICTURES)
    if not files:
        raise ValueError(f"--pictures: no pictures below {folder}")
    lines = []
    for path in progress(files, what="hashes", unit="pictures"):
        try:
            lines.append(f"{perceptual_hash(decode(path.read_bytes())):016x}\n")
        except CorruptSample as error:
            raise ValueError(f"{path}: {error}") from None
    write_text(out, "".join(lines))
    return len(lines)


def near(hashes: np.ndarray, others: np.ndarray, distance: int) -> np.ndarray:
    """Which hashes are within `distance` bits of one of the others, bool (n,)."""
    found = np.zeros(len(hashes), dtype=bool)
    for start in range(0, len(hashes), 65_536):  # pieces that stay in a processor's cache
        piece, hit = hashes[start : start + 65_536], found[start : start + 65_536]
        for other in others:
            hit |= np.bitwise_count(piece ^ other) <= distance
    return found


def first_of_each(hashes: np.ndarray) -> np.ndarray:
    """Which hashes are the first of their value, bool (n,)."""
    first = np.zeros(len(hashes), dtype=bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    return first


def held_out(hashes: np.ndarray, share: float) -> np.ndarray:
    """Which pictures are never trained on, bool (n,): a share of all the hashes there can be, (n,) uint64.

    A hash's own bits are not evenly distributed; those of its mixture are (the finaliser of SplitMix64, Steele, Lea and
    Flood, 2014).
    """
    mixed = hashes.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed ^ (mixed >> np.uint64(31))) < np.uint64(round(share * 2**63) * 2)


def select(
    paths: Sequence[Path],
    scans: Path,
    out: Path,
    bounds: Filter,
    exclude: np.ndarray,
    distance: int,
    corrupt_limit: float = CORRUPT_LIMIT,
    validation: Path | None = None,
    share: float = HELD_OUT,
) -> dict:
    """Write the selection of the shards and return its report: how many samples there are, and why others are not in.

    validation: where the selection of those that are held out is written, `share` of them; None holds out none. Raises
    ValueError where a shard was not scanned, has changed since, or too many samples are corrupt, or none is left.
    """
    if not 0 < share < 1:
        raise ValueError(f"--share: {share:g} should be between 0 and 1")
    tables = []
    for path in paths:
        source = scans / f"{path.stem}.safetensors"
        if not source.exists():
            raise ValueError(f"--scans: no {source}; run `python -m wuerstchen.selection scan` on {path} first")
        if weights.metadata(source)["bytes"] != path.stat().st_size:
            raise ValueError(f"--scans: {path} has changed since {source} was made; scan it again")
        with safe_open(source, "numpy") as file:
            tables.append({name: file.get_tensor(name) for name in ("places", "size", "scores", "hash", "corrupt")})
    whole = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    shard = np.repeat(np.arange(len(tables)), [len(table["corrupt"]) for table in tables])

    aesthetic, watermark, unsafe = whole["scores"].T
    with np.errstate(invalid="ignore"):  # a score that is missing (NaN) passes no bound, as in the authors' code
        tests = [
            *((reason, whole["corrupt"] != 1 + i) for i, reason in enumerate(CORRUPT)),
            ("too small", whole["size"].min(1) >= bounds.smallest),
            ("too large", whole["size"].max(1) <= bounds.largest),
            ("aesthetic score", aesthetic >= bounds.aesthetic),
            ("watermark", watermark <= bounds.watermark),
            ("unsafe", unsafe <= bounds.unsafe),
        ]
    report = {"samples": len(shard), "corrupt": int((whole["corrupt"] > 0).sum()), "filter": asdict(bounds)}
    stop_at_corrupt(report["corrupt"], report["samples"], corrupt_limit)
    kept, left_out = np.arange(len(shard)), {}
    for reason, passes in tests:
        left_out[reason] = int((~passes[kept]).sum())
        kept = kept[passes[kept]]
    hashes = whole["hash"].view(np.uint64)
    first = first_of_each(hashes[kept])
    left_out["duplicate"] = int((~first).sum())
    kept = kept[first]
    seen = near(hashes[kept], np.unique(exclude), distance)
    left_out["evaluation picture"] = int(seen.sum())
    kept = kept[~seen]

    if not len(kept):
        reason = max(left_out, key=left_out.get)
        raise ValueError(f"none of {len(shard)} samples is selected; most were left out for: {reason}")
    kept_out = kept[:0]
    if validation is not None:
        hidden = held_out(hashes[kept], share)
        kept, kept_out = kept[~hidden], kept[hidden]

    report |= {"selected": len(kept), "left_out": left_out, "excluded_hashes": len(exclude), "distance": distance}
    report |= {"held_out": len(kept_out), "share": share if validation is not None else 0}
    if not len(kept):
        raise ValueError(f"--share: {share:g} holds all of {len(kept_out)} samples out; lower it")
    if validation is not None and not len(kept_out):
        raise ValueError(f"--share: {share:g} holds none of {len(kept)} samples out; raise it")
    names = [[path.name, path.stat().st_size] for path in paths]
    for target, rows, part in ((validation, kept_out, "validation"), (out, kept, "training")):
        if target is not None:
            tensors = {
                "places": torch.from_numpy(whole["places"][rows]),
                "counts": torch.from_numpy(np.bincount(shard[rows], minlength=len(tables))),
            }
            weights.save(target, tensors, {"shards": names, "report": report | {"part": part}})
    return report


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    one = steps.add_parser("scan", help="look at every sample of the shards")
    one.add_argument("--data", required=True, help="'shards/{000000..000999}.tar'")
    one.add_argument("--out", required=True, type=Path, help="folder of the scans")
    one.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    one = steps.add_parser("hash", help="hash the pictures that must not be trained on")
    one.add_argument("--pictures", required=True, type=Path, help="folder of the evaluation's pictures")
    one.add_argument("--out", required=True, type=Path)
    one = steps.add_parser("select", help="filter, deduplicate, leave out the evaluation's pictures")
    one.add_argument("--data", required=True)
    one.add_argument("--scans", required=True, type=Path)
    one.add_argument("--out", required=True, type=Path)
    one.add_argument("--size", nargs=2, type=int, default=(Filter.smallest, Filter.largest), metavar=("MIN", "MAX"))
    one.add_argument("--aesthetic", type=float, default=Filter.aesthetic)
    one.add_argument("--watermark", type=float, default=Filter.watermark)
    one.add_argument("--unsafe", type=float, default=Filter.unsafe)
    one.add_argument("--exclude", type=Path, help="list of hashes from `hash`")
    one.add_argument("--distance", type=int, default=4, help="bits in which a hash may differ from an excluded one")
    one.add_argument("--validation", type=Path, metavar="FILE", help="hold pictures out; their selection")
    one.add_argument("--share", type=float, default=HELD_OUT, help="of the pictures, with --validation")
    one.add_argument("--corrupt-limit", type=float, default=CORRUPT_LIMIT)
    args = parser.parse_args(argv)
    try:
        if args.step == "scan":
            scan_all(expand(args.data), args.out, args.workers)
        elif args.step == "hash":
            print(f"{hash_folder(args.pictures, args.out)} hashes")
        else:
            bounds = Filter(*args.size, args.aesthetic, args.watermark, args.unsafe)
            exclude = read_hashes(args.exclude) if args.exclude else np.array([], dtype=np.uint64)
            if not args.exclude:
                print("without --exclude: nothing is checked for overlap with the evaluation's pictures")
            report = select(
                expand(args.data), args.scans, args.out, bounds, exclude, args.distance, args.corrupt_limit,
                args.validation, args.share,
            )  # fmt: skip
            reasons = ", ".join(f"{reason} {count}" for reason, count in report["left_out"].items() if count)
            print(f"{report['selected']} of {report['samples']} samples selected; left out: {reasons or 'none'}")
            if args.validation:
                print(f"{report['held_out']} more are held out in {args.validation}")
    except ValueError as error:
        raise SystemExit(f"selection {args.step}: {error}") from None


if __name__ == "__main__":
    main()
