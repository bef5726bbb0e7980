"""Figures: text fits its place, nobody picks the pictures, equal inputs give equal bytes, missing ones are named."""

import json
import warnings
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from PIL import Image
from synthetic_study import HOSTILE, change, without, write_study

from evaluation.drawing import STYLE, drawable, smoothed, text_width, wrap
from evaluation.figures import FIGURES, draw, main
from evaluation.results import Study
from wuerstchen.files import read_jsonl, write_jsonl


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("figures") / "made-up"
    return Study.open(folder, write_study(folder))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.open(tmp_path / "made-up", write_study(tmp_path / "made-up"))


@pytest.fixture(autouse=True)
def quiet_style():
    plt.switch_backend("agg")
    with plt.rc_context(fname=STYLE), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield
    plt.close("all")


@pytest.mark.parametrize("said", [*HOSTILE, "a " * 200, "unbreakable" * 30, "", "Côte d’Ivoire: flag"])
def test_wrapped_lines_fit(said):
    lines = wrap(said, 6.0, 80.0, 4)
    assert len(lines) <= 4 and all(text_width(line, 6.0) <= 80.0 for line in lines)
    whole = "".join(lines).replace(" ", "")
    wanted = drawable(said).replace(" ", "")
    assert whole == wanted or (whole.endswith("…") and wanted.startswith(whole[:-1]))


def test_measured_width_is_the_drawn_width():
    figure = plt.figure(figsize=(6, 1))
    said = "twemoji of grinning face with big eyes"
    drawn = figure.text(0, 0, said, size=6.0).get_window_extent().width / figure.dpi * 72
    assert text_width(said, 6.0) == pytest.approx(drawn, rel=0.02)


@pytest.mark.parametrize("name", ["collage", "side-by-side"])
def test_prompts_stay_apart_and_on_the_page(complete, name):
    figure = FIGURES[name](complete)
    boxes = [said.get_window_extent() for said in figure.texts]
    for place, box in enumerate(boxes):
        assert -1 <= box.x0 and box.x1 <= figure.bbox.width + 1 and box.y0 >= -1 and box.y1 <= figure.bbox.height + 1
        assert not any(box.overlaps(other) for other in boxes[:place])
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_hostile_prompts_are_drawn_as_they_are(complete):
    drawn = " ".join(said.get_text().replace("\n", " ") for said in FIGURES["collage"](complete).texts)
    assert "<script>alert(1)</script>" in drawn and "costs $5 or $6 \ufffd" in drawn


def test_nobody_picks_the_pictures(study):
    before = study.unpicked("names", 5)
    rows = read_jsonl(study.directory / "prompts/names.jsonl")
    write_jsonl(study.directory / "prompts/names.jsonl", rows[::-1])
    assert study.unpicked("names", 5) == before != sorted(before, key=lambda row: row["id"])
    assert {row["challenge"] for row in study.unpicked("names", 3, ["held-out"])} == {"held-out"}
    study.config["seed"] += 1
    assert study.unpicked("names", 5) != before


@pytest.mark.parametrize("name", ["speed", "robustness"])
def test_equal_inputs_give_equal_bytes(complete, tmp_path, name):
    for attempt in "ab":
        draw(complete, name, str(tmp_path / attempt))
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"CreationDate" not in (tmp_path / "a.pdf").read_bytes()


def test_program_writes_both_formats(complete, tmp_path):
    config = complete.directory.with_name("made-up.yaml")
    flags = ["--study-dir", str(complete.directory), "--config", str(config), "--figure", "training"]
    main([*flags, "--out-prefix", str(tmp_path / "f/training")])
    assert (tmp_path / "f/training.pdf").read_bytes().startswith(b"%PDF")
    assert Image.open(tmp_path / "f/training.png").width > 1000


def test_speed_has_a_panel_for_compiled_only_when_measured(study):
    figure = FIGURES["speed"](study)
    assert len(figure.axes) == 1
    line = figure.axes[0].lines[0]
    assert line.get_label() == "Würstchen" and list(line.get_xdata()) == [1, 2, 4, 8, 16]
    assert list(line.get_ydata()) == pytest.approx([0.5 * size**0.8 for size in (1, 2, 4, 8, 16)])
    assert "Made-up CPU, 2 threads" in figure.get_supxlabel()
    change(study.directory / "speed/baseline-ldm.json", compiled=True)
    assert [axes.get_title(loc="left") for axes in FIGURES["speed"](study).axes] == [
        *("without compilation", "with torch.compile")
    ]


def test_recall_curve_goes_through_its_points(study):
    (axis,) = FIGURES["recall-curve"](study).axes
    record = json.loads((study.directory / "curve.json").read_text())
    lines = [line for line in axis.lines if len(line.get_xdata()) == 2 and line.get_linestyle() in ("-", "--")]
    for line, model in zip(lines, ("wuerstchen", "baseline-ldm", "baseline-ldm-bc", "ceiling-compressor"), strict=True):
        points = record["models"][model]
        assert list(line.get_xdata()) == [point["seconds"] / 60 for point in points], model
        assert list(line.get_ydata()) == [100 * point["at_10"] for point in points], model
    bars = axis.containers[0].lines[2][0].get_segments()
    assert [tuple(bar[:, 1]) for bar in bars] == [pytest.approx((10.0, 35.0)), pytest.approx((30.0, 55.0))]
    assert 10.0 in [line.get_ydata()[0] for line in axis.lines if line.get_label() == "guessing"]


def test_robustness_shows_ours_and_the_papers(complete):
    ours, paper = FIGURES["robustness"](complete).axes
    record = json.loads((complete.directory / "robustness/openmoji.json").read_text())["manipulations"]
    assert list(ours.lines[0].get_xdata()) == [row["value"] for row in record.values()]
    assert paper.lines[0].get_xdata()[0] == 0.268 and paper.lines[1].get_xdata()[8] == 31.289
    assert ours.get_xlabel().startswith("FD-EfficientNet-Lite2") and paper.get_xlabel() == "FID"


def test_training_draws_raw_smoothed_and_validation(complete):
    raw, average, validation = FIGURES["training"](complete).axes[1].lines
    assert len(raw.get_ydata()) == len(average.get_ydata()) == 80
    assert list(validation.get_xdata()) == list(range(100, 801, 100))
    assert average.get_ydata()[0] == raw.get_ydata()[0]


def test_moving_average_keeps_a_constant_and_damps_noise():
    assert smoothed([2.0] * 50) == [2.0] * 50
    assert max(smoothed([(-1.0) ** step for step in range(400)])[100:]) < 0.2


def test_a_stage_that_was_not_trained_is_named(study):
    without(study.directory, "train/c")
    said = [text.get_text() for axes in FIGURES["training"](study).axes for text in axes.texts]
    assert len(said) == 1 and said[0].replace("\n", " ").replace("/ ", "/").startswith("not run: there is no train/c")


@pytest.mark.parametrize("name", list(FIGURES))
def test_an_empty_study_still_gives_a_figure_that_says_so(complete, tmp_path, name):
    figure = FIGURES[name](Study(tmp_path, complete.config))
    said = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        said += [text.get_text() for text in axes.texts] + axes.get_legend_handles_labels()[1]
    assert any("not run" in text for text in said)
