"""Several training seeds: mean and range stand beside the intervals, and a training that is missing is not left out."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import yaml
from synthetic_study import change, without, write_study

from evaluation.printing import to_csv, to_markdown
from evaluation.report import page
from evaluation.results import NotRun, Study
from evaluation.study_tables import recall_table, scores_table
from evaluation.summary import summarise
from evaluation.tables import table1, table2
from evaluation.trainings import over_trainings, score_value

TABLES = (table1, table2, recall_table, scores_table)
# what the second and third training get: FD, the share won, recall@10 of held-out prompts
FURTHER = {5: (100.0, 0.25, 0.31), 8: (140.456, 0.875, 0.12)}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """The made-up study (its own values: FD 123.456, share won 10/16, recall 0.23) with two further trainings."""
    config = write_study(tmp_path / "made-up")
    settings = yaml.safe_load(config.read_text()) | {"training_seeds": [3, *FURTHER]}
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    made = Study.open(tmp_path / "made-up", config)
    for seed, (fd, rate, recall) in FURTHER.items():
        folder = made.directory / "seeds" / str(seed)
        for part in ("scores", "benchmarks"):
            shutil.copytree(made.directory / part, folder / part)
        for ceiling in folder.glob("scores/*/ceiling-*"):
            shutil.rmtree(ceiling)
        change(folder / "scores/fd-efficientnet-lite2/wuerstchen/names.json", value=fd)
        path = folder / "scores/win-rate/names.json"
        rivals = json.loads(path.read_text())["rivals"]
        change(path, rivals=rivals | {"baseline-ldm": rivals["baseline-ldm"] | {"rate": rate}})
        path = folder / "scores/recall/wuerstchen/names.json"
        parts = json.loads(path.read_text())["recall"]
        change(path, recall=parts | {"held_out": parts["held_out"] | {"at_10": recall}})
    return made


def row(study: Study, build, **wanted: str) -> dict[str, str]:
    rows = csv.DictReader(io.StringIO(to_csv(build(study))))
    return next(row for row in rows if wanted.items() <= row.items())


def test_mean_and_range_are_over_the_trainings(study):
    fd = over_trainings(study, score_value("fd-efficientnet-lite2", "wuerstchen", "names"))
    assert fd == {
        "mean": pytest.approx(121.304),
        "min": 100.0,
        "max": 140.456,
        "values": [123.456, 100.0, 140.456],
    }


def test_tables_have_both(study):
    won = row(study, table1, prompts="names", rival="baseline-ldm")
    assert [float(won[f"rate{end}"]) for end in ("", "_low", "_high")] == [0.625, 0.31, 0.83]
    assert [float(won[f"rate{end}"]) for end in ("_mean", "_min", "_max")] == [pytest.approx(1.75 / 3), 0.25, 0.875]
    quality = row(study, table2, block="measured", model="Würstchen")
    assert float(quality["fd_efficientnet_lite2_min"]) == 100 and float(quality["fd_efficientnet_lite2_max"]) == 140.456
    assert row(study, table2, block="measured", model="Real pictures")["fd_efficientnet_lite2_mean"] == "n/a"
    assert row(study, recall_table, model="Würstchen")["held_out_at_10_mean"] == "0.22"
    assert row(study, recall_table, model="Chance")["held_out_at_10_mean"] == "n/a"
    assert "62.5 % (31.0 to 83.0 %) | 58.3 % (25.0 to 87.5 %)" in to_markdown(table1(study))
    assert "123 (117 to 130) | 121 (100 to 140)" in to_markdown(table2(study))
    assert "23.0 % (17.0 to 29.0 %) | 22.0 % (12.0 to 31.0 %)" in to_markdown(recall_table(study))
    assert "123 (117 to 130) | 121 (100 to 140)" in to_markdown(scores_table(study))


def test_summary_has_both(study):
    summary = summarise(study)
    assert summary["seeds"]["training"] == [3, 5, 8]
    held_out = summary["recall"]["wuerstchen"]["held_out"]
    assert (held_out["at_10"], held_out["over_training_seeds"]["values"]) == (0.23, [0.23, 0.31, 0.12])
    win = summary["win_rates"]["names"]["baseline-ldm"]
    assert (win["rate"], win["over_training_seeds"]["max"]) == (0.625, 0.875)
    fd = summary["scores"]["names"]["wuerstchen"]["fd-efficientnet-lite2"]
    assert (fd["value"], fd["over_training_seeds"]["min"]) == (123.456, 100.0)
    assert "over_training_seeds" not in summary["recall"]["ceilings"]["stage-a"]["seen"]
    assert summary["wall_seconds"]["rules"] == {"sample": 24.0, "score": 12.0, "train": 24.0}


def test_a_missing_training_is_not_left_out(study):
    without(study.directory, "seeds/8/scores/fd-efficientnet-lite2")
    found = over_trainings(study, score_value("fd-efficientnet-lite2", "wuerstchen", "names"))
    reason = "training seed 8: there is no scores/fd-efficientnet-lite2/wuerstchen/names.json"
    assert found == NotRun(reason)
    mine = row(study, table2, block="measured", model="Würstchen")
    assert (mine["fd_efficientnet_lite2"], mine["fd_efficientnet_lite2_mean"]) == ("123.456", f"not run: {reason}")
    fd = summarise(study)["scores"]["names"]["wuerstchen"]["fd-efficientnet-lite2"]
    assert fd["over_training_seeds"] == f"not run: {reason}"


def test_win_rates_of_a_failed_score_have_no_range_either(study):
    change(study.directory / "scores/win-rate/names.json", valid=False)
    assert row(study, table1, prompts="names", rival="baseline-ldm")["rate_mean"] == "not interpretable"


def test_the_report_says_what_each_interval_covers(study):
    said = "no interval covers what another training seed would change"
    several = " ".join(page(study).split())
    assert "over the 3 trainings with seeds 3, 5, 8" in several and said not in several
    assert "smallest and largest of 3 trainings; not a 95 % interval" in several
    study.config["training_seeds"] = [3]
    once = " ".join(page(study).split())
    assert said in once and "Its mean over" not in once


@pytest.mark.parametrize("build", TABLES)
def test_one_seed_adds_no_column(study, build):
    several = build(study).fields
    study.config["training_seeds"] = [3]
    assert set(several) - set(build(study).fields) and not [name for name in build(study).fields if "_mean" in name]
