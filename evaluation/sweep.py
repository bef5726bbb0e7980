"""Which values are best on the validation split? Its captions drawn with each value in turn, and how many are found.

No model was trained on these pictures, and none of them is in a prompt set: what is chosen here is measured elsewhere.
One thing is varied at a time, from the study's own settings.

python -m evaluation.sweep --weights DIR --of MODEL KEY=NUMBER ... --trained STAGE KEY VALUE DIR
    --vary MODEL KEY VALUE ... --index INDEX --pictures ZIP --gallery NPZ --count N --seed N --command TEXT
    --out-prefix PREFIX
"""

import argparse
import csv
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.choices import choices_table
from evaluation.curve import features_of
from evaluation.features import FeatureSet, library_versions, read_features
from evaluation.intervals import COVERS
from evaluation.printing import to_csv, to_markdown
from evaluation.recall import recall_of, trials
from wuerstchen.files import read_jsonl, sha256_text, write_json, write_text
from wuerstchen.seeds import derive
from wuerstchen.usage import cpu_name

# What shows how good the training of a stage was: for Stage B what comes back from its compressor's latents.
DRAWN_BY = {"b": "ceiling-compressor", "c": "wuerstchen", "baseline-ldm": "baseline-ldm"}
STAGE_OF = {model: stage for stage, model in DRAWN_BY.items()}


def validation_prompts(index: Sequence[dict], count: int, seed: int) -> list[dict]:
    """Captions of `count` validation pictures (or all) as prompts, by a hash; flags, keycaps and clocks left out."""
    rows = [row for row in index if row["split"] == "validation" and not row["special"]]
    if not rows:
        raise ValueError("no picture of the index is in the validation split (flags, keycaps and clocks left out)")
    rows = sorted(rows, key=lambda row: (derive(seed, "sweep", row["id"]), row["id"]))[:count]
    return [
        {"id": row["id"], "prompt": row["caption"], "image": row["image"], "category": row["group"]}
        | {"challenge": "held-out", "source_id": row["id"]}
        for row in rows
    ]


def validation_loss(folder: Path) -> float:
    """The last validation loss of a training's history.csv. Raises ValueError where it has none."""
    with open(folder / "history.csv", encoding="utf-8", newline="") as file:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(file) if row["validation_loss"]]
    if not losses:
        raise ValueError(f"{folder / 'history.csv'}: no validation loss")
    return losses[-1]


class Measure:
    """Recall of the prompts' pictures by model, weights and sampling settings, each drawn once."""

    def __init__(
        self,
        weights: Path,
        own: dict[str, dict[str, float]],
        prompts: Sequence[dict],
        pictures: Path,
        gallery: FeatureSet,
        index: Sequence[dict],
        seed: int,
    ):
        from evaluation import extractors

        self.weights, self.own, self.prompts, self.pictures = weights, own, prompts, pictures
        self.gallery, self.index, self.seed = gallery, index, seed
        self.extractor = extractors.load(gallery.key["extractor"]["name"])
        self.generators: dict[str, Any] = {}
        self.chance = 0.0  # of recall@10, known once something is drawn; the same for all
        self.done: dict[str, dict[str, Any]] = {}

    def __call__(self, model: str, folder: Path, settings: dict[str, float]) -> dict[str, Any]:
        """Recall@10 of `model` with the last of its stages from `folder`, its interval, and what was drawn."""
        key = repr((model, str(folder), sorted(settings.items())))
        if key not in self.done:
            self.done[key] = self._measure(model, folder, settings)
        return self.done[key]

    def _measure(self, model: str, folder: Path, settings: dict[str, float]) -> dict[str, Any]:
        from evaluation.generators import make

        if model not in self.generators:
            self.generators[model] = make(model, self.weights, self.own[model], self.pictures)
        generator = self.generators[model]
        generator.load(folder / "model.safetensors")
        generator.set(settings)
        images = generator.generate(self.prompts, self.seed)
        drawn = features_of(images, [prompt["id"] for prompt in self.prompts], self.extractor)
        recall = recall_of(trials(drawn, self.gallery, self.index, self.prompts, self.seed))
        self.chance = recall["chance_at_10"]
        found = {key: recall[key] for key in ("at_10", "interval_at_10")}
        return found | {"images_sha256": drawn.key["images_sha256"], **generator.describe()}


