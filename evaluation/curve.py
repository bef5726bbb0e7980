"""Recall against training time: the same seen prompts, drawn with weights that each training kept on its way.

The ceiling goes through Stage B on its way, Würstchen draws with Stage C on its way (after the whole Stage B), a
baseline with its U-Net on its way. The last point of each is the finished model, whose features are there already.

python -m evaluation.curve draw --weights DIR --of MODEL KEY=NUMBER ... --snapshots PERCENT ... --prompts-file JSONL
    --count N --pictures ZIP --seed N --out DIR
python -m evaluation.curve score --train DIR --point MODEL PERCENT NPZ --gallery NPZ --index INDEX --prompts-file JSONL
    --count N --seed N --out JSON
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from evaluation.features import FeatureSet, extract, library_versions, read_features, write_features
from evaluation.images import encode_png, pngs_sha256
from evaluation.intervals import COVERS
from evaluation.prompts import read_prompts
from evaluation.recall import recall_of, trials
from evaluation.results import STAGES
from wuerstchen.files import read_jsonl, sha256_text, write_json

if TYPE_CHECKING:
    from evaluation.extractors import Extractor

PREPROCESSING = "none-128"
# The stages behind a curve in their order; the last one is on its way.
TRAINED = STAGES | {"ceiling-compressor": ("a", "b")}


def seen_prompts(path: Path, count: int) -> list[dict]:
    """The first `count` prompts of seen pictures, or all; nobody picked them, since the file is mixed by a hash."""
    return [prompt for prompt in read_prompts(path) if prompt["challenge"] == "seen"][:count]


def features_of(pictures: Sequence[np.ndarray], ids: Sequence[str], extractor: "Extractor", **more: Any) -> FeatureSet:
    """Features of drawn pictures, uint8 (h, w, 3), with `more` in their key."""
    _, features, logits = extract(zip(ids, pictures, strict=True), extractor, PREPROCESSING, len(ids))
    pngs = [(name, encode_png(Image.fromarray(picture))) for name, picture in zip(ids, pictures, strict=True)]
    key = {
        "images_sha256": pngs_sha256(pngs),
        "extractor": {"name": extractor.name, "sha256": extractor.sha256},
        "preprocessing": PREPROCESSING,
        "versions": library_versions("numpy", "pillow", "timm", "torch"),
    }
    return FeatureSet(list(ids), features, logits, key | more)


def draw(
    models: dict[str, dict[str, float]],
    weights: Path,
    percents: Sequence[int],
    prompts: Sequence[dict],
    pictures: Path,
    seed: int,
    out: Path,
) -> None:
    """Write out/MODEL/PERCENT.npz: features of the prompts' pictures with the weights of each snapshot.

    `models` gives each one's sampling settings. Raises ValueError for a missing checkpoint and bad settings.
    """
    from evaluation import extractors  # torch and timm: seconds that `score` need not pay
    from evaluation.generators import make

    extractor = extractors.load("efficientnet-lite2")
    ids = [prompt["id"] for prompt in prompts]
    for model, settings in models.items():
        generator = make(model, weights, settings, pictures)
        for percent in percents:
            step = generator.load(weights / TRAINED[model][-1] / "snapshots" / f"{percent}.safetensors")
            images = generator.generate(prompts, seed)
            drawn = features_of(images, ids, extractor, step=step, **generator.describe())
            write_features(out / model / f"{percent}.npz", drawn)


def seconds_by_step(path: Path) -> dict[int, float]:
    """Seconds of training up to each step of a history.csv. Raises ValueError where it has none."""
    with open(path, encoding="utf-8", newline="") as file:
        seconds = {int(row["step"]): float(row["seconds"]) for row in csv.DictReader(file)}
    if not seconds:
        raise ValueError(f"{path}: no rows; it should have one for each step")
    return seconds


def curve(
    points: Sequence[tuple[str, int, Path]],
    train: Path,
    gallery: FeatureSet,
    index: Sequence[dict],
    prompts: Sequence[dict],
    seed: int,
) -> dict[str, Any]:
    """The JSON of the curve: for each model its points by share of the training, 100 being the finished model.

    A point's seconds are those of all the stages that its model needs, the last one as far as it had come. Raises
    ValueError where features or steps are missing.
    """
    models: dict[str, list[dict[str, Any]]] = {}
    for model, percent, path in points:
        drawn = read_features(path, like=gallery)
        *whole, last = (seconds_by_step(train / stage / "history.csv") for stage in TRAINED[model])
        step = max(last) if percent == 100 else drawn.key["step"]
        if step not in last:
            raise ValueError(f"{path}: drawn at step {step}, which is not in {train / TRAINED[model][-1]}/history.csv")
        recall = recall_of(trials(drawn, gallery, index, prompts, seed))
        models.setdefault(model, []).append(
            {
                "percent": percent,
                "step": step,
                "seconds": sum(max(stage.values()) for stage in whole) + last[step],
                **{key: recall[key] for key in ("at_1", "at_10", "interval_at_1", "interval_at_10")},
                "images_sha256": drawn.key["images_sha256"],
            }
        )
    return {
        "schema": 1,
        "metric": "recall",
        "protocol": "recall of the first seen prompts, as in scores/recall; seconds: training loops of the stages "
        "that a model needs, added up, without what is computed between them",
        "prompts": "names",
        "prompt_ids_sha256": sha256_text("\n".join(prompt["id"] for prompt in prompts)),
        "n": len(prompts),
        "chance_at_10": recall["chance_at_10"],
        "interval_method": "wilson",
        "interval_covers": COVERS,
        "models": models,
        "seed": seed,
        "reference_sha256": gallery.key["images_sha256"],
        "extractor": gallery.key["extractor"],
        "preprocessing": gallery.key["preprocessing"],
        "versions": {**gallery.key["versions"], **library_versions("numpy", "scipy")},
    }


def main(argv: list[str] | None = None) -> None:
    """Command line: `draw` with the snapshots, then `score`."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.curve", description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    drawing, scoring = parts.add_parser("draw"), parts.add_parser("score")
    drawing.add_argument("--weights", required=True, type=Path, metavar="DIR", help="folder of trained stages")
    drawing.add_argument("--of", required=True, nargs="+", action="append", metavar=("MODEL", "KEY=NUMBER"))
    drawing.add_argument("--snapshots", required=True, nargs="+", type=int, metavar="PERCENT")
    drawing.add_argument("--pictures", required=True, type=Path, metavar="ZIP", help="the real pictures")
    scoring.add_argument("--train", required=True, type=Path, metavar="DIR", help="folder of the trainings' histories")
    scoring.add_argument("--point", required=True, nargs=3, action="append", metavar=("MODEL", "PERCENT", "NPZ"))
    scoring.add_argument("--gallery", required=True, type=Path, metavar="NPZ", help="features of all real pictures")
    scoring.add_argument("--index", required=True, type=Path, metavar="JSONL")
    for part in (drawing, scoring):
        part.add_argument("--prompts-file", required=True, type=Path, metavar="JSONL")
        part.add_argument("--count", required=True, type=int, help="seen prompts at each point")
        part.add_argument("--seed", required=True, type=int)
        part.add_argument("--out", required=True, type=Path)
    options = parser.parse_args(argv)
    try:
        prompts = seen_prompts(options.prompts_file, options.count)
        if not prompts:
            raise ValueError(f"{options.prompts_file}: no prompt of a seen picture")
        if options.part == "draw":
            from evaluation.sample import parse_settings

            models = {model: parse_settings(pairs) for model, *pairs in options.of}
            weights, percents = options.weights, options.snapshots
            draw(models, weights, percents, prompts, options.pictures, options.seed, options.out)
        else:
            points = [(model, int(percent), Path(path)) for model, percent, path in options.point]
            index, gallery = read_jsonl(options.index), read_features(options.gallery)
            write_json(options.out, curve(points, options.train, gallery, index, prompts, options.seed))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
