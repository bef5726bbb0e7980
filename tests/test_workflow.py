"""The workflow as users meet it: its plan, its style, its refusals, and whole studies in a copy of the tree."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml
from simulated_votes import rows_of, simulated_counts, write_export
from trees import ROOT, call, copy_tree, edit_config, finish, measurements, start, study_tree

from workflow import rulegraph
from workflow.code import sources
from workflow.done import chapters
from wuerstchen.presets import presets

JOBS = {
    "settings": 1,
    "check": 1,
    "data": 1,
    "robustness_pictures": 2,
    "prompts": 3,
    "tokens": 1,
    "trunk": 1,
    "train_a": 1,
    "latents_a": 1,
    "train_b": 1,
    "latents_compressor": 1,
    "train_c": 1,
    "train_baseline": 1,
    "train_baseline_bc": 1,
    "train_probe": 1,
    "unpack_long": 1,
    "sample": 4,  # one per model, for all its sets, which are one shard
    "real_pictures": 5,  # names of `real` and three ceilings, descriptions of `real`
    "features": 4,  # one per model, for all its sets
    "features_of_real": 1,
    "features_of_ceilings": 1,
    "scores": 11,
    "scores_without_reference": 4,
    "recall": 7,
    "curve_features": 1,
    "curve": 1,
    "workload": 1,
    "scorer": 1,
    "validity": 1,
    "preference": 4,
    "win_rates": 3,
    "robustness_scores": 2,
    "sampling_time": 2,
    "carbon_account": 1,
    "audit": 1,
    "more_tables": 1,
    "table": 3,
    "figure": 7,
    "summary": 1,
    "report": 1,
    "all": 1,
}
SWEEP = {"sweep_training", "sweep_recall"}  # jobs of the target `sweep` alone
FULL = {"train_df_gan"}  # jobs of config/emoji-full.yaml alone
ASKED = {"paper_size_times"}  # jobs of the target `figure4` alone
VOTED = {"votes": 1, "preferences": 1}  # jobs of a study whose config names exports of votes

# jobs of a study of published models: 36,632 prompts in 37 shards of each of 6 models, 2 sets with real pictures, one
# of them under a protocol
RELEASED = {
    "check_assets": 1,
    "settings": 1,
    "prompt_set": 3,
    "draw": 6 * 37,
    "real_shards": 2 * 37,
    "extract": 6,  # Inception's, of the set with a protocol
    "extract_of_sets": 6 * 2,  # DINOv2's and CLIP's, of both sets with real pictures
    "extract_reference": 1 + 2 * 2,
    "protocol_scores": 6,
    "fd_dinov2": 6 * 2,
    "cmmd": 6 * 2,
    "prompt_scores": 6 * 4,  # for each model and scorer one, for all its sets
    "preferred": 3,
    "power_spectrum": (6 + 1) * 2,
    "crosscheck": 1,
    "robustness_part": 2 * 30,
    "robustness_of_parts": 2,
    "paper_size_times": 1,
    "carbon_account": 1,
    "audit": 1,
    "more_tables": 1,
    "table": 3,
    "figure": 5,
    "summary": 1,
    "report": 1,
    "all": 1,
}

# jobs of the paper's study: 36,600 prompts in 37 shards, two models, eight phases of four stages
PAPER = {
    "settings": 1,
    "check": 1,
    "data": 1,
    "scan": 2,
    "measured_pictures": 1,
    "select": 2,
    "prompts": 3,
    "robustness_pictures": 1,
    "train_phase": 8,
    "interpolate": 1,
    "train_stage": 4,
    "sample": 2 * 37,
    "real_pictures": 4 * 37,  # names of `real` and two ceilings, descriptions of `real`
    "features": 2,
    "features_of_real": 1,
    "features_of_ceilings": 1,
    "scores": 6,
    "scores_without_reference": 2,
    "recall": 4,
    "scorer": 1,
    "validity": 1,
    "preference": 2,
    "win_rates": 3,
    "robustness_scores": 1,
    "sampling_time": 2,
    "carbon_account": 1,
    "audit": 1,
    "more_tables": 1,
    "table": 3,
    "figure": 5,
    "summary": 1,
    "report": 1,
    "all": 1,
}
# jobs of the emoji study with released weights: two models, no trainings, curve or probe
TRAINED = ("tokens", "trunk", "train_a", "latents_a", "train_b", "latents_compressor", "train_c", "train_baseline")
TRAINED += ("train_baseline_bc", "train_probe", "unpack_long", "scorer", "curve_features", "curve", "workload")
WEIGHTS = {rule: count for rule, count in JOBS.items() if rule not in TRAINED} | {"unpack": 1, "figure": 5}
WEIGHTS |= dict.fromkeys(("sample", "features", "scores_without_reference", "preference"), 2) | {
    "scores": 7,
    "recall": 5,
}
# without the probe and its figure, and two models less than the default study
WITHOUT = ("train_baseline_bc", "train_probe", "unpack_long", "workload")
LONG = {rule: count for rule, count in JOBS.items() if rule not in WITHOUT}
LONG |= {
    rule: WEIGHTS[rule] for rule in ("sample", "features", "scores_without_reference", "preference", "scores", "recall")
}
LONG |= {"figure": 6}
PLANS = {"emoji": JOBS, "emoji-long": LONG, "emoji-released": WEIGHTS, "released": RELEASED, "paper": PAPER}
BEFORE = {"unpack", "unpack_long"}  # jobs of studies with released weights


def planned(text: str) -> dict[str, int]:
    """Jobs by rule, as a dry-run counts them."""
    table = text.split("Job stats:")[1].split("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def dry_run(tree: Path, *arguments: str) -> dict[str, int]:
    """What snakemake would do in a tree."""
    run = call("snakemake", "--dry-run", "--cores", "2", *arguments, cwd=tree)
    assert run.returncode == 0, run.stdout
    return {} if "Nothing to be done" in run.stdout else planned(run.stdout)


@pytest.mark.parametrize("study", PLANS)
def test_a_study_is_planned_as_hundreds_of_jobs_without_any_data(tree: Path, study: str) -> None:
    jobs = dry_run(tree, "--configfile", f"config/{study}.yaml")
    assert jobs == PLANS[study]
    assert sum(jobs.values()) < 1000


def test_networks_of_the_papers_size_are_drawn_on_a_gpu_and_the_others_where_they_were(tree: Path) -> None:
    for study, device in (("paper", "auto"), ("emoji", None)):
        run = call(
            "snakemake", "--dry-run", "--printshellcmds", "--cores", "2", "--configfile", f"config/{study}.yaml",
            cwd=tree,
        )  # fmt: skip
        asked = re.findall(r"gpu=(\d).*\s+Shell command: python -m (evaluation.(?:sample|speed) .*)", run.stdout)
        assert (
            len(asked) == {"paper": 2 * 37 + 4 * 37 + 2, "emoji": JOBS["sample"] + JOBS["real_pictures"] + 2}[study]
        ), run.stdout
        for gpus, command in asked:
            on_gpu = study == "paper" and " --model real " not in command
            assert (int(gpus), re.findall(r"--device (\w+)", command)) == (on_gpu, [device] * on_gpu), command
        resized = [line for line in run.stdout.splitlines() if "evaluation.features --of" in line]
        assert {"--preprocessing bicubic-128" in line for line in resized} == {study == "paper"}


def test_the_plan_of_costs_has_the_jobs_of_the_dry_run(tree: Path) -> None:
    run = call("workflow.plan", "--configfile", "config/emoji.yaml", "--json", "plan.json", cwd=tree)
    assert run.returncode == 0, run.stdout
    rows = json.loads((tree / "plan.json").read_text())["rows"]
    jobs: dict[str, int] = {}
    for row in rows:
        rule = row["name"].split()[0]
        jobs[rule] = jobs.get(rule, 0) + row["jobs"]
    assert jobs == JOBS
    assert {row["kind"] for row in rows if row["name"] != "all"} == {"measured"}
    assert not (tree / "results").exists() and f"{sum(JOBS.values())} " in run.stdout


def test_an_export_of_votes_adds_its_chapter_and_nothing_else(tree: Path) -> None:
    edit_config(tree / "config" / "emoji.yaml", votes=["my votes/export.csv"])
    missing = call("snakemake", "--dry-run", "--cores", "2", cwd=tree)
    assert missing.returncode and "my votes/export.csv" in missing.stdout
    (tree / "my votes").mkdir()
    write_export(tree / "my votes" / "export.csv", rows_of(simulated_counts(9, 30, (0.6, 0.1, -0.5), 0.5, seed=0)))
    assert dry_run(tree) == JOBS | VOTED | {"figure": JOBS["figure"] + 1}
    made = call("snakemake", "--cores", "1", "results/emoji/tables/preferences.md", cwd=tree)
    assert made.returncode == 0, made.stdout
    record = json.loads((tree / "results/emoji/study/votes.json").read_text(encoding="utf-8"))
    assert record["studies"]["parti"]["models"][0] == "wuerstchen"
    said = (tree / "results/emoji/tables/preferences.md").read_text(encoding="utf-8")
    assert "Würstchen among decisive votes" in said and record["votes"]["sha256"]["export.csv"] in said


def test_plan_of_the_emoji_study_with_a_gan(tree: Path) -> None:
    """One training more, and a GAN in the place of the weights that were trained long before."""
    edit_config(tree / "config" / "emoji-full.yaml", training={"df-gan": {"learning_rate": 0.0002}})
    run = call("snakemake", "-n", "-p", "--cores", "1", "--configfile", "config/emoji-full.yaml", cwd=tree)
    assert run.returncode == 0, run.stdout
    jobs = JOBS | {"sampling_time": JOBS["sampling_time"] + 1} | dict.fromkeys(FULL, 1)
    assert planned(run.stdout) == {rule: count for rule, count in jobs.items() if rule != "unpack_long"}

    def line(start: str) -> str:
        (found,) = re.findall(rf"python -m {start} .*", run.stdout)
        return found

    training = line("wuerstchen.train --stage df-gan")
    assert "--budget b c --set learning_rate=0.0002 --snapshots 25 50 75 " in training
    assert "--set" not in line("evaluation.sample --model df-gan") + line("evaluation.speed --model df-gan")
    assert " df-gan=results/emoji-full/preference/df-gan/names.csv --prompts names " in run.stdout


def test_released_weights_are_one_more_model(tree: Path) -> None:
    """They are drawn with and scored like any other, and are neither trained nor part of what this run used."""
    edit_config(tree / "config" / "emoji.yaml", long="my release")
    run = call("snakemake", "-n", "-p", "--cores", "1", cwd=tree)
    assert run.returncode == 0, run.stdout

    def line(start: str) -> str:
        (found,) = re.findall(rf"python -m {start} .*", run.stdout)
        return found

    assert "--weights 'my release' --preset emoji --split results/emoji/data/split.json" in line("wuerstchen.unpack")
    assert "--weights results/emoji/train/long --prompts" in line("evaluation.sample --model wuerstchen-long")
    assert "--weights results/emoji/train --prompts" in line("evaluation.sample --model wuerstchen")
    assert "wuerstchen-long=results/emoji/preference/wuerstchen-long/names.csv --prompts names " in run.stdout
    assert "train/long" not in line("evaluation.carbon") and "wuerstchen-long" not in line("evaluation.curve draw")
    refused = call("snakemake", "--cores", "1", "results/emoji/check.json", cwd=tree)
    assert refused.returncode == 1 and "my release/train/c/model.safetensors: no such file" in refused.stdout


def test_a_smaller_shard_size_cuts_every_set_into_more_jobs(tree: Path) -> None:
    edit_config(tree / "config" / "emoji.yaml", shard_size=350)
    assert dry_run(tree) == JOBS | {name: 3 * JOBS[name] for name in ("sample", "real_pictures")}
    plan = call("snakemake", "--dry-run", "--printshellcmds", cwd=tree).stdout
    (last,) = re.findall(r"evaluation.sample --model wuerstchen .* --shard 0002 --shards 3 .*", plan)
    for name in ("names", "descriptions", "compositions"):
        assert f"prompts/{name}.jsonl" in last and f"images/wuerstchen/{name}/0002.zip" in last


def test_each_further_training_seed_trains_draws_and_scores_the_models(tree: Path) -> None:
    """But no data, ceilings, robustness or speed, and with the same sampling noise."""
    edit_config(tree / "config" / "emoji.yaml", training_seeds=[0, 3, 7])
    again = ("trunk", "train_a", "latents_a", "train_b", "latents_compressor", "train_c", "train_baseline")
    again += (
        "train_baseline_bc",
        "unpack_long",
        "sample",
        "features",
        "scores_without_reference",
        "preference",
        "win_rates",
    )
    jobs = {rule: count * 3 if rule in again else count for rule, count in JOBS.items()}
    # not for the ceilings, of which `scores` and `recall` have three
    assert dry_run(tree) == jobs | {"scores": 11 + 2 * 8, "recall": 7 + 2 * 4}
    plan = call("snakemake", "--dry-run", "--printshellcmds", cwd=tree).stdout
    commands = re.findall(r"python -m (\S+) (.*emoji/seeds/7/.*)", plan)
    seeds: dict[str, set[str]] = {}
    for program, flags in commands:
        seeds.setdefault(program, set()).update(re.findall(r"--seed (\d+)", flags))
    assert seeds.pop("wuerstchen.train") == {"7"} and set().union(*seeds.values()) == {"0"}
    trained = [flags for program, flags in commands if program in ("wuerstchen.train", "wuerstchen.precompute")]
    assert len(trained) == 8 and all("--data results/emoji/data " in flags for flags in trained)


def test_training_seeds_are_the_studys_seed_where_none_are_given(tree: Path) -> None:
    config = edit_config(tree / "config" / "emoji.yaml", seed=5)
    config.write_text(config.read_text().replace("training_seeds:\n- 0\n", ""))
    assert "training_seeds" not in config.read_text()
    plan = call("snakemake", "--dry-run", "--printshellcmds", cwd=tree).stdout
    assert set(re.findall(r"wuerstchen.train .*--seed (\d+)", plan)) == {"5"}


def commands(tree: Path, program: str, *arguments: str) -> list[str]:
    """The commands of a dry-run that call a program."""
    run = call("snakemake", "--dry-run", "--printshellcmds", "--cores", "1", *arguments, cwd=tree)
    assert run.returncode == 0, run.stdout
    return re.findall(rf"^.*{re.escape(program)} .*$", run.stdout, re.MULTILINE)


def test_plan_of_the_papers_study_without_any_data(tree: Path) -> None:
    """Every phase of every stage, on the shards that it is trained on, each after what it needs."""
    run = call("snakemake", "-n", "-p", "--cores", "1", "--configfile", "config/paper.yaml", cwd=tree)
    assert run.returncode == 0, run.stdout
    phases = {}
    for line in re.findall(r"wuerstchen.distributed .* -m wuerstchen.train .*", run.stdout):
        stage, phase = re.search(r"--stage (\S+) --preset paper --phase (\d) ", line).groups()
        phases[stage, int(phase)] = line
    assert set(phases) == {("a", 1), ("b", 1), ("b", 2), *(("c", n) for n in range(1, 5)), ("baseline-ldm", 1)}
    for (stage, phase), line in phases.items():
        aesthetic = (stage, phase) == ("c", 4)
        assert ("--data 'data/laion-aesthetic/{000000..000999}.tar'" in line) == aesthetic
        assert ("--data 'data/laion/{000000..009999}.tar'" in line) != aesthetic
        data = f"results/paper/data/{'aesthetic' if aesthetic else 'base'}"
        assert f"--selection {data}/selection.safetensors --validation {data}/validation.safetensors" in line
        earlier = f"--continue-from results/paper/train/{stage}/phases/{phase - 1} "
        assert (earlier in line) == (phase > 1)
    (step,) = re.findall(r"wuerstchen.interpolate (.*) --out", run.stdout)
    assert step == " ".join(f"results/paper/train/c/phases/{n}/model.safetensors" for n in (3, 4))
    (whole,) = re.findall(r"wuerstchen.phases (.*train/c/phases/4) --model (\S+)", run.stdout)
    assert whole[1] == "results/paper/train/c/phases/interpolated/model.safetensors"


def test_the_papers_baseline_is_trained_without_stage_a_in_the_reading_that_is_asked_for(tree: Path) -> None:
    arguments = ("results/paper/train/baseline-ldm/model.safetensors", "--configfile", "config/paper.yaml")
    (line,) = commands(tree, "wuerstchen.train", *arguments)
    assert "--stage baseline-ldm " in line and "--baseline" not in line
    (line,) = commands(tree, "wuerstchen.train", *arguments, "--config", "baseline=appendix-e4")
    assert " --baseline appendix-e4 --out results/paper/train/baseline-ldm/phases/1 " in line


def test_plan_of_the_published_models_without_any_data(tree: Path) -> None:
    run = call("snakemake", "-n", "-p", "--cores", "1", "--configfile", "config/released.yaml", cwd=tree)
    assert run.returncode == 0, run.stdout

    def lines(program: str) -> list[str]:
        return re.findall(rf"python -m {re.escape(program)} .*", run.stdout)

    sources = dict(re.findall(r"evaluation.sample --model (\S+) (.*?)--prompts", run.stdout))
    assert sources == {"wuerstchen": "--weights released-v2 "} | dict.fromkeys(
        ["df-gan", "galip", "sd-1.4", "sd-2.1", "sd-xl"], " "
    )
    (last,) = [line for line in lines("evaluation.sample") if "--model sd-xl" in line and "--shard 0036 " in line]
    assert "--shards 37 --seed 0 --set steps=50 --out results/released/images/sd-xl/coco-30k/0036.zip" in last
    (inception,) = [line for line in lines("evaluation.features") if "features/inception/real" in line]
    assert "coco/val2014 --matching results/released/prompts/coco-30k.jsonl --protocol coco30k-clean " in inception
    (scores,) = [line for line in lines("evaluation.protocol_scores") if "--model wuerstchen " in line]
    for flag in ("--fid", "--kid", "--is"):
        assert f"{flag} results/released/scores/{flag[2:]}/wuerstchen/coco-30k.json" in scores
    folders = " ".join(
        f"results/released/scores/{name}/wuerstchen/coco-30k.json"
        for name in ("precision", "recall", "density", "coverage")
    )
    assert f"--prdc {folders} >" in scores
    (won,) = [line for line in lines("evaluation.preference win-rate") if "--prompts parti-prompts " in line]
    assert (
        "--metric pickscore --model wuerstchen " in won and "sd-xl=results/released/preference/pickscore/sd-xl" in won
    )
    parts = lines("evaluation.robustness_features")
    assert sum("--pictures celeba-hq  --manip" in line for line in parts) == 30
    assert sum("--matching results/released/prompts/coco-30k.jsonl" in line for line in parts) == 30
    assert all("--parts 30 --part " in line and "--preprocessing pil-float-299" in line for line in parts)


def test_own_pictures_and_fewer_metrics_need_no_more_than_they_must(tree: Path) -> None:
    mine = {"id": "my-model", "folder": "my pictures"}
    config = edit_config(tree / "config" / "released.yaml", models=["sd-xl", mine], metrics=["fid", "pickscore"])
    edit_config(config, sampling={})
    (line,) = commands(tree, "evaluation.sample --model my-model", "--configfile", "config/released.yaml")[:1]
    assert "--pictures 'my pictures' --prompts" in line
    jobs = dry_run(tree, "--configfile", "config/released.yaml")
    assert jobs["extract"] == 2 and jobs["prompt_scores"] == 2 and jobs["preferred"] == 3
    assert not {"cmmd", "fd_dinov2", "power_spectrum", "crosscheck", "paper_size_times"} & set(jobs)
    edit_config(config, models=[mine], metrics=["kid"])
    assert "preferred" not in dry_run(tree, "--configfile", "config/released.yaml")


def test_missing_assets_stop_a_run_and_are_all_named(tree: Path) -> None:
    run = call("snakemake", "--cores", "1", "--configfile", "config/released.yaml", cwd=tree)
    assert run.returncode == 1 and "Error in rule check_assets" in run.stdout
    for name in ("coco/val2014", "wuerstchen-v2/stage-c", "hpsv2.1", "celeba-hq"):
        assert f"asset {name} is missing" in run.stdout
    assert not (tree / "results" / "released" / "prompts").exists()


@pytest.mark.parametrize("name", ["paper-text", "released-v2"])
def test_other_presets_of_the_papers_study_are_one_key_away(tree: Path, name: str) -> None:
    arguments = ("--configfile", "config/paper.yaml", "--config", f"preset={name}")
    trained = commands(tree, "wuerstchen.train", *arguments)
    assert len(trained) == 8 and all(f"--preset {name} " in line for line in trained)


def test_missing_shards_stop_a_run_and_are_named(tree: Path) -> None:
    run = call("snakemake", "--cores", "1", "--configfile", "config/paper.yaml", cwd=tree)
    assert run.returncode == 1 and "Error in rule check" in run.stdout
    for pattern, first, count in (("laion", "000000", 10000), ("laion-aesthetic", "000000", 1000)):
        assert f"no file data/{pattern}/{first}.tar ({count} of the {count} named are missing)" in run.stdout
    assert "data/coco/captions.jsonl: no such file" in run.stdout


def test_parts_have_names(tree: Path) -> None:
    parts = {"tables", "figures", "robustness", "carbon", "speed"}
    listed = call("snakemake", "--list-target-rules", cwd=tree).stdout
    assert parts < set(listed.split())
    assert set(dry_run(tree, "robustness")) == {
        *("check", "data", "robustness_pictures", "robustness_scores", "robustness"),
    }


def test_the_sweep_trains_each_variant_once_and_only_when_asked(tree: Path) -> None:
    edit_config(tree / "config" / "emoji.yaml", training={"c": {"learning_rate": 0.006, "batch_size": 32}})
    files = ("config/emoji.yaml", "config/emoji-sweep.yaml")
    assert not SWEEP & set(dry_run(tree, "--configfile", *files))
    # two further learning rates of B, C and the baseline each, three further weights of C
    assert dry_run(tree, "sweep", "--configfile", *files)["sweep_training"] == 9
    run = call("snakemake", "-n", "-p", "sweep", "--cores", "1", "--configfile", *files, cwd=tree)
    (weighted,) = re.findall(r"wuerstchen.train .*loss_weight=none .*", run.stdout)
    assert "--set learning_rate=0.006 batch_size=32 loss_weight=none " in weighted and "sweep/train/c" in weighted
    (baseline,) = re.findall(r"wuerstchen.train .*baseline-ldm/learning-rate-0.0015 .*", run.stdout)
    assert "--budget c:batch_size=32 --set learning_rate=0.0015 " in baseline
    assert "--trained c learning_rate 0.006 results/emoji/train/c " in run.stdout
    refused = call("snakemake", "-n", "sweep", cwd=tree)
    assert refused.returncode == 1 and "The config has no sweep" in refused.stdout


def test_figure_4_is_timed_only_when_asked_and_appendix_d_only_where_configured(tree: Path) -> None:
    assert dry_run(tree, "figure4") == {"figure4": 1, "paper_size_times": 1}
    config = tree / "config" / "emoji.yaml"
    speed = {"models": ["wuerstchen"], "batch_sizes": [1], "figure4": "measured.json"}
    edit_config(config, speed=speed)
    assert dry_run(tree)["figure"] == JOBS["figure"] + 1  # which says that there is no such file yet
    plan = call("snakemake", "-n", "-p", "figure4", cwd=tree).stdout
    assert "evaluation.speed --figure4 --out measured.json" in plan
    config.write_text(config.read_text().replace("probe:\n  prompts: 200\n", ""))
    jobs = dry_run(tree)
    assert not {"train_probe", "workload"} & set(jobs) and jobs["figure"] == JOBS["figure"]


def test_style() -> None:
    published = ["snakemake", "--lint", "--configfile", "config/released.yaml"]
    for command in (["snakefmt", "--check", "Snakefile", "workflow"], ["snakemake", "--lint"], published):
        run = subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], cwd=ROOT, capture_output=True)
        assert run.returncode == 0, run.stdout.decode() + run.stderr.decode()


def rule_texts() -> dict[str, str]:
    """The text of each rule that does something."""
    texts = {}
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for text in re.split(r"^(?=(?:use )?rule )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            name, derived = re.match(r"(?:use )?rule (\w+)(?: as (\w+))?", text).groups()
            texts[derived or name] = text
    return texts


def test_every_rule_says_what_it_did_and_how_long_it_took() -> None:
    texts = rule_texts()
    assert (
        set(texts) - SWEEP == set(chapters()) == set(JOBS | RELEASED | PAPER | VOTED) - {"all"} | FULL | ASKED | BEFORE
    )
    for rule, text in texts.items():
        folder = "results/{study}/sweep" if rule in SWEEP else "results/{study}"
        # The folder is the rule's name, since summary.json and workflow/done.py count time by it.
        assert f'"{folder}/benchmarks/{rule}/' in text, rule
        assert f'"{folder}/logs/' in text, rule
        if not text.startswith("use rule"):
            assert 'conda:\n        "../../environment.yml"' in text, rule


def test_a_changed_comment_never_costs_a_training() -> None:
    cheap = {
        "features",
        "features_of_real",
        "features_of_ceilings",
        "scores",
        "scores_without_reference",
        "recall",
        "curve",
        "validity",
        "preference",
        "win_rates",
    }
    cheap |= {"protocol_scores", "fd_dinov2", "cmmd", "preferred", "power_spectrum", "robustness_of_parts"}
    cheap |= {
        "robustness_scores",
        "carbon_account",
        "audit",
        "more_tables",
        "table",
        "preferences",
        "figure",
        "summary",
        "report",
    }
    assert {rule for rule, text in rule_texts().items() if "code(" in text} == cheap


def test_sources_follow_imports(tmp_path: Path) -> None:
    package = tmp_path / "evaluation"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "report": "import json\nfrom evaluation import tables\n",
        "tables": "def main():\n    from evaluation.intervals import wilson\n",
        "intervals": "import evaluation.report\n",
        "figures": "",
    }.items():
        (package / f"{name}.py").write_text(text)
    found = sources("evaluation.report", tmp_path)
    assert found == [f"evaluation/{name}.py" for name in ("__init__", "intervals", "report", "tables")]


def test_picture_of_the_rules_is_todays(tree: Path, tmp_path: Path) -> None:
    graph = rulegraph.rulegraph(tree)
    advice = "the rules have changed: run `make rulegraph`"
    assert rulegraph.as_text(graph) == (ROOT / "docs" / "rulegraph.txt").read_text(encoding="utf-8"), advice
    rulegraph.draw(graph, tmp_path / "rulegraph.svg")
    assert (tmp_path / "rulegraph.svg").read_bytes() == (ROOT / "docs" / "rulegraph.svg").read_bytes(), advice


def test_presets_of_the_schema_can_be_trained() -> None:
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text(encoding="utf-8"))
    trainable = {name for name, preset in presets().items() if preset.recipes}
    assert set(schema["properties"]["preset"]["enum"]) == trainable


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shard_sise": 3}, ["shard_sise", "unknown key", "Did you mean shard_size?"]),
        (
            {"robustness": {"sets": ["openmoji"], "count": 9, "manipulations": ["jpeg-90", "jpeg-91"]}},
            ["robustness.manipulations[1]", '"jpeg-91"', "Allowed: jpeg-95,"],
        ),
        ({"seed": "zero"}, ["seed", '"zero"', "a whole number"]),
    ],
)
def test_bad_config_stops_at_parse(tree: Path, changes: dict, said: list[str]) -> None:
    edit_config(tree / "config" / "emoji.yaml", **changes)
    run = call("snakemake", "--dry-run", cwd=tree)
    assert run.returncode == 1
    assert "Traceback" not in run.stdout and "Job stats" not in run.stdout
    for words in said:
        assert words in run.stdout


def test_default_config_is_not_merged_into_a_named_study(tree: Path) -> None:
    (tree / "mine.yaml").write_text("study: mine\npreset: tiny\n")
    run = call("snakemake", "--dry-run", "--configfile", "mine.yaml", cwd=tree)
    assert run.returncode == 1
    assert "prompts: missing" in run.stdout


def test_missing_data_stop_a_run_but_not_its_plan(tree: Path) -> None:
    folder = {"source": "folder", "captions": "my pictures/captions.jsonl"}
    edit_config(tree / "config" / "emoji.yaml", data=folder)
    assert dry_run(tree)["data"] == 1
    run = call("snakemake", "--cores", "2", cwd=tree)
    assert run.returncode == 1
    assert "my pictures/captions.jsonl: no such file" in run.stdout
    assert "Error in rule check" in run.stdout
    assert not (tree / "results" / "emoji" / "data").exists()
    told = call("workflow.status", "results/emoji", cwd=tree).stdout
    assert "  check failed after " in told and "      - my pictures/captions.jsonl: no such file" in told, told


# Whole studies.


@pytest.mark.dag
def test_whole_study(whole: Path) -> None:
    study = whole / "results" / "tiny"
    summary = json.loads((study / "summary.json").read_text())
    assert summary["study"] == "tiny"
    later = {"all", "summary", "report", "table", "figure", "more_tables"}
    assert set(summary["wall_seconds"]["rules"]) >= set(JOBS) - later - BEFORE
    assert (study / "report.html").stat().st_size > 10_000
    curve = json.loads((study / "curve.json").read_text())["models"]
    assert {len(points) for points in curve.values()} == {2} and len(curve) == 4
    for number in (1, 2, 3):
        for ext in ("csv", "md", "tex"):
            assert (study / "tables" / f"table{number}.{ext}").stat().st_size > 0
    for name in ("carbon-run", "carbon-equal", "differences", "intervals", "verdicts", "recall", "scores", "workload"):
        for ext in ("csv", "md", "tex"):
            assert (study / "tables" / f"{name}.{ext}").stat().st_size > 0
    # every job that uses energy was measured by CodeCarbon too
    account = json.loads((study / "carbon.json").read_text())["run"]
    assert len(account["rows"]) == 10 and all(row["codecarbon"].get("kwh", 0) > 0 for row in account["rows"]), account
    told = call("workflow.done", "--configfile", "tests/tiny.yaml", cwd=whole).stdout
    assert "results/tiny/report.html" in told and re.search(r"train +\d+:\d\d", told)
    told = call("workflow.status", "results/tiny", cwd=whole).stdout
    assert re.search(r"has ended; (\d+) of \1 jobs done", told) and "left:" not in told, told
    assert re.search(r"^sample +(\d+) +\1 +\d+ +[\d.]+$", told, re.MULTILINE), told  # seconds a job, images a second


@pytest.mark.dag
def test_sweep_of_the_tiny_study(whole: Path) -> None:
    sweep = {
        "prompts": 8,
        "training": {"b": {"learning_rate": [0.01]}, "c": {"loss_weight": ["p2-paper", "none"]}},
        "sampling": {"baseline-ldm": {"guidance": [1.0]}},
    }
    (whole / "sweep.yaml").write_text(yaml.safe_dump({"sweep": sweep}))
    files = ("--configfile", "tests/tiny.yaml", "sweep.yaml")
    run = call("snakemake", "sweep", "--cores", "2", *files, cwd=whole)
    assert run.returncode == 0, run.stdout[-20000:]
    record = json.loads((whole / "results/tiny/sweep/sweep.json").read_text())
    values = {(s["of"], s["key"]): [row["value"] for row in s["values"]] for s in record["settings"]}
    assert values[("b", "learning_rate")] == ["0.001", "0.01"] and values[("c", "loss_weight")] == ["p2-paper", "none"]
    assert values[("baseline-ldm", "guidance")] == ["1", "4"]
    assert dry_run(whole, "--configfile", "tests/tiny.yaml") == {}


@pytest.mark.dag
def test_study_of_released_weights(whole: Path) -> None:
    """The tiny study's weights, released: alone, and as one more model beside those that it trains."""
    released = call("wuerstchen.release", "--study", "results/tiny", "--out", "my release", cwd=whole)
    assert released.returncode == 0, released.stdout
    tiny = yaml.safe_load((whole / "tests" / "tiny.yaml").read_text())
    given = {key: value for key, value in tiny.items() if key not in ("curve", "probe", "scorer", "training_seeds")}
    given |= {"study": "before", "weights": "my release", "models": ["wuerstchen", "baseline-ldm"]}
    (whole / "before.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    files = ("--cores", "2", "--configfile", "before.yaml")
    first = "results/other/train/a/model.safetensors"
    other = call("snakemake", *files, "--config", "study=other", "seed=1", "--", first, cwd=whole)
    assert other.returncode and "what it has seen would be measured as held out" in other.stdout, other.stdout[-9000:]
    assert not (whole / first).exists()

    run = call("snakemake", *files, cwd=whole)
    assert run.returncode == 0, run.stdout[-20000:]
    summary = json.loads((whole / "results/before/summary.json").read_text())
    steps = {row["step"] for row in summary["carbon"]["run"]["rows"]}
    assert steps == {"sample-wuerstchen", "sample-baseline-ldm"}
    assert set(summary["recall"]) == {"wuerstchen", "baseline-ldm", "ceilings"}
    assert not [cell for cell in summary["wall_seconds"]["rules"] if cell.startswith("train_")]
    table = (whole / "results/before/tables/table2.md").read_text(encoding="utf-8")
    assert table.count("estimated, trained before") == 2 and "this run has not spent them" in table

    beside = tiny | {
        "study": "beside",
        "long": "my release",
        "models": ["wuerstchen", "baseline-ldm", "wuerstchen-long"],
    }
    beside["sampling"]["wuerstchen-long"] = beside["sampling"]["wuerstchen"]
    (whole / "beside.yaml").write_text(yaml.safe_dump(beside, sort_keys=False))
    run = call("snakemake", "--cores", "2", "--configfile", "beside.yaml", cwd=whole)
    assert run.returncode == 0, run.stdout[-20000:]
    summary = json.loads((whole / "results/beside/summary.json").read_text())
    trained = {row["step"] for row in summary["carbon"]["run"]["rows"] if row["step"].startswith("train-")}
    assert trained == {"train-a", "train-b", "train-c", "train-baseline-ldm", "train-scorer", "train-probe"}
    assert "wuerstchen-long" in summary["recall"] and "wuerstchen-long" in summary["win_rates"]["compositions"]
    table = (whole / "results/beside/tables/table2.md").read_text(encoding="utf-8")
    assert table.count("estimated, trained before") == 1
    report = (whole / "results/beside/report.html").read_text(encoding="utf-8")
    assert "Würstchen, trained long (released)" in report


@pytest.mark.dag
def test_second_run_has_nothing_to_do(whole: Path) -> None:
    for program in (["workflow.run"], ["snakemake", "--cores", "2"]):
        again = call(*program, "--configfile", "tests/tiny.yaml", cwd=whole)
        assert again.returncode == 0 and "Nothing to be done" in again.stdout, again.stdout


@pytest.mark.dag
@pytest.mark.parametrize("ext", ["html", "zip"])
def test_snakemakes_own_report(whole: Path, ext: str) -> None:
    """It holds the page, tables and figures with captions, and needs no network: neither to be made nor to be read."""
    made = whole / "results" / "tiny" / f"snakemake-report.{ext}"
    # what Snakemake would fetch, it would fetch by urllib
    offline = "import runpy, socket; socket.socket.connect = None; runpy.run_module('snakemake', run_name='__main__')"
    command = [sys.executable, "-c", offline, "--configfile", "tests/tiny.yaml", "--report", str(made)]
    run = subprocess.run(command, cwd=whole, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    if ext == "zip":
        names = zipfile.ZipFile(made).namelist()
        assert any(name.endswith("report.html") for name in names), names
        return
    text = made.read_text(encoding="utf-8")
    for said in (
        "report.html",
        "table1.csv",
        "verdicts.csv",
        "audit.csv",
        "robustness.png",
        "Tables 1 to 3",
        "Figures",
    ):
        assert said in text, said
    assert "quality and cost" in text and "Table 3 as a plot." in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=.?https?:", text)


@pytest.mark.dag
def test_changes_redo_what_depends_on_them(whole: Path) -> None:
    def plan(*arguments: str) -> set[str]:
        return set(dry_run(whole, "--configfile", "tests/tiny.yaml", *arguments))

    for name, redone in {"wuerstchen/train.py": set(), "evaluation/tables.py": {"table", "report", "all"}}.items():
        path = whole / name
        text = path.read_text()
        path.write_text(text + "\n# a comment\n")
        assert plan() & {"table", "train_a", "sample", "report", "all"} == redone, name
        path.write_text(text)
    assert plan("--config", "seed=1") >= {"data", "train_a", "sample", "report"}
    captions = whole / "pictures" / "captions.jsonl"
    text = captions.read_text()
    captions.write_text(text.replace("tractor", "traktor"))
    assert "data" in plan()
    captions.write_text(text)
    assert plan() == set()


@pytest.mark.dag
def test_killed_at_any_point_it_completes_with_the_same_numbers(whole: Path, tmp_path: Path) -> None:
    tree = study_tree(tmp_path)
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    print(f"moments of the kills: seed {seed}")
    for kill in range(6):
        run = start(tree)
        time.sleep(moments.uniform(2, 45))
        if run.poll() is not None:
            break
        if kill % 2:
            os.kill(run.pid, signal.SIGKILL)  # the head alone: its jobs go on, and the next start has to end them
        else:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    finish(tree, start(tree))
    assert measurements(tree) == measurements(whole)
    again = call("workflow.run", "--configfile", "tests/tiny.yaml", cwd=tree)
    assert "Nothing to be done" in again.stdout, again.stdout


@pytest.mark.dag
def test_whole_study_of_published_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model and metric of config/released.yaml, from stand-ins for all files of others, of their own digests."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "unit")
    import stand_ins
    import tiny_released

    tree = copy_tree(tmp_path)
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tree / "assets"))
    stand_ins.tell(tree, stand_ins.write())
    tiny_released.make(tree / "tiny-data")
    files = ("--configfile", "tiny-data/config.yaml")
    jobs = dry_run(tree, *files)
    run = call("snakemake", "--cores", "2", *files, cwd=tree)
    assert run.returncode == 0, run.stdout[-20000:]
    done = [int(count) for count in re.findall(r"^(\d+) of \1 steps \(100%\) done$", run.stdout, re.MULTILINE)]
    assert done == [sum(jobs.values())] and set(RELEASED) - set(jobs) == {"paper_size_times"}

    study = tree / "results" / "tiny-released"
    assert_nothing_is_missing(study)
    assert_scores_are_sound(json.loads((study / "summary.json").read_text()))
    report = (study / "report.html").read_text(encoding="utf-8")
    assert "sampling paper, steps_c 2" in report and "The metric speed is not asked for." in report
    assert "Nothing to be done" in call("snakemake", "--cores", "2", *files, cwd=tree).stdout
    assert dry_run(tree, *files, "--config", "seed=1") != {}


