"""Table 3: how far mild manipulations of real pictures move the Frechet distance (the paper's Appendix B).

Each picture is decoded once and fanned out to its reference and all manipulations.

python -m evaluation.robustness --pictures ZIP --set SET --seed N --manipulations NAME ... --out JSON
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import frechet
from evaluation.extractors import EXTRACTORS, Extractor, load
from evaluation.features import count_images, in_chunks, library_versions
from evaluation.images import images_sha256, iter_images
from evaluation.intervals import COVERS, block_jackknife, blocks_of
from evaluation.manipulations import CHOICES, NAMES, check_names, fan_out, psnr
from evaluation.scores import JACKKNIFE
from wuerstchen.files import write_json
from wuerstchen.progress import progress

PREPROCESSING = "none-128"
CHUNK = 16


def manipulated_features(
    pictures: Iterable[tuple[str, np.ndarray]], names: Sequence[str], extractor: Extractor, total: int | None = None
) -> tuple[list[str], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Ids, features (n, D) of "reference" and each manipulation, and each manipulation's PSNR in dB (n,).

    One pass over (id, uint8 RGB of twice the extractor's size) pairs.
    """
    ids: list[str] = []
    features: dict[str, list[np.ndarray]] = {name: [] for name in ("reference", *names)}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    with progress(what="manipulations", unit="pictures", total=total) as bar:
        for chunk_ids, chunk in in_chunks(pictures, CHUNK):
            variants = [fan_out(picture, names) for picture in chunk]
            for name in features:
                features[name].append(extractor(np.stack([variant[name] for variant in variants]), PREPROCESSING)[0])
            for name in names:
                ratios[name] += [psnr(variant["reference"], variant[name]) for variant in variants]
            ids += chunk_ids
            bar.update(len(chunk_ids))
    return (
        ids,
        {name: np.concatenate(parts) for name, parts in features.items()},
        {name: np.array(values) for name, values in ratios.items()},
    )


def shift(ids: Sequence[str], reference: np.ndarray, changed: np.ndarray, ratios: np.ndarray) -> dict[str, Any]:
    """Frechet distance of `changed` from `reference`, its interval, and the mean PSNR of the pictures that changed.

    `unchanged` counts pictures that a manipulation left as they were: their PSNR is infinite.
    """
    value = frechet.distance_of_features(changed, reference)
    low, high = block_jackknife(value, *frechet.leave_out_distances(changed, reference, blocks_of(ids)))
    finite = ratios[np.isfinite(ratios)]
    return {
        "value": value,
        "interval": [max(0.0, low), high],
        "psnr_db": float(finite.mean()) if len(finite) else None,
        "unchanged": int(len(ratios) - len(finite)),
    }


def main(argv: list[str] | None = None) -> None:
    """Command line: one column of Table 3."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.robustness", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", required=True, type=Path, metavar="ZIP", help="256 px pictures")
    parser.add_argument("--set", required=True, help="name of the column, such as openmoji")
    parser.add_argument("--seed", required=True, type=int, help="the study's seed, recorded; nothing here is random")
    parser.add_argument("--manipulations", nargs="+", default=list(NAMES), metavar="NAME", help="default: all thirteen")
    parser.add_argument("--extractor", default="efficientnet-lite2", choices=list(EXTRACTORS))
    parser.add_argument("--out", required=True, type=Path, metavar="JSON")
    options = parser.parse_args(argv)
    try:
        check_names(options.manipulations)
        extractor = load(options.extractor)
        digest = images_sha256([options.pictures])
        ids, features, ratios = manipulated_features(
            iter_images([options.pictures]), options.manipulations, extractor, count_images([options.pictures])
        )
        results = {
            name: shift(ids, features["reference"], features[name], ratios[name]) for name in options.manipulations
        }
    except (ValueError, ModuleNotFoundError) as error:
        raise SystemExit(str(error)) from None
    record = {
        "schema": 1,
        "set": options.set,
        "metric": f"fd-{extractor.name}",
        "n": len(ids),
        "seed": options.seed,
        "reference": CHOICES["reference"],
        "choices": CHOICES,
        "images_sha256": digest,
        "extractor": {"name": extractor.name, "sha256": extractor.sha256},
        "preprocessing": PREPROCESSING,
        "interval_method": JACKKNIFE,
        "interval_covers": COVERS,
        "manipulations": results,
        "versions": library_versions("numpy", "pillow", "scipy", "timm", "torch"),
    }
    write_json(options.out, record)


if __name__ == "__main__":
    main()
