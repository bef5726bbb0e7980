"""The report: one page that loads nothing, escapes everything, says what is missing and judges by the intervals."""

import html.parser
import json
from pathlib import Path

import pytest
from synthetic_study import HOSTILE, change, without, write_study

import evaluation.report
from evaluation.findings import duration, headlines, verdicts
from evaluation.report import main, page
from evaluation.results import Study
from evaluation.summary import summarise
from wuerstchen.files import write_json


class Page(html.parser.HTMLParser):
    """Text, tags and addresses of a page."""

    def __init__(self, source: str):
        super().__init__()
        self.text, self.tags, self.addresses, self.alts = "", [], [], []
        self.skip = False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.alts += [value for name, value in attrs if name == "alt"]
        self.skip = tag == "style"
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += "" if self.skip else data


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = Study.open(tmp_path / "made-up", write_study(tmp_path / "made-up"))
    write_json(made.directory / "summary.json", summarise(made))
    return made


def words(study: Study) -> dict[str, str]:
    return {verdict.part: verdict.word for verdict in verdicts(study)}


def test_page_is_self_contained_and_escaped(study):
    seen = Page(page(study))
    assert "script" not in seen.tags and "link" not in seen.tags and "iframe" not in seen.tags
    assert seen.addresses and all(address.startswith(("#", "data:image/png;base64,")) for address in seen.addresses)
    for prompt in HOSTILE[:2]:
        assert prompt in seen.text and f"Würstchen: {prompt}" in seen.alts
    assert "a made-up <source> | with markup" in seen.text
    assert seen.tags.count("html") == 1 and seen.tags.count("h1") == 1


def test_numbers_stand_beside_the_papers(study):
    text = " ".join(Page(page(study)).text.split())
    for said in ("62.5 % (31.0 to 83.0 %)", "96.5 %", "123 (117 to 130)", "23.6*", "10.469", "2,275.68", "14.0 s"):
        assert said in text
    assert "42.0 % (95 % interval 36.0 to 48.0 %) of 120 pairs of artist and thing seen in training" in text
    assert "CC BY-SA 4.0" in text and "CC BY 4.0" in text and "ab" * 32 in text


PARTS = ["scores/recall", "scores/win-rate", "scores/fd-efficientnet-lite2", "scores/is-efficientnet-lite2", "prompts"]
PARTS += [
    "scores/emoji-score",
    "robustness",
    "speed",
    "carbon.json",
    "train",
    "images",
    "data",
    "benchmarks",
    "summary.json",
]


@pytest.mark.parametrize("part", PARTS)
def test_one_missing_part_is_named_and_the_rest_stands(study, part):
    before = Page(page(study)).text.count("not run")
    without(study.directory, part)
    if (study.directory / "summary.json").exists():
        write_json(study.directory / "summary.json", summarise(study))
    text = Page(page(study)).text
    assert text.count("not run") > before and "Table 3" in text


def test_an_empty_study_has_a_page(study, tmp_path):
    (tmp_path / "empty").mkdir()
    empty = Study(tmp_path / "empty", study.config)
    assert all(card["number"] == "not run" for card in headlines(empty))
    assert set(words(empty).values()) == {"not run", "quoted"}
    assert "96.5 %" in Page(page(empty)).text


@pytest.mark.parametrize(
    ("bounds", "word"), [((0.51, 0.9), "reproduced"), ((0.1, 0.49), "not reproduced"), ((0.4, 0.6), "inconclusive")]
)
def test_win_rate_verdict_follows_the_interval(study, bounds, word):
    path = study.directory / "scores/win-rate/names.json"
    rivals = json.loads(path.read_text())["rivals"]
    rivals["baseline-ldm"]["interval"] = bounds
    change(path, rivals=rivals)
    assert words(study)["Table 1: preferred to the Baseline LDM, names"] == word


