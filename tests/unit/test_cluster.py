"""Training on a cluster: two processes on the CPU, killed and resumed; and each stage's recipe in one process."""

import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest
import tar_shards
import torch

from wuerstchen import cluster, latents, train, weights
from wuerstchen.compressor import SemanticCompressor
from wuerstchen.presets import preset, to_dict
from wuerstchen.stage_a import StageA

STEPS = 14


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Tar shards with their selection, and fresh networks where trained ones are asked for."""
    folder = tmp_path_factory.mktemp("cluster")
    tar_shards.prepared(folder / "shards")
    config = preset("tiny")
    torch.manual_seed(0)
    networks = {
        "a": ("stage_a", StageA(config.stage_a), config.stage_a),
        "b": ("compressor", SemanticCompressor(config.compressor, pretrained=True), config.compressor),
    }
    for stage, (key, network, about) in networks.items():
        tensors = {f"{key}.{name}": tensor for name, tensor in network.state_dict().items()}
        weights.save(folder / "train" / stage / "model.safetensors", tensors, {key: to_dict(about)})
    return folder


def arguments(shards, stage, out, *more, data="shards/{000000..000002}.tar"):
    settings = ["batch_size=8", *(["revive_codes_every=0"] if stage == "a" else ["optimiser=adamw"])]
    settings += ["fit_compressor=false", "compressor_steps=1000"] if stage == "b" else []
    return [
        "--stage", stage, "--preset", "tiny", "--data", f"{shards}/{data}", "--weights", f"{shards}/train",
        "--seed", "0", "--workers", "0", "--steps", str(STEPS), "--checkpoint-every", "3", "--out", str(out),
        "--set", *settings, *map(str, more),
    ]  # fmt: skip


def two_processes(*trainings):
    """What torchrun starts, without torchrun: two processes that make these trainings one after the other."""
    program = (
        "import json, os, sys\n"
        "from wuerstchen import train\n"
        "for port, arguments in json.loads(sys.argv[1]):\n"
        "    os.environ['MASTER_PORT'] = str(port)\n"
        "    train.main(arguments)\n"
    )
    jobs = []
    for arguments in trainings:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            jobs.append((free.getsockname()[1], arguments))
    common = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(jobs)],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]


def finished(processes):
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return said[0]


def steps_of(out):
    path = out / "history.csv"
    return max((int(row.split(",")[0]) for row in path.read_text().split()[1:]), default=0) if path.exists() else 0


def same_weights(a, b):
    ours, theirs = (weights.load(folder / "model.safetensors")[0] for folder in (a, b))
    assert set(ours) == set(theirs)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def same_state(a, b):
    """Networks, moving average, adversary and optimisers, bit by bit."""
    ours, theirs = (weights.load(folder / "state/last.safetensors")[0] for folder in (a, b))
    assert set(ours) == set(theirs) and any("exp_avg" in name for name in ours)
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def losses(out):
    with open(out / "history.csv") as file:
        return [row["loss"] for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def killed(shards):
    """Stage B with its compressor by DDP and by FSDP2: a whole training, and one that was killed and resumed."""
    found = {}
    for parallel in ("ddp", "fsdp2"):
        whole, cut = shards / parallel / "whole", shards / parallel / "cut"
        more = ["--parallel", parallel, "--micro-batch", 2, "--checkpoint-activations"]
        processes = two_processes(*(arguments(shards, "b", out, *more) for out in (whole, cut)))
        at = random.randint(3, STEPS - 4)
        while steps_of(cut) < at and all(process.poll() is None for process in processes):
            time.sleep(0.005)
        for process in processes:
            process.kill()
        said = [process.communicate()[0] for process in processes]
        assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2, "\n".join(said)
        assert (whole / "model.safetensors").exists() and not (cut / "model.safetensors").exists()
        saved = weights.metadata(cut / "state/last.safetensors")["step"]
        assert saved % 3 == 0 and saved <= steps_of(cut) < STEPS
        said = finished(two_processes(arguments(shards, "b", cut, *more)))
        assert f"resuming at step {saved}" in said
        found[parallel] = (whole, cut)
    return found


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_a_killed_training_of_two_processes_resumes_bit_by_bit(killed, parallel):
    whole, cut = killed[parallel]
    assert same_weights(whole, cut) and same_state(whole, cut)
    assert losses(whole) == losses(cut) and len(losses(cut)) == STEPS
    assert (cut / "state/previous.safetensors").exists()


def test_fsdp2_computes_what_ddp_computes(killed):
    ours, theirs = (weights.load(killed[p][0] / "model.safetensors")[0] for p in ("fsdp2", "ddp"))
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert torch.allclose(ours[name], tensor, rtol=1e-3, atol=1e-5), name
    moved = SemanticCompressor(preset("tiny").compressor, pretrained=True).state_dict()
    assert any((theirs[f"compressor.{name}"] != value).any() for name, value in moved.items() if "weight" in name)


def test_usage_counts_all_processes(killed):
    usage = json.loads((killed["ddp"][1] / "usage.json").read_text())
    assert usage["count"] == 2 * int(os.environ.get("OMP_NUM_THREADS", 1)) or usage["count"] == 2
    assert usage["images"] == usage["samples"] == 8 * STEPS and usage["steps"] == STEPS and usage["kwh"] > 0


@pytest.mark.parametrize("stage", ["a", "c", "baseline-ldm"])
def test_a_training_told_to_stop_goes_on_as_if_it_had_not_been(shards, tmp_path, monkeypatch, stage):
    train.main(arguments(shards, stage, tmp_path / "whole"))
    update = cluster.Training.update

    def told(self, batches):
        if self.step == 7:
            os.kill(os.getpid(), signal.SIGUSR1)
        return update(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(cluster.Training, "update", told)
        with pytest.raises(SystemExit) as stopped:
            train.main(arguments(shards, stage, tmp_path / "cut", "--parallel", "fsdp2"))
    assert stopped.value.code == cluster.STOPPED
    assert weights.metadata(tmp_path / "cut/state/last.safetensors")["step"] == 8
    train.main(arguments(shards, stage, tmp_path / "cut", "--parallel", "fsdp2"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
