"""How Stages B and C share the work (the paper's Appendix D), in two comparisons over the same unpicked prompts.

probe: Stage C's latents shown by the probe decoder, against the pictures that Stages B and A make of them.
text:  real pictures through compressor, Stage B and Stage A, with their caption against the empty prompt for Stage B.

python -m evaluation.workload --weights DIR --set KEY=NUMBER ... --prompts-file JSONL --count N --pictures ZIP
    --index JSONL --gallery NPZ --of MODEL NPZ ZIP ... --draw MODEL ZIP --seed N --out JSON
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.curve import features_of
from evaluation.features import FeatureSet, library_versions, read_features
from evaluation.generators import make
from evaluation.images import iter_images, write_shard
from evaluation.intervals import COVERS, paired_bootstrap, wilson
from evaluation.manipulations import psnr
from evaluation.prompts import read_prompts
from evaluation.recall import GROUPS, trials
from evaluation.results import SHOWN, unpicked
from evaluation.sample import parse_settings
from wuerstchen.files import read_jsonl, sha256_file, write_json

# What is compared, as (whole, without a part); each second one is drawn here.
COMPARISONS = {
    "probe": ("wuerstchen", "wuerstchen-probe"),
    "text": ("ceiling-compressor", "ceiling-compressor-no-text"),
}
# Which of a model's sampling settings each takes.
SETTINGS = {
    "wuerstchen-probe": ("steps_c", "guidance_c", "steps_b", "guidance_b"),
    "ceiling-compressor-no-text": ("steps_b", "guidance_b"),
}
MEASURES = ("at_10", "psnr_db", "distance")
PROTOCOL = (
    "at_10: recall@10 as in scores/recall; psnr_db and distance (1 - cosine similarity of features): to the prompt's "
    "true picture; difference: the first minus the second of a pair, prompt by prompt"
)


@dataclass(frozen=True)
class Drawn:
    """One model's pictures, uint8 (h, w, 3) by prompt id, and their features."""

    pictures: Mapping[str, np.ndarray]
    features: FeatureSet


def chosen(rows: Sequence[dict], seed: int, count: int) -> list[dict]:
    """About `count` prompts that nobody picked, half of them of seen and half of held-out pictures."""
    parts = SHOWN["names"]
    return [
        row
        for part in parts
        for row in unpicked([row for row in rows if row["challenge"] == part], seed, count // len(parts))
    ]


def measures(
    drawn: Drawn,
    real: Mapping[str, np.ndarray],
    gallery: FeatureSet,
    index: Sequence[dict],
    prompts: Sequence[dict],
    seed: int,
) -> dict[str, np.ndarray]:
    """MEASURES of a model, one number per prompt each; `real` and `gallery` go by the ids of true pictures."""
    ids, truths = [row["id"] for row in prompts], [row["source_id"] for row in prompts]
    ranks = [trial.rank for trial in trials(drawn.features, gallery, index, prompts, seed)]
    mine, theirs = (vectors.astype(np.float64) for vectors in (drawn.features.of(ids), gallery.of(truths)))
    norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    return {
        "at_10": (np.array(ranks) <= 10).astype(np.float64),
        "psnr_db": np.array([psnr(real[truth], drawn.pictures[name]) for name, truth in zip(ids, truths, strict=True)]),
        "distance": 1 - (mine * theirs).sum(1) / np.maximum(norms, 1e-12),
    }


def summed_up(values: Mapping[str, np.ndarray], rows: np.ndarray, seed: int, shares: bool) -> dict[str, Any]:
    """Mean and 95 % interval of each measure over some rows; `shares`: recall is a share, not a difference."""
    said = {}
    for name, of_all in values.items():
        some = of_all[rows]
        interval = wilson(int(some.sum()), len(some)) if shares and name == "at_10" else paired_bootstrap(some, seed)
        said[name] = {"value": float(some.mean()), "interval": list(interval)}
    return said


def compare(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], groups: Mapping[str, np.ndarray], seed: int
) -> dict[str, Any]:
    """Both of a pair and their difference, in every group of prompts (places of its rows)."""
    difference = {name: first[name] - second[name] for name in MEASURES}
    return {
        group: {
            "n": len(rows),
            "first": summed_up(first, rows, seed, True),
            "second": summed_up(second, rows, seed, True),
            "difference": summed_up(difference, rows, seed, False),
        }
        for group, rows in groups.items()
    }


