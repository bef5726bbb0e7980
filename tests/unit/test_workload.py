"""Appendix D: the probe shows the very latents of Stage C, text is all that differs, and the numbers are paired."""

import numpy as np
import pytest
import tiny_study
import torch
from synthetic_study import change, write_study

from evaluation import features, workload
from evaluation.features import read_features
from evaluation.figures import FIGURES
from evaluation.generators import make
from evaluation.images import iter_images
from evaluation.intervals import wilson
from evaluation.printing import printed
from evaluation.recall import trials
from evaluation.results import NotRun, Study, unpicked
from evaluation.verdicts import grids
from evaluation.workload_table import text_finding, workload_table
from wuerstchen import weights
from wuerstchen.files import read_json, read_jsonl, write_jsonl
from wuerstchen.presets import preset
from wuerstchen.probe import ProbeDecoder
from wuerstchen.probing import resized
from wuerstchen.sampling import to_uint8
from wuerstchen.tasks import make_task

SETTINGS = {"steps_c": 3, "guidance_c": 3, "steps_b": 2, "guidance_b": 2}
OF_B = {"steps_b": 2, "guidance_b": 2}


@pytest.fixture(scope="module")
def probed(trained):
    """The tiny study with its probe decoder."""
    tiny_study.run(trained, "probe")
    return trained


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "names.jsonl"
    rows = [
        {"id": f"p-{i}", "prompt": f"thing {i}", "image": f"pictures-{i:02d}.png", "category": None}
        | {"challenge": ("seen", "held-out", "flags")[i % 3], "source_id": f"pictures-{i:02d}"}
        for i in range(12)
    ]
    write_jsonl(path, rows)
    return path


def test_the_probe_learns_the_pictures(probed):
    tensors, metadata = weights.load(probed / "train/probe/model.safetensors")
    assert metadata["probe"] == {"c_in": 16, "widths": [16, 8, 8, 8]} and metadata["steps"] == 12
    task = make_task("probe", preset("tiny"), probed / "data", probed / "latents", 0)
    assert task.pictures.shape == (20, 3, 48, 48) and 0 <= task.pictures.min() and task.pictures.max() <= 1
    assert task.n == 14
    trained_probe = weights.load_module(ProbeDecoder(**metadata["probe"]), tensors, "probe.", "here")
    fresh = ProbeDecoder(**metadata["probe"]).eval()
    error = [task.error(torch.nn.ModuleDict({"probe": net}), task.train_rows).item() for net in (trained_probe, fresh)]
    assert error[0] < error[1]


def test_the_probe_shows_the_latents_that_stages_b_and_a_expand(probed, prompts, monkeypatch):
    rows = read_jsonl(prompts)[:3]
    whole, probe = (make(model, probed / "train", SETTINGS) for model in ("wuerstchen", "wuerstchen-probe"))
    seen = []
    refine = whole.pipeline.refine
    monkeypatch.setattr(whole.pipeline, "refine", lambda latents, *rest: seen.append(latents) or refine(latents, *rest))
    expanded, pictures = np.stack(whole.generate(rows, 5)), np.stack(probe.generate(rows, 5))
    with torch.inference_mode():
        expected = to_uint8(resized(probe.pipeline.probe(seen[0]), 128))[:3]
    assert np.array_equal(pictures, expected) and pictures.shape == expanded.shape == (3, 128, 128, 3)
    assert not np.array_equal(pictures, expanded)
    assert probe.describe()["weights_sha256"] != whole.describe()["weights_sha256"]


def test_without_text_only_the_text_is_missing(probed, prompts):
    rows, pictures = read_jsonl(prompts)[:3], probed / "data/pictures.zip"
    text, none = (
        make(model, probed / "train", OF_B, pictures) for model in ("ceiling-compressor", "ceiling-compressor-no-text")
    )
    drawn = none.generate(rows, 0)
    assert np.array_equal(drawn, text.generate([row | {"prompt": ""} for row in rows], 0))
    assert not np.array_equal(drawn, text.generate(rows, 0))


