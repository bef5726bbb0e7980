"""Trainings on a cluster at a tiny size, and what they leave behind."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import tar_shards
import torch

from wuerstchen import selection, weights
from wuerstchen.compressor import SemanticCompressor
from wuerstchen.presets import preset, to_dict
from wuerstchen.stage_a import StageA

STEPS = 14


def build(folder):
    """Tar shards with a selection of all their samples, one that holds some out and these, and fresh networks where
    trained ones are asked for."""
    pattern = tar_shards.prepared(folder / "shards")
    selection.main(
        ["select", "--data", pattern, "--scans", f"{folder}/shards/scans", "--size", "64", "4096", "--share", "0.3",
         "--validation", str(folder / "validation.safetensors"), "--out", str(folder / "training.safetensors")]
    )  # fmt: skip
    config = preset("tiny")
    torch.manual_seed(0)
    networks = {
        "a": ("stage_a", StageA(config.stage_a), config.stage_a),
        "b": ("compressor", SemanticCompressor(config.compressor, pretrained=True), config.compressor),
    }
    for stage, (key, network, about) in networks.items():
        tensors = {f"{key}.{name}": tensor for name, tensor in network.state_dict().items()}
        weights.save(folder / "train" / stage / "model.safetensors", tensors, {key: to_dict(about)})


def arguments(shards, stage, out, *more, data=None, settings=()):
    chosen = ["batch_size=8", *(["revive_codes_every=0"] if stage == "a" else ["optimiser=adamw"])]
    chosen += ["fit_compressor=false", "compressor_steps=1000"] if stage == "b" else []
    return [
        "--stage", stage, "--preset", "tiny", "--data", f"{data or shards / 'shards'}/{{000000..000002}}.tar",
        "--weights", f"{shards}/train", "--seed", "0", "--workers", "0", "--steps", str(STEPS),
        "--checkpoint-every", "3", "--out", str(out), "--set", *chosen, *settings, *map(str, more),
    ]  # fmt: skip


def held_out(shards, every=4):
    """The options of a training that leaves samples out and validates on them."""
    chosen = {"selection": "training", "validation": "validation"}
    files = [text for name, file in chosen.items() for text in (f"--{name}", shards / f"{file}.safetensors")]
    return [*files, "--validate-every", every]


def same_weights(a, b):
    ours, theirs = (weights.load(folder / "model.safetensors")[0] for folder in (a, b))
    assert set(ours) == set(theirs)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def same_state(a, b):
    """Networks, moving average, adversary and optimisers, bit by bit."""
    ours, theirs = (weights.load(folder / "state/last.safetensors")[0] for folder in (a, b))
    assert set(ours) == set(theirs) and any("exp_avg" in name for name in ours)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def losses(out, column="loss"):
    with open(out / "history.csv") as file:
        return [row[column] for row in csv.DictReader(file)]


def in_two_processes(jobs):
    """Run the jobs of `two_processes`; returns what they said."""
    program = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {
        "PYTHONPATH": str(program.parents[2]),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    ended = subprocess.run(
        [sys.executable, str(program), json.dumps(jobs)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr
