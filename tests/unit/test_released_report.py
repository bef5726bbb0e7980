"""Tables, figures, summary and report of a study of published models, from a made-up folder in the real formats."""

import csv
import html.parser
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from evaluation import carbon, figures, tables
from evaluation.claims import FIELDS
from evaluation.power_spectrum import measured, spectra
from evaluation.preference import write_scores
from evaluation.protocols import find
from evaluation.released_tables import table2
from evaluation.report import page
from evaluation.results import METRICS, UNDER_PROTOCOL, Study
from evaluation.summary import summarise
from workflow.settings import SCHEMA, problems, published_schema
from wuerstchen.files import write_json, write_jsonl
from wuerstchen.shards import write_shard

INSTRUMENTS = ("EmojiScore", "EfficientNet", "emoji", "held-out", "Baseline LDM (compute")
VERSIONS = {"numpy": "0.1"}


@pytest.fixture
def study(tmp_path: Path, made_up: Path) -> Study:
    """A copy of the made-up study of its own."""
    shutil.copytree(made_up, tmp_path, dirs_exist_ok=True)
    return Study.open(tmp_path / "made-up", tmp_path / "config.yaml")


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of prompts, three models, one of which has pictures but no scores."""
    tmp_path = tmp_path_factory.mktemp("released")
    config = yaml.safe_load((SCHEMA.parent / "released.yaml").read_text(encoding="utf-8"))
    config["prompts"] = {name: about | {"count": 4} for name, about in config["prompts"].items() if name[0] in "cp"}
    config["models"] = [{"id": "wuerstchen", "weights": "released-v2"}, "sd-2.1", {"id": "mine", "folder": "p"}]
    config["sampling"] = {"wuerstchen": config["sampling"]["wuerstchen"]}
    assert problems(config) == []
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    made = tmp_path / "made-up"
    made.mkdir()
    whole = Study.open(made, tmp_path / "config.yaml")
    for number, prompts in enumerate(whole.prompt_sets):
        _pictures(whole, prompts, number)
        _scores(whole, prompts)
    for name in config["robustness"]["sets"]:
        rows = {
            key: {"value": 1.0 + n, "interval": [0.5 + n, 1.5 + n], "psnr_db": 30.0, "unchanged": 0}
            for n, key in enumerate(config["robustness"]["manipulations"])
        }
        about = {"metric": "fd-inception", "interval_method": "made up", "versions": VERSIONS}
        write_json(made / f"robustness/{name}.json", about | {"manipulations": rows})
    values = {"fid": 20.0, "kid": 0.01, "kid_std": 0.0, "is": 30.0, "is_std": 1.0}
    near = dict.fromkeys(values, 1e-7)
    tools = {
        "torch-fidelity": {"preprocessing": "tf1-299", "values": values, "relative_difference": near},
        "clean-fid clean": {"preprocessing": "pil-float-299", "values": None, "error": "TypeError: sqrtm"},
    }
    record = {"n": 4, "reference_n": 4, "ours": dict.fromkeys(("tf1-299", "pil-float-299"), values), "tools": tools}
    write_json(made / "crosscheck.json", record)
    write_json(made / "summary.json", summarise(whole))
    return tmp_path


def _pictures(study: Study, prompts: str, number: int) -> None:
    real = prompts == "coco-30k"
    row = {"category": None, "challenge": None, "source_id": None}
    ids = [f"{prompts}-{n}" for n in range(4)]
    rows = [row | {"id": name, "prompt": f"<b>{name}</b>", "image": f"{name}.jpg" if real else None} for name in ids]
    write_jsonl(study.directory / f"prompts/{prompts}.jsonl", rows)
    about = {"n": 4, "prompts_sha256": "5" * 64, "list": {"file": "list.json", "licence": "CC BY 4.0"}}
    write_json(study.directory / f"prompts/{prompts}.json", about | {"tokens": {"truncated": 1}})
    by_model = {}
    for model in [*study.models, *["real"] * real]:
        random = np.random.default_rng(len(model))
        pixels = {name: random.integers(0, 256, (300, 300, 3), np.uint8) for name in ids}
        by_model[model] = spectra((name, picture[:64, :64]) for name, picture in pixels.items())
        pictures = {name: Image.fromarray(picture) for name, picture in pixels.items()}
        settings = {"steps_c": 60, "guidance_c": 4.0, "steps_b": 12} if model == "wuerstchen" else None
        how = {"sampler": "ddpm", "sampling": "paper", "settings": settings} if settings else {"sampler": None}
        write_shard(study.directory / f"images/{model}/{prompts}/0000.zip", pictures, {"model": model} | how)
    for model, found in by_model.items() if real else ():
        record = measured(found, None if model == "real" else by_model["real"], 0)
        write_json(study.directory / f"scores/power-spectrum/{model}/{prompts}.json", record | {"model": model, "n": 4})


def _scores(study: Study, prompts: str) -> None:
    protocol = find("coco30k-clean").of_captions("5" * 64)
    for place, model in enumerate(["wuerstchen", "sd-2.1"]):
        ids = [f"{prompts}-{n}" for n in range(4)]
        write_scores(study.preferences(model, prompts), ids, np.arange(4, dtype=np.float32) + place)
        for number, metric in enumerate(study.scores):
            under = metric in UNDER_PROTOCOL
            if prompts != "coco-30k" and (under or metric in ("fd-dinov2", "cmmd")):
                continue
            value = 10.0 * number + place
            interval = [value - 1, value + 1]
            record = {
                "metric": metric, "model": model, "prompts": prompts, "value": value, "interval": interval,
                "interval_method": "made up", "n": 4, "seed": 0, "reference_sha256": "7" * 64, "versions": VERSIONS,
                "extractor": {"name": metric, "sha256": "8" * 64}, "preprocessing": "x", "protocol": "a formula",
            }  # fmt: skip
            more = protocol.record() if under else {}
            write_json(study.directory / f"scores/{metric}/{model}/{prompts}.json", record | more)
    pair = {"n": 4, "wins": 3, "losses": 1, "ties": 0, "rate": 0.75, "interval": [0.3, 0.95]}
    pair |= {"interval_method": "Wilson"}
    record = {"metric": "pickscore", "rivals": {"sd-2.1": pair}, "valid": True}
    write_json(study.directory / f"scores/win-rate/{prompts}.json", record)


def rows_of(study: Study, number: str, tmp_path: Path) -> list[dict[str, str]]:
    flags = ["--study-dir", str(study.directory), "--config", str(tmp_path / "config.yaml"), "--table", number]
    tables.main([*flags, "--out-prefix", str(tmp_path / "t")])
    text = (tmp_path / "t.md").read_text(encoding="utf-8") + (tmp_path / "t.tex").read_text(encoding="utf-8")
    assert not [word for word in INSTRUMENTS if word in text]
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_metric_of_the_schema_has_a_name_to_print(study: Study) -> None:
    elsewhere = {"prdc", "power-spectrum", "crosscheck", "speed"}
    metrics = set(published_schema()["properties"]["metrics"]["items"]["enum"])
    assert metrics - elsewhere == set(METRICS) - {"precision", "recall", "density", "coverage"}
    assert list(study.scores) == list(METRICS)


def test_table_1_has_our_win_rates_by_pickscore_and_the_papers(study: Study, tmp_path: Path) -> None:
    rows = {(row["prompts"], row["rival"]): row for row in rows_of(study, "1", tmp_path)}
    mine = rows["coco-30k", "sd-2.1"]
    assert (mine["rate"], mine["paper_rate"], mine["status"]) == ("0.75", "0.644", "measured")
    assert (
        rows["coco-30k", "mine"]["rate"].startswith("not run")
        and rows["parti-prompts", "sd-xl"]["paper_rate"] == "0.39"
    )
    assert "The score is PickScore" in (tmp_path / "t.md").read_text(encoding="utf-8")


def test_table_2_names_the_protocol_and_keeps_it_apart(study: Study, tmp_path: Path) -> None:
    rows = rows_of(study, "2", tmp_path)
    under = [row for row in rows if row["protocol"] == "coco30k-clean"]
    assert [row["model"] for row in under] == ["Würstchen", "SD 2.1", "mine"]
    assert (under[1]["fid"], under[1]["fid_low"], under[1]["coverage"]) == ("1.0", "0.0", "61.0")
    assert under[0]["sampling_steps"] == "60 + 12" and under[1]["sampling_steps"] == "n/a"
    assert under[2]["fid"].startswith("not run: there is no scores/fid/mine/coco-30k.json")
    others = {(row["prompts"], row["model"]): row for row in rows if row["block"] == "measured" and row not in under}
    assert others["coco-30k", "SD 2.1"]["cmmd"] == "81.0" and others["coco-30k", "SD 2.1"]["fid"] == "n/a"
    assert (
        others["parti-prompts", "SD 2.1"]["cmmd"] == "n/a" and others["parti-prompts", "SD 2.1"]["pickscore"] == "111.0"
    )
    assert sum(row["block"] == "quoted" for row in rows) == 14
    text = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert "torch-fidelity | tf1-299 | FID | 20 | 20 | 1.0e-07" in text
    assert "clean-fid clean | pil-float-299 | FID | not run" in text and "TypeError: sqrtm" in text
    assert "1 of 4 of coco-30k, 1 of 4 of parti-prompts" in text


@pytest.mark.parametrize("field", ["protocol_sha256", "reference_sha256", "n"])
def test_fids_of_different_protocols_are_never_in_one_block(study: Study, field: str) -> None:
    path = study.directory / "scores/fid/sd-2.1/coco-30k.json"
    write_json(path, json.loads(path.read_text()) | {field: "other"})
    with pytest.raises(ValueError, match=f"wuerstchen and sd-2.1 cannot be ranked together: {field}"):
        table2(study)


def test_pictures_saved_with_loss_are_marked(study: Study, tmp_path: Path) -> None:
    assert {row["lossy"] for row in rows_of(study, "2", tmp_path) if row["block"] == "measured"} == {"0"}
    path = study.directory / "scores/pickscore/sd-2.1/coco-30k.json"
    write_json(path, json.loads(path.read_text()) | {"lossy": {"images": 4}})
    marked = {(row["prompts"], row["model"]) for row in rows_of(study, "2", tmp_path) if row["lossy"] == "4"}
    assert marked == {("coco-30k", "SD 2.1")}
    text = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert text.count("| SD 2.1 ‡ |") == 2 and "‡: pictures that were saved with loss" in text
    assert summarise(study)["scores"]["coco-30k"]["sd-2.1"]["pickscore"]["lossy"] == {"images": 4}
    assert "SD 2.1 ‡" in page(study)


def test_table_3_is_of_fid(study: Study, tmp_path: Path) -> None:
    rows = rows_of(study, "3", tmp_path)
    assert len(rows) == 13 and rows[0]["fd_celeba-hq"] == "1.0" and rows[0]["paper_fid_coco_30k"] == "0.268"
    assert "FID @ celeba-hq" in (tmp_path / "t.md").read_text(encoding="utf-8")


def test_summary_holds_what_was_measured(study: Study) -> None:
    summary = summarise(study)
    assert summary["scores"]["coco-30k"]["sd-2.1"]["fid"]["protocol"] == "coco30k-clean"
    assert summary["scores"]["parti-prompts"]["wuerstchen"]["fid"].startswith("not run")
    assert set(summary["power_spectrum"]["coco-30k"]) == {"wuerstchen", "sd-2.1", "mine", "real"}
    assert summary["win_rates"]["coco-30k"]["sd-2.1"]["rate"] == 0.75
    assert summary["robustness"]["coco"]["jpeg-95"]["value"] == 1.0
    assert "recall" not in summary and "split_sha256" not in summary


@pytest.mark.parametrize("name", ["collage", "side-by-side", "robustness", "power-spectrum", "figure4"])
def test_figures_are_drawn(study: Study, tmp_path: Path, name: str) -> None:
    figures.draw(study, name, str(tmp_path / name))
    assert (tmp_path / f"{name}.png").stat().st_size > 5000 and (tmp_path / f"{name}.pdf").is_file()


class Text(html.parser.HTMLParser):
    """The text of a page without its style and config, and its addresses."""

    def __init__(self, source: str):
        super().__init__()
        self.text, self.addresses, self.tags, self.skip = "", [], [], False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.skip = tag in ("style", "pre")
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        self.skip = False

    def handle_data(self, data):
        self.text += "" if self.skip else data


def test_the_page_has_the_papers_arithmetic_and_carbon(study: Study) -> None:
    out = str(study.directory / "carbon.json")
    carbon.main(["--kg-per-kwh", "0.4", "--pue", "1.5", "--source", "the tests", "--out", out])
    (study.directory / "tables").mkdir(exist_ok=True)
    row = ("Sums", "one", "One and one", "section 0", "3", "2", "differs", "1 + 1.")
    (study.directory / "tables/audit.csv").write_text(f"{','.join(FIELDS)}\n{','.join(row)}\n", encoding="utf-8")
    text = "".join(Text(page(study)).text.split())
    for said in (
        "Sums: 1 claims, 1 differ",
        "One and one section 0 3 2 ✗ differs 1 + 1.",
        "0.4 kg/kWh (the tests), PUE 1.5",
        "250 W, 0.4 kg/kWh, PUE 1.5",
        "SD 2.1 200,000 75,000.0 30,000 5.62",
    ):
        assert "".join(said.split()) in text, said


def test_the_page_shows_all_and_nothing_of_the_other_studies(study: Study) -> None:
    source = page(study)
    seen = Text(source)
    assert "script" not in seen.tags and seen.tags.count("html") == 1
    assert all(address.startswith(("#", "data:image/")) for address in seen.addresses)
    assert not [word for word in INSTRUMENTS if word in seen.text]
    assert "<b>coco-30k-1</b>" in seen.text and "<b>coco-30k-1</b>" not in source
    for said in ("coco-30k, protocol coco30k-clean", "PickScore", "FID @ coco", "seed of the study: 0"):
        assert said.lower() in seen.text.lower(), said
    for assumption in study.config["assumptions"]:
        assert assumption["why"] in seen.text
    assert "not run: there is no carbon.json" in seen.text and "not run: there is no tables/audit.csv" in seen.text
    sizes = [len(address) for address in seen.addresses if address.startswith("data:")]
    assert max(sizes) < 100_000  # reduced, where the PNG of noise has 270,000 bytes


def test_a_folder_without_results_says_what_was_not_run(study: Study, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = Study.open(tmp_path / "empty", tmp_path / "config.yaml")
    text = Text(page(empty)).text
    assert "not run: there is no prompts/coco-30k.json" in text and "not run: there is no scores/fid/" in text
