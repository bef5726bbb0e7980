"""Verdicts: every cell of the paper has one, intervals decide it, and what was not run says why."""

import json
from pathlib import Path

import pytest
from synthetic_study import MODELS, change, without, write_study

from evaluation import published
from evaluation.results import Study
from evaluation.verdicts import MILD, WORDS, Verdict, grids


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.open(tmp_path / "made-up", write_study(tmp_path / "made-up"))


def cell(study: Study, table: str, row: str, column: str) -> Verdict:
    """The verdict under a column, in the one row whose title holds `row`."""
    grid = next(grid for grid in grids(study) if grid.name == table)
    (cells,) = [cells for title, cells in grid.rows if row in title]
    return cells[grid.columns.index(column)]


def test_every_cell_of_the_paper_stands_as_printed(study):
    one, two, three, figures = grids(study)
    rates = [row["win_rate"] for row in published.rows("table1")]
    assert [cell.printed for _, cells in one.rows[1:] for cell in cells] == rates
    keys = [key for key in published.rows("table2")[0] if key not in ("model", "printed")]
    printed = [row[key] for row in published.rows("table2") for key in keys]
    assert [cell.printed for cell in two.cells] == [{"": "–", "-": "–"}.get(said, said) for said in printed]
    assert [cell.printed for cell in three.cells] == [
        row[key] for row in published.rows("table3") for key in ("coco30k", "celeba_hq")
    ]
    assert len(figures.cells) == 22  # 21 figures, of which Figure 4 has two plots


def test_every_verdict_has_a_known_word_and_a_reason(study, tmp_path):
    (tmp_path / "empty").mkdir()
    for of in (study, Study(tmp_path / "empty", study.config)):
        cells = [cell for grid in grids(of) for cell in grid.cells]
        assert {cell.word for cell in cells} <= WORDS.keys() and all(
            cell.why.endswith((".", "number")) for cell in cells
        )
    assert {cell.word for cell in cells} == {"not run", "quoted", "small scale", "no value"}
    assert {cell.why for cell in cells if cell.word == "small scale"} == {
        "A setting of the config; for Würstchen Stage C + Stage B."
    }


@pytest.mark.parametrize(
    ("bounds", "word"), [((0.51, 0.9), "reproduced"), ((0.1, 0.49), "not reproduced"), ((0.4, 0.6), "inconclusive")]
)
def test_win_rate_follows_the_interval(study, bounds, word):
    path = study.directory / "scores/win-rate/names.json"
    rivals = json.loads(path.read_text())["rivals"]
    rivals["baseline-ldm"]["interval"] = bounds
    change(path, rivals=rivals)
    found = cell(study, "Table 1", "names", "Baseline LDM (ours)")
    assert (found.printed, found.word, found.here) == ("96.5%", word, "62.5 %")


def test_to_lose_against_sd_xl_would_reproduce_the_paper(study):
    path = study.directory / "scores/win-rate/names.json"
    rivals = json.loads(path.read_text())["rivals"]
    rivals["sd-xl"] = rivals["baseline-ldm"] | {"rate": 0.3, "interval": [0.2, 0.4]}
    change(path, rivals=rivals)
    assert cell(study, "Table 1", "names", "SD XL").word == "not run"
    study.config["models"] = [*MODELS, "sd-xl"]
    assert cell(study, "Table 1", "names", "SD XL").word == "reproduced"


def test_a_failed_preference_score_is_inconclusive(study):
    change(study.directory / "scores/win-rate/names.json", valid=False)
    found = cell(study, "Table 1", "names", "Baseline LDM (ours)")
    assert found.word == "inconclusive" and "failed" in found.why and not found.here


