"""The config of a study of published models: what it may say, and which files of others follow from it."""

import copy
from collections.abc import Callable

import pytest
import yaml

from evaluation import prompt_sets, protocols
from evaluation.extractors import EXTRACTORS
from evaluation.manipulations import NAMES
from evaluation.preference import METRIC
from evaluation.resizes import parse
from workflow import published
from workflow.settings import SCHEMA, problems, published_schema
from wuerstchen.assets import ASSETS
from wuerstchen.sampling import SAMPLING

Change = Callable[[dict], object]


@pytest.fixture
def released() -> dict:
    return yaml.safe_load((SCHEMA.parent / "released.yaml").read_text(encoding="utf-8"))


def test_the_study_itself_is_valid_and_has_the_papers_models_sets_and_manipulations(released: dict) -> None:
    assert problems(released) == []
    assert list(published.models(released)) == ["wuerstchen", "df-gan", "galip", "sd-1.4", "sd-2.1", "sd-xl"]
    counts = {name: about["count"] for name, about in released["prompts"].items()}
    assert counts == {"coco-30k": 30_000, "ln-coco-5k": 5_000, "parti-prompts": 1_632}
    assert list(released["robustness"]["sets"]) == ["coco", "celeba-hq"]
    assert released["robustness"]["manipulations"] == list(NAMES)
    assert released["prompts"]["coco-30k"]["protocol"] == protocols.DEFAULT
    assert released["metrics"] == published_schema()["properties"]["metrics"]["items"]["enum"]


def test_what_the_paper_leaves_open_is_said_to_be_assumed(released: dict) -> None:
    assert released["sampling"]["wuerstchen"] == {"sampling": "paper"}
    enum = published_schema()["properties"]["sampling"]["properties"]["wuerstchen"]["properties"]["sampling"]["enum"]
    assert enum == list(SAMPLING)
    of = {assumption["of"] for assumption in released["assumptions"]}
    assert {"sampling.wuerstchen", "prompts.coco-30k.protocol", "models.baseline-ldm", "robustness"} <= of


def test_names_of_the_schema_are_those_that_the_programs_know() -> None:
    properties = published_schema()["properties"]
    of_set = properties["prompts"]["additionalProperties"]["properties"]
    assert of_set["loader"]["enum"] == list(prompt_sets.SETS)
    assert of_set["protocol"]["enum"] == list(protocols.PROTOCOLS)
    for name in properties["robustness"]["properties"]["preprocessing"]["enum"]:
        parse(name)
    metrics = {*published.WITH_PROTOCOL, *published.WITH_REFERENCE, *published.OF_PROMPTS, "crosscheck", "speed"}
    assert set(properties["metrics"]["items"]["enum"]) == metrics and METRIC not in metrics
    assert set(published.EXTRACTORS.values()) <= set(EXTRACTORS)
    assert set(published.NETWORKS.values()) <= set(ASSETS)
    assert {protocol.extractor for protocol in protocols.PROTOCOLS.values()} == {published.EXTRACTORS["fid"]}


def test_all_files_of_others_are_listed_once(released: dict) -> None:
    names = published.assets(released)
    assert len(names) == len(set(names))
    assert {"coco/annotations-2014", "coco/val2014", "coco/val2017", "localized-narratives/coco-val"} <= set(names)
    assert {"wuerstchen-v2/stage-c", "clip-bigg/text", "clip-h/text", "sd-xl", "inception", "pickscore"} <= set(names)
    assert published.paths(released) == []
    own = released | {"models": ["sd-xl", {"id": "mine", "folder": "my pictures"}], "metrics": ["cmmd"]}
    own["prompts"] = {"mine": {"loader": "parti", "count": 9, "file": "p.tsv"}}
    assert published.assets(own) == ["sd-xl", "clip-l14-336", "inception", "coco/val2014", "celeba-hq"]
    assert published.paths(own) == ["p.tsv", "my pictures"]


def test_a_baseline_of_ones_own_says_how_it_draws(released: dict) -> None:
    released["models"].append({"id": "baseline-ldm", "weights": "results/paper/train"})
    assert problems(released) == [
        f"sampling.baseline-ldm.{key}: missing; baseline-ldm has no {key} of its own." for key in ("steps", "guidance")
    ]
    released["sampling"]["baseline-ldm"] = {"steps": 60, "guidance": 4.0}
    assert problems(released) == []


