"""A cut-down study of published models: official lists of a few rows, small photographs, and Inception at random.

The pictures of three models are made up; all else goes through the same rules and programs as the whole study.
"""

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

COUNT = 12
SETS = ("coco-30k", "ln-coco-5k", "parti-prompts")
MODELS = {"wuerstchen": 8, "sharp": 0, "noisy": 40}  # by the deviation of the noise on the real pictures


def photograph(number: int, height: int, width: int) -> np.ndarray:
    """A picture of some structure, uint8 (height, width, 3): smooth shapes with an edge."""
    random = np.random.default_rng(number)
    rough = random.integers(0, 256, (5, 6, 3), np.uint8)
    picture = np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)).copy()
    picture[height // 3 : height // 2, width // 4 :] = random.integers(0, 256, 3)
    return picture


def make(folder: Path) -> Path:
    """Write lists, photographs and the models' pictures into `folder`; return the config, which is in it too."""
    folder.mkdir(parents=True)
    coco = [f"COCO_val2014_{number:012d}" for number in range(COUNT)]
    narrated = [f"{number:012d}" for number in range(1000, 1000 + COUNT)]
    captions = [
        {"id": 10 * n + twice, "image_id": n, "caption": f"Photograph {n} of a thing, told {twice} times"}
        for n in range(COUNT)
        for twice in range(2)
    ]
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate(coco)]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    rows = [
        {
            "dataset_id": "mscoco_val2017",
            "image_id": str(int(name)),
            "annotator_id": 7,
            "caption": f"In {name} we see it.",
        }
        for name in narrated
    ]
    (folder / "narratives.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ["Prompt\tCategory\tChallenge\tNote", *(f"a {n} on a hill\tArts\tBasic\t" for n in range(COUNT))]
    (folder / "parti.tsv").write_text("\n".join(lines) + "\n")
    for place, names in (("val2014", coco), ("val2017", narrated)):
        (folder / place).mkdir()
        for number, name in enumerate(names):
            picture = photograph(hash_of(name), 90 + number, 120)
            Image.fromarray(picture).save(folder / place / f"{name}.jpg", quality=95)
    ids = [name.lower().replace("_", "-") for name in (*coco, *narrated)]
    ids += [f"parti-{number:04d}" for number in range(1, COUNT + 1)]
    for model, deviation in MODELS.items():
        (folder / model).mkdir()
        for name in ids:
            noise = np.random.default_rng(hash_of(name) + deviation).normal(0, deviation, (64, 64, 3))
            pixels = photograph(hash_of(name) + 1, 64, 64) + noise
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / model / f"{name}.png")
    (folder / "config.yaml").write_text(yaml.safe_dump(config(folder), sort_keys=False))
    return folder / "config.yaml"


def hash_of(name: str) -> int:
    """A number that depends on a name alone."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(name)) % 2**31


def config(folder: Path) -> dict:
    """The study's config. Scores whose networks have billions of parameters are left out."""
    return {
        "study": "tiny-released",
        "seed": 0,
        "data": {"source": "published"},
        "prompts": {
            "coco-30k": {
                "loader": "coco-30k", "count": COUNT, "file": f"{folder}/captions.json",
                "reference": f"{folder}/val2014", "protocol": "coco30k-clean",
            },
            "ln-coco-5k": {
                "loader": "ln-coco-5k", "count": COUNT, "file": f"{folder}/narratives.jsonl",
                "reference": f"{folder}/val2017",
            },
            "parti-prompts": {"loader": "parti", "count": COUNT, "file": f"{folder}/parti.tsv"},
        },
        "shard_size": 18,
        "models": [{"id": "mine", "folder": f"{folder}/wuerstchen"}]
        + [{"id": model, "folder": f"{folder}/{model}"} for model in ("sharp", "noisy")],
        "sampling": {},
        "metrics": ["fid", "kid", "is", "prdc", "power-spectrum", "crosscheck"],
        "robustness": {
            "sets": {
                "coco": {"pictures": f"{folder}/val2014", "prompts": "coco-30k"},
                "others": {"pictures": f"{folder}/val2017"},
            },
            "size": 48,
            "preprocessing": "pil-float-299",
            "parts": 2,
            "manipulations": ["jpeg-50", "nearest", "contrast-up"],
        },
        "carbon": {"kg_per_kwh": 0.37, "source": "the tests"},
    }  # fmt: skip


def accept_stand_ins(tree: Path) -> None:
    """Let a copy of the tree take any file for an asset: its table then has names and places, no sizes and digests."""
    with open(tree / "wuerstchen" / "assets_table.py", "a") as table:
        table.write("\nfrom dataclasses import replace\n\n")
        table.write("TABLE = tuple(replace(asset, bytes=None, sha256=None) for asset in TABLE)\n")
