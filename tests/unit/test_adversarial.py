"""The small DF-GAN: its losses beside the authors' code, its training, its pictures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from filled import fill, wave
from tiny_study import run

from evaluation import sample, speed
from evaluation.generators import make
from evaluation.images import read_shard
from wuerstchen import weights
from wuerstchen.df_gan import DFGan, Discriminator, sentences_of
from wuerstchen.files import read_json, write_jsonl
from wuerstchen.flops import diffusion_flops, flops_per_sample, training_flops
from wuerstchen.presets import preset
from wuerstchen.tasks import make_task

PROMPTS = [
    {"id": f"p-{i}", "prompt": f"thing {i}", "image": None, "category": "x", "challenge": "seen", "source_id": None}
    for i in range(5)
]


@pytest.fixture(scope="module")
def drawn_by(study, tmp_path_factory) -> Path:
    """A folder of trained stages with a GAN of a few steps."""
    folder = tmp_path_factory.mktemp("gan")
    run(study, "df-gan", "--steps", 4, "--snapshots", 50, out=folder / "df-gan")
    return folder


def test_losses_and_gradients_are_those_of_the_authors_code(study):
    """What tobran/DF-GAN at 886ae400 printed for these weights and this batch, its order of the two steps aside."""
    task = make_task("df-gan", preset("tiny"), study / "data", None, 0)
    generator, task.discriminator = DFGan(4, 64, 24), Discriminator(4, 64, 24)
    for network in (generator, task.discriminator):
        network.load_state_dict(fill(network.state_dict()))
    task.discriminator.joint_conv[2].weight.data.mul_(8)  # else the penalty would be next to nothing
    batch = wave("real", (4, 3, 64, 64)), wave("text", (4, 24)), wave("noise", (4, 100))
    losses = task.of_batch(torch.nn.ModuleDict({"df_gan": generator}), *batch)
    expected = {
        "loss": -0.19621849060058594, "discriminator": 3.0749614238739014, "real": 0.8269833922386169,
        "fake": 1.196218490600586, "mismatched": 1.2024850845336914, "penalty": 1.048626184463501,
    }  # fmt: skip
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-5)
    assert set(task.columns) == set(losses)

    def gradients(network: torch.nn.Module) -> float:
        return sum(p.grad.double().square().sum() for p in network.parameters()).sqrt().item()

    losses["loss"].backward()
    assert all(p.grad is None for p in task.discriminator.parameters())
    assert gradients(generator) == pytest.approx(0.20879587199975724, rel=1e-4)
    losses["discriminator"].backward()
    assert gradients(task.discriminator) == pytest.approx(44.46171585040153, rel=1e-4)
    assert task.discriminator.conv_img.weight.grad.norm().item() == pytest.approx(0.03299006447196007, rel=1e-4)
    assert gradients(generator) == pytest.approx(0.20879587199975724, rel=1e-4)  # it leaves none there


def test_sizes_are_powers_of_two():
    assert DFGan(2, 32, 4)(torch.zeros(1, 100), torch.zeros(1, 4)).shape == (1, 3, 32, 32)
    assert Discriminator(2, 32, 4).features(torch.zeros(1, 3, 32, 32)).shape == (1, 16, 4, 4)
    for size in (16, 96):
        with pytest.raises(ValueError, match=f"powers of two, from 32; {size} is none"):
            DFGan(2, size, 4)


def test_sentences_are_means_of_the_tokens_before_the_end():
    tokens = torch.zeros(2, 4, 8)
    tokens[0, :3], tokens[1, :1] = torch.arange(24.0).view(3, 8) + 1, 1.0
    assert torch.allclose(sentences_of(tokens), torch.stack([torch.arange(8.0) + 9, torch.ones(8)]))


def test_sentences_are_standardised_and_white_is_zero(study, monkeypatch):
    task = make_task("df-gan", preset("tiny"), study / "data", None, 0)
    varied = task.short.std(0) > 0.5  # captions of noise pictures share most words
    assert varied.any() and torch.allclose(task.short.mean(0), torch.zeros(384), atol=1e-4)
    seen = {}
    monkeypatch.setattr(task, "of_batch", lambda modules, real, sentences, noise: seen.update(real=real))
    task.losses(task.modules, torch.arange(8), torch.Generator(), 0)
    assert seen["real"].max() == 0 and seen["real"].min() == pytest.approx(-0.8, abs=1e-3)


def test_the_generator_alone_is_saved_and_both_rates_are_the_recipes(study, drawn_by):
    tensors, metadata = weights.load(drawn_by / "df-gan/model.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"df_gan"}
    assert metadata["df_gan"] == {"width": 2, "size": 128, "c_text": 384} and metadata["black"] == -0.8
    assert len(metadata["sentences"]["mean"]) == len(metadata["sentences"]["std"]) == 384
    state = torch.load(drawn_by / "df-gan/state/last.pt", weights_only=True)
    assert "joint_conv.0.weight" in state["adversary"]
    rates = [group["lr"] for optimiser in state["optimisers"] for group in optimiser["param_groups"]]
    assert rates == pytest.approx([1e-3, 4e-3])  # the preset tiny's, and four times as much
    with open(drawn_by / "df-gan/history.csv") as file:
        history = list(csv.DictReader(file))
    assert len(history) == 4 and all(float(row["penalty"]) >= 0 for row in history) and history[3]["validation_loss"]
    usage = read_json(drawn_by / "df-gan/usage.json")
    task = make_task("df-gan", preset("tiny"), study / "data", None, 0)
    assert usage["train_flops"] == training_flops(task, 4) and usage["images"] == 16


def test_both_networks_learn_from_each_other(study):
    """The discriminator's loss falls where the generator stays, and the generator's where the discriminator does."""
    torch.manual_seed(0)
    task = make_task("df-gan", preset("tiny"), study / "data", None, 0)
    rows, networks = torch.arange(8), {"loss": task.modules, "discriminator": task.discriminator}

    def losses() -> dict[str, torch.Tensor]:
        return task.losses(task.modules, rows, torch.Generator().manual_seed(0), 0)

    for name, network in networks.items():
        optimiser = torch.optim.Adam(network.parameters(), 2e-4)
        before = losses()[name].item()
        for _ in range(8):
            optimiser.zero_grad()
            losses()[name].backward()
            optimiser.step()
        assert losses()[name].item() < before, name


def test_a_steps_flops_are_those_of_both_networks(study):
    """The generator forward and backward, and between eight and sixteen passes through the discriminator."""
    from torch.utils.flop_counter import FlopCounterMode

    task = make_task("df-gan", preset("tiny"), study / "data", None, 0)
    generator, discriminator = task.modules["df_gan"], task.discriminator
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        generator(torch.zeros(1, 100), torch.zeros(1, 384))
    with FlopCounterMode(display=False) as judged, torch.no_grad():
        discriminator.judge(discriminator.features(torch.zeros(1, 3, 128, 128)), torch.zeros(1, 384))
    of_discriminator = flops_per_sample(task) - 3 * forward.get_total_flops()
    assert 8 < of_discriminator / judged.get_total_flops() < 16


def test_a_budget_is_spent(study, tmp_path):
    spent = read_json(run(study, "df-gan", "--budget", "c:steps=1", out=tmp_path / "a") / "usage.json")
    words = make_task("b", preset("tiny"), study / "data", study / "latents", 0).words
    assert make_task("df-gan", preset("tiny"), study / "data", None, 0).words == words
    allowed = diffusion_flops(preset("tiny"), "c", words, 1)
    assert allowed <= spent["train_flops"] < allowed + spent["train_flops"] / spent["steps"]
    with pytest.raises(SystemExit, match="--budget: stage a has none; it is for b, c, baseline-ldm, df-gan"):
        run(study, "a", "--budget", "c:steps=1", out=tmp_path / "b")


def test_it_draws_through_the_programs(drawn_by, tmp_path):
    """A picture depends on seed and prompt alone; the snapshot draws others."""
    write_jsonl(tmp_path / "p.jsonl", PROMPTS)
    sample.main(
        ["--model", "df-gan", "--weights", str(drawn_by), "--prompts", str(tmp_path / "p.jsonl"), "--seed", "3",
         "--out", str(tmp_path / "x.zip")]
    )  # fmt: skip
    info, pngs = read_shard(tmp_path / "x.zip")
    assert list(pngs) == [row["id"] for row in PROMPTS] and info["guidance"] is None and info["truncation"] == 0.86
    drawing = make("df-gan", drawn_by, {})
    whole = drawing.generate(PROMPTS, 3)
    assert [picture.shape for picture in whole] == [(128, 128, 3)] * 5 and not np.array_equal(whole[0], whole[1])
    assert np.array_equal(drawing.generate(PROMPTS[3:], 3)[0], whole[3])
    assert not np.array_equal(drawing.generate(PROMPTS[3:], 4)[0], whole[3])
    assert drawing.load(drawn_by / "df-gan/snapshots/50.safetensors") == 2
    assert not np.array_equal(drawing.generate(PROMPTS[3:], 3)[0], whole[3])
    with pytest.raises(ValueError, match="--set: steps is unknown; this model takes none"):
        make("df-gan", drawn_by, {"steps": 3.0})


def test_its_speed_is_measured(drawn_by, tmp_path):
    out = tmp_path / "speed.json"
    speed.main(
        ["--model", "df-gan", "--weights", str(drawn_by), "--batch-sizes", "1", "3", "--repeats", "1", "--out",
         str(out)]
    )  # fmt: skip
    record = json.loads(out.read_text())
    assert [batch["batch_size"] for batch in record["batches"]] == [1, 3]
    assert (record["image_size"], record["precision"], record["steps"]) == (128, "fp32", {})
