"""Frechet distance, kernel distance and Inception Score of one set of images, each with its interval and provenance.

python -m evaluation.scores --features NPZ [--reference NPZ] --model M --prompts P --seed N
    --is JSON [--fd JSON --kid JSON]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from evaluation import frechet, inception_score, kid
from evaluation.features import FeatureSet, library_versions, read_features
from evaluation.intervals import BLOCKS, COVERS, block_jackknife, blocks_of
from wuerstchen.files import write_json

JACKKNIFE = f"block jackknife over up to {BLOCKS} blocks by hash of the prompt id, Student t"


def matched(images: FeatureSet, reference: FeatureSet) -> np.ndarray:
    """The reference's features in the order of `images`. Raises ValueError unless both hold the same ids."""
    ours, theirs = set(images.ids), set(reference.ids)
    if ours != theirs:
        examples = sorted(ours ^ theirs)[:3]
        raise ValueError(
            f"images and reference must hold the same ids for equal N: {len(ours - theirs)} are in the images alone, "
            f"{len(theirs - ours)} in the reference alone, such as {', '.join(examples)}"
        )
    return reference.of(images.ids)


def frechet_score(images: FeatureSet, reference: FeatureSet) -> dict[str, Any]:
    """Value, interval (cut off at 0) and protocol of the Frechet distance from the same ids of the reference."""
    real = matched(images, reference)
    value = frechet.distance_of_features(images.features, real)
    leave_out, sizes = frechet.leave_out_distances(images.features, real, blocks_of(images.ids))
    low, high = block_jackknife(value, leave_out, sizes)
    return {
        "protocol": f"Frechet distance in float64, {len(images.ids)} images against the real pictures of the same ids",
        "value": value,
        "interval": [max(0.0, low), high],
        "interval_method": JACKKNIFE,
        "interval_covers": COVERS,
    }


def kid_score(images: FeatureSet, reference: FeatureSet, seed: int) -> dict[str, Any]:
    """Value, interval and protocol of the kernel distance from the same ids of the reference; may be below 0."""
    real = matched(images, reference)
    value, subsets = kid.kid(images.features, real, seed)
    leave_out, whole, sizes = kid.leave_out_kids(images.features, real, blocks_of(images.ids))
    low, high = block_jackknife(whole, leave_out, sizes)
    return {
        "protocol": "unbiased squared MMD in float64, kernel (x.y/D + 1)^3, "
        f"{subsets['subsets']} subsets of {subsets['subset_size']}, against the real pictures of the same ids",
        "value": value,
        "interval": [value + low - whole, value + high - whole],
        "interval_method": JACKKNIFE,
        "interval_covers": COVERS,
        **subsets,
    }


def inception_score_score(images: FeatureSet, seed: int) -> dict[str, Any]:
    """Mean over seeded splits, its interval (not below 1) and protocol of the Inception Score."""
    splits = inception_score.splits_for(len(images.ids))
    scores = inception_score.split_scores(images.logits, splits, seed)
    value = float(scores.mean())
    half = float(stdtrit(splits - 1, 0.975) * scores.std(ddof=1) / np.sqrt(splits))
    return {
        "protocol": f"{splits} splits after a seeded shuffle, mean, softmax in float64 over "
        f"{images.logits.shape[1]} classes",
        "value": value,
        "interval": [max(1.0, value - half), value + half],
        "interval_method": "Student t over the splits",
        "interval_covers": COVERS,
        "splits": splits,
    }


def score_record(
    metric: str,
    score: dict[str, Any],
    images: FeatureSet,
    reference: FeatureSet | None,
    model: str,
    prompts: str,
    seed: int,
) -> dict[str, Any]:
    """The JSON of one score: `score` with what it was computed from and with.

    Where pictures were saved with loss, "lossy" says how many: {"images"} and, of the reference, {"reference"}.
    """
    lossy = {"images": images.lossy} | ({"reference": reference.lossy} if reference else {})
    return {
        "schema": 1,
        "metric": metric,
        "model": model,
        "prompts": prompts,
        **score,
        "n": len(images.ids),
        "seed": seed,
        "images_sha256": images.key["images_sha256"],
        "reference_sha256": reference.key["images_sha256"] if reference else None,
        "extractor": images.key["extractor"],
        "preprocessing": images.key["preprocessing"],
        **({"lossy": lossy} if any(lossy.values()) else {}),
        "versions": {**images.key["versions"], **library_versions("numpy", "scipy")},
    }


def main(argv: list[str] | None = None) -> None:
    """Command line: one JSON per metric asked for."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.scores", description=__doc__.splitlines()[0])
    parser.add_argument("--features", required=True, type=Path, metavar="NPZ", help="of the images to score")
    parser.add_argument("--reference", type=Path, metavar="NPZ", help="of the real pictures of the same ids")
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--fd", type=Path, metavar="JSON", help="Frechet distance; needs --reference")
    parser.add_argument("--kid", type=Path, metavar="JSON", help="kernel distance; needs --reference")
    parser.add_argument("--is", dest="inception", type=Path, metavar="JSON", help="Inception Score")
    options = parser.parse_args(argv)
    if (options.fd or options.kid) and not options.reference:
        parser.error("--fd and --kid need --reference, the features of the real pictures")
    if not (options.fd or options.kid or options.inception):
        parser.error("nothing to compute: name --fd, --kid or --is")
    try:
        images = read_features(options.features)
        reference = read_features(options.reference, like=images) if options.reference else None
        network = images.key["extractor"]["name"]
        if options.fd:
            score = frechet_score(images, reference)
            record = (f"fd-{network}", score, images, reference)
            write_json(options.fd, score_record(*record, options.model, options.prompts, options.seed))
        if options.kid:
            score = kid_score(images, reference, options.seed)
            record = (f"kid-{network}", score, images, reference)
            write_json(options.kid, score_record(*record, options.model, options.prompts, options.seed))
        if options.inception:
            score = inception_score_score(images, options.seed)
            record = (f"is-{network}", score, images, None)
            write_json(options.inception, score_record(*record, options.model, options.prompts, options.seed))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
