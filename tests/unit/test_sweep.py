"""The sweep on the validation split: what it draws, and what its table says of intervals that overlap."""

import shutil

import numpy as np
import pytest
from tiny_study import run

from evaluation import features, sweep
from evaluation.choices import choices_table
from evaluation.features import read_features
from evaluation.generators import make
from evaluation.printing import printed, to_markdown
from evaluation.recall import recall_of, trials
from evaluation.results import NotRun
from wuerstchen.files import read_json, read_jsonl

OF = {
    "ceiling-compressor": ["steps_b=2", "guidance_b=1"],
    "wuerstchen": ["steps_c=2", "guidance_c=3", "steps_b=2", "guidance_b=1"],
    "baseline-ldm": ["steps=2", "guidance=3"],
}


@pytest.fixture(scope="module")
def swept(trained, tmp_path_factory):
    """Folder with sweep.{json,csv,md} of the tiny study, a variant of Stages B and C each, and the gallery."""
    out = tmp_path_factory.mktemp("swept")
    features.main(["--of", str(out / "gallery.npz"), str(trained / "data/pictures.zip")])
    for stage in ("b", "c"):
        run(trained, stage, "--set", "learning_rate=0.1", out=out / stage)
    own = trained / "train"
    trainings = [
        ("b", "learning_rate", "0.001", own / "b"), ("b", "learning_rate", "0.1", out / "b"),
        ("c", "learning_rate", "0.001", own / "c"), ("c", "learning_rate", "0.1", out / "c"),
        ("baseline-ldm", "loss_weight", "p2-paper", own / "baseline-ldm"),
    ]  # fmt: skip
    sweep.main(
        ["--weights", str(own), "--index", str(trained / "data/index.jsonl"), "--count", "2", "--seed", "0",
         *[word for model, settings in OF.items() for word in ("--of", model, *settings)],
         *[str(word) for training in trainings for word in ("--trained", *training)],
         "--vary", "wuerstchen", "guidance_c", "1", "3", "--vary", "baseline-ldm", "steps", "4",
         "--pictures", str(trained / "data/pictures.zip"), "--gallery", str(out / "gallery.npz"),
         "--command", "made by a test", "--out-prefix", str(out / "sweep")]
    )  # fmt: skip
    return out


def test_only_validation_captions_are_drawn(trained):
    index = read_jsonl(trained / "data/index.jsonl")
    prompts = sweep.validation_prompts(index, 99, 0)
    assert sorted(prompt["id"] for prompt in prompts) == ["pictures-14", "pictures-15", "pictures-16"]
    assert sweep.validation_prompts(index[::-1], 2, 0) == prompts[:2]
    special = [row | {"special": "flags"} for row in index]
    with pytest.raises(ValueError, match="no picture of the index is in the validation split"):
        sweep.validation_prompts(special, 2, 0)


def test_every_value_is_drawn_with_its_own_weights_and_settings(trained, swept, tmp_path):
    record = read_json(swept / "sweep.json")
    found = {(s["kind"], s["of"], s["key"]): s["values"] for s in record["settings"]}
    assert [row["value"] for row in found["sampling", "baseline-ldm", "steps"]] == ["2", "4"]
    for rows in found.values():
        assert sum(row["own"] for row in rows) == 1
    # the study's own is one and the same picture in every comparison
    own = {row["images_sha256"] for of in (("training", "c", "learning_rate"), ("sampling", "wuerstchen", "guidance_c"))
           for row in found[of] if row["own"]}  # fmt: skip
    assert len(own) == 1
    everything = [row["images_sha256"] for rows in found.values() for row in rows]
    assert len(set(everything)) == 7  # two of B, two of C, one guidance, baseline and its steps
    prompts = sweep.validation_prompts(read_jsonl(trained / "data/index.jsonl"), 2, 0)
    gallery = read_features(swept / "gallery.npz")
    shutil.copytree(trained / "train", tmp_path / "train", ignore=shutil.ignore_patterns("state"))
    shutil.copy(swept / "c/model.safetensors", tmp_path / "train/c/model.safetensors")
    settings = {key: float(value) for key, value in (pair.split("=") for pair in OF["wuerstchen"])}
    images = make("wuerstchen", tmp_path / "train", settings).generate(prompts, 0)
    from evaluation import extractors

    drawn = sweep.features_of(images, [prompt["id"] for prompt in prompts], extractors.load("efficientnet-lite2"))
    assert drawn.key["images_sha256"] == found["training", "c", "learning_rate"][1]["images_sha256"]
    recall = recall_of(trials(drawn, gallery, read_jsonl(trained / "data/index.jsonl"), prompts, 0))
    assert found["training", "c", "learning_rate"][1]["at_10"] == recall["at_10"]
    losses = [row["validation_loss"] for row in found["training", "b", "learning_rate"]]
    assert losses[0] != losses[1] and losses[1] == sweep.validation_loss(swept / "b") and np.isfinite(losses).all()
    assert record["n"] == 2 and record["chance_at_10"] == 0.5
    assert "made by a test" in (swept / "sweep.md").read_text()
    assert len((swept / "sweep.csv").read_text().splitlines()) == 1 + len(everything)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--trained", "d", "ema", "1", "x"], "--trained: stage d is not one of b, c, baseline-ldm, or --of lacks"),
        (["--trained", "b", "ema", "1", "x"], "--trained: stage b is not one of b, c, baseline-ldm, or --of lacks"),
        (["--vary", "baseline-ldm", "steps_c", "1"], "--vary: --of gives no steps_c of baseline-ldm to start from"),
    ],
)
def test_what_the_sweep_cannot_start_from_is_named(trained, swept, tmp_path, flags, said):
    with pytest.raises(SystemExit, match=said):
        sweep.main(
            ["--weights", str(trained / "train"), "--index", str(trained / "data/index.jsonl"), "--count", "2",
             "--seed", "0", "--of", "baseline-ldm", *OF["baseline-ldm"], *flags, "--pictures",
             str(trained / "data/pictures.zip"), "--gallery", str(swept / "gallery.npz"), "--command", "",
             "--out-prefix", str(tmp_path / "x")]
        )  # fmt: skip


def rows(*values):
    return [
        {"value": name, "own": own, "at_10": at_10, "interval_at_10": [at_10 - 0.1, at_10 + 0.1]}
        for name, own, at_10 in values
    ]


def table_of(*values):
    setting = {"kind": "training", "of": "c", "key": "loss_weight", "values": rows(*values)}
    record = {"settings": [setting], "n": 8, "chance_at_10": 0.1, "seed": 0, "command": "run | it", "commit": "abc"}
    return choices_table(record | {"device": "a machine", "date": "2000-01-01"})


@pytest.mark.parametrize(
    ("values", "verdicts"),
    [
        ([("x", True, 0.3), ("y", False, 0.4), ("z", False, 0.05)], ["kept", "overlaps", "below"]),
        ([("x", False, 0.4), ("y", False, 0.3), ("z", True, 0.1)], ["chosen", "overlaps", "below"]),
        ([("x", True, 0.0)], ["kept"]),
    ],
)
def test_the_base_is_kept_unless_another_value_is_clearly_better(values, verdicts):
    table = table_of(*values)
    assert [row["verdict"] for row in table.records] == verdicts
    assert [row["base"] for row in table.records] == ["yes" if own else "no" for _, own, _ in values]
    assert "run \\| it" in to_markdown(table)
    assert "commit abc" in table.notes[-1] and "a machine" in table.notes[-1]


def test_a_sweep_that_was_not_run_is_said():
    assert printed(choices_table(NotRun("there is no x.json"))).notes == ["not run: there is no x.json."]
