"""Exports of votes: what is read, and what is refused with its line."""

from pathlib import Path

import numpy as np
import pytest
from simulated_votes import MODELS, row, rows_of, simulated_counts, write_export

from study_app.ballots import checked_digest, read_ballots, studies


def test_counts_are_by_user_side_and_outcome(tmp_path: Path) -> None:
    rows = [
        row(participant="bob", seq=1, choice="right"),
        row(participant="ann", seq=2, choice="equal", left_model=MODELS[1], right_model=MODELS[0]),
        row(participant="ann", seq=1, choice="left", kind="anchor"),
        row(participant="ann", seq=3, choice="left", kind="repeat"),
        row(participant="ann", seq=4, choice="left", kind="control", right_model="scrambled"),
        row(participant="eve", seq=1, choice="left", kind="repeat"),
    ]
    (study,) = studies(read_ballots([write_export(tmp_path / "votes.csv", rows)]), MODELS[0])
    assert study.models == MODELS and study.participants == ["ann", "bob"]
    expected = np.zeros((2, 2, 3), dtype=int)
    expected[0, 0, 0] = expected[0, 1, 1] = expected[1, 0, 2] = 1
    assert (study.counts() == expected).all()
    assert study.without(["ann"]).participants == ["bob"]


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    counts = simulated_counts(9, 20, (0.5, 0.1, -1.0), 0.5, seed=3)
    path = write_export(tmp_path / "votes.csv", rows_of(counts) + rows_of(counts[:2], study="coco"))
    coco, parti = studies(read_ballots([path]), MODELS[0])
    assert (parti.counts() == counts).all() and (coco.counts() == counts[:2]).all()
    (swapped,) = studies(parti.ballots, MODELS[1])
    assert swapped.models == MODELS[::-1] and (swapped.counts() == counts[:, ::-1, ::-1]).all()


def test_exports_are_read_together_but_none_twice(tmp_path: Path) -> None:
    one = write_export(tmp_path / "parti.csv", [row(), row(seq=2)])
    other = write_export(tmp_path / "coco.csv", [row(study="coco")])
    assert [(b.study, b.seq) for b in read_ballots([one, other])] == [("coco", 1), ("parti", 1), ("parti", 2)]
    later = write_export(tmp_path / "parti-2.csv", [row(), row(seq=2), row(seq=3)])
    with pytest.raises(ValueError, match="parti-2.csv, line 2: seq: 1 of ann was there before"):
        read_ballots([one, later])


def test_an_apostrophe_before_what_a_spreadsheet_would_run_is_taken_off(tmp_path: Path) -> None:
    path = write_export(tmp_path / "votes.csv", [row(participant="'=1+1", prompt_id="'-a"), row(participant="'tis")])
    assert {(b.participant, b.prompt_id) for b in read_ballots([path])} == {("=1+1", "-a"), ("'tis", "p1")}


@pytest.mark.parametrize(
    "given, said",
    [
        ({"choice": "both"}, "line 3: choice: 'both' should be one of left, equal, right"),
        ({"kind": "catch"}, "line 3: kind: 'catch' should be one of pair"),
        ({"right_model": MODELS[0]}, "line 3: right_model: 'wuerstchen' should not be on both sides"),
        ({"participant": ""}, "line 3: participant: should not be empty"),
        ({"issued_at": "yesterday"}, "line 3: issued_at: 'yesterday' should be a time of ISO 8601"),
        ({"issued_at": "2026-05-01T12:00:00"}, "line 3: issued_at: '2026-05-01T12:00:00' should be"),
        ({"issued_at": "2027-05-01T12:00:00Z"}, "line 3: decided_at: .* should not be before"),
        ({"response_ms": -1}, "line 3: decided_at"),
        ({"seq": 1}, "line 3: seq: 1 of ann was there before"),
        ({"choice": "left,right"}, "line 3: should have 12 cells"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, given: dict, said: str) -> None:
    path = write_export(tmp_path / "votes.csv", [row(seq=1), row(**{"seq": 2} | given)])
    with pytest.raises(ValueError, match=said):
        read_ballots([path])


def test_columns_and_models_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("study,participant\nparti,ann\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no column seq, kind"):
        read_ballots([path])
    path = write_export(path, [row(), row(seq=2, right_model="sd-xl")])
    with pytest.raises(ValueError, match="study parti: .* there are 3: sd-2.1, sd-xl, wuerstchen"):
        studies(read_ballots([path]), MODELS[0])


def test_an_export_is_known_by_its_digest(tmp_path: Path) -> None:
    path = write_export(tmp_path / "votes.csv", [row()])
    assert len(checked_digest(path)) == 64
    path.write_text(path.read_text(encoding="utf-8").replace("left", "right"), encoding="utf-8")
    with pytest.raises(ValueError, match="an export is never edited"):
        checked_digest(path)
    path.with_name("votes.csv.sha256").unlink()
    with pytest.raises(ValueError, match="there is no votes.csv.sha256 beside it"):
        checked_digest(path)
    with pytest.raises(ValueError, match="no such file"):
        checked_digest(tmp_path / "none.csv")
