import copy
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workflow.releases import released_files
from workflow.settings import (
    SCHEMA,
    check_flags,
    main,
    problems,
    published_schema,
    schema,
    set_job_environment,
    shard_count,
    source_flags,
    source_state,
)
from wuerstchen.conditions import DRAWS
from wuerstchen.diffusion import LOSS_WEIGHTS, TIMESTEP_SAMPLING
from wuerstchen.execution import native_precision
from wuerstchen.optimisers import OPTIMISERS
from wuerstchen.paper import BASELINE_READINGS
from wuerstchen.presets import NAMES, preset


def changed(config: dict, path: str, value: object) -> dict:
    """A copy of a config with one key changed, added or (with `...`) removed."""
    config = copy.deepcopy(config)
    *parents, last = path.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return config


def test_the_study_itself_is_valid(config: dict) -> None:
    assert problems(config) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("sede", 1, "sede: unknown key (its value is 1). Allowed at the top: study, preset, seed,"),
        ("sede", 1, "Did you mean seed?"),
        (
            "prompts.names.cuont",
            5,
            "prompts.names.cuont: unknown key (its value is 5). Allowed in prompts.names: count.",
        ),
        ("seed", ..., "seed: missing; it gives: The one seed"),
        ("seed", "0", 'seed: "0" should be a whole number'),
        ("seed", True, "seed: true should be a whole number"),
        ("seed", -1, "seed: -1 should be at least 0"),
        ("seed", 1.5, "seed: 1.5 should be a whole number"),
        ("training_seeds", [], "training_seeds: [] should have at least 1 entries (Seeds of the trainings"),
        ("training_seeds", [0, 1, 0], "training_seeds: [0, 1, 0] should name nothing twice (Seeds of the trainings"),
        ("training_seeds", [0, -1], "training_seeds[1]: -1 should be at least 0"),
        ("training_seeds", ["0"], 'training_seeds[0]: "0" should be a whole number'),
        ("training_seeds", 3, "training_seeds: 3 should be a list"),
        ("study", "My Study", 'study: "My Study" should match'),
        ("study", "../x", 'study: "../x" should match'),
        (
            "preset",
            "emojis",
            'preset: "emojis" is not known. Allowed: emoji, tiny, paper, paper-text, released-v2. Did you mean emoji?',
        ),
        ("models", ["baseline-ldm", "baseline-ldm-bc"], 'models[0]: "baseline-ldm" is not known. Allowed: wuerstchen.'),
        (
            "models",
            ["wuerstchen", "sd-2.1"],
            'models[1]: "sd-2.1" is not known. Allowed: baseline-ldm, baseline-ldm-bc, wuerstchen-long, df-gan.',
        ),
        ("models", ["wuerstchen"], "should have at least 2 entries"),
        ("models", "wuerstchen", 'models: "wuerstchen" should be a list'),
        ("prompts", {"names": {"count": 2}}, "prompts.descriptions: missing; it gives: Long captions"),
        ("prompts", {"names": {"count": 2}}, "prompts.compositions: missing"),
        ("robustness.manipulations", ["jpeg-95", "jpg-90"], 'robustness.manipulations[1]: "jpg-90" is not known.'),
        ("robustness.manipulations", ["jpeg-95", "jpg-90"], "Did you mean jpeg-90?"),
        ("robustness.manipulations", ["palette", "palette"], "should name nothing twice"),
        ("robustness.manipulations", [], "robustness.manipulations: [] should have at least 1 entries"),
        ("data", {"source": "folder"}, "data.captions: missing; it gives: For folder"),
        ("data", {"source": "web"}, 'data.source: "web" is not known. Allowed: emoji, folder, webdataset, published.'),
        ("data", {"source": "webdataset", "captions": "c"}, "data.shards: missing; it gives: For webdataset, the tar"),
        ("data", {"source": "webdataset", "captions": "c"}, "data.aesthetic_shards: missing; it gives: For webdatase"),
        ("curve", ..., "curve: missing; only a study of data.source webdataset or with weights has none."),
        (
            "baseline",
            "section-4",
            "baseline: only for data.source webdataset, elsewhere it works on Stage A's latents;",
        ),
        ("baseline", "sd-2.1", 'baseline: "sd-2.1" is not known. Allowed: appendix-e4, section-4.'),
        ("scorer", ..., "scorer: missing; it gives: The small CLIP"),
        ("long", ..., "long: the release with which wuerstchen-long draws; name it and wuerstchen-long among"),
        (
            "models",
            ["wuerstchen", "baseline-ldm"],
            "long: the release with which wuerstchen-long draws; name it and",
        ),
        ("assumptions", [{"of": "seed"}], "assumptions[0].why: missing; it gives: What is known"),
        ("assumptions", [{"of": "seed", "why": ""}], "assumptions[0].why: should not be empty"),
        ("data", None, "data: null should be a group of keys"),
        ("sampling.baseline-ldm", ..., "sampling.baseline-ldm: missing; baseline-ldm is one of the models"),
        ("sampling.wuerstchen.steps_c", 0, "sampling.wuerstchen.steps_c: 0 should be at least 1"),
        ("models", ["wuerstchen", "baseline-ldm-bc"], "speed.models: baseline-ldm is not one of the study's models"),
        ("carbon.source", "", "carbon.source: should not be empty"),
        ("carbon.pue", 0.9, "carbon.pue: 0.9 should be at least 1"),
        ("carbon.gpu_watts", "250 W", 'carbon.gpu_watts: "250 W" should be a number'),
        ("training", {"a": {"steps": 5}, "d": {}}, "training.d: unknown key"),
        ("training", {"b": {"learning_rat": 1}}, "training.b.learning_rat: unknown key (its value is 1)."),
        ("training", {"b": {"learning_rat": 1}}, "Did you mean learning_rate?"),
        ("training", {"c": {"learning_rate": "high"}}, 'training.c.learning_rate: "high" should be a number'),
        ("training", {"c": {"batch_size": 0}}, "training.c.batch_size: 0 should be at least 1"),
        ("training", {"b": {"loss_weight": "p2"}}, 'training.b.loss_weight: "p2" is not known. Allowed: p2-paper,'),
        ("training", {"b": {"betas": [0.9]}}, "training.b.betas: [0.9] should have at least 2 entries"),
        ("training", {"baseline-ldm": {"steps": 5}}, "training.baseline-ldm.steps: unknown key"),
        ("training", {"df-gan": {"steps": 5}}, "training.df-gan.steps: unknown key"),
        ("curve.snapshots", [50, 100], "curve.snapshots[1]: 100 should be at most 99"),
        (
            "shard_size",
            3,
            "shard_size: 3 cuts the 1000 prompts into 334 shards, each with a part of every set, but "
            "prompts.descriptions.count is 250; shard_size should be at least 4.",
        ),
        ("sweep", {"prompts": 8, "training": {"c": {"ema": 0.9}}}, "sweep.training.c.ema: 0.9 should be a list"),
        ("sweep", {"prompts": 8, "training": {"c": {"steps": [5]}}}, "sweep.training.c.steps: unknown key"),
        ("sweep", {"prompts": 8, "sampling": {"wuerstchen": {"steps_c": [0]}}}, "steps_c[0]: 0 should be at least 1"),
    ],
)
def test_what_is_wrong_is_said_in_words(config: dict, path: str, value: object, said: str) -> None:
    found = problems(changed(config, path, value))
    assert any(said in line for line in found), found
    assert not any("\n" in line for line in found)


def test_shards_are_counted_over_all_prompt_sets(config: dict) -> None:
    assert [shard_count(changed(config, "shard_size", size)) for size in (10**6, 1000, 999, 4)] == [1, 1, 2, 250]
    assert problems(changed(config, "shard_size", 4)) == []


def test_all_problems_are_said_at_once(config: dict) -> None:
    found = problems(changed(changed(changed(config, "seed", "x"), "sede", 0), "shard_size", 0))
    assert [line.split(":")[0] for line in found] == ["sede", "seed", "shard_size"]


def test_optional_keys(config: dict) -> None:
    training = {"a": {"steps": 10, "crop": 32}, "c": {"steps": 20, "learning_rate": 1, "betas": [0.9, 0.99]}}
    assert problems(changed(config, "training", training | {"baseline-ldm": {"compiled": False}})) == []
    assert problems(changed(config, "data", {"source": "folder", "captions": "a/b.jsonl"})) == []
    carbon = {"kg_per_kwh": 0.05, "source": "here", "pue": 1.2, "gpu_watts": 400}
    assert problems(changed(config, "carbon", carbon)) == []
    with_gan = changed(config, "models", [*config["models"], "df-gan"])  # which has no sampling settings
    assert problems(changed(with_gan, "training", {"df-gan": {"penalty_power": 2}})) == []


