"""A made-up study folder in the formats of a real one, for tests of tables, figures, summary and report.

Every number here is invented: it serves to see whether numbers arrive where they should, not what they are.
"""

import csv
import functools
import json
import math
import os
import random
import shutil
import tempfile
from pathlib import Path

import yaml
from PIL import Image, ImageDraw

from evaluation.carbon import consistent, sensitivity
from evaluation.claims import FIELDS
from evaluation.sample import shard_prompts
from workflow.settings import shard_count
from wuerstchen.files import write_json, write_jsonl, write_text
from wuerstchen.shards import write_shard

HOSTILE = (
    "openmoji of <script>alert(1)</script> & \"quotes\" 'here'",
    "twemoji of a | pipe, `code` and [a link](javascript:alert(2))",
    "=cmd()|' /C calc'!A0 costs $5 or $6 \U0001f32d",
)
MANIPULATIONS = [f"jpeg-{quality}" for quality in (95, 90, 80, 70, 60, 50)]
MANIPULATIONS += ["nearest", "bilinear", "palette", "brightness-up", "brightness-down", "contrast-up", "contrast-down"]
MODELS = ["wuerstchen", "baseline-ldm", "baseline-ldm-bc"]
PSEUDO = ["real", "ceiling-stage-a", "ceiling-compressor", "ceiling-other-artist"]
CONFIG = {
    "study": "made-up",
    "preset": "emoji",
    "seed": 3,
    "data": {"source": "emoji"},
    "prompts": {"names": {"count": 16}, "descriptions": {"count": 10}, "compositions": {"count": 10}},
    "shard_size": 18,
    "models": MODELS,
    "sampling": {
        "wuerstchen": {"steps_c": 20, "guidance_c": 4.0, "steps_b": 8, "guidance_b": 1.0},
        "baseline-ldm": {"steps": 20, "guidance": 4.0},
        "baseline-ldm-bc": {"steps": 20, "guidance": 4.0},
    },
    "curve": {"snapshots": [50], "prompts": 8},
    "scorer": {"epochs": 1},
    "robustness": {"sets": ["openmoji", "twemoji"], "count": 12, "manipulations": MANIPULATIONS},
    "speed": {"models": ["wuerstchen", "baseline-ldm"], "batch_sizes": [1, 2, 4]},
    "carbon": {"kg_per_kwh": 0.37, "source": "a made-up <source> | with markup"},
}
SPLIT_SIZES = {"train": 96, "validation": 12, "test": 16}
VERSIONS = {"torch": "0.0-made-up", "numpy": "0.1"}
THINGS = ["hot dog", "red apple", "sailboat", "grinning face with big eyes", "crescent moon", "fox", "umbrella"]


