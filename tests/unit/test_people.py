"""What people preferred in print: Figure 5, its table, the report's section and the verdicts."""

import copy
import csv
import html
import io
import re
import warnings
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from PIL import Image
from simulated_votes import rows_of, simulated_counts, write_export
from synthetic_study import write_study

from evaluation.drawing import STYLE
from evaluation.figures import FIGURES, draw
from evaluation.latex import to_latex
from evaluation.people import main, people_table
from evaluation.printing import to_csv, to_markdown
from evaluation.report import page
from evaluation.results import Study
from evaluation.summary import summarise
from evaluation.verdicts import grids
from study_app.analysis import record
from wuerstchen.files import write_json

PAIR = ("wuerstchen", "baseline-ldm")


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> dict:
    rows = rows_of(simulated_counts(36, 50, (0.8, 0.2, -0.5), 0.5, seed=1), "compositions", models=PAIR)
    rows += rows_of(simulated_counts(61, 50, (0.0, 0.0, -0.5), 0.5, seed=2), "names", "other", models=PAIR)
    rows += [{**given, "kind": "repeat", "seq": 1000 + given["seq"]} for given in rows[:30]]
    for at, given in enumerate(rows[:160]):
        about = {"participant": f"user-{at % 8}", "seq": 2000 + at // 8, "prompt_id": f"anchor-{at // 8}"}
        rows.append({**given, "kind": "anchor", **about})
    export = write_export(tmp_path_factory.mktemp("votes") / "votes.csv", rows)
    return record([export], "wuerstchen", seed=0)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("without") / "made-up"
    return Study.open(folder, write_study(folder))


@pytest.fixture
def study(tmp_path: Path, votes: dict) -> Study:
    made = Study.open(tmp_path / "made-up", write_study(tmp_path / "made-up"))
    write_json(made.directory / "study/votes.json", votes)
    return made


def text_of(source: str) -> str:
    source = re.sub(r"<style>.*?</style>", "", source, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", source)).split())


def test_figure_has_the_counts_and_a_row_for_each_study(study: Study, votes: dict) -> None:
    with plt.rc_context(fname=STYLE), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        figure = FIGURES["figure5"](study)
        figure.canvas.draw()
    assert len(figure.axes) == 6
    for row, found in enumerate(votes["studies"].values()):
        shares, majorities, histogram = figure.axes[3 * row : 3 * row + 3]
        heights = [bar.get_height() for bar in shares.patches]
        assert heights == pytest.approx([100 * found["overall"]["shares"][key]["share"] for key in ("a", "equal", "b")])
        assert sum(heights) == pytest.approx(100)
        users = [bar.get_height() for bar in majorities.patches]
        assert users == list(found["by_users"]["from_median"]["majorities"].values())
        assert sum(bar.get_height() for bar in histogram.patches) == found["participants"]
        texts = [said.get_window_extent() for axis in (shares, majorities) for said in axis.get_xticklabels()]
        assert not any(box.overlaps(other) for at, box in enumerate(texts) for other in texts[:at])
    plt.close("all")


def test_figure_is_the_same_file_twice(study: Study, tmp_path: Path) -> None:
    for name in ("once", "again"):
        draw(study, "figure5", str(tmp_path / name))
    for suffix in ("pdf", "png"):
        assert (tmp_path / f"once.{suffix}").read_bytes() == (tmp_path / f"again.{suffix}").read_bytes()
    assert Image.open(tmp_path / "once.png").width > 1000


def test_table_has_every_statistic_with_its_interval(study: Study, votes: dict) -> None:
    table = people_table(study)
    rows = {(row["study"], row["statistic"]): row for row in csv.DictReader(io.StringIO(to_csv(table)))}
    for name, found in votes["studies"].items():
        preferred, row = found["overall"]["preferred"], rows[name, "Würstchen among decisive votes"]
        said = [float(row[key]) for key in ("value", "value_low", "value_high")]
        assert said == pytest.approx([preferred["share"], *preferred["interval"]], rel=1e-5)
        strength = rows[name, "Davidson: strength of Würstchen, logit"]
        assert float(strength["value"]) == pytest.approx(found["davidson"]["strength"]["value"], rel=1e-5)
        assert (name, "Mixed model: spread, logit") in rows and (name, "Left picture among decisive votes") in rows
    # each interval names its method, in the csv beside it and in print below
    methods = {row["interval_method"] for row in rows.values() if row["value_low"] != "n/a"}
    found = votes["studies"]["compositions"]
    models = {found[key]["interval_method"] for key in ("davidson", "mixed_model", "agreement")}
    assert methods == {votes["interval_method"], *models} and len(methods) == 4
    assert {row["interval_method"] for row in rows.values() if row["value_low"] == "n/a"} == {"n/a"}
    [said] = [note for note in table.notes if note.startswith("95 % intervals")]
    assert all(method in said for method in methods) and said.count(votes["interval_method"]) == 1
    assert ("compositions", "Krippendorff's alpha, ordinal") in rows
    assert ("compositions", "Same answer with the sides swapped") in rows
    for form in (to_markdown, to_latex):
        assert votes["votes"]["sha256"]["votes.csv"] in form(table)
    assert "36 in compositions; 61 in names" in to_markdown(table)
    sweep = next(block for block in table.blocks if block.title.startswith("compositions: users"))
    flags = next(block for block in table.blocks if block.title == "compositions: careless voting").records
    assert [flags[0][key] for key in ("flagged", "users_after")] == [0, 36] and flags[-1]["says"] == "any of these"
    assert len(flags) == 8 and len(sweep.records) == len(votes["studies"]["compositions"]["sweep"])


def test_report_summary_and_verdicts_have_the_votes(study: Study, votes: dict) -> None:
    draw(study, "figure5", str(study.directory / "figures/figure5"))
    said = text_of(page(study))
    assert "Figure 5: what people prefer" in said and "No votes have been collected" not in said
    assert "one row for each study" in said and votes["votes"]["sha256"]["votes.csv"] in said
    rows = dict(grids(study)[-1].rows)
    # preferred in one study, and in the other nobody can tell
    assert rows["Figure 5: what people prefer"][0].word == "inconclusive"
    people = summarise(study)["people"]
    assert people["studies"]["names"]["models"] == list(PAIR)
    assert people["studies"]["compositions"]["preferred"] == votes["studies"]["compositions"]["overall"]["preferred"]


@pytest.mark.parametrize("bounds, word", [((0.55, 0.62), "reproduced"), ((0.3, 0.45), "not reproduced")])
def test_verdict_follows_the_intervals(study: Study, votes: dict, bounds: tuple, word: str) -> None:
    votes = copy.deepcopy(votes)
    for found in votes["studies"].values():
        found["overall"]["preferred"]["interval"] = list(bounds)
    write_json(study.directory / "study/votes.json", votes)
    assert dict(grids(study)[-1].rows)["Figure 5: what people prefer"][0].word == word


def test_without_votes_there_is_one_line_and_no_figure(without: Study, tmp_path: Path) -> None:
    said = text_of(page(without))
    assert "Figure 5: what people prefer No votes have been collected." in said and "figure5" not in said
    assert "people" not in summarise(without)
    assert dict(grids(without)[-1].rows)["Figure 5: what people prefer"][0].word == "not run"
    flags = ["--study-dir", str(without.directory), "--config", str(without.directory.parent / "made-up.yaml")]
    main([*flags, "--out-prefix", str(tmp_path / "preferences")])
    assert "No votes have been collected" in (tmp_path / "preferences.md").read_text(encoding="utf-8")
