"""FID, KID, Inception Score, precision, recall, density and coverage of cached features, under a named protocol.

    python -m evaluation.protocol_scores --protocol ID --features NPZ --reference NPZ --model M --prompts P
        --captions JSONL --seed N [--fid JSON] [--kid JSON] [--is JSON] [--prdc JSON JSON JSON JSON]

The reference is a feature file or, for FID alone, a file of evaluation.statistics. `evaluation.scores` is for studies
whose extractor and reference have no published protocol.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import frechet, kid, statistics
from evaluation.features import FeatureSet, read_features
from evaluation.intervals import COVERS, block_jackknife, blocks_of
from evaluation.precision_recall import K_DENSITY_COVERAGE, K_PRECISION_RECALL, precision_recall_density_coverage
from evaluation.protocols import PROTOCOLS, Protocol, find
from evaluation.scores import JACKKNIFE, inception_score_score, score_record
from evaluation.statistics import Statistics, require_features_of
from wuerstchen.files import sha256_file, write_json

PRDC = ("precision", "recall", "density", "coverage")
FIXED = "; the reference stays whole"
Score = dict[str, Any]


def fid(images: FeatureSet, reference: FeatureSet | Statistics) -> Score:
    """Frechet Inception distance and its interval (cut off at 0).

    Where the reference holds the pictures of the same prompts, they leave it together; else it stays whole.
    """
    blocks = blocks_of(images.ids)
    if isinstance(reference, FeatureSet) and set(reference.ids) == set(images.ids):
        real = reference.of(images.ids)
        value = frechet.distance_of_features(images.features, real)
        leave_out, sizes = frechet.leave_out_distances(images.features, real, blocks)
        how = JACKKNIFE
    else:
        if isinstance(reference, FeatureSet) and len(reference.ids) <= reference.features.shape[1]:
            raise ValueError(
                f"{len(reference.ids)} reference pictures other than the prompts' own are too few: "
                f"more than {reference.features.shape[1]} are needed"
            )
        whole = _gaussian_of(reference)
        value = whole.distance_of_features(images.features)
        leave_out, sizes = frechet.leave_out_distances_from(whole, images.features, blocks)
        how = JACKKNIFE + FIXED
    low, high = block_jackknife(value, leave_out, sizes)
    few = len(images.ids) <= images.features.shape[1]
    return _score(value, max(0.0, low), high, how) | {"fewer_pictures_than_features": few}


def kid_score(images: FeatureSet, reference: FeatureSet, seed: int) -> Score:
    """Kernel Inception distance by torch-fidelity's subsets: 100 of 1000 pictures, or fewer of smaller sets."""
    size = min(kid.SUBSET_SIZE, len(images.ids), len(reference.ids))
    value = float(kid.kid_of_subsets(images.features, reference.features, seed, size).mean())
    blocks = blocks_of(images.ids)
    if set(reference.ids) == set(images.ids):
        leave_out, whole, sizes = kid.leave_out_kids(images.features, reference.of(images.ids), blocks)
        how = JACKKNIFE
    else:
        leave_out, whole, sizes = kid.leave_out_kids_from(reference.features, images.features, blocks)
        how = JACKKNIFE + FIXED
    low, high = block_jackknife(whole, leave_out, sizes)
    return _score(value, value + low - whole, value + high - whole, how) | {"subset_size": size, "subsets": kid.SUBSETS}


def is_score(images: FeatureSet, seed: int) -> Score:
    """Inception Score in torch-fidelity's order for an equal seed (its own is 2020); its file says the splits."""
    score = inception_score_score(images, seed)
    return {key: value for key, value in score.items() if key != "protocol"}


def prdc_scores(images: FeatureSet, reference: FeatureSet) -> dict[str, Score]:
    """Precision, recall, density and coverage, each with its interval and its k."""
    scores = {}
    parts = precision_recall_density_coverage(images.features, reference.features)
    for name, values in parts.items():
        ids = images.ids if name in ("precision", "density") else reference.ids
        blocks = blocks_of(ids)
        labels, sizes = np.unique(blocks, return_counts=True)
        leave_out = [values[blocks != label].mean() for label in labels]
        low, high = block_jackknife(float(values.mean()), leave_out, sizes)
        high = high if name == "density" else min(1.0, high)
        k = K_PRECISION_RECALL if name in ("precision", "recall") else K_DENSITY_COVERAGE
        how = JACKKNIFE + "; the other set and all neighbourhoods stay whole"
        scores[name] = _score(float(values.mean()), max(0.0, low), high, how) | {"k": k}
    return scores