@pytest.fixture(scope="module")
def compared(probed, prompts, tmp_path_factory):
    """Folder with the record of a comparison, and all that it was made from."""
    out = tmp_path_factory.mktemp("compared")
    pictures, rows = probed / "data/pictures.zip", read_jsonl(prompts)
    of = []
    for model, settings in (("wuerstchen", SETTINGS), ("ceiling-compressor", OF_B)):
        generator = make(model, probed / "train", settings, pictures)
        shard = out / f"{model}.zip"
        images = zip(
            (row["id"] for row in rows), map(workload.Image.fromarray, generator.generate(rows, 0)), strict=True
        )
        workload.write_shard(shard, images, {"model": model})
        of += ["--of", model, str(out / f"{model}.npz"), str(shard)]
    features.main(
        ["--of", str(out / "gallery.npz"), str(pictures),
         *(word for model in ("wuerstchen", "ceiling-compressor")
           for word in ("--of", str(out / f"{model}.npz"), str(out / f"{model}.zip")))]
    )  # fmt: skip
    command = [
        "--weights", str(probed / "train"), "--set", *(f"{key}={value}" for key, value in SETTINGS.items()),
        "--prompts-file", str(prompts), "--count", "6", "--pictures", str(pictures), "--index",
        str(probed / "data/index.jsonl"), "--gallery", str(out / "gallery.npz"), *of, "--draw", "wuerstchen-probe",
        str(out / "probe.zip"), "--draw", "ceiling-compressor-no-text", str(out / "no-text.zip"), "--seed", "0",
        "--out", str(out / "workload.json"),
    ]  # fmt: skip
    workload.main(command)
    return out


def test_numbers_are_those_of_the_pictures(probed, prompts, compared):
    record = read_json(compared / "workload.json")
    rows = workload.chosen(read_jsonl(prompts), 0, 6)
    assert [row["challenge"] for row in rows] == ["seen"] * 3 + ["held-out"] * 3
    shown = dict(iter_images([compared / "no-text.zip"]))
    assert list(shown) == [row["id"] for row in rows] == list(dict(iter_images([compared / "probe.zip"])))
    real = dict(iter_images([probed / "data/pictures.zip"]))
    with_text = dict(iter_images([compared / "ceiling-compressor.zip"]))
    groups = record["comparisons"]["text"]["groups"]
    for group, some in (("seen", rows[:3]), ("held_out", rows[3:])):
        psnr = {
            side: np.mean([
                10 * np.log10(255**2 / ((real[row["source_id"]].astype(float) - of[row["id"]]) ** 2).mean())
                for row in some
            ])
            for side, of in (("first", with_text), ("second", shown))
        }  # fmt: skip
        sides = groups[group]
        assert sides["n"] == 3
        assert sides["first"]["psnr_db"]["value"] == pytest.approx(psnr["first"])
        assert sides["difference"]["psnr_db"]["value"] == pytest.approx(psnr["first"] - psnr["second"])
        low, high = sides["difference"]["psnr_db"]["interval"]
        assert low <= sides["difference"]["psnr_db"]["value"] <= high
    ours, gallery = read_features(compared / "wuerstchen.npz"), read_features(compared / "gallery.npz")
    ranks = [t.rank for t in trials(ours, gallery, read_jsonl(probed / "data/index.jsonl"), rows[:3], 0)]
    hits = sum(rank <= 10 for rank in ranks)
    first = record["comparisons"]["probe"]["groups"]["seen"]["first"]["at_10"]
    assert first == {"value": hits / 3, "interval": list(wilson(hits, 3))}
    a, b = ours.of([rows[0]["id"]])[0], gallery.of([rows[0]["source_id"]])[0]
    values = workload.measures(workload.Drawn(
        dict(iter_images([compared / "wuerstchen.zip"])), ours), real, gallery,
        read_jsonl(probed / "data/index.jsonl"), rows, 0)  # fmt: skip
    assert values["distance"][0] == pytest.approx(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)


def test_missing_files_are_named(probed, prompts, tmp_path):
    command = [
        "--weights",
        "x",
        "--set",
        "steps_c=1",
        "--prompts-file",
        str(prompts),
        "--count",
        "2",
        "--pictures",
        "x",
    ]
    command += ["--index", str(probed / "data/index.jsonl"), "--of", "wuerstchen", "x", "x", "--draw", "x", "x"]
    with pytest.raises(SystemExit, match="workload: .*gallery.npz: no such file"):
        workload.main([*command, "--seed", "0", "--out", "x", "--gallery", str(tmp_path / "gallery.npz")])


