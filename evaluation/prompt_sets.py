"""The paper's prompt sets from their official files: COCO-30K, Localized Narratives COCO-5K and Parti-prompts.

    python -m evaluation.prompt_sets coco-30k --annotations F --count 30000 --seed 0 --out JSONL
    python -m evaluation.prompt_sets coco-30k-captions --annotations F --out JSONL
    python -m evaluation.prompt_sets coco-30k-list --list F --out JSONL
    python -m evaluation.prompt_sets ln-coco-5k --narratives F --out JSONL
    python -m evaluation.prompt_sets parti --prompts F --out JSONL

Where no file is named, the asset's is taken (`python -m evaluation.assets list`). Beside the prompts stands a JSON of
the same name that says which list they are, its digests, and how many prompts a CLIP text encoder cuts off.

The paper's own draws are not published ("randomly chosen from the validation set"), so ours are seeded and recorded. A
prompt of COCO names its real picture. The reference of a score may be all pictures of COCO's val2014 (40,504) or, with
`--matching` of `evaluation.features`, those alone that the prompts name.
"""

import argparse
import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.prompts import read_prompts
from wuerstchen.assets import find, locate
from wuerstchen.files import sha256_file, write_json, write_jsonl
from wuerstchen.seeds import derive

CONTEXT = 77  # tokens that a CLIP text encoder reads, its two marks included
MAX_JSON = 2**30  # of an annotation file within a zip
COLUMNS = ("Prompt", "Category", "Challenge", "Note")  # of PartiPrompts.tsv

Prompt = dict[str, Any]


def prompt(id_: str, text: str, image: str | None, source_id: str | None) -> Prompt:
    """A row of a prompts file; each run of white space in the text, newlines too, becomes one space.

    Raises ValueError for a text that is empty.
    """
    if not text.strip():
        raise ValueError(f"the text of {id_} is empty")
    return {
        "id": id_,
        "prompt": " ".join(text.split()),
        "image": image,
        "category": None,
        "challenge": None,
        "source_id": source_id,
    }


def drawn(rows: Iterable[Prompt], count: int | None, seed: int, tag: str) -> list[Prompt]:
    """`count` rows, or all, in an order that depends on seed and ids alone: any first few are a fair sample.

    Raises ValueError for a count below one or above the number of rows.
    """
    rows = sorted(rows, key=lambda row: (derive(seed, tag, row["id"]), row["id"]))
    if not rows:
        raise ValueError(f"{tag}: there are no prompts in this file")
    if count is not None and not 1 <= count <= len(rows):
        raise ValueError(f"--count is {count}, but {tag} can have 1 to {len(rows)} prompts from this file")
    return rows[:count]