def test_own_pictures_take_one_line(released: dict) -> None:
    released["models"].append({"id": "my-model", "folder": "pictures/my-model"})
    assert problems(released) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(preset="emoji"), 'preset: unknown key (its value is "emoji"). Allowed at the top: study,'),
        (lambda c: c.pop("metrics"), "metrics: missing; it gives: What is measured"),
        (lambda c: c["metrics"].append("fdd"), 'metrics[13]: "fdd" is not known. Allowed: fid, kid,'),
        (lambda c: c["prompts"]["coco-30k"].pop("loader"), "prompts.coco-30k.loader: missing; it gives: What reads th"),
        (lambda c: c["prompts"]["coco-30k"].update(loader="coco"), 'prompts.coco-30k.loader: "coco" is not known. All'),
        (lambda c: c["prompts"]["coco-30k"].update(cuont=1), "Did you mean count?"),
        (lambda c: c["prompts"]["coco-30k"].update(protocol="clean"), 'protocol: "clean" is not known. Allowed: coco3'),
        (lambda c: c["prompts"].update({"My set": {}}), 'prompts: "My set" should match'),
        (lambda c: c.update(prompts={}), "prompts: {} should have at least 1 entries"),
        (lambda c: c["prompts"]["coco-30k"].pop("reference"), "prompts.coco-30k.protocol: coco30k-clean compares with"),
        (lambda c: c["prompts"]["parti-prompts"].update(reference="x"), "parti-prompts.reference: x, but the prompts"),
        (lambda c: c["models"].append("sd-3"), "models[6]: sd-3 is not known. Give it weights or a folder, {id: sd-3,"),
        (lambda c: c["models"].append("sd-xl"), "models: "),
        (lambda c: c["models"].append({"id": "sd-xl", "folder": "x"}), "models[6]: sd-xl is there twice"),
        (lambda c: c["models"].append({"id": "real", "folder": "x"}), "models[6]: real is what the real pictures are"),
        (lambda c: c["models"].append({"id": "a", "folder": "x", "weights": "y"}), "a has both weights and a folder"),
        (lambda c: c["models"].append({"folder": "x"}), "models[6].id: missing; it gives: The model's name."),
        (lambda c: c["models"].append({"id": "a", "foldr": "x"}), "models[6].foldr: unknown key"),
        (lambda c: c["models"].append(5), "models[6]: 5 should be a text (A model's id)."),
        (lambda c: c["models"].__setitem__(0, "wuerstchen"), "models[0].weights: missing; wuerstchen needs a publishe"),
        (lambda c: c["sampling"].update(ldm={"steps": 5}), "sampling.ldm: ldm is not one of the study's models (wuers"),
        (lambda c: c["sampling"]["wuerstchen"].update(sampling="own"), '"own" is not known. Allowed: paper, r'),
        (lambda c: c["sampling"]["sd-xl"].update(steps=0), "sampling.sd-xl.steps: 0 should be at least 1"),
        (lambda c: c["robustness"]["sets"]["coco"].update(prompts="names"), "robustness.sets.coco.prompts: names is n"),
        (lambda c: c["robustness"].update(manipulations=["jpg"]), 'robustness.manipulations[0]: "jpg" is not known.'),
        (lambda c: c["robustness"].update(preprocessing="pil-299"), 'robustness.preprocessing: "pil-299" is not known'),
        (lambda c: c.update(shard_size=20), "shard_size: 20 cuts the 36632 prompts into 1832 shards, each with a part"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_words(released: dict, change: Change, said: str) -> None:
    config = copy.deepcopy(released)
    change(config)
    found = problems(config)
    assert any(said in line for line in found), found
    assert not any("\n" in line for line in found)


def test_metrics_that_lack_their_pictures_are_named(released: dict) -> None:
    released["prompts"] = {"parti-prompts": {"loader": "parti", "count": 1632}}
    released["robustness"]["sets"]["coco"].pop("prompts")
    found = problems(released)
    assert "metrics: fid needs a prompt set with a protocol; none of parti-prompts has one." in found
    assert "metrics: cmmd needs a prompt set with a reference; none of parti-prompts has one." in found
    assert len(found) == len(published.WITH_PROTOCOL) + 1 + len(published.WITH_REFERENCE)