def record(
    metric: str,
    score: Score,
    images: FeatureSet,
    reference: FeatureSet | Statistics | None,
    protocol: Protocol,
    model: str,
    prompts: str,
    seed: int,
) -> dict[str, Any]:
    """The JSON of one score. Raises ValueError where features or reference are not of the protocol."""
    require_features_of(images, protocol)
    if isinstance(reference, FeatureSet):
        require_features_of(reference, protocol)
        origin: dict[str, Any] = {"reference_n": len(reference.ids)}
    else:
        origin = _declared(reference, images, protocol) if reference else {}
    features = reference if isinstance(reference, FeatureSet) else None
    return score_record(metric, score | protocol.record(), images, features, model, prompts, seed) | origin


def _declared(reference: Statistics, images: FeatureSet, protocol: Protocol) -> dict[str, Any]:
    """What a score says of imported statistics, which are of all choices of the protocol but the caption list."""
    declared = reference.declared
    if declared["protocol_sha256"] != replace(protocol, captions_sha256=None).digest():
        raise ValueError(
            f"the reference is declared to be of protocol {declared['protocol']} ({declared['protocol_sha256']}), "
            f"which is not {protocol.id} as it is here"
        )
    weights = declared["extractor"]["sha256"]
    if weights not in (None, images.key["extractor"]["sha256"]):
        raise ValueError(f"the reference is of extractor weights {weights}, the images of others")
    return {"reference_sha256": declared["sha256"], "reference_n": declared["n"], "reference_declared": declared}


def _gaussian_of(reference: FeatureSet | Statistics) -> frechet.Reference:
    if isinstance(reference, Statistics):
        return reference.reference()
    return frechet.Reference(*frechet.gaussian(reference.features))


def _score(value: float, low: float, high: float, method: str) -> Score:
    return {"value": value, "interval": [low, high], "interval_method": method, "interval_covers": COVERS}


def main(argv: list[str] | None = None) -> None:
    """Command line: one JSON per metric asked for."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.protocol_scores", description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", required=True, help=f"one of {', '.join(PROTOCOLS)}")
    parser.add_argument("--features", required=True, type=Path, metavar="NPZ", help="of the images to score")
    parser.add_argument("--reference", type=Path, metavar="NPZ", help="features or statistics of the real pictures")
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True)
    captions = parser.add_mutually_exclusive_group(required=True)
    captions.add_argument("--captions", type=Path, metavar="JSONL", help="the caption list")
    captions.add_argument("--captions-sha256", metavar="HEX", help="its digest, where it is not here")
    parser.add_argument("--seed", required=True, type=int, help="of KID's subsets and of the order for IS")
    parser.add_argument("--fid", type=Path, metavar="JSON")
    parser.add_argument("--kid", type=Path, metavar="JSON")
    parser.add_argument("--is", dest="inception", type=Path, metavar="JSON")
    parser.add_argument("--prdc", type=Path, nargs=4, metavar="JSON", help=f"for {', '.join(PRDC)}")
    options = parser.parse_args(argv)
    if (options.fid or options.kid or options.prdc) and not options.reference:
        parser.error("--fid, --kid and --prdc need --reference")
    if not (options.fid or options.kid or options.inception or options.prdc):
        parser.error("nothing to compute: name --fid, --kid, --is or --prdc")
    try:
        digest = sha256_file(options.captions) if options.captions else options.captions_sha256
        protocol = find(options.protocol).of_captions(digest)
        images = read_features(options.features)
        reference = _read_reference(options.reference, images) if options.reference else None
        if isinstance(reference, Statistics) and (options.kid or options.prdc):
            raise ValueError(f"{options.reference}: --kid and --prdc need features, not their mean and covariance")

        def write(path: Path, metric: str, compute: Callable[[], Score], of: FeatureSet | Statistics | None) -> None:
            # refuses what does not fit before minutes go into it
            about = record(metric, {}, images, of, protocol, options.model, options.prompts, options.seed)
            write_json(path, about | compute())

        if options.fid:
            write(options.fid, "fid", lambda: fid(images, reference), reference)
        if options.kid:
            write(options.kid, "kid", lambda: kid_score(images, reference, options.seed), reference)
        if options.inception:
            write(options.inception, "is", lambda: is_score(images, options.seed), None)
        if options.prdc:
            scores = prdc_scores(images, reference)
            for path, metric in zip(options.prdc, PRDC, strict=True):
                write(path, metric, lambda score=scores[metric]: score, reference)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None


def _read_reference(path: Path, images: FeatureSet) -> FeatureSet | Statistics:
    return statistics.read(path) if statistics.is_statistics(path) else read_features(path, like=images)


if __name__ == "__main__":
    main()