def coco_captions(path: Path) -> list[Prompt]:
    """A prompt for each caption of a COCO annotation file, JSON or the official zip, with caption and picture ids.

    The image is the picture's file name, the id that name's and the caption's. Raises ValueError naming file and key.
    """
    data = _json(path, "annotations/captions_val2014.json")
    try:
        names = {image["id"]: image["file_name"] for image in data["images"]}
        return [
            prompt(
                f"{_image_id(names[row['image_id']])}-{int(row['id'])}",
                row["caption"],
                names[row["image_id"]],
                str(row["id"]),
            )
            for row in data["annotations"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not COCO's captions ({error!r}); wanted is captions_val2014.json") from None


def _image_id(name: str) -> str:
    """COCO_val2014_000000391895.jpg -> coco-val2014-000000391895, the id that `picture_files.picture_id` gives it."""
    return Path(name).stem.lower().replace("_", "-")


def _json(path: Path, member: str) -> Any:
    try:
        if not zipfile.is_zipfile(path):
            return json.loads(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            if (size := archive.getinfo(member).file_size) > MAX_JSON:
                raise ValueError(f"{member} unpacks to {size:,} bytes, over {MAX_JSON:,}")
            return json.loads(archive.read(member))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: no JSON, and no zip with {member} ({error})") from None


def one_per_image(rows: Iterable[Prompt], seed: int, tag: str) -> list[Prompt]:
    """One seeded row of each picture, now by the picture's id alone."""
    chosen: dict[str, Prompt] = {}
    for row in sorted(rows, key=lambda row: (derive(seed, tag, "one of", row["id"]), row["id"])):
        chosen.setdefault(row["image"], row | {"id": _image_id(row["image"])})
    return list(chosen.values())


def coco_list(path: Path) -> list[Prompt]:
    """The prompts of a list that others drew: CSV with the columns image_id and prompt, one caption per picture."""
    prompts = []
    for number, row in _table(path, csv.DictReader, ("image_id", "prompt")):
        try:
            name = f"COCO_val2014_{int(row['image_id']):012d}.jpg"
        except ValueError:
            raise ValueError(f"{path}, row {number}: image_id is {row['image_id']!r}, not a number") from None
        prompts.append(prompt(_image_id(name), row["prompt"], name, f"row {number}"))
    return _unique(path, prompts)


def narratives(path: Path) -> list[Prompt]:
    """A prompt for each of the Localized Narratives of COCO's val2017: official JSON lines.

    Raises ValueError naming file and line for another format or another data set.
    """
    prompts: list[Prompt] = []
    seen: dict[str, int] = {}
    try:
        with open(path, "rb") as file:  # a line with its traces is long, the whole file large
            for number, line in enumerate(file, 1):
                try:
                    made = _narrative(json.loads(line))
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise ValueError(f"{path}, line {number}: not a Localized Narrative of COCO ({error!r})") from None
                # an annotator may have told of a picture twice
                seen[made["id"]] = times = seen.get(made["id"], 0) + 1
                prompts.append(made | ({"id": f"{made['id']}-{times}"} if times > 1 else {}))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    return prompts


def _narrative(row: dict[str, Any]) -> Prompt:
    if row["dataset_id"] != "mscoco_val2017":
        raise ValueError(f"dataset_id is {row['dataset_id']!r}, wanted is mscoco_val2017")
    name = f"{int(row['image_id']):012d}.jpg"
    annotator = int(row["annotator_id"])
    return prompt(f"{_image_id(name)}-{annotator}", row["caption"], name, str(annotator))


def parti(path: Path) -> list[Prompt]:
    """Parti-prompts with category and challenge; quotes are part of a prompt. Official are 1,632.

    (The paper speaks of 1,633: the file has so many lines, the first of which is its header.)
    """

    def reader(file: io.TextIOBase) -> csv.DictReader:
        return csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)

    return [
        prompt(f"parti-{number:04d}", row["Prompt"], None, f"row {number}")
        | {"category": row["Category"], "challenge": row["Challenge"]}
        for number, row in _table(path, reader, COLUMNS[:3])
    ]


def _table(
    path: Path, reader: Callable[[io.TextIOBase], csv.DictReader], columns: Sequence[str]
) -> Iterable[tuple[int, dict[str, str]]]:
    """Numbered rows. Raises ValueError naming the file for columns that are absent and cells that are empty."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(reader(file))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a table in UTF-8 ({error})") from None
    for number, row in enumerate(rows, 1):
        if absent := [name for name in columns if not (row.get(name) or "").strip()]:
            raise ValueError(
                f"{path}, row {number}: nothing in {', '.join(absent)}; each row needs {', '.join(columns)}"
            )
    return enumerate(rows, 1)


def _unique(path: Path, prompts: list[Prompt]) -> list[Prompt]:
    if len({row["id"] for row in prompts}) < len(prompts):
        raise ValueError(f"{path}: a picture is named twice; wanted is one caption of each")
    return prompts


@dataclass(frozen=True)
class PromptSet:
    """How a set is made: from which asset, by which function of (path, seed), how many."""

    option: str
    asset: str
    rows: Callable[[Path, int], list[Prompt]]
    count: int | None
    one_per_image: bool


SETS = {
    "coco-30k": PromptSet(
        "annotations",
        "coco/annotations-2014",
        lambda path, seed: one_per_image(coco_captions(path), seed, "coco-30k"),
        30_000,
        True,
    ),
    "coco-30k-captions": PromptSet(
        "annotations", "coco/annotations-2014", lambda path, seed: coco_captions(path), 30_000, False
    ),
    "coco-30k-list": PromptSet("list", "coco/30k-list", lambda path, seed: coco_list(path), None, True),
    "ln-coco-5k": PromptSet(
        "narratives",
        "localized-narratives/coco-val",
        lambda path, seed: one_per_image(narratives(path), seed, "ln-coco-5k"),
        5_000,
        True,
    ),
    "parti": PromptSet("prompts", "parti-prompts", lambda path, seed: parti(path), None, False),
}


def token_counts(texts: Sequence[str]) -> list[int]:
    """CLIP tokens of each text with the two marks of its start and end, by open_clip's tokenizer."""
    from open_clip.tokenizer import SimpleTokenizer  # torch: seconds

    tokenizer = SimpleTokenizer()
    return [len(tokenizer.encode(text)) + 2 for text in texts]


def record(name: str, path: Path, prompts: Sequence[Prompt], seed: int, out: Path) -> dict[str, Any]:
    """What is said beside a prompts file: the list and its digests, and what a CLIP text encoder does not read.

    `official` is whether the file is the asset's: None where its digest is not known, or where what was read is
    another file than the asset, such as an annotation file out of its zip.
    """
    set_ = SETS[name]
    asset = find(set_.asset)
    digest = sha256_file(path)
    tokens = token_counts([row["prompt"] for row in prompts])
    truncated = sum(count > CONTEXT for count in tokens)
    of_another_kind = set_.option == "annotations" and not zipfile.is_zipfile(path)
    return {
        "schema": 1,
        "set": name,
        "n": len(prompts),
        "prompts_sha256": sha256_file(out),
        "list": {
            "file": path.name,
            "sha256": digest,
            "official": None if asset.sha256 is None or of_another_kind else digest == asset.sha256,
            "licence": asset.licence,
        },
        "seed": seed,
        "one_per_image": set_.one_per_image,
        "images": len({row["image"] for row in prompts if row["image"]}),
        "repeated_prompts": len(prompts) - len({row["prompt"] for row in prompts}),
        "white_space": "each run of it is one space",
        "tokens": {
            "tokenizer": "CLIP's, by open_clip",
            "context": CONTEXT,
            "longest": max(tokens),
            "truncated": truncated,
            "truncated_share": truncated / len(prompts),
        },
    }


def main(argv: list[str] | None = None) -> None:
    """Command line: the prompts as jsonl, and their record beside them."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.prompt_sets", description=__doc__.splitlines()[0])
    sets = parser.add_subparsers(dest="set", required=True, metavar="SET")
    for name, set_ in SETS.items():
        how_many = "all" if set_.count is None else f"{set_.count:,}"
        one = sets.add_parser(name, help=f"{how_many} prompts; made from {find(set_.asset).about}")
        one.add_argument(f"--{set_.option}", dest="file", type=Path, help=f"default: the asset {set_.asset}")
        one.add_argument("--count", type=int, default=set_.count, help=f"how many to draw (default: {how_many})")
        one.add_argument("--seed", type=int, default=0, help="of the draw and the order (default: 0)")
        one.add_argument("--out", type=Path, required=True, metavar="JSONL", help="beside it stands a .json")
    options = parser.parse_args(argv)
    if options.out.suffix != ".jsonl":  # beside it stands a .json
        parser.error(f"--out {options.out}: its name must end in .jsonl")
    set_ = SETS[options.set]
    try:
        path = options.file or locate(set_.asset)
        prompts = drawn(set_.rows(path, options.seed), options.count, options.seed, options.set)
        write_jsonl(options.out, prompts)
        read_prompts(options.out)
        said = record(options.set, path, prompts, options.seed, options.out)
        write_json(options.out.with_suffix(".json"), said)
    except ValueError as error:
        raise SystemExit(f"prompt_sets: {error}") from None
    tokens = said["tokens"]
    print(f"{said['n']} prompts; {tokens['truncated']} have more than the {CONTEXT} tokens that CLIP reads")


if __name__ == "__main__":
    main()
