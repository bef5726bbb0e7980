"""Recall against training time: drawn with the weights of the way, scored like any other picture."""

import shutil

import numpy as np
import pytest

from evaluation import curve, features
from evaluation.features import read_features
from evaluation.generators import make
from evaluation.intervals import wilson
from evaluation.recall import recall_of, trials
from wuerstchen.files import read_json, read_jsonl, write_jsonl

OF = {
    "ceiling-compressor": ["steps_b=2", "guidance_b=1"],
    "wuerstchen": ["steps_c=2", "guidance_c=3", "steps_b=2", "guidance_b=1"],
    "baseline-ldm": ["steps=2", "guidance=3"],
}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "names.jsonl"
    rows = [
        {"id": f"p-{i}", "prompt": f"thing {i}", "image": f"pictures-{i:02d}.png", "category": None}
        | {"challenge": "held-out" if i == 1 else "seen", "source_id": f"pictures-{i:02d}"}
        for i in range(6)
    ]
    write_jsonl(path, rows)
    return path


@pytest.fixture(scope="module")
def drawn(trained, prompts, tmp_path_factory):
    """Folder with the features of what each model draws half-way."""
    out = tmp_path_factory.mktemp("drawn")
    of = [word for model, settings in OF.items() for word in ("--of", model, *settings)]
    curve.main(
        ["draw", "--weights", str(trained / "train"), *of, "--snapshots", "50", "--pictures",
         str(trained / "data/pictures.zip"), "--prompts-file", str(prompts), "--count", "4", "--seed", "0",
         "--out", str(out)]
    )  # fmt: skip
    features.main(["--of", str(out / "gallery.npz"), str(trained / "data/pictures.zip")])
    return out


def test_only_seen_prompts_are_drawn_in_the_order_of_the_file(prompts, drawn):
    assert [prompt["id"] for prompt in curve.seen_prompts(prompts, 4)] == ["p-0", "p-2", "p-3", "p-4"]
    assert len(curve.seen_prompts(prompts, 99)) == 5
    for model in OF:
        assert read_features(drawn / model / "50.npz").ids == ["p-0", "p-2", "p-3", "p-4"]


@pytest.mark.parametrize(
    ("model", "stage"), [("ceiling-compressor", "b"), ("wuerstchen", "c"), ("baseline-ldm", "baseline-ldm")]
)
def test_loaded_weights_draw_what_a_model_of_them_draws(trained, prompts, tmp_path, model, stage):
    shutil.copytree(trained / "train", tmp_path / "train", ignore=shutil.ignore_patterns("state"))
    snapshot = tmp_path / "train" / stage / "snapshots/50.safetensors"
    settings = curve_settings(model)
    pictures = trained / "data/pictures.zip"
    loaded = make(model, trained / "train", settings, pictures)
    finished = loaded.generate(read_jsonl(prompts)[:2], 0)
    steps = loaded.load(trained / "train" / stage / "snapshots/50.safetensors")
    assert steps == {"b": 6, "c": 6, "baseline-ldm": 1}[stage]
    shutil.copy(snapshot, tmp_path / "train" / stage / "model.safetensors")
    built = make(model, tmp_path / "train", settings, pictures)
    ours, theirs = (generator.generate(read_jsonl(prompts)[:2], 0) for generator in (loaded, built))
    assert np.array_equal(ours, theirs) and not np.array_equal(ours, finished)
    assert loaded.describe() == built.describe()


def curve_settings(model):
    return {key: float(value) for key, value in (pair.split("=") for pair in OF[model])}


def test_a_point_has_its_recall_and_the_time_of_all_its_stages(trained, prompts, drawn, tmp_path):
    points = [word for model in OF for percent in (50, 100) for word in ("--point", model, str(percent),
              str(drawn / model / "50.npz"))]  # fmt: skip
    curve.main(
        ["score", "--train", str(trained / "train"), *points, "--gallery", str(drawn / "gallery.npz"),
         "--index", str(trained / "data/index.jsonl"), "--prompts-file", str(prompts), "--count", "4",
         "--seed", "0", "--out", str(tmp_path / "curve.json")]
    )  # fmt: skip
    record = read_json(tmp_path / "curve.json")
    assert record["n"] == 4 and record["chance_at_10"] == 0.5 and list(record["models"]) == list(OF)
    seconds = {stage: curve.seconds_by_step(trained / f"train/{stage}/history.csv") for stage in ("a", "b", "c")}
    half, whole = record["models"]["wuerstchen"]
    assert (half["step"], whole["step"]) == (6, 12)
    assert half["seconds"] == pytest.approx(seconds["a"][12] + seconds["b"][12] + seconds["c"][6])
    assert whole["seconds"] - half["seconds"] == pytest.approx(seconds["c"][12] - seconds["c"][6])
    gallery, images = read_features(drawn / "gallery.npz"), read_features(drawn / "wuerstchen/50.npz")
    index = read_jsonl(trained / "data/index.jsonl")
    expected = recall_of(trials(images, gallery, index, curve.seen_prompts(prompts, 4), 0))
    assert half["at_10"] == expected["at_10"]
    assert half["interval_at_10"] == list(wilson(round(4 * expected["at_10"]), 4))


def test_what_is_wrong_is_named(trained, prompts, drawn, tmp_path):
    with pytest.raises(SystemExit, match="33.safetensors: no such checkpoint"):
        curve.main(
            ["draw", "--weights", str(trained / "train"), "--of", "baseline-ldm", *OF["baseline-ldm"], "--snapshots",
             "33", "--pictures", str(trained / "data/pictures.zip"), "--prompts-file", str(prompts), "--count", "4",
             "--seed", "0", "--out", str(tmp_path)]
        )  # fmt: skip
    held_out = [prompt for prompt in read_jsonl(prompts) if prompt["challenge"] == "held-out"]
    write_jsonl(tmp_path / "held-out.jsonl", held_out)
    with pytest.raises(SystemExit, match="held-out.jsonl: no prompt of a seen picture"):
        curve.main(
            ["score", "--train", "x", "--point", "wuerstchen", "50", "x", "--gallery", "x", "--index", "x",
             "--prompts-file", str(tmp_path / "held-out.jsonl"), "--count", "4", "--seed", "0", "--out", "x"]
        )  # fmt: skip