def assert_nothing_is_missing(study: Path) -> None:
    """Every cell of a table has a value, or says that none is possible; every verdict without one has its reason."""
    for number in (1, 2, 3):
        with open(study / f"tables/table{number}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows and all(cell and not cell.startswith("not run") for row in rows for cell in row.values()), number
        if number == 2:
            measured = [row for row in rows if row["block"] == "measured"]
            assert sum(row["block"] == "quoted" for row in rows) == 14
            under = [row for row in measured if row["protocol"] == "coco30k-clean"]
            assert len(under) == 8 and len(measured) == 8 * 4
            for key in ("fid", "kid", "is", "precision", "recall", "density", "coverage"):
                assert all(float(row[f"{key}_low"]) <= float(row[f"{key}_high"]) for row in under), key
            steps = {row["model"]: row["sampling_steps"] for row in under}
            assert steps["Würstchen"] == "2 + 1" and steps["SD XL"] == "2" and steps["DF-GAN"] == "n/a"


def assert_scores_are_sound(summary: dict) -> None:
    """What can be said of networks with random weights."""
    scores = summary["scores"]
    fids = {model: of["fid"]["value"] for model, of in scores["coco-30k"].items()}
    # the real pictures with some noise are nearer to these than patterns are
    assert len(fids) == 8 and 0 < fids["mine"] < min(fids[name] for name in ("wuerstchen", "baseline-ldm", "galip"))
    for metric in ("fd-dinov2", "cmmd"):
        values = {model: of[metric]["value"] for model, of in scores["coco-30k"].items()}
        assert min(values, key=values.get) == "mine", metric
    for prompts in ("coco-30k", "ln-coco-5k", "parti-prompts"):
        for of in scores[prompts].values():
            assert all(isinstance(of[metric]["value"], float) for metric in ("pickscore", "hpsv2.1", "clip-score-l14"))
        rivals = summary["win_rates"][prompts]
        assert len(rivals) == 7 and all(pair["wins"] + pair["losses"] + pair["ties"] == 12 for pair in rivals.values())
    assert scores["coco-30k"]["mine"]["fid"]["protocol"] == "coco30k-clean"
    assert {tool["preprocessing"] for tool in summary["crosscheck"]["tools"].values()} >= {"tf1-299", "pil-float-299"}
    assert set(summary["power_spectrum"]["ln-coco-5k"]) == {*fids, "real"}
    changed = summary["robustness"]
    assert all(changed[name]["jpeg-50"]["value"] > changed[name]["nearest"]["value"] > 0 for name in changed)


@pytest.mark.dag
def test_two_runs_do_not_meet(whole: Path) -> None:
    first = start(whole, "--forcerun", "check", "--", "results/tiny/check.json")
    second = start(whole, "--", "results/tiny/check.json")
    assert first.wait() == 0
    text = finish(whole, second)
    assert "Another run is going on" in text and "LockException" not in text