def test_table_and_finding_follow_the_intervals(compared, tmp_path):
    directory = tmp_path / "made-up"
    study = Study.open(directory, write_study(directory))
    assert isinstance(study.read("workload.json"), NotRun)
    assert printed(workload_table(study)).notes == ["not run: there is no workload.json."]
    (directory / "workload.json").write_bytes((compared / "workload.json").read_bytes())
    table = workload_table(study)
    assert [row["pictures"] for row in table.records[:3]] == [
        "Würstchen",
        "Stage C alone, by the probe decoder",
        "Difference",
    ]
    assert [(row["comparison"], row["prompts"], row["n"]) for row in table.records[::3]] == [
        *(("probe", "seen", 3), ("probe", "held out", 3), ("text", "seen", 3), ("text", "held out", 3))
    ]
    text = read_json(directory / "workload.json")["comparisons"]["text"]
    for of in text["groups"].values():
        of["difference"] = {measure: {"value": 0.0, "interval": [-1.0, 1.0]} for measure in workload.MEASURES}
    assert text_finding(text).endswith("no measure tells drawing with it from drawing without.")
    text["groups"]["seen"]["difference"]["distance"]["interval"] = [-0.2, -0.1]
    text["groups"]["held_out"]["difference"]["psnr_db"]["interval"] = [-0.2, -0.1]
    assert text_finding(text).endswith(
        "it helps the feature distance of seen prompts; it harms the PSNR of held out prompts."
    )


def test_the_figure_and_the_verdict_need_the_probes_pictures(tmp_path):
    directory = tmp_path / "made-up"
    study = Study.open(directory, write_study(directory))

    def verdict() -> str:
        return dict(grids(study)[-1].rows)["Figures 17 to 21: Stage C alone beside Stages B and C"][0].word

    assert verdict() == "not run"
    (directory / "images/wuerstchen-probe").mkdir()
    (directory / "images/wuerstchen/names").rename(directory / "images/wuerstchen-probe/names")
    study._places.clear()
    assert verdict() == "small scale"
    figure = FIGURES["probe"](study)
    assert len(figure.axes) == 2 * len([row for _, some in study.shown("names", 8) for row in some])
    rows = study.prompt_rows("names")
    assert unpicked(rows, 3, 4) == study.unpicked("names", 4)


def test_figure_4_is_drawn_and_judged_from_the_file_that_the_config_names(tmp_path):
    directory = tmp_path / "made-up"
    study = Study.open(directory, write_study(directory))
    study.config["speed"] = study.config["speed"] | {"figure4": str(tmp_path / "figure4.json")}
    assert "not run: there is no" in " ".join(text.get_text() for text in FIGURES["figure4"](study).texts)
    path = tmp_path / "figure4.json"
    path.write_text("{}")
    change(path, device="A <made-up> GPU", precision="bf16", image_size=1024, models={}, cells=[])
    models = {"wuerstchen": 1.0, "sd-1.4": 2.0, "sd-2.1": 2.5, "sd-xl": 4.0}
    cells = [
        {"model": model, "batch_size": size, "compiled": False, "seconds_per_batch": base * size}
        | {"fastest": 0.9 * base * size, "slowest": 1.1 * base * size}
        for size in (1, 2)
        for model, base in models.items()
    ]
    cells.append({"model": "sd-xl", "batch_size": 4, "compiled": False, "failed": "out of memory"})
    change(path, models=models, cells=cells)
    plain, compiled = FIGURES["figure4"](study).axes
    assert [line.get_label() for line in plain.lines] == ["Würstchen", "SD 1.4", "SD 2.1", "SD XL"]
    assert list(plain.lines[3].get_ydata()) == [4.0, 8.0] and not compiled.lines
    assert "SD XL, batch 4: out of memory" in [text.get_text() for text in plain.texts]

    def words() -> list[str]:
        figures = dict(grids(study)[-1].rows)
        return [cells[0].word for title, cells in figures.items() if title.startswith("Figure 4")]

    assert words() == ["reproduced", "not run"]
    change(path, cells=[cell | {"slowest": 9.0} for cell in cells if "failed" not in cell])
    assert words() == ["inconclusive", "not run"]