def sweep(
    measure: Measure, trained: Sequence[tuple[str, str, str, Path]], varied: Sequence[tuple[str, str, list[float]]]
) -> list[dict[str, Any]]:
    """One record per setting: its values with recall@10 and, for what was trained, validation loss.

    trained: (stage, key of the recipe, value, folder), the study's own among them; varied: (model, key of the sampling
    settings, values). Raises ValueError that names what is not among the settings of `measure`.
    """
    for stage, *_ in trained:
        if DRAWN_BY.get(stage) not in measure.own:
            raise ValueError(f"--trained: stage {stage} is not one of {', '.join(DRAWN_BY)}, or --of lacks its model")
    for model, key, _ in varied:
        if key not in measure.own.get(model, {}):
            raise ValueError(f"--vary: --of gives no {key} of {model} to start from")
    records: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for stage, key, value, folder in trained:
        model = DRAWN_BY[stage]
        row = {"value": value, "own": folder == measure.weights / stage, "validation_loss": validation_loss(folder)}
        row |= measure(model, folder, measure.own[model])
        records.setdefault(("training", stage, key), []).append(row)
    for model, key, values in varied:
        own, folder = measure.own[model], measure.weights / STAGE_OF[model]
        for value in sorted({*values, own[key]}):
            row = {"value": f"{value:g}", "own": value == own[key]} | measure(model, folder, own | {key: value})
            records.setdefault(("sampling", model, key), []).append(row)
    return [{"kind": kind, "of": of, "key": key, "values": rows} for (kind, of, key), rows in records.items()]


def commit() -> str:
    """The commit of the tree that runs, with "-dirty" where it was changed, or "unknown"."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    said = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


def main(argv: list[str] | None = None) -> None:
    """Command line: draw, measure, and write PREFIX.json, .csv and .md."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, type=Path, help="folder of the study's own trained stages")
    parser.add_argument("--of", required=True, nargs="+", action="append", metavar=("MODEL", "KEY=NUMBER"))
    parser.add_argument("--trained", nargs=4, action="append", default=[], metavar=("STAGE", "KEY", "VALUE", "DIR"))
    parser.add_argument("--vary", nargs="+", action="append", default=[], metavar=("MODEL", "KEY VALUE"))
    parser.add_argument("--index", required=True, type=Path, metavar="JSONL")
    parser.add_argument("--pictures", required=True, type=Path, metavar="ZIP")
    parser.add_argument("--gallery", required=True, type=Path, metavar="NPZ", help="features of all real pictures")
    parser.add_argument("--count", required=True, type=int, help="validation captions to draw")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--command", required=True, help="what a reader would have to run")
    parser.add_argument("--out-prefix", required=True)
    options = parser.parse_args(argv)
    from evaluation.sample import parse_settings

    try:
        index, gallery = read_jsonl(options.index), read_features(options.gallery)
        prompts = validation_prompts(index, options.count, options.seed)
        own = {model: parse_settings(pairs) for model, *pairs in options.of}
        measure = Measure(options.weights, own, prompts, options.pictures, gallery, index, options.seed)
        trained = [(stage, key, value, Path(folder)) for stage, key, value, folder in options.trained]
        varied = [(model, key, [float(value) for value in values]) for model, key, *values in options.vary]
        settings = sweep(measure, trained, varied)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    record = {
        "schema": 1,
        "metric": "recall@10",
        "protocol": "as scores/recall, for captions of the validation split; one thing varied at a time",
        "settings": settings,
        "n": len(prompts),
        "chance_at_10": measure.chance,
        "prompt_ids_sha256": sha256_text("\n".join(prompt["id"] for prompt in prompts)),
        "interval_method": "wilson",
        "interval_covers": COVERS,
        "seed": options.seed,
        "extractor": gallery.key["extractor"],
        "preprocessing": gallery.key["preprocessing"],
        "versions": {**gallery.key["versions"], **library_versions("numpy", "scipy")},
        "command": options.command,
        "commit": commit(),
        "device": cpu_name(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    table = choices_table(record)
    write_text(f"{options.out_prefix}.csv", to_csv(table))
    write_text(f"{options.out_prefix}.md", to_markdown(table))
    write_json(f"{options.out_prefix}.json", record)


if __name__ == "__main__":
    main()