def before() -> dict:
    """The config of the study of released weights."""
    return yaml.safe_load((SCHEMA.parent / "emoji-released.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            "curve",
            {"snapshots": [50], "prompts": 5},
            "curve: a study with weights trains nothing, so it has none; remov",
        ),
        ("probe", {"prompts": 5}, "probe: a study with weights trains nothing"),
        ("training", {"c": {"steps": 5}}, "training: a study with weights trains nothing"),
        ("scorer", {"epochs": 5}, "scorer: a study with weights trains nothing"),
        ("training_seeds", [0, 1], "training_seeds: [0, 1], but a release is of one training; remove it."),
        ("models", ["wuerstchen", "baseline-ldm", "df-gan"], "models: df-gan is in no release; remove it."),
        ("weights", "", "weights: should not be empty"),
    ],
)
def test_what_a_study_of_released_weights_cannot_have(path: str, value: object, said: str) -> None:
    assert problems(before()) == []
    found = problems(changed(before(), path, value))
    assert any(said in line for line in found), found


def test_files_of_releases_are_checked_before_anything_starts(config: dict) -> None:
    files = released_files(before())
    assert "wuerstchen/released/emoji/train/baseline-ldm/usage.json" in files and len(files) == 4 * 3 + 4
    assert check_flags(before()).startswith("--source emoji --paths wuerstchen/released/emoji/train/a/model.safet")
    longer = changed(config, "long", "my release")
    assert "'my release/train/c/model.safetensors'" in check_flags(longer) and len(released_files(longer)) == 9


def test_a_sweep_names_only_models_of_the_study(config: dict) -> None:
    swept = changed(config, "sweep", {"prompts": 8, "training": {"b": {"ema": [0.9]}, "baseline-ldm": {"ema": [0.9]}}})
    assert problems(swept) == []
    swept |= {"models": ["wuerstchen", "baseline-ldm-bc"], "speed": {"models": ["wuerstchen"], "batch_sizes": [1]}}
    del swept["long"], swept["sampling"]["wuerstchen-long"]
    said = "sweep.training.baseline-ldm: baseline-ldm is not one of the study's models (wuerstchen, baseline-ldm-bc)."
    assert problems(swept) == [said]


def test_the_sweep_laid_over_the_study_is_valid(config: dict) -> None:
    text = (SCHEMA.parent / "emoji-sweep.yaml").read_text(encoding="utf-8")
    assert problems(config | yaml.safe_load(text)) == []


def test_names_of_recipes_are_those_that_training_knows() -> None:
    assert set(NAMES["loss_weight"]) == set(LOSS_WEIGHTS) and set(NAMES["timesteps"]) == set(TIMESTEP_SAMPLING)
    assert all(native_precision(name) for name in NAMES["precision"])
    assert set(NAMES["optimiser"]) == set(OPTIMISERS)
    assert set(NAMES["drop_text_per"]) == set(NAMES["drop_image_per"]) == set(DRAWS)


def paper() -> dict:
    """The config of the paper's study."""
    return yaml.safe_load((SCHEMA.parent / "paper.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["paper", "paper-text", "released-v2"])
def test_the_papers_study_is_valid_with_each_of_its_presets(name: str) -> None:
    config = paper()
    assert config["preset"] == "paper"
    assert problems(config | {"preset": name}) == []
    assert schema()["properties"]["baseline"]["enum"] == list(BASELINE_READINGS)
    for reading in BASELINE_READINGS:
        assert problems(config | {"preset": name, "baseline": reading}) == []


def test_the_paper_samples_as_its_preset_says() -> None:
    chosen = preset("paper").sampling
    settings = {key: getattr(chosen, key) for key in ("steps_c", "guidance_c", "steps_b", "guidance_b")}
    assert paper()["sampling"]["wuerstchen"] == settings
    assert (settings["steps_c"], settings["steps_b"], settings["guidance_b"]) == (60, 12, 4.0)
    # the paper does not state it
    assert "sampling.wuerstchen.guidance_c" in [assumption["of"] for assumption in paper()["assumptions"]]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("curve", {"snapshots": [50], "prompts": 5}, "curve: a study of data.source webdataset has none; remove it."),
        ("sweep", {"prompts": 5}, "sweep: a study of data.source webdataset has none; remove it."),
        ("weights", "a/release", "weights: a study of data.source webdataset has none; remove it."),
        ("models", ["wuerstchen", "baseline-ldm", "baseline-ldm-bc"], "models: baseline-ldm-bc is not trained on shar"),
        ("models", ["wuerstchen", "df-gan"], "models: df-gan is not trained on shards; remove it."),
        ("preset", "emoji", "preset: emoji is not trained on shards; its recipe for stage a has no phases."),
        (
            "training",
            {"c": {"steps": 5}},
            "training.c.steps: 5 contradicts the preset paper, which trains stage c in 4 phase(s) with lengths and ba",
        ),
    ],
)
def test_what_a_study_on_shards_cannot_have(path: str, value: object, said: str) -> None:
    config = changed(paper(), path, value)
    config["sampling"]["baseline-ldm-bc"] = config["sampling"]["baseline-ldm"]
    found = problems(config)
    assert any(said in line for line in found), found


