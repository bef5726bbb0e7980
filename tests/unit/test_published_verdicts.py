"""Verdicts of a study of published models: intervals decide, and what was not measured says why."""

import json
from pathlib import Path

import pytest
import yaml
from synthetic_study import change

from evaluation import published
from evaluation.published_verdicts import WORDS, grids
from evaluation.results import Study
from evaluation.verdicts import Verdict
from workflow.settings import SCHEMA
from wuerstchen.files import write_json

RIVALS = ("df-gan", "galip", "sd-1.4", "sd-2.1", "sd-xl")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Würstchen as in the paper beside all published rivals: scores and win rates as printed, with narrow intervals."""
    config = yaml.safe_load((SCHEMA.parent / "released.yaml").read_text(encoding="utf-8"))
    folder = tmp_path / "made-up"
    for prompts in config["prompts"]:
        rows = [row for row in published.rows("table1") if row["prompts"] == prompts and row["rival"] in RIVALS]
        rates = {row["rival"]: published.number(row["win_rate"]) / 100 for row in rows}
        pairs = {rival: {"rate": rate, "interval": [rate - 0.01, rate + 0.01]} for rival, rate in rates.items()}
        write_json(folder / f"scores/win-rate/{prompts}.json", {"rivals": pairs, "valid": True})
    for row in published.rows("table2"):
        if row["model"] not in ("wuerstchen", *RIVALS):
            continue
        for metric in ("fid", "is"):
            value = {"> 18": 20.0, "-": 35.0}.get(row[metric]) or published.number(row[metric])
            score = {"model": row["model"], "value": value, "interval": [value - 0.1, value + 0.1], "protocol": "p"}
            write_json(folder / f"scores/{metric}/{row['model']}/coco-30k.json", score | {"protocol_sha256": "1"})
        share = 0.01 if row["model"] == "wuerstchen" else 0.02
        record = {"high_share": {"value": share, "interval": [share - 0.001, share + 0.001]}}
        write_json(folder / f"scores/power-spectrum/{row['model']}/coco-30k.json", record)
    return Study(folder, config)


def cell(study: Study, table: str, row: str, column: str) -> Verdict:
    """The verdict under a column, in the one row whose title holds `row`."""
    grid = next(grid for grid in grids(study) if grid.name == table)
    (cells,) = [cells for title, cells in grid.rows if row in title]
    return cells[grid.columns.index(column)]


def test_every_cell_of_the_paper_stands_as_printed(study: Study) -> None:
    one, two, three, figures, text = grids(study)
    assert [cell.printed for _, cells in one.rows[1:] for cell in cells] == [
        row["win_rate"] for row in published.rows("table1")
    ]
    keys = [key for key in published.rows("table2")[0] if key not in ("model", "printed")]
    printed = [row[key] for row in published.rows("table2") for key in keys]
    assert [cell.printed for cell in two.cells] == [{"": "–", "-": "–"}.get(said, said) for said in printed]
    assert len(three.cells) == 26 and len(figures.cells) == 22 and len(text.cells) == 4


def test_every_verdict_has_a_known_word_and_a_reason(study: Study, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for of in (study, Study(tmp_path / "empty", study.config)):
        cells = [cell for grid in grids(of) for cell in grid.cells]
        assert {cell.word for cell in cells} <= WORDS.keys()
        assert all(cell.why.endswith((".", "number")) for cell in cells)
    assert {cell.word for cell in cells} == {"not run", "quoted", "no value"}


def test_the_papers_own_numbers_reproduce_it(study: Study) -> None:
    one, two, *_ = grids(study)
    known = [cell for title, cells in one.rows[1:] for cell in cells[1:]]
    assert len(known) == 15 and {cell.word for cell in known} == {"reproduced"}
    assert all(cell.why.endswith("value lies within that interval.") for cell in known)
    assert cell(study, "Table 1", "COCO-30K", "Baseline LDM (ours)").why == (
        "The Baseline LDM's weights were never published, and this study's config names no others."
    )
    for row, column, word in (
        ("SD 1.4", "FID @256²", "reproduced"),
        ("SD 1.4", "IS @299²", "reproduced"),
        ("GALIP", "IS @299²", "reproduced"),
        ("DF-GAN", "FID @256²", "reproduced"),
        ("Würstchen", "FID @256²", "reproduced"),
        ("SD XL", "FID @256²", "quoted"),
        ("GLIDE", "FID @256²", "quoted"),
        ("Baseline LDM", "FID @256²", "not run"),
        ("Würstchen", "GPU hours @A100", "not run"),
    ):
        assert cell(study, "Table 2", row, column).word == word, (row, column)
    text = dict(next(grid for grid in grids(study) if grid.name == "Text").rows)
    assert [cells[0].word for cells in text.values()] == ["reproduced", "not run", "reproduced", "reproduced"]


@pytest.mark.parametrize(
    ("bounds", "word"), [([0.6, 0.9], "reproduced"), ([0.1, 0.4], "not reproduced"), ([0.4, 0.6], "inconclusive")]
)
def test_win_rates_follow_the_interval(study: Study, bounds: list[float], word: str) -> None:
    path = study.directory / "scores/win-rate/coco-30k.json"
    rivals = json.loads(path.read_text())["rivals"]
    for rival in ("sd-1.4", "sd-xl"):
        rivals[rival] = {"rate": sum(bounds) / 2, "interval": bounds}
    change(path, rivals=rivals)
    assert cell(study, "Table 1", "COCO-30K", "SD 1.4").word == word
    opposite = {"reproduced": "not reproduced", "not reproduced": "reproduced"}
    assert cell(study, "Table 1", "COCO-30K", "SD XL").word == opposite.get(word, word)  # which the paper loses to
    assert cell(study, "Text", "PickScore prefers", "Verdict").word == "inconclusive"


@pytest.mark.parametrize(("value", "word"), [(30.0, "not reproduced"), (23.65, "inconclusive"), (15.1, "reproduced")])
def test_fids_are_judged_by_the_papers_order(study: Study, value: float, word: str) -> None:
    change(study.directory / "scores/fid/sd-2.1/coco-30k.json", value=value, interval=[value - 0.1, value + 0.1])
    assert cell(study, "Table 2", "SD 2.1", "FID @256²").word == word
    together = cell(study, "Table 2", "Würstchen", "FID @256²").word
    assert together == ("reproduced" if word == "reproduced" else "inconclusive")


def test_fids_of_two_protocols_are_not_judged(study: Study) -> None:
    change(study.directory / "scores/fid/sd-2.1/coco-30k.json", protocol_sha256="2")
    with pytest.raises(ValueError, match="wuerstchen and sd-2.1 cannot be ranked together: protocol_sha256"):
        grids(study)


def test_smoother_means_less_at_high_frequencies_than_every_rival(study: Study) -> None:
    path = study.directory / "scores/power-spectrum/galip/coco-30k.json"
    for interval, word in (([0.0, 0.001], "inconclusive"), ([0.5, 0.6], "reproduced")):
        change(path, high_share={"value": sum(interval) / 2, "interval": interval})
        assert cell(study, "Text", "smoother", "Verdict").word == word
    assert "reproduced against DF-GAN, GALIP" in cell(study, "Text", "smoother", "Verdict").why.replace("Rep", "rep")


def test_another_model_under_study_says_nothing_of_the_papers(study: Study) -> None:
    mine = Study(study.directory, study.config | {"models": ["sd-xl", {"id": "wuerstchen", "weights": "released-v2"}]})
    one, two, _, figures, text = grids(mine)
    words = {cell.word for grid in (one, figures, text) for cell in grid.cells}
    assert words == {"not run", "no value", "quoted"}
    found = cell(mine, "Table 2", "SD 1.4", "FID @256²")
    assert (found.word, found.why) == ("not run", "The model under study is SD XL; the paper's is Würstchen.")
