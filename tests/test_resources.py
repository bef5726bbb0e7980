"""What jobs ask a cluster for, as a dry-run of each study says it."""

import re
from pathlib import Path

import pytest
from trees import call

FILES = ["config/emoji.yaml", "config/released.yaml", "config/paper.yaml"]


def asked(tree: Path, *arguments: str) -> dict[str, dict[str, str]]:
    """The resources and threads of a job of each rule that is sent to the cluster."""
    run = call("snakemake", "--dry-run", "--profile", "slurm", *arguments, cwd=tree)
    assert run.returncode == 0, run.stdout
    found = {}
    for rule, text in re.findall(r"^rule (\w+):\n((?:    .+\n)+)", run.stdout, re.MULTILINE):
        if "resources:" in text:
            (said,) = re.findall(r"^    resources: (.*)$", text, re.MULTILINE)
            threads = re.findall(r"^    threads: (\d+)$", text, re.MULTILINE) or ["1"]
            found[rule] = dict(pair.split("=") for pair in said.split(", ")) | {"threads": threads[0]}
    assert found
    return found


@pytest.mark.parametrize("config", FILES)
def test_every_job_says_what_it_needs_and_a_further_attempt_has_more_memory(tree: Path, config: str) -> None:
    first = asked(tree, "--cores", "64", "--configfile", config)
    third = asked(tree, "--cores", "64", "--configfile", config, "--attempt", "3")
    for rule, needs in first.items():
        slices = rule == "train_phase"  # whose attempts are no failures
        assert int(third[rule]["mem_mb"]) == int(needs["mem_mb"]) * (1 if slices else 3), rule
        assert int(needs["runtime"]) <= 24 * 60, rule
        if int(needs["threads"]) > 1 or "gpu" in needs:
            assert needs["cpus_per_task"] == needs["threads"], rule
        if int(needs.get("gpu", 0)) > 1:
            assert needs["nodes"] == "1", rule


def test_a_login_node_of_two_cores_limits_no_job(tree: Path) -> None:
    needs = asked(tree, "--cores", "2", "--configfile", "config/paper.yaml")["train_phase"]
    assert needs["threads"] == "2" and needs["cpus_per_task"] == "64"


def test_a_training_on_several_nodes_is_a_matter_of_the_profile(tree: Path) -> None:
    more = ("--set-resources", "train_phase:nodes=4", "train_phase:gpu=32", "train_phase:runtime=12h")
    run = call(
        "snakemake",
        "-n",
        "-p",
        "--cores",
        "2",
        "--profile",
        "slurm",
        "--configfile",
        "config/paper.yaml",
        *more,
        cwd=tree,
    )
    commands = re.findall(r"wuerstchen.distributed (.*) --stage", run.stdout)
    assert commands and set(commands) == {"--processes 32 --nodes 4 -m wuerstchen.train --walltime 720m"}