def test_the_schema_describes_every_key_and_allows_no_other() -> None:
    def walk(node: dict, name: str) -> None:
        assert node.get("description"), f"{name} has no description"
        if node.get("type") == "object":
            others = node.get("additionalProperties")
            assert others is False or isinstance(others, dict), f"{name} allows unknown keys"
            for key, child in [*node.get("properties", {}).items(), *([("NAME", others)] if others else [])]:
                walk(child, f"{name}.{key}")
        for child in [node[key] for key in ("then", "else") if key in node]:
            walk(child, name)
        for child in [*node.get("prefixItems", []), *([node["items"]] if "items" in node else [])]:
            walk(child, f"{name}[]")

    walk(schema(), "config")
    walk(published_schema(), "config")


def test_config_written_beside_the_results_is_the_config(config: dict, tmp_path) -> None:
    main(["--settings", json.dumps(config), "--out", str(tmp_path / "config.yaml")])
    assert yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8")) == config


def test_flags_of_shards_keep_their_braces() -> None:
    data = {"source": "webdataset", "captions": "my c.jsonl", "shards": "s/{0..9}.tar", "aesthetic_shards": "t.tar"}
    assert source_flags({"data": data}) == "--source folder --captions 'my c.jsonl'"
    emoji = {"preset": "emoji", "models": ["wuerstchen", "baseline-ldm"]}
    assert (
        check_flags({"data": data, **emoji}) == "--source folder --captions 'my c.jsonl' --shards 's/{0..9}.tar' t.tar"
    )
    assert check_flags({"data": {"source": "emoji"}, **emoji}) == "--source emoji"


def test_flags_of_a_folder_with_spaces() -> None:
    assert source_flags({"data": {"source": "emoji"}}) == "--source emoji"
    flags = source_flags({"data": {"source": "folder", "captions": "my pictures/c.jsonl"}})
    assert flags == "--source folder --captions 'my pictures/c.jsonl'"


def test_state_of_a_folder_changes_with_captions_and_pictures(tmp_path) -> None:
    captions, picture = tmp_path / "captions.jsonl", tmp_path / "a.png"
    config = {"data": {"source": "folder", "captions": str(captions)}}
    states = [source_state(config)]
    captions.write_text('{"image": "a.png", "caption": "a"}\nnot json\n{"image": 3}\n')
    states.append(source_state(config))
    picture.write_bytes(b"1")
    states.append(source_state(config))
    picture.write_bytes(b"22")
    states.append(source_state(config))
    captions.write_text('{"image": "a.png", "caption": "b"}\n')
    states.append(source_state(config))
    assert len(set(states)) == len(states)
    assert source_state(config) == states[-1]


def test_the_readme_names_every_key() -> None:
    text = (SCHEMA.parent / "README.md").read_text(encoding="utf-8")
    for key in schema()["properties"] | published_schema()["properties"]:
        assert f"\n| `{key}` |" in text, key


FAULTS = """
import resource, torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100): torch.ones(7 * 2**20), torch.ones(4 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(environment: dict[str, str]) -> int:
    """How many pages the system clears for a program that fills and frees large arrays a hundred times."""
    return int(subprocess.run([sys.executable, "-c", FAULTS], env=environment, check=True, capture_output=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_jobs_keep_the_memory_that_they_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": "/usr/bin"})
    usual = page_faults(dict(os.environ))
    set_job_environment()
    assert page_faults(dict(os.environ)) < usual / 4
    assert os.environ["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/usr/bin"


def test_jobs_keep_what_the_user_says_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": "/usr/bin", "MALLOC_TRIM_THRESHOLD_": "1"})
    set_job_environment()
    assert os.environ["MALLOC_TRIM_THRESHOLD_"] == "1"
