"""Table 3: how far mild manipulations of real pictures move the Frechet distance (the paper's Appendix B).

python -m evaluation.robustness --pictures ZIP --set SET --seed N --manipulations NAME ... --out JSON
python -m evaluation.robustness --parts FOLDER --set SET --seed N --out JSON    of evaluation.robustness_features
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import frechet
from evaluation.features import library_versions
from evaluation.intervals import COVERS, block_jackknife, blocks_of
from evaluation.picture_files import entries, files_sha256
from evaluation.pictures import Reading, add_up
from evaluation.robustness_features import Part, Plan, add_plan, manipulated_features, part_path, plan_of
from evaluation.scores import JACKKNIFE
from wuerstchen.files import write_json


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


def column(
    name: str,
    seed: int,
    plan: Plan,
    extractor: dict[str, str],
    digests: Sequence[tuple[str, str]],
    pictures: dict[str, Any],
    features: Callable[[str], np.ndarray],
    ratios: dict[str, np.ndarray],
) -> dict[str, Any]:
    """The JSON of one column of Table 3. `features` gives those of "reference" and of each manipulation, `pictures` is
    what `pictures.add_up` says of them: how many were saved with loss already, and more."""
    ids, reference = [entry for entry, _ in digests], features("reference")
    choices = plan.choices.record()
    return {
        "schema": 1,
        "set": name,
        "metric": f"fd-{extractor['name']}",
        "n": len(ids),
        "seed": seed,
        "reference": choices["reference"],
        "choices": choices,
        "crop": plan.crop,
        "size": plan.size,
        "images_sha256": files_sha256(digests),
        "pictures": pictures,
        "extractor": extractor,
        "preprocessing": plan.preprocessing,
        "interval_method": JACKKNIFE,
        "interval_covers": COVERS,
        "manipulations": {each: shift(ids, reference, features(each), ratios[each]) for each in plan.names},
        "versions": library_versions("numpy", "pillow", "scipy", "timm", "torch"),
    }


def of_pictures(name: str, seed: int, sources: Sequence[Path], plan: Plan, extractor: str) -> dict[str, Any]:
    """A column from pictures that fit into one job."""
    from evaluation.extractors import load  # torch: seconds that parts need not pay

    network, reading = load(extractor), Reading(entries(sources))
    _, features, ratios = manipulated_features(reading, plan, network, len(reading.listed))
    used = {"name": network.name, "sha256": network.sha256}
    return column(name, seed, plan, used, reading.digests, add_up(reading.records), features.__getitem__, ratios)


def of_parts(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """A column from all parts in a folder.

    Raises ValueError naming a part that is missing or was made by another plan or network, and a repeated picture.
    """
    found = sorted(folder.glob("*-of-*.npz"))
    if not found:
        raise ValueError(f"{folder}: holds no parts; evaluation.robustness_features writes them")
    count = found[0].stem.split("-")[-1]
    wanted = [part_path(folder, part, int(count)) for part in range(int(count))] if count.isdecimal() else []
    if found != wanted:
        wrong = sorted(path.name for path in set(found) ^ set(wanted))
        raise ValueError(f"{folder}: {len(wrong)} parts are missing or of another division, such as {wrong[0]}")
    parts = [Part(path) for path in wanted]
    for path, part in zip(wanted, parts, strict=True):
        if part.study != parts[0].study:
            raise ValueError(f"{path}: made by another plan or network than {wanted[0].name}; make its folder anew")
    digests = [pair for part in parts for pair in part.digests]
    if len({entry for entry, _ in digests}) != len(digests):
        raise ValueError(f"{folder}: a picture is in two parts; make the folder anew")
    plan = Plan.of_record(parts[0].study["plan"])
    ratios = np.concatenate([part.psnr for part in parts])

    def features(which: str) -> np.ndarray:
        return np.concatenate([part.features(which) for part in parts])

    columns = {each: ratios[:, number] for number, each in enumerate(plan.names)}
    pictures = add_up(part.pictures for part in parts)
    return column(name, seed, plan, parts[0].study["extractor"], digests, pictures, features, columns)


def main(argv: list[str] | None = None) -> None:
    """Command line: one column of Table 3."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.robustness", description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pictures", nargs="+", type=Path, metavar="SOURCE", help="folders or zips of pictures")
    source.add_argument("--parts", type=Path, metavar="FOLDER", help="features by parts; what made them is in them")
    parser.add_argument("--set", required=True, help="name of the column, such as openmoji")
    parser.add_argument("--seed", required=True, type=int, help="the study's seed, recorded; nothing here is random")
    add_plan(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="JSON")
    options = parser.parse_args(argv)
    try:
        if options.parts:
            record = of_parts(options.set, options.seed, options.parts)
        else:
            record = of_pictures(options.set, options.seed, options.pictures, plan_of(options), options.extractor)
    except (ValueError, ModuleNotFoundError) as error:
        raise SystemExit(str(error)) from None
    write_json(options.out, record)


if __name__ == "__main__":
    main()