def test_a_failed_preference_score_names_no_winner(study):
    change(study.directory / "scores/win-rate/names.json", valid=False)
    change(study.directory / "scores/emoji-score/validity.json", valid=False)
    assert words(study)["Table 1: preferred to the Baseline LDM, names"] == "inconclusive"
    assert headlines(study)[1]["number"] == "not interpretable"
    assert "It fails" in page(study)


def test_distance_verdict_needs_intervals_apart(study):
    part = "Table 2: distance to real pictures (FID) below the Baseline LDM's"
    path = study.directory / "scores/fd-efficientnet-lite2/wuerstchen/names.json"
    assert words(study)[part] == "inconclusive"
    change(path, value=90.0, interval=[80.0, 100.0])
    assert words(study)[part] == "reproduced"
    change(path, value=190.0, interval=[180.0, 200.0])
    assert words(study)[part] == "not reproduced"


@pytest.mark.parametrize("jpeg", ["jpeg-70", "jpeg-95"])
def test_robustness_verdict_needs_both_columns(study, jpeg):
    strong, mild = (part for part in words(study) if part.startswith("Table 3"))
    part = {"jpeg-70": strong, "jpeg-95": mild}[jpeg]
    colours = {
        key: {"value": 5.0, "interval": [4.0, 6.0]}
        for key in ("brightness-up", "brightness-down", "contrast-up", "contrast-down")
    }
    for low, high, expected in ((7.0, 9.0, "reproduced"), (5.0, 9.0, "inconclusive"), (1.0, 2.0, "not reproduced")):
        for name in ("openmoji", "twemoji"):
            path = study.directory / f"robustness/{name}.json"
            rows = json.loads(path.read_text())["manipulations"]
            rows |= {key: rows[key] | value for key, value in colours.items()}
            change(path, manipulations=rows | {jpeg: rows[jpeg] | {"value": (low + high) / 2, "interval": [low, high]}})
        assert words(study)[part] == expected
    rows[jpeg] |= {"value": 90.0, "interval": [80.0, 100.0]}
    change(path, manipulations=rows)
    assert words(study)[part] == "inconclusive"


def test_a_page_too_large_is_refused(study, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation.report, "LIMIT", 1000)
    flags = ["--study-dir", str(study.directory), "--config", str(tmp_path / "made-up.yaml")]
    with pytest.raises(SystemExit, match="above 1,000"):
        main([*flags, "--out", str(tmp_path / "report.html")])
    assert not (tmp_path / "report.html").exists()


def test_program(study, tmp_path):
    flags = ["--study-dir", str(study.directory), "--config", str(tmp_path / "made-up.yaml")]
    main([*flags, "--out", str(tmp_path / "report.html")])
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page(study)


def test_what_was_chosen_on_validation_is_shown_or_said_to_be_absent(study, tmp_path):
    command = "snakemake sweep --cores all --configfile config/emoji.yaml config/emoji-sweep.yaml"
    for shown in (page(study), page(study, tmp_path / "x.json")):
        assert f"to try the values: {command}" in shown
    row = {"value": "p2-code", "own": True, "at_10": 0.375, "interval_at_10": [0.31, 0.44], "validation_loss": 0.123}
    setting = {"kind": "training", "of": "c", "key": "loss_weight", "values": [row]}
    record = {"settings": [setting], "n": 8, "chance_at_10": 0.1, "command": command, "commit": "abc"}
    write_json(tmp_path / "x.json", record | {"device": "a <machine>", "date": "2000-01-01"})
    shown = page(study, tmp_path / "x.json")
    assert "p2-code (base)" in shown and "37.5 % (31.0 to 44.0 %)" in shown and "a &lt;machine&gt;" in shown
    assert "to try the values" not in shown


def test_durations_never_show_sixty():
    said = [duration(seconds) for seconds in (4.04, 59.96, 75, 3599.4, 3599.6, 7199)]
    assert said == ["4.0 s", "1 min 0 s", "1 min 15 s", "59 min 59 s", "1 h 0 min", "2 h 0 min"]
