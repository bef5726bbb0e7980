"""What a study has measured so far: its files under results/{study}, read for the tables, figures, summary and report.

Nothing here measures or computes. What is absent is `NotRun` with the reason, so that no reader mistakes it for zero.
"""

import argparse
import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from evaluation.comparability import require_comparable
from wuerstchen.files import read_json, read_jsonl
from wuerstchen.seeds import derive
from wuerstchen.shards import read_info, read_picture

LONG = "wuerstchen-long"  # draws with released weights, which no run trains
# All but the GAN decode with Stage A, so its training is counted in each; but see `Study.stages_of`.
STAGES = {
    "wuerstchen": ("a", "b", "c"),
    "baseline-ldm": ("a", "baseline-ldm"),
    "baseline-ldm-bc": ("a", "baseline-ldm-bc"),
    "df-gan": ("df-gan",),
    LONG: ("long/a", "long/b", "long/c"),
}
MODEL_NAMES = {
    "wuerstchen": "Würstchen",
    "baseline-ldm": "Baseline LDM (compute of C)",
    "baseline-ldm-bc": "Baseline LDM (compute of B + C)",
    LONG: "Würstchen, trained long (released)",
    "real": "Real pictures",
    "ceiling-stage-a": "Real, through Stage A",
    "ceiling-compressor": "Real, through compressor + B + A",
    "ceiling-other-artist": "Real, by the other artist",
    "wuerstchen-probe": "Stage C alone, by the probe decoder",
    "ceiling-compressor-no-text": "Real, through compressor + B without text + A",
    "df-gan": "DF-GAN",
    "galip": "GALIP",
    "sd-1.4": "SD 1.4",
    "sd-2.1": "SD 2.1",
    "sd-xl": "SD XL",
}
CEILINGS = ("ceiling-stage-a", "ceiling-compressor", "ceiling-other-artist")
SETS = {
    "names": "Short captions (names)",
    "descriptions": "Long captions (descriptions)",
    "compositions": "Combinations nobody drew (compositions)",
    "coco-30k": "COCO-30K",
    "ln-coco-5k": "Localized Narratives-COCO-5K",
    "parti-prompts": "Parti-prompts",
}
# Prompt sets of which the pictures of these challenges are shown apart.
SHOWN = {"names": ("seen", "held-out")}
SCORES = {
    "fd": "fd-efficientnet-lite2",
    "kid": "kid-efficientnet-lite2",
    "is": "is-efficientnet-lite2",
    "preference": "emoji-score",
}
# What Fréchet distances are called; only that of TF-Inception's features is FID.
DISTANCES = {
    "fd-efficientnet-lite2": "FD-EfficientNet-Lite2",
    "fd-inception": "FID",
    "fd-dinov2": "FD-DINOv2",
}
# What a study of published models may measure, by the name of its score files.
METRICS = {
    "fid": "FID",
    "kid": "KID",
    "is": "IS",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "fd-dinov2": "FD-DINOv2",
    "cmmd": "CMMD",
    "clip-score-b32": "CLIPScore B/32",
    "clip-score-l14": "CLIPScore L/14",
    "pickscore": "PickScore",
    "hpsv2.1": "HPS v2.1",
}
PRDC = ("precision", "recall", "density", "coverage")
UNDER_PROTOCOL = ("fid", "kid", "is", *PRDC)


@dataclass(frozen=True)
class NotRun:
    """A measurement that was not made, and why. Prints as `not run: reason`."""

    reason: str

    def __str__(self) -> str:
        return f"not run: {self.reason}"