@pytest.mark.parametrize(("column", "metric"), [("FID @256²", "fd"), ("IS @299²", "is")])
def test_distance_and_is_need_intervals_apart(study, column, metric):
    path = study.directory / f"scores/{metric}-efficientnet-lite2/wuerstchen/names.json"
    theirs = json.loads((path.parents[1] / "baseline-ldm/names.json").read_text())["interval"]
    low, high = {"value": theirs[0] - 2, "interval": [theirs[0] - 3, theirs[0] - 1]}, {"value": theirs[1] + 2}
    high["interval"] = [theirs[1] + 1, theirs[1] + 3]
    better, worse = (low, high) if metric == "fd" else (high, low)
    for score, word in ((better, "reproduced"), (worse, "not reproduced"), ({"interval": theirs}, "inconclusive")):
        change(path, **score)
        assert {cell(study, "Table 2", row, column).word for row in ("Würstchen (ours)", "Baseline LDM")} == {word}
    without(study.directory, f"scores/{metric}-efficientnet-lite2/baseline-ldm")
    found = cell(study, "Table 2", "Würstchen (ours)", column)
    assert (found.word, found.why) == (
        "not run",
        f"there is no scores/{path.parent.parent.name}/baseline-ldm/names.json.",
    )


def test_table2_tells_the_authors_measurements_from_quoted_ones(study):
    assert cell(study, "Table 2", "SD 1.4", "FID @256²").word == "not run"
    assert cell(study, "Table 2", "GALIP", "IS @299²").word == "not run"
    assert cell(study, "Table 2", "GALIP", "FID @256²").word == "quoted"
    assert "model card" in cell(study, "Table 2", "SD 1.4", "Train samples").why
    assert cell(study, "Table 2", "Würstchen (ours)", "Params").here == "6.61M"
    assert cell(study, "Table 2", "Würstchen (ours)", "GPU hours @A100").here == "8 min 24 s"


def test_a_baseline_with_stable_diffusions_first_stage_does_not_count_stage_a(study):
    for first_stage, here in (("stage-a", "6.41M"), ("sd-2.1", "6.10M")):
        change(study.directory / "train/baseline-ldm/usage.json", first_stage=first_stage)
        found = cell(study, "Table 2", "Baseline LDM", "Params")
        assert found.here == here and ("Stage A included" in found.why) == (first_stage == "stage-a")


def test_carbon_is_recomputed_only_where_it_holds(study):
    column = "Carbon, kg CO₂ eq."
    assert cell(study, "Table 2", "Würstchen (ours)", column).word == "recomputed"
    paper = json.loads((study.directory / "carbon.json").read_text())["paper"]
    change(study.directory / "carbon.json", paper=[paper[0] | {"holds": False}])
    assert cell(study, "Table 2", "Würstchen (ours)", column).word == "not reproduced"


@pytest.mark.parametrize("name", ["jpeg-95", "contrast-up"])
def test_table3_follows_the_intervals_of_every_set(study, name):
    row, column = {"jpeg-95": "quality=95%", "contrast-up": "contrast +10%"}[name], "FID @ COCO 30k"
    others = {"value": 5.0, "interval": [4.0, 6.0]}
    above, below = ("reproduced", "not reproduced") if name == "jpeg-95" else ("not reproduced", "reproduced")
    for low, high, expected in ((7.0, 9.0, above), (5.0, 9.0, "inconclusive"), (1.0, 2.0, below)):
        for pictures in ("openmoji", "twemoji"):
            path = study.directory / f"robustness/{pictures}.json"
            rows = json.loads(path.read_text())["manipulations"]
            rows |= {key: rows[key] | others for key in rows if (key in MILD) != (name in MILD)}
            rows[name] |= {"value": (low + high) / 2, "interval": [low, high]}
            change(path, manipulations=rows)
        assert cell(study, "Table 3", row, column).word == expected
    rows[name] |= {"value": 90.0, "interval": [80.0, 100.0]}
    change(path, manipulations=rows)
    assert cell(study, "Table 3", row, column).word == "inconclusive"


def test_compiled_sampling_is_not_run_until_it_is_timed(study):
    *_, figures = grids(study)
    words = {title: cells[0].word for title, cells in figures.rows}
    assert words["Figure 4, left: sampling time"] == "small scale"
    assert words["Figure 4, right: sampling time with torch.compile"] == "not run"
    change(study.directory / "speed/wuerstchen.json", compiled=True)
    assert dict(grids(study)[-1].rows)["Figure 4, right: sampling time with torch.compile"][0].word == "small scale"
