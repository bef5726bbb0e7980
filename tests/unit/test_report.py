"""The report: one page that loads nothing, escapes everything, says what is missing and judges by the intervals."""

import base64
import html.parser
import io
import random
from pathlib import Path

import pytest
from PIL import Image
from synthetic_study import HOSTILE, change, without, write_study

import evaluation.report
from evaluation.findings import duration, headlines
from evaluation.report import data_uri, gallery, main, page, seconds_by_rule, tally
from evaluation.results import Study, decode
from evaluation.summary import summarise
from evaluation.verdicts import WORDS, grids
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


def test_page_is_self_contained_and_escaped(study):
    seen = Page(page(study))
    assert "script" not in seen.tags and "link" not in seen.tags and "iframe" not in seen.tags
    assert seen.addresses and all(
        address.startswith(("#", "data:image/webp;base64,", "data:image/png;base64,")) for address in seen.addresses
    )
    for prompt in HOSTILE[:2]:
        assert prompt in seen.text and f"Würstchen: {prompt}" in seen.alts
    assert "a made-up <source> | with markup" in seen.text
    assert seen.tags.count("html") == 1 and seen.tags.count("h1") == 1


def test_released_weights_are_not_said_to_be_trained_here(study):
    assert "This study trained it from nothing" in Page(page(study)).text
    study.config["models"] = [*study.models, "wuerstchen-long"]
    both = Page(page(study)).text
    assert "Beside them stands Würstchen, trained long (released)" in both
    assert "its rivals are Baseline LDM (compute of C) and Baseline LDM (compute of B + C), trained" in both
    before = Study(study.directory, {**study.config, "weights": "a/release"})
    said = Page(page(before)).text
    assert "This study has released weights of it" in said and "weights that were trained before, used" in said


def test_numbers_stand_beside_the_papers(study):
    text = " ".join(Page(page(study)).text.split())
    for said in ("62.5 % (31.0 to 83.0 %)", "96.5 %", "123 (117 to 130)", "23.6*", "10.469", "2,275.68", "14.0 s"):
        assert said in text
    assert "42.0 % (95 % interval 36.0 to 48.0 %) of 120 pairs of artist and thing seen in training" in text
    assert "CC BY-SA 4.0" in text and "CC BY 4.0" in text and "ab" * 32 in text


PARTS = ["scores/recall", "scores/win-rate", "scores/fd-efficientnet-lite2", "scores/is-efficientnet-lite2", "prompts"]
PARTS += [
    "scores/emoji-score",
    "preference",
    "robustness",
    "speed",
    "carbon.json",
    "tables/audit.csv",
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
    text = Page(page(Study(study.directory, study.config))).text
    assert text.count("not run") > before and "Table 3" in text


def test_an_empty_study_has_a_page(study, tmp_path):
    (tmp_path / "empty").mkdir()
    empty = Study(tmp_path / "empty", study.config)
    assert all(card["number"] == "not run" for card in headlines(empty))
    assert "96.5%" in Page(page(empty)).text


def test_a_failed_preference_score_names_no_winner(study):
    change(study.directory / "scores/win-rate/names.json", valid=False)
    change(study.directory / "scores/emoji-score/validity.json", valid=False)
    assert headlines(study)[1]["number"] == "not interpretable"
    text = Page(page(study)).text
    assert "It fails" in text and "EmojiScore failed its own test, so these mean little" in text


def test_best_and_worst_follow_the_score_and_nothing_else(study):
    for prompts, section in zip(study.prompt_sets, gallery(study), strict=True):
        unpicked, best, worst = section["groups"]
        count = len(study.prompt_rows(prompts))
        assert [row["id"] for row in best["rows"]] == [f"{prompts}-{count - 1 - n:03d}" for n in range(4)]
        assert [row["id"] for row in worst["rows"]] == [f"{prompts}-{n:03d}" for n in range(4)]
        assert unpicked["title"] == f"Unpicked: {len(unpicked['rows'])} of {count}"
        shown = [row["id"] for _, rows in study.shown(prompts, 8) for row in rows]
        assert [row["id"] for row in unpicked["rows"]] == shown
        names = [name for name, _, _ in best["rows"][0]["pictures"]]
        assert names[-3:] == ["Würstchen", "Baseline LDM (compute of C)", "Baseline LDM (compute of B + C)"]
        assert (names[0] == "Real picture") == (prompts != "compositions")
        assert [score for _, _, score in worst["rows"][0]["pictures"]][-3:] == ["20.50", "19.50", "18.50"]
        assert best["title"] == "Picked by score: the 4 best of Würstchen"


def test_every_sample_has_prompt_id_and_seed(study):
    text = " ".join(Page(page(study)).text.split())
    assert f"{HOSTILE[0]}seen · names-000 · seed 3" in text
    assert "wearing · compositions-009 · seed 3" in text


def test_pictures_on_the_page_keep_every_pixel(study):
    for png in (study.picture("wuerstchen", "names", "names-000"), _noise()):
        kind, data = data_uri(png).removeprefix("data:image/").split(";base64,")
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert image.format.lower() == kind and image.convert("RGB").tobytes() == decode(png).tobytes()
        assert len(base64.b64decode(data)) <= len(png)


def _noise() -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (32, 32), random.Random(0).randbytes(3 * 32 * 32)).save(file, "PNG")
    return file.getvalue()


def test_verdicts_of_the_page_are_counted_and_reasoned(study):
    judged = grids(study)
    assert [sum(row["counts"][place] for row in tally(judged, WORDS)) for place in range(4)] == [24, 112, 26, 22]
    text = " ".join(Page(page(study)).text.split())
    for grid in judged:
        for reason in grid.reasons:
            assert " ".join(reason.split()) in text


def test_the_papers_arithmetic_and_its_carbon_stand_on_the_page(study):
    text = "".join(Page(page(study)).text.split())
    for said in (
        "Sums: 2 claims, 1 differ",
        "One and <one> section 0 3 2 ✗ differs 1 + 1.",
        "Würstchen, Stages B and C 35,602 8,900.5 3,293 1.00",
        "SD 2.1 200,000 50,000.0 18,500 5.62",
        "This run: its own jobs 11 min 12 s 1.60 Wh 0.600 g",
        "A100 SXM4 in an average data centre 400 0.37 1.58 5,753 8,325 5,846 35,076 46,768 Uptime",
    ):
        assert "".join(said.split()) in text, said
    (study.directory / "tables/audit.csv").write_text("topic,name\n", encoding="utf-8")
    with pytest.raises(ValueError, match="audit.csv: the columns are"):
        page(study)


def test_short_rules_are_summed_up(study):
    rules = {"train": 1000.0, "sample": 50.0, "score": 49.0, "table": 1.0}
    change(study.directory / "summary.json", wall_seconds={"total": 1100.0, "rules": rules})
    said = [(row["rule"], row["time"]) for row in seconds_by_rule(study)]
    assert said == [("train", "16 min 40 s"), ("sample", "50.0 s"), ("2 shorter ones together", "50.0 s")]
    assert "in 43.0 s of one" not in page(study)
    rules |= {"train_probe": 18.0, "workload": 25.0}
    change(study.directory / "summary.json", wall_seconds={"total": 1100.0, "rules": rules})
    assert "in 43.0 s of one" in page(study)


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