def write_study(directory: Path) -> Path:
    """Write results into `directory` and the config beside it; return the config's path."""
    shutil.copytree(_template().name, directory)
    config = directory.parent / f"{directory.name}.yaml"
    config.write_text(yaml.safe_dump(CONFIG, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return config


@functools.cache
def _template() -> tempfile.TemporaryDirectory:
    """The folder that is copied: written once, because every atomic write waits for the disk."""
    folder = tempfile.TemporaryDirectory()
    directory = Path(folder.name)
    _data(directory)
    for stage, size in (("a", 310_000), ("b", 3_400_000), ("c", 2_900_000), ("baseline-ldm", 6_100_000)):
        _stage(directory, stage, size)
    _stage(directory, "baseline-ldm-bc", 6_100_000)
    for number, prompts in enumerate(CONFIG["prompts"]):
        _scores(directory, prompts, number)
    _robustness(directory)
    _speed(directory)
    _curve(directory)
    _carbon(directory)
    _audit(directory)
    _benchmarks(directory)
    return folder


def _data(directory: Path) -> None:
    licences = [
        {"artist": "openmoji", "licence": "CC BY-SA 4.0", "credit": "OpenMoji"},
        {"artist": "twemoji", "licence": "CC BY 4.0", "credit": "Twemoji"},
    ]
    counts = {
        name: {"total": total, "general": total} for name, total in (("train", 96), ("validation", 12), ("test", 16))
    }
    split = {"sha256": "ab" * 32, "counts": counts, "source": "emoji"}
    write_json(directory / "data/split.json", split | {"licences": licences})
    for number, prompts in enumerate(CONFIG["prompts"]):
        rows = [_prompt(prompts, index) for index in range(CONFIG["prompts"][prompts]["count"])]
        write_jsonl(directory / f"prompts/{prompts}.jsonl", rows)
        models = MODELS + (PSEUDO if prompts == "names" else ["real"] if prompts == "descriptions" else [])
        for model in models:
            shards = shard_count(CONFIG)
            for shard in range(shards):
                path = directory / f"images/{model}/{prompts}/{shard:04d}.zip"
                ids = [row["id"] for row in shard_prompts(rows, shard, shards)]
                part = [(name, _picture(name, model)) for name in ids]
                write_shard(path, part, {"model": model, "seed": CONFIG["seed"], "number": number})


def _prompt(prompts: str, index: int) -> dict:
    artist = ("openmoji", "twemoji")[index % 2]
    thing = THINGS[index % len(THINGS)]
    text = f"{artist} of {thing}"
    if prompts == "descriptions":
        text = f"a {artist} drawing of {thing}, from the group things and places, subgroup everyday objects"
    if prompts == "compositions":
        text = f"{artist} of {thing} wearing a hat made of {THINGS[(index + 3) % len(THINGS)]}"
    if prompts == "names" and index < len(HOSTILE):
        text = HOSTILE[index]
    challenge = ("seen", "held-out", "seen", "flags")[index % 4] if prompts != "compositions" else "wearing"
    return {
        "id": f"{prompts}-{index:03d}",
        "prompt": text,
        "image": None if prompts == "compositions" else f"{artist}-{index:03d}.png",
        "category": "things",
        "challenge": challenge,
        "source_id": None if prompts == "compositions" else f"{artist}-{index:03d}",
    }


def _picture(name: str, model: str) -> Image.Image:
    draw = random.Random(name)
    hue, corners = draw.randrange(360), draw.randrange(3, 9)
    size = 128
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)
    blur = {"real": 0}.get(model, 1 + len(model) % 5)
    box = (size / 2, size / 2, 45 - 3 * blur)
    pen.regular_polygon(box, corners, rotation=draw.randrange(90), fill=f"hsl({hue},70%,{50 + 4 * blur}%)")
    pen.ellipse((40, 40, 40 + 8 * blur, 52), fill=f"hsl({(hue + 180) % 360},60%,40%)")
    return image


def _stage(directory: Path, stage: str, parameters: int) -> None:
    noise = random.Random(stage)
    path = directory / f"train/{stage}/history.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        columns = ["step", "loss", "learning_rate", "images_per_second", "seconds", "validation_loss"]
        writer.writerow(columns)
        for step in range(10, 801, 10):
            loss = 0.2 + math.exp(-step / 120) + noise.gauss(0, 0.05)
            validation = f"{0.23 + math.exp(-step / 120):.4f}" if step % 100 == 0 else ""
            writer.writerow([step, f"{loss:.4f}", 1e-3, 150, f"{step * 0.21:.2f}", validation])
    usage = {"device": "Made-up CPU", "count": 2, "seconds": 168.0, "kwh": 0.0004, "kwh_source": "tdp", "images": 25600}
    extra = {"steps": 800, "stage": stage, "parameters": parameters, "train_flops": 1e15, "batch_size": 32}
    write_json(path.with_name("usage.json"), usage | extra | {"samples": 25600})


def _score(metric: str, model: str, prompts: str, value: float, width: float) -> dict:
    return {
        "schema": 1,
        "metric": metric,
        "protocol": "made-up",
        "model": model,
        "prompts": prompts,
        "value": value,
        "interval": [value - width, value + width],
        "interval_method": "bootstrap",
        "n": CONFIG["prompts"][prompts]["count"],
        "seed": CONFIG["seed"],
        "images_sha256": "cd" * 32,
        "reference_sha256": "ef" * 32,
        "extractor": {"name": "efficientnet-lite2", "sha256": "01" * 32},
        "preprocessing": "made-up",
        "versions": VERSIONS,
    }


def _scores(directory: Path, prompts: str, number: int) -> None:
    scores = directory / "scores"
    pictured = prompts != "compositions"
    for place, model in enumerate(MODELS + (PSEUDO if prompts == "names" else [])):
        if pictured:
            fd = _score("fd-efficientnet-lite2", model, prompts, 123.456 - 9 * place, 6.5)
            write_json(scores / f"fd-efficientnet-lite2/{model}/{prompts}.json", fd)
            kid = _score("kid-efficientnet-lite2", model, prompts, 0.012345 - 0.002 * place, 0.0011)
            write_json(scores / f"kid-efficientnet-lite2/{model}/{prompts}.json", kid)
        score = _score("is-efficientnet-lite2", model, prompts, 7.891 + place, 0.4)
        write_json(scores / f"is-efficientnet-lite2/{model}/{prompts}.json", score)
        if model in MODELS:
            preference = _score("emoji-score", model, prompts, 20.5 - place, 0.3)
            write_json(scores / f"emoji-score/{model}/{prompts}.json", preference)
            lines = [f"{prompts}-{row:03d},{20.5 - place + row / 8}\n" for row in range(preference["n"])]
            write_text(directory / f"preference/{model}/{prompts}.csv", "id,score\n" + "".join(lines))
        if prompts == "names" and model != "real":
            recall = _score("recall", model, prompts, 0.25 + place / 10, 0.05)
            recall["recall"] = {part: _recall(place, share) for part, share in _PARTS}
            write_json(scores / f"recall/{model}/names.json", recall)
    wins = {"baseline-ldm": (10, 5, 1), "baseline-ldm-bc": (6, 9, 1)}
    rivals = {}
    for rival, (won, lost, tied) in wins.items():
        n = won + lost + tied
        pair = {"wins": won, "losses": lost, "ties": tied, "n": n, "rate": won / n, "interval": [0.31, 0.83]}
        rivals[rival] = pair | {"interval_method": "wilson", "bootstrap": [0.3, 0.84], "mean_difference": 0.1}
    base = {"schema": 1, "metric": "emoji-score", "model": "wuerstchen", "prompts": prompts, "rivals": rivals}
    write_json(scores / f"win-rate/{prompts}.json", base | {"valid": True, "number": number})
    artists = {"openmoji": {"rate": 0.9, "interval": [0.85, 0.94], "n": 120}}
    test = {"rate": 0.912, "interval": [0.88, 0.94], "n": 240, "by_artist": artists}
    validity = {"schema": 1, "random": test, "subgroup": test | {"rate": 0.702}, "valid": True}
    write_json(scores / "emoji-score/validity.json", validity | {"thresholds": {"random": 0.85, "subgroup": 0.65}})


_PARTS = (("seen", 0.42), ("held_out", 0.23), ("special", 0.31))


def _recall(place: int, share: float) -> dict:
    at_10 = min(1.0, share + 0.1 * place)
    row = {"at_1": round(at_10 / 3, 3), "at_10": at_10, "n": 120, "chance_at_1": 0.01, "chance_at_10": 0.1}
    return row | {"interval_at_10": [at_10 - 0.06, min(1.0, at_10 + 0.06)]}


def _robustness(directory: Path) -> None:
    for place, name in enumerate(CONFIG["robustness"]["sets"]):
        values = [0.31, 1.2, 4.4, 8.1, 10.3, 14.7, 6.1, 0.52, 25.1, 0.21, 0.18, 0.12, 0.14]
        rows = {}
        for manipulation, value in zip(MANIPULATIONS, values, strict=True):
            value = value * (1 + place / 2)
            rows[manipulation] = {"value": value, "interval": [value * 0.8, value * 1.3], "psnr_db": 34.56 - place}
        record = {"schema": 1, "set": name, "n": 12, "reference": "untouched", "extractor": {}, "choices": {}}
        record |= {"metric": "fd-efficientnet-lite2", "manipulations": rows, "versions": VERSIONS}
        write_json(directory / f"robustness/{name}.json", record)


def _speed(directory: Path) -> None:
    for place, model in enumerate(CONFIG["speed"]["models"]):
        batches = [
            {"batch_size": size, "seconds_per_batch": (0.5 + place) * size**0.8, "repeats": 3}
            | {"seconds_per_image": (0.5 + place) * size**-0.2}
            for size in (1, 2, 4, 8, 16)
        ]
        record = {"model": model, "device": "Made-up CPU", "threads": 2, "precision": "float32", "compiled": False}
        record |= {"image_size": 128, "steps": "20 + 8", "batches": batches}
        write_json(directory / f"speed/{model}.json", record)


def _curve(directory: Path) -> None:
    models = {}
    for place, model in enumerate([*MODELS, "ceiling-compressor"]):
        shares = (0.2 + 0.02 * place, 0.4 - 0.03 * place)
        models[model] = [
            {"percent": percent, "step": 8 * percent, "seconds": 100.0 * place + 3 * percent, "at_1": share / 4}
            | {"at_10": share, "interval_at_10": [share - 0.1, share + 0.15]}
            for percent, share in zip((50, 100), shares, strict=True)
        ]
    record = {"schema": 1, "metric": "recall", "prompts": "names", "n": 8, "chance_at_10": 0.1, "models": models}
    write_json(directory / "curve.json", record)


def _carbon(directory: Path) -> None:
    other = {"kwh": 0.0009, "cpu_kwh": 0.0003, "gpu_kwh": 0.0001, "ram_kwh": 0.0005}
    rows = [
        {"step": step, "device": "Made-up CPU", "count": 2, "seconds": 168.0, "kwh": 0.0004, "kwh_source": "tdp"}
        | {"kg": 0.00015, "marked": "estimated", "codecarbon": {"version": "0.0-made-up", "seconds": 167.0} | other}
        for step in ("train-a", "train-b", "train-c", "sample-wuerstchen")
    ]
    paper = [
        {"model": "wuerstchen", "gpu_hours": 24602.0, "gpu_watts": 250.0, "kwh": 6150.5, "kg_per_kwh": 0.37}
        | {"region": "made-up", "kg": 2275.68, "printed": "2,276", "printed_kg": 2276.0, "holds": True}
    ]
    run = {"rows": rows, "total_seconds": 672.0, "total_kwh": 0.0016, "total_kg": 0.0006, "kg_per_kwh": 0.37}
    run["codecarbon"] = {key: 4 * value for key, value in other.items()} | {"version": "0.0-made-up"}
    run |= {"pue": 1.0, "source": CONFIG["carbon"]["source"]}
    equal = {"kg_per_kwh": 0.37, "gpu_watts": 250.0, "pue": 1.0, "rows": consistent(0.37)}
    record = {"paper": paper, "consistent": equal, "sensitivity": sensitivity(), "run": run}
    write_json(directory / "carbon.json", record)


def _audit(directory: Path) -> None:
    """Two claims, made up but for their verdicts."""
    path = directory / "tables/audit.csv"
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        writer.writerow(("Sums", "one", "One and <one>", "section 0", "3", "2", "differs", "1 + 1."))
        writer.writerow(("Sums", "two", "Two and two", "section 0", "4", "4", "agrees", "2 + 2."))


def _benchmarks(directory: Path) -> None:
    """Three jobs, two of them side by side, then a pause, then the last: 10 + 4 seconds of 8 + 8 + 4."""
    for name, seconds, end in (("train/a.tsv", 8, 1008), ("sample/wuerstchen.tsv", 8, 1010), ("score.tsv", 4, 5000)):
        path = directory / "benchmarks" / name
        write_text(path, f"s\th:m:s\tmax_rss\n{seconds}\t0:00:{seconds:02d}\t100\n")
        os.utime(path, (end, end))


def without(directory: Path, *names: str) -> None:
    """Delete files or folders of a study."""
    for name in names:
        path = directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def change(path: Path, **values: object) -> None:
    """Overwrite keys of a JSON file."""
    write_json(path, json.loads(path.read_text()) | values)
