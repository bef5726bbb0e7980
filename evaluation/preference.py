"""Preference scores of images for prompts, with the formula of PickScore, and win rates between models.

A text is embedded once per prompt and an image once per image; win rates come from the stored scores.

    python -m evaluation.preference score --scorer pickscore|hpsv2.1|DIR --model ID --of PROMPTS JSONL CSV JSON ZIP ...
    python -m evaluation.preference validity --scorer DIR --data DIR --seed N --out JSON
    python -m evaluation.preference win-rate --metric pickscore --model ID --scores CSV --rivals NAME=CSV ... --out JSON

`validity` asks the scorer that the emoji study trains whether it knows anything; a published one is taken as it is.
"""

import argparse
import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.features import count_images, library_versions
from evaluation.images import images_sha256, iter_images
from evaluation.intervals import paired_bootstrap, wilson
from evaluation.pictures import add_up
from evaluation.preference_model import PreferenceModel, score_pairs
from evaluation.prompts import read_prompts
from wuerstchen.files import read_json, read_jsonl, write_json, write_text
from wuerstchen.seeds import derive
from wuerstchen.shards import read_info

METRIC = "emoji-score"  # of the scorer that a study trains
THRESHOLDS = {"random": 0.85, "subgroup": 0.65}
NEGATIVES = 20
BOOTSTRAP = "percentile bootstrap over prompts, 2000 draws"


def score_images(
    scorer: PreferenceModel, prompts: Sequence[dict], shards: Sequence[Path]
) -> tuple[list[str], np.ndarray]:
    """Prompt ids and their images' scores, float32 (n,), in the order of the prompts.

    Raises ValueError where the shards do not hold exactly one image for each prompt.
    """
    wanted = {row["id"]: row["prompt"] for row in prompts}
    images = scorer.embed_images(iter_images(shards), count_images(shards))
    require_same_ids(images, wanted, ", ".join(map(str, shards)), "the prompts")
    texts = scorer.embed_texts(list(wanted.values()))
    ids = list(wanted)
    scores = score_pairs(texts, images, [(wanted[name], name) for name in ids], scorer.scale)
    return ids, np.maximum(scores, 0) if scorer.not_negative else scores


def require_same_ids(found: Iterable[str], expected: Iterable[str], where: str, of: str) -> None:
    """Raise ValueError naming an id, unless `found` (in `where`) are exactly the ids of `of`."""
    found, expected = set(found), set(expected)
    if missing := sorted(expected - found):
        raise ValueError(f"{where}: {len(missing)} ids of {of} are missing, such as {missing[0]}")
    if extra := sorted(found - expected):
        raise ValueError(f"{where}: {len(extra)} ids are not among {of}, such as {extra[0]}")


def score_record(
    scorer: PreferenceModel, scores: np.ndarray, texts: Sequence[str], model: str, prompts: str, images: str, seed: int
) -> dict[str, Any]:
    """The JSON of a mean score; `images` is the digest of the image list."""
    return {
        "schema": 1,
        "metric": scorer.metric,
        "protocol": scorer.protocol,
        "model": model,
        "prompts": prompts,
        "value": float(scores.mean(dtype=np.float64)),
        "interval": list(paired_bootstrap(scores, seed)),
        "interval_method": BOOTSTRAP,
        "n": len(scores),
        "seed": seed,
        "images_sha256": images,
        "reference_sha256": None,
        "extractor": {"name": scorer.name, "sha256": scorer.sha256},
        "preprocessing": scorer.preprocessing,
        "context_length": scorer.context_length,
        "truncated_prompts": scorer.truncated(texts),
        "versions": library_versions("torch", "open_clip_torch", "timm", "transformers", "numpy"),
    }