def draw(
    model: str, weights: Path, settings: dict[str, float], prompts: list[dict], pictures: Path, seed: int, out: Path
):
    """Draw the prompts with one of SETTINGS and write their shard; returns the pictures by prompt id."""
    mine = {key: value for key, value in settings.items() if key in SETTINGS[model]}
    # for so few pictures compilation takes longer than it saves; rounding moves a pixel by less than 1 of 255
    generator = make(model, weights, mine, pictures, compiled=False)
    images = dict(zip((row["id"] for row in prompts), generator.generate(prompts, seed), strict=True))
    info = {"model": model, "seed": seed, **generator.describe()}
    write_shard(out, ((name, Image.fromarray(image)) for name, image in images.items()), info)
    return images


def main(argv: list[str] | None = None) -> None:
    """Command line: draw what the study has not drawn, and compare."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.workload", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, type=Path, metavar="DIR", help="folder of trained stages")
    parser.add_argument("--set", required=True, nargs="+", metavar="KEY=NUMBER", help="sampling settings of Würstchen")
    parser.add_argument("--prompts-file", required=True, type=Path, metavar="JSONL", help="prompts with true pictures")
    parser.add_argument("--count", required=True, type=int, help="prompts to compare on, at most")
    parser.add_argument("--pictures", required=True, type=Path, metavar="ZIP", help="the real pictures")
    parser.add_argument("--index", required=True, type=Path, metavar="JSONL", help="the real pictures' things")
    parser.add_argument("--gallery", required=True, type=Path, metavar="NPZ", help="features of all real pictures")
    parser.add_argument(
        "--of", required=True, nargs="+", action="append", metavar=("MODEL", "NPZ"), help="... ZIPs: drawn"
    )
    parser.add_argument("--draw", required=True, nargs=2, action="append", metavar=("MODEL", "ZIP"), help="to be drawn")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--out", required=True, type=Path, metavar="JSON")
    options = parser.parse_args(argv)
    try:
        prompts = chosen(read_prompts(options.prompts_file), options.seed, options.count)
        if not prompts:
            raise ValueError(f"{options.prompts_file}: no prompt of a seen or held-out picture")
        ids, truths = [row["id"] for row in prompts], {row["source_id"] for row in prompts}
        gallery, index, settings = (
            read_features(options.gallery),
            read_jsonl(options.index),
            parse_settings(options.set),
        )
        real = {name: image for name, image in iter_images([options.pictures]) if name in truths}
        drawn = {}
        for model, features, *zips in options.of:
            pictures = {name: image for name, image in iter_images(zips) if name in set(ids)}
            drawn[model] = Drawn(pictures, read_features(features, like=gallery))
        from evaluation import extractors  # torch and timm, only once the files above are known to be there

        extractor = extractors.load(gallery.key["extractor"]["name"])
        for model, out in options.draw:
            images = draw(model, options.weights, settings, prompts, options.pictures, options.seed, Path(out))
            drawn[model] = Drawn(images, features_of([images[name] for name in ids], ids, extractor))
        values = {model: measures(of, real, gallery, index, prompts, options.seed) for model, of in drawn.items()}
    except ValueError as error:
        raise SystemExit(f"workload: {error}") from None
    of_group = np.array([GROUPS[row["challenge"]] for row in prompts])
    groups = {group: np.flatnonzero(of_group == group) for group in dict.fromkeys(of_group.tolist())}
    record = {
        "schema": 1,
        "metric": "workload",
        "protocol": PROTOCOL,
        "prompts": "names",
        "comparisons": {
            name: {"models": list(pair), "groups": compare(values[pair[0]], values[pair[1]], groups, options.seed)}
            for name, pair in COMPARISONS.items()
        },
        "interval_method": "wilson for recall, bootstrap over prompts for the rest",
        "interval_covers": COVERS,
        "seed": options.seed,
        "prompts_sha256": sha256_file(options.prompts_file),
        "images_sha256": {model: of.features.key["images_sha256"] for model, of in drawn.items()},
        "extractor": gallery.key["extractor"],
        "preprocessing": gallery.key["preprocessing"],
        "versions": library_versions("numpy", "pillow", "scipy", "timm", "torch"),
    }
    write_json(options.out, record)


if __name__ == "__main__":
    main()