@dataclass(frozen=True)
class Study:
    """The folder results/{study} together with the config it was run from."""

    directory: Path
    config: dict

    @classmethod
    def open(cls, directory: str | Path, config: str | Path) -> "Study":
        """Read the config (YAML). Raises ValueError when the folder or a needed key of the config is missing."""
        directory, config = Path(directory), Path(config)
        if not directory.is_dir():
            raise ValueError(f"--study-dir {directory}: no such folder")
        if not config.is_file():
            raise ValueError(f"--config {config}: no such file")
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
        needed = ("study", "seed", "data", "models", "prompts", "sampling", "robustness")
        absent = [key for key in needed if not isinstance(values, dict) or key not in values]
        if absent:
            raise ValueError(f"{config}: no key {', '.join(absent)}; a study's config needs {', '.join(needed)}")
        return cls(directory, values)

    @property
    def published(self) -> bool:
        """Whether this is a study of published models: nothing is trained, and metrics have their own names."""
        return self.config["data"]["source"] == "published"

    @property
    def model(self) -> str:
        """The model under study: the first of the config's models."""
        return self.models[0]

    @property
    def models(self) -> list[str]:
        """Ids of the models; an entry of the config is an id, or has one."""
        return [entry if isinstance(entry, str) else entry["id"] for entry in self.config["models"]]

    @property
    def scores(self) -> dict[str, str]:
        """What is measured of a model on a prompt set, by the name of its score files: how to print it."""
        if not self.published:
            return {metric: metric for metric in SCORES.values()}
        asked = [name for metric in self.config["metrics"] for name in (PRDC if metric == "prdc" else [metric])]
        return {name: METRICS[name] for name in asked if name in METRICS}

    @property
    def preference(self) -> tuple[str, str, str]:
        """The score behind the win rates: its name, the folder of its values by prompt, and its metric."""
        if self.published:
            return "PickScore", "preference/pickscore", "pickscore"
        return "EmojiScore", "preference", SCORES["preference"]

    def distance(self, pictures: str) -> str:
        """What Table 3's distance on a set of pictures is called, after the network that it was measured with."""
        measured = self.read(f"robustness/{pictures}.json")
        if isinstance(measured, NotRun):
            return "Distance"
        metric = measured["metric"]
        return DISTANCES.get(metric) or f"FD-{metric.removeprefix('fd-')}"

    @property
    def rivals(self) -> list[str]:
        return self.models[1:]

    @property
    def ceilings(self) -> list[str]:
        """What the best possible model could reach. A folder of pictures has no second artist."""
        if self.published:
            return []
        two_artists = self.config["data"]["source"] == "emoji"
        return [model for model in CEILINGS if two_artists or model != "ceiling-other-artist"]

    @property
    def training_seeds(self) -> list[int]:
        """Seeds of the trainings; the first one's models are the study's own."""
        return list(self.config.get("training_seeds", [self.config["seed"]]))

    @property
    def prompt_sets(self) -> list[str]:
        return list(self.config["prompts"])

    @property
    def stages(self) -> list[str]:
        """Every stage that the models of this study train, in order, each once."""
        if self.published:
            return []
        models = [model for model in self.models if model != LONG]
        return list(dict.fromkeys(stage for model in models for stage in STAGES.get(model, ())))

    def stages_of(self, model: str) -> tuple[str, ...]:
        """The trainings that a model draws with. A baseline with another's first stage has nothing of Stage A."""
        stages = STAGES.get(model, ())
        usage = self.read(f"train/{stages[-1]}/usage.json") if stages else {}
        other = isinstance(usage, dict) and usage.get("first_stage", "stage-a") != "stage-a"
        return stages[1:] if other else stages

    def read(self, name: str) -> Any | NotRun:
        """One JSON file, or NotRun when there is none. Raises ValueError when the file is not JSON."""
        path = self.directory / name
        if not path.is_file():
            return NotRun(f"there is no {name}")
        try:
            return read_json(path)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON ({error})") from None

    def preferences(self, model: str, prompts: str) -> Path:
        """The file of a model's preference scores by prompt."""
        return self.directory / self.preference[1] / model / f"{prompts}.csv"

    def score(self, metric: str, model: str, prompts: str) -> dict | NotRun:
        return self.read(f"scores/{metric}/{model}/{prompts}.json")

    def drawn(self, model: str, prompts: str) -> dict | NotRun:
        """How a model drew a prompt set: the record in its first shard."""
        path = self.directory / "images" / model / prompts / "0000.zip"
        if not path.is_file():
            return NotRun(f"there is no {path.relative_to(self.directory)}")
        return read_info(path)

    def ranked(self, metric: str, models: Iterable[str], prompts: str) -> dict[str, dict | NotRun]:
        """One metric's scores of several models on one prompt set, to stand side by side.

        Raises ValueError naming two models and what differs where their scores cannot be ranked together.
        """
        scores = {model: self.score(metric, model, prompts) for model in models}
        require_comparable(score for score in scores.values() if not isinstance(score, NotRun))
        return scores

    def lossy(self, model: str, prompts: str) -> int:
        """How many of a model's pictures of a prompt set were saved with loss, as its scores say."""
        scores = [self.score(metric, model, prompts) for metric in self.scores]
        return max((s.get("lossy", {}).get("images", 0) for s in scores if not isinstance(s, NotRun)), default=0)

    def history(self, stage: str) -> dict[str, list[float]] | NotRun:
        """Columns of train/{stage}/history.csv as floats; an empty cell is NaN."""
        name = f"train/{stage}/history.csv"
        path = self.directory / name
        if not path.is_file():
            return NotRun(f"there is no {name}")
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            return NotRun(f"{name} has no rows")
        try:
            return {key: [float(row[key]) if row[key] else float("nan") for row in rows] for key in rows[0]}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: every cell should be a number or empty ({error})") from None

    @property
    def figure4(self) -> dict | NotRun:
        """Figure 4's timings at the paper's size: the file that the config names."""
        own = self.directory / "speed" / "figure4.json" if self.published else None
        name = self.config.get("speed", {}).get("figure4", own)
        if name is None:
            return NotRun("the config names no timings at the paper's size (speed.figure4)")
        return read_json(name) if Path(name).is_file() else NotRun(f"there is no {name}")

    def prompt_rows(self, prompts: str) -> list[dict]:
        """The rows of prompts/{prompts}.jsonl; none when the file is absent."""
        path = self.directory / "prompts" / f"{prompts}.jsonl"
        return read_jsonl(path) if path.is_file() else []

    def unpicked(self, prompts: str, count: int, challenges: Iterable[str] | None = None) -> list[dict]:
        """`count` prompts of a set whose choice nobody made, of some challenges where these are named."""
        rows = self.prompt_rows(prompts)
        if challenges is not None:
            wanted = set(challenges)
            rows = [row for row in rows if row["challenge"] in wanted]
        return unpicked(rows, self.config["seed"], count)

    def shown(self, prompts: str, count: int) -> list[tuple[str | None, list[dict]]]:
        """About `count` unpicked prompts of a set as (challenge, rows); by challenge only where SHOWN says so."""
        challenges = SHOWN.get(prompts)
        if challenges is None:
            return [(None, self.unpicked(prompts, count))]
        return [(name, self.unpicked(prompts, count // len(challenges), [name])) for name in challenges]

    @cached_property
    def _places(self) -> dict[tuple[str, str], dict[str, Path]]:
        return {}

    def picture(self, model: str, prompts: str, prompt_id: str) -> bytes | None:
        """PNG bytes of one image of images/{model}/{prompts}/*.zip, or None where there is no such image.

        Raises ValueError naming the file when a shard is not whole.
        """
        if (model, prompts) not in self._places:
            places = self._places[model, prompts] = {}
            for path in sorted((self.directory / "images" / model / prompts).glob("[0-9]*.zip")):
                places |= dict.fromkeys(read_info(path)["ids"], path)
        path = self._places[model, prompts].get(prompt_id)
        return path and read_picture(path, prompt_id)


def unpicked(rows: Iterable[dict], seed: int, count: int) -> list[dict]:
    """`count` prompts whose choice nobody made: the smallest hashes of (seed, prompt id) come first."""
    return sorted(rows, key=lambda row: derive(seed, "shown", row["id"]))[:count]


def decode(png: bytes) -> Image.Image:
    """PNG bytes to an RGB picture."""
    return Image.open(io.BytesIO(png)).convert("RGB")


def model_name(model: str) -> str:
    """The name to print for a model id; an id without one is its own name."""
    return MODEL_NAMES.get(model, model)


def run(
    work: Callable[[Study, argparse.Namespace], None], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> None:
    """Do `work` on the study that --study-dir and --config name; a ValueError ends the program with one line."""
    parser.add_argument("--study-dir", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args(argv)
    try:
        work(Study.open(options.study_dir, options.config), options)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
