"""summary.json: the contract's keys, wall time without pauses, and plain words where a measurement is missing."""

import json
from pathlib import Path

import pytest
from synthetic_study import MODELS, PSEUDO, change, without, write_study

from evaluation.results import Study
from evaluation.summary import covered, main, summarise, wall_seconds


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.open(tmp_path / "made-up", write_study(tmp_path / "made-up"))


def test_contract(study):
    summary = summarise(study)
    row = summary["recall"]["wuerstchen"]["held_out"]
    assert (row["at_10"], row["n"], row["chance_at_10"], row["interval_at_10"]) == (0.23, 120, 0.1, [0.17, 0.23 + 0.06])
    assert set(summary["recall"]["ceilings"]) == {"stage-a", "compressor", "other-artist"}
    assert summary["recall"]["ceilings"]["stage-a"]["seen"]["at_10"] > 0.5
    win = summary["win_rates"]["compositions"]["baseline-ldm-bc"]
    assert (win["wins"], win["losses"], win["ties"], win["rate"], win["interval"]) == (6, 9, 1, 6 / 16, [0.31, 0.83])
    fd = summary["scores"]["names"]["baseline-ldm"]["fd-efficientnet-lite2"]
    assert (fd["value"], fd["interval"], fd["n"]) == (123.456 - 9, [114.456 - 6.5, 114.456 + 6.5], 16)
    assert set(summary["scores"]["names"]) == {*MODELS, *PSEUDO} and set(summary["scores"]["compositions"]) == {*MODELS}
    assert summary["robustness"]["twemoji"]["palette"]["value"] == pytest.approx(25.1 * 1.5)
    assert summary["carbon"]["run"]["total_kwh"] == 0.0016
    assert summary["wall_seconds"] == {"total": 14.0, "rules": {"sample": 8.0, "score": 4.0, "train": 8.0}}
    assert summary["seeds"] == {"study": 3, "training": [3], "scores": [3]}
    assert summary["split_sha256"] == "ab" * 32
    assert summary["versions"]["torch"] == "0.0-made-up" and "python" in summary["versions"]


def test_versions_that_differ_are_all_named(study):
    change(study.directory / "robustness/openmoji.json", versions={"torch": "9.9"})
    assert summarise(study)["versions"]["torch"] == "0.0-made-up, 9.9"


def test_missing_measurements_say_so(study):
    without(study.directory, "scores/recall", "scores/win-rate/names.json", "carbon.json", "benchmarks", "data")
    summary = json.loads(json.dumps(summarise(study), allow_nan=False))
    missing = "not run: there is no "
    assert summary["recall"]["wuerstchen"] == missing + "scores/recall/wuerstchen/names.json"
    assert set(summary["win_rates"]["names"].values()) == {missing + "scores/win-rate/names.json"}
    assert summary["carbon"] == missing + "carbon.json" and summary["split_sha256"] == missing + "data/split.json"
    assert summary["wall_seconds"] == {"total": "not run: there are no benchmark files", "rules": {}}


def test_a_folder_of_pictures_has_no_second_artist(study):
    study.config["data"] = {"source": "folder", "captions": "x.jsonl"}
    assert set(summarise(study)["recall"]["ceilings"]) == {"stage-a", "compressor"}


@pytest.mark.parametrize(
    "intervals", [[], [(3, 7)], [(0, 5), (1, 2), (4, 9), (20, 21)], [(5, 6), (0, 5), (2, 8), (8, 8)]]
)
def test_covered_counts_every_instant_once(intervals):
    """Against a count of the half seconds that lie in any interval."""
    halves = [any(low <= step / 2 < high for low, high in intervals) for step in range(60)]
    assert covered(intervals) == sum(halves) / 2


def test_wall_seconds_adds_repeats_of_a_job(tmp_path):
    (tmp_path / "rule").mkdir()
    (tmp_path / "rule/x.tsv").write_text("s\th:m:s\n2.5\t0:00:02\n3.5\t0:00:03\n")
    assert wall_seconds(tmp_path) == {"total": 6.0, "rules": {"rule": 6.0}}


def test_program(study, tmp_path):
    out = tmp_path / "summary.json"
    flags = ["--study-dir", str(study.directory), "--config", str(tmp_path / "made-up.yaml"), "--out", str(out)]
    main(flags)
    assert json.loads(out.read_text()) == json.loads(json.dumps(summarise(study)))
    (tmp_path / "made-up.yaml").write_text("study: x\n")
    with pytest.raises(SystemExit, match="no key seed, data"):
        main(flags)
