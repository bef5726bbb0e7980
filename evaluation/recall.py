"""Prompt fidelity: is the picture that a prompt names the nearest of 100 real ones to the image drawn for it?

Recall@1 and @10 by cosine distance of features, among the true picture and up to 99 others of the same artist, none of
the same thing. The others depend on seed and prompt id alone, so every model faces the same ones.

python -m evaluation.recall --features NPZ --gallery NPZ --index INDEX --prompts-file JSONL --model M --prompts P
    --seed N --out JSON
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.features import FeatureSet, library_versions, read_features
from evaluation.intervals import COVERS, wilson
from wuerstchen.files import read_jsonl, write_json
from wuerstchen.seeds import derive

OTHERS = 99
GROUPS = {"seen": "seen", "held-out": "held_out", "flags": "special", "keycaps": "special", "clocks": "special"}


@dataclass(frozen=True)
class Trial:
    """One image against its gallery: the true picture's place (1 = nearest) among `candidates` pictures."""

    group: str
    rank: int
    candidates: int


def distractors(prompt_id: str, truth: dict, index: Sequence[dict], seed: int) -> list[str]:
    """Ids of up to 99 pictures by the artist of `truth` of other things, drawn by (seed, prompt id) alone."""
    pool = sorted(row["id"] for row in index if row["artist"] == truth["artist"] and row["thing"] != truth["thing"])
    random = np.random.default_rng(derive("recall", seed, prompt_id))
    return [pool[i] for i in random.permutation(len(pool))[:OTHERS]]


def rank_of_truth(image: np.ndarray, truth: np.ndarray, others: np.ndarray) -> int:
    """Place of `truth` (D,) by cosine distance from `image` (D,) among itself and `others` (m, D); a tie counts
    against it, so that constant features earn nothing."""
    candidates = _unit(np.concatenate([truth[None], others]).astype(np.float64))
    similarity = candidates @ _unit(image[None].astype(np.float64))[0]
    return 1 + int((similarity[1:] >= similarity[0]).sum())


def trials(
    images: FeatureSet, gallery: FeatureSet, index: Sequence[dict], prompts: Sequence[dict], seed: int
) -> list[Trial]:
    """One trial for each prompt, in order.

    Raises ValueError where an image, a true picture or a prompt's group is missing, or where an artist has drawn
    nothing but the true thing.
    """
    drawn = images.of([prompt["id"] for prompt in prompts])
    by_id = {row["id"]: row for row in index}
    results = []
    for prompt, image in zip(prompts, drawn, strict=True):
        if prompt["source_id"] not in by_id:
            raise ValueError(f"prompt {prompt['id']}: its picture {prompt['source_id']!r} is not in the index")
        if prompt["challenge"] not in GROUPS:
            raise ValueError(f"prompt {prompt['id']}: challenge {prompt['challenge']!r} is none of {', '.join(GROUPS)}")
        truth = by_id[prompt["source_id"]]
        others = distractors(prompt["id"], truth, index, seed)
        if not others:
            raise ValueError(f"prompt {prompt['id']}: artist {truth['artist']} has no picture of another thing")
        vectors = gallery.of([truth["id"], *others])
        results.append(
            Trial(GROUPS[prompt["challenge"]], rank_of_truth(image, vectors[0], vectors[1:]), 1 + len(others))
        )
    return results


def recall_of(group: Sequence[Trial]) -> dict[str, Any]:
    """Recall@1 and @10, chance of each, and the Wilson interval of recall@10; null where the group is empty."""
    n = len(group)
    if n == 0:
        names = ("at_1", "at_10", "chance_at_1", "chance_at_10", "interval_at_1", "interval_at_10")
        return {"n": 0, **dict.fromkeys(names)}
    hits = {k: sum(trial.rank <= k for trial in group) for k in (1, 10)}
    return {
        "n": n,
        **{f"at_{k}": hits[k] / n for k in hits},
        **{f"chance_at_{k}": math.fsum(min(1.0, k / trial.candidates) for trial in group) / n for k in hits},
        **{f"interval_at_{k}": list(wilson(hits[k], n)) for k in hits},
    }


def recall_record(
    results: Sequence[Trial], images: FeatureSet, gallery: FeatureSet, model: str, prompts: str, seed: int
) -> dict[str, Any]:
    """The JSON of a recall score; its value is recall@10 of the held-out prompts."""
    groups = {
        name: recall_of([trial for trial in results if trial.group == name]) for name in ("seen", "held_out", "special")
    }
    return {
        "schema": 1,
        "metric": "recall",
        "protocol": f"rank of the true picture among it and up to {OTHERS} seeded pictures of that artist, none of the "
        "same thing, by cosine distance; ties count against it; value: recall@10 of the held-out prompts",
        "model": model,
        "prompts": prompts,
        "value": groups["held_out"]["at_10"],
        "interval": groups["held_out"]["interval_at_10"],
        "interval_method": "wilson",
        "interval_covers": COVERS,
        "n": groups["held_out"]["n"],
        "recall": groups,
        "seed": seed,
        "images_sha256": images.key["images_sha256"],
        "reference_sha256": gallery.key["images_sha256"],
        "extractor": images.key["extractor"],
        "preprocessing": images.key["preprocessing"],
        "versions": {**images.key["versions"], **library_versions("numpy", "scipy")},
    }


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def main(argv: list[str] | None = None) -> None:
    """Command line: recall of one model on one prompt set."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.recall", description=__doc__.splitlines()[0])
    parser.add_argument("--features", required=True, type=Path, metavar="NPZ", help="of the images, by prompt id")
    parser.add_argument("--gallery", required=True, type=Path, metavar="NPZ", help="of all real pictures")
    parser.add_argument("--index", required=True, type=Path, metavar="JSONL", help="the pictures' artists and things")
    parser.add_argument("--prompts-file", required=True, type=Path, metavar="JSONL")
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--out", required=True, type=Path, metavar="JSON")
    options = parser.parse_args(argv)
    try:
        images = read_features(options.features)
        gallery = read_features(options.gallery, like=images)
        results = trials(images, gallery, read_jsonl(options.index), read_jsonl(options.prompts_file), options.seed)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    write_json(options.out, recall_record(results, images, gallery, options.model, options.prompts, options.seed))


if __name__ == "__main__":
    main()