def write_scores(path: Path, ids: Sequence[str], scores: np.ndarray) -> None:
    """CSV with the columns id, score: float32 in its shortest exact form."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "score"])
    writer.writerows([name, str(np.float32(score))] for name, score in zip(ids, scores, strict=True))
    write_text(path, text.getvalue())


def read_scores(path: Path) -> dict[str, np.float32]:
    """Scores by prompt id. Raises ValueError naming file and line for a broken, repeated or non-finite row."""
    scores: dict[str, np.float32] = {}
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames != ["id", "score"]:
            raise ValueError(f"{path}: columns are {rows.fieldnames}, expected id,score")
        for number, row in enumerate(rows, 2):
            try:
                score = np.float32(row["score"])
            except (TypeError, ValueError):
                raise ValueError(f"{path}, line {number}: score {row['score']!r} is no number") from None
            if not np.isfinite(score):
                raise ValueError(f"{path}, line {number}: score {row['score']!r} is not finite")
            if row["id"] in scores:
                raise ValueError(f"{path}, line {number}: id {row['id']!r} is repeated")
            scores[row["id"]] = score
    if not scores:
        raise ValueError(f"{path}: no scores")
    return scores


def win_rate(ours: Mapping[str, np.float32], theirs: Mapping[str, np.float32], seed: int, rival: str) -> dict[str, Any]:
    """How often our image has the higher score, over prompts that both models answered.

    A win is strictly higher in float32; equal scores are ties (PickScore's evaluation at t = 0). `rate` is wins / n,
    the paper's "percentage of images where PickScore preferred" ours, so that ties count against us; `half_tie_rate`
    gives half of each tie to both. Raises ValueError where the two have different prompt ids.
    """
    require_same_ids(theirs, ours, f"scores of {rival}", "the model's scores")
    ids = list(ours)
    difference = np.array([ours[name] - theirs[name] for name in ids], np.float32)
    wins, ties, n = int((difference > 0).sum()), int((difference == 0).sum()), len(ids)
    draws = derive(seed, "win-rate", rival)
    return {
        "wins": wins,
        "losses": n - wins - ties,
        "ties": ties,
        "n": n,
        "rate": wins / n,
        "half_tie_rate": (wins + ties / 2) / n,
        "interval": list(wilson(wins, n)),
        "interval_method": "wilson",
        "bootstrap": list(paired_bootstrap(difference > 0, draws)),
        "mean_difference": float(difference.mean(dtype=np.float64)),
        "mean_difference_interval": list(paired_bootstrap(difference, draws)),
    }


def draw_negatives(index: Sequence[dict], seed: int, count: int = NEGATIVES) -> dict[str, dict[str, list[str]]]:
    """For each held-out picture, captions that are not its own: {"random" | "subgroup": {picture id: captions}}.

    Held-out pictures are those of the test split outside the special groups. A negative is a caption of the same
    artist, of another base thing, outside the special groups, and for "subgroup" of the same subgroup; at most `count`
    are drawn for each picture without replacement, by a generator that depends on seed and picture id alone. A picture
    without any is left out.
    """
    captions: dict[str, list[dict]] = defaultdict(list)
    for row in sorted(index, key=lambda row: row["id"]):
        if not row["special"]:
            captions[row["artist"]].append(row)
    drawn: dict[str, dict[str, list[str]]] = {"random": {}, "subgroup": {}}
    for row in index:
        if row["split"] != "test" or row["special"]:
            continue
        others = [r for r in captions[row["artist"]] if r["thing"] != row["thing"] and r["caption"] != row["caption"]]
        for kind, pool in (
            ("random", others),
            ("subgroup", [r for r in others if row["subgroup"] and r["subgroup"] == row["subgroup"]]),
        ):
            unique = sorted({r["caption"] for r in pool})
            if unique:
                random = np.random.default_rng(derive(seed, "validity", kind, row["id"]))
                drawn[kind][row["id"]] = [unique[i] for i in random.permutation(len(unique))[:count]]
    return drawn


def validity(
    index: Sequence[dict],
    negatives: Mapping[str, Mapping[str, Sequence[str]]],
    texts: Mapping[str, np.ndarray],
    images: Mapping[str, np.ndarray],
    seed: int,
) -> dict[str, Any]:
    """How often a picture's true caption has the higher score than another, at random and within its subgroup.

    `texts` and `images` are unit vectors by caption and by picture id (the logit scale decides no comparison). Each
    picture counts once, with its share of beaten negatives; a tie is not beaten. Intervals: bootstrap over pictures.
    `valid` needs both thresholds at every artist of the index; an artist without held-out pictures fails.
    """
    rows = {row["id"]: row for row in index}
    artists = sorted({row["artist"] for row in index})
    result: dict[str, Any] = {"schema": 1, "metric": METRIC}
    valid = True
    for kind, threshold in THRESHOLDS.items():
        shares: dict[str, list[float]] = {artist: [] for artist in artists}
        for name, captions in negatives[kind].items():
            true = np.dot(texts[rows[name]["caption"]], images[name])
            beaten = [bool(true > np.dot(texts[caption], images[name])) for caption in captions]
            shares[rows[name]["artist"]].append(float(np.mean(beaten)))
        by_artist = {artist: _share(shares[artist], derive(seed, kind, artist)) for artist in artists}
        result[kind] = _share([share for artist in artists for share in shares[artist]], derive(seed, kind))
        result[kind]["by_artist"] = by_artist
        valid &= all(entry["rate"] is not None and entry["rate"] >= threshold for entry in by_artist.values())
    return result | {
        "thresholds": THRESHOLDS,
        "valid": valid,
        "negatives_per_picture": NEGATIVES,
        "interval_method": "percentile bootstrap over pictures, 2000 draws",
        "seed": seed,
    }


def _share(values: list[float], seed: int) -> dict[str, Any]:
    if not values:
        return {"rate": None, "interval": None, "n": 0}
    return {"rate": float(np.mean(values)), "interval": list(paired_bootstrap(values, seed)), "n": len(values)}


def load_scorer(name: str, precision: str, device: str | None) -> PreferenceModel:
    """A published scorer by its name, or the one that a study trained by its folder."""
    from evaluation import clip_models, scorer_model

    if name in clip_models.SCORERS:
        return clip_models.load(name, precision, device)
    if not Path(name).is_dir():
        raise ValueError(f"--scorer {name}: neither a folder nor one of {', '.join(clip_models.SCORERS)}")
    if precision != "fp32" or device is not None:
        raise ValueError(f"--scorer {name}: --precision and --device are for published scorers")
    return scorer_model.load(name)


def score_sets(scorer: PreferenceModel, model: str, sets: Sequence[Sequence[str]], seed: int) -> None:
    """Score a model's images of several prompt sets, each PROMPTS JSONL CSV JSON ZIP ..., and write CSV and JSON."""
    for name, *files in sets:
        if len(files) < 4:
            raise ValueError(f"--of {name}: five or more values needed: PROMPTS JSONL CSV JSON ZIP ...")
        jsonl, scores_csv, scores_json, *shards = map(Path, files)
        prompts = read_prompts(jsonl)
        ids, scores = score_images(scorer, prompts, shards)
        texts = [row["prompt"] for row in prompts]
        record = score_record(scorer, scores, texts, model, name, images_sha256(shards), seed)
        if lossy := add_up(filter(None, (read_info(path).get("pictures") for path in shards)))["lossy"]:
            record["lossy"] = {"images": lossy}  # a model's own pictures, as `evaluation.sample` found them
        write_scores(scores_csv, ids, scores)
        write_json(scores_json, record)


def run_score(options: argparse.Namespace) -> None:
    scorer = load_scorer(options.scorer, options.precision, options.device)
    score_sets(scorer, options.model, options.of, options.seed)


def run_validity(options: argparse.Namespace) -> None:
    from evaluation.scorer_model import load

    index = read_jsonl(options.data / "index.jsonl")
    negatives = draw_negatives(index, options.seed)
    held_out = {row["id"]: row["caption"] for row in index if row["split"] == "test" and not row["special"]}
    scorer = load(options.scorer)
    pictures = (item for item in iter_images([options.data / "pictures.zip"]) if item[0] in held_out)
    images = scorer.embed_images(pictures, len(held_out))
    drawn = [caption for kind in negatives.values() for captions in kind.values() for caption in captions]
    texts = scorer.embed_texts([*held_out.values(), *drawn])
    result = validity(index, negatives, texts, images, options.seed)
    write_json(options.out, result | {"extractor": {"name": scorer.name, "sha256": scorer.sha256}})


def run_win_rate(options: argparse.Namespace) -> None:
    ours = read_scores(options.scores)
    rivals = {}
    for argument in options.rivals:
        name, equals, path = argument.partition("=")
        if not (name and equals and path) or name in rivals:
            raise ValueError(f"--rivals: {argument!r}, but each is NAME=CSV with its own name")
        rivals[name] = win_rate(ours, read_scores(Path(path)), options.seed, name)
    record = {
        "schema": 1,
        "metric": options.metric,
        "model": options.model,
        "prompts": options.prompts,
        "rivals": rivals,
        "valid": options.validity is None or bool(read_json(options.validity)["valid"]),
        "seed": options.seed,
    }
    write_json(options.out, record)


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """What every program needs that scores images for prompts."""
    parser.add_argument("--model", required=True)
    parser.add_argument(
        "--of",
        nargs="+",
        action="append",
        required=True,
        metavar="VALUE",
        help="PROMPTS JSONL CSV JSON ZIP ...: a prompt set's name and file, both files to write, its shards in order",
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of a published model's towers")
    parser.add_argument("--device", help="of a published model, as torch names it (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0, help="of the interval's bootstrap")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m evaluation.preference", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="score | validity | win-rate")

    score = commands.add_parser("score", help="score each image for its prompt")
    score.add_argument("--scorer", required=True, metavar="NAME_OR_DIR", help="pickscore, hpsv2.1 or a trained one's")
    add_score_arguments(score)
    score.set_defaults(run=run_score)

    valid = commands.add_parser("validity", help="does the scorer know a held-out picture's own caption?")
    valid.add_argument("--scorer", required=True, type=Path, metavar="DIR")
    valid.add_argument("--data", required=True, type=Path, metavar="DIR")
    valid.add_argument("--seed", required=True, type=int)
    valid.add_argument("--out", required=True, type=Path, metavar="JSON")
    valid.set_defaults(run=run_validity)

    rate = commands.add_parser("win-rate", help="pairwise win rates from stored scores")
    rate.add_argument("--metric", default=METRIC, help="what the scores are (default: %(default)s)")
    rate.add_argument("--model", required=True)
    rate.add_argument("--scores", required=True, type=Path, metavar="CSV")
    rate.add_argument("--rivals", required=True, nargs="+", metavar="NAME=CSV")
    rate.add_argument("--prompts", required=True)
    rate.add_argument("--validity", type=Path, metavar="JSON", help="of a scorer that was trained here")
    rate.add_argument("--seed", required=True, type=int)
    rate.add_argument("--out", required=True, type=Path, metavar="JSON")
    rate.set_defaults(run=run_win_rate)

    options = parser.parse_args(argv)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
