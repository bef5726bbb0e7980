"""Training: reproducible, resumable, and stopped by what it cannot use."""

import csv
import dataclasses
import json
import re

import pytest
import torch
from tiny_study import run
from torch.utils.flop_counter import FlopCounterMode

from wuerstchen import optimisers, train, weights
from wuerstchen.compressor import SemanticCompressor, load_by_order
from wuerstchen.files import sha256_file
from wuerstchen.flops import convolution_backward_flops, diffusion_flops
from wuerstchen.inputs import Inputs, packed
from wuerstchen.presets import overridden, preset
from wuerstchen.scaling import latent_scaling, scale_latents, unscale_latents
from wuerstchen.tasks import StageCTask, make_task
from wuerstchen.train import batch_rows


def test_batches_visit_every_row_once_an_epoch():
    rows = torch.cat([batch_rows(10, 4, step, seed=0) for step in range(5)])
    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert len(batch_rows(3, 8, 0, seed=0)) == 8


def test_a_trained_stage_is_whole(study):
    tensors, metadata = weights.load(study / "train/a/model.safetensors")
    assert metadata["preset"] == "tiny" and metadata["stage_a"]["scale_factor"] > 0
    usage = json.loads((study / "train/a/usage.json").read_text())
    assert {"device", "count", "seconds", "kwh", "kwh_source", "images", "steps"} <= set(usage)
    assert usage["steps"] == 12 and usage["samples"] == usage["images"] == 48 and usage["train_flops"] > 0
    with open(study / "train/a/history.csv") as file:
        history = list(csv.DictReader(file))
    assert [int(row["step"]) for row in history] == list(range(1, 13))
    # E.1: the adversarial loss is off at first (here until step 6)
    assert [bool(row["adversarial"]) for row in history] == [False] * 6 + [True] * 6
    assert all(float(row["loss"]) > 0 for row in history)


@pytest.mark.parametrize("stage", ["a", "b", "df-gan"])
def test_interrupted_training_equals_uninterrupted(study, tmp_path, monkeypatch, stage):
    snapshots = ["--steps", 12, "--snapshots", 20, 50, 90]
    whole = run(study, stage, *snapshots, out=tmp_path / "whole")
    update = train.Trainer.update

    def killed(self):
        if self.step == 8:
            raise KeyboardInterrupt
        return update(self)

    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(train.Trainer, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        run(study, stage, *snapshots, out=tmp_path / "cut")
    assert not (tmp_path / "cut/model.safetensors").exists() and not (tmp_path / "cut/snapshots").exists()
    monkeypatch.setattr(train.Trainer, "update", update)
    cut = run(study, stage, *snapshots, out=tmp_path / "cut")
    for name in ("model", "snapshots/20", "snapshots/50", "snapshots/90"):
        ours, theirs = (sha256_file(folder / f"{name}.safetensors") for folder in (cut, whole))
        assert ours == theirs, name
    losses = [[row["loss"] for row in csv.DictReader(open(folder / "history.csv"))] for folder in (cut, whole)]
    assert losses[0] == losses[1]
    assert (
        json.loads((cut / "usage.json").read_text())["images"]
        == json.loads((whole / "usage.json").read_text())["images"]
    )


def test_snapshots_are_the_training_stopped_there(study, tmp_path):
    whole = run(study, "b", "--snapshots", 33, 67, out=tmp_path / "whole")
    for percent, step in ((33, 4), (67, 9)):
        ours, metadata = weights.load(whole / f"snapshots/{percent}.safetensors")
        assert metadata["steps"] == step
        theirs, _ = weights.load(run(study, "b", "--steps", step, out=tmp_path / str(step)) / "model.safetensors")
        assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_snapshots_of_a_continued_training_are_shares_of_its_own_steps(study, tmp_path):
    first = run(study, "baseline-ldm", "--steps", 3, out=tmp_path / "first")
    further = run(
        study, "baseline-ldm", "--steps", 7, "--continue-from", first, "--snapshots", 50, out=tmp_path / "further"
    )
    assert weights.metadata(further / "snapshots/50.safetensors")["steps"] == 5


def test_a_training_past_a_missing_snapshot_starts_anew(study, tmp_path, capsys):
    out = run(study, "b", "--steps", 4, "--snapshots", 50, out=tmp_path / "b")
    capsys.readouterr()
    for steps, percent, said in ((4, 50, "resuming at step 4"), (6, 50, "starting anew"), (6, 25, "starting anew")):
        run(study, "b", "--steps", steps, "--snapshots", percent, out=out)
        assert said in capsys.readouterr().out
    assert [path.name for path in (out / "state/snapshots").iterdir()] == ["25.safetensors"]
    with pytest.raises(SystemExit, match="--snapshots: 100 should be a percentage from 1 to 99"):
        run(study, "b", "--snapshots", 100, out=out)


def test_the_state_of_other_settings_is_not_resumed(study, tmp_path, capsys):
    run(study, "a", "--steps", 2, out=tmp_path / "a")
    train.main(
        ["--stage", "a", "--preset", "tiny", "--data", str(study / "data"), "--seed", "1", "--steps", "2",
         "--out", str(tmp_path / "a")]
    )  # fmt: skip
    assert "belongs to other settings" in capsys.readouterr().out


def words(study):
    return make_task("b", preset("tiny"), study / "data", study / "latents", 0).words


def test_the_compressor_learns_and_then_stays(study, tmp_path):
    """It starts fitted, and its weights move in the first `compressor_steps` (here 6 of 12) alone."""
    out = run(study, "b", "--snapshots", 50, out=tmp_path / "b")
    state = torch.load(out / "state" / "last.pt", weights_only=True)["modules"]
    task = make_task("b", preset("tiny"), study / "data", study / "latents", 0)
    before = task.modules["compressor"].mapper[0].weight.clone()
    task.start()
    assert (task.modules["compressor"].mapper[0].weight != before).all()
    fresh = task.modules.state_dict()
    moved = [name for name, value in fresh.items() if "compressor.backbone" in name and (state[name] != value).any()]
    assert moved
    task.modules.load_state_dict(state)
    late = task.losses(task.modules, torch.arange(4), torch.Generator(), 6)
    late["loss"].backward()
    assert all(p.grad is None for p in task.modules["compressor"].parameters())
    assert diffusion_flops(preset("tiny"), "b", 9, 12) < 2 * diffusion_flops(preset("tiny"), "b", 9, 6)


def test_packed_text_is_the_text_at_its_places():
    text = torch.zeros(3, 5, 2)
    text[0, :2], text[2, :5] = 1.0, torch.arange(10.0).view(5, 2) + 1
    rows, places = packed(text)
    assert rows.shape == (1 + 2 + 5, 2) and torch.equal(rows[places], text)
    task = StageCTask(preset("tiny"), "c", Inputs.dummy(preset("tiny"), 7), 0)
    stage_c, x, t = task.modules["stage_c"], torch.randn(3, 16, 3, 3), torch.rand(3)
    for block in stage_c.parameters():
        torch.nn.init.normal_(block, std=0.1)
    text = torch.cat([task.text(torch.arange(2), None), torch.zeros(1, 40, dtype=torch.long)])
    a, b = stage_c(x, t, stage_c.condition(task.dense(text)))
    noise = task.predict(task.modules, x, t, text, None, None)
    assert torch.allclose(noise, (x - a) / ((1 - b).abs() + 1e-5), rtol=1e-3, atol=1e-4)


def test_texts_are_short_long_or_empty_as_drawn(study):
    """Each sample is trained with the tokens of its own short or long caption, or of the empty prompt."""
    task = make_task("baseline-ldm", preset("tiny"), study / "data", study / "latents", 0)
    tokens, _ = weights.load(study / "data" / "tokens.safetensors")
    rows = torch.arange(8)
    assert torch.equal(task.dense(task.text(rows, None)), tokens["captions"][rows].float())
    given = {"captions": 0, "descriptions": 0, "null": 0}
    for i in range(20):
        drawn = task.dense(task.text(rows, torch.Generator().manual_seed(i)))
        for row, text in zip(rows, drawn, strict=True):
            own = [name for name in given if torch.equal(text, tokens[name][row if name != "null" else 0].float())]
            given[own[0]] += 1
    assert 0.6 < given["captions"] / 160 < 0.85 and given["descriptions"] > 20 and 0 < given["null"] < 30


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest(study):
    task = make_task("b", preset("tiny"), study / "data", study / "latents", 0)
    rest, matrices = optimisers.muon(task.modules, task.recipe, task.pretrained())
    of = [{id(p) for group in o.param_groups for p in group["params"]} for o in (rest, matrices)]
    assert not of[0] & of[1]
    assert of[0] | of[1] == {id(p) for p in task.modules.parameters() if p.requires_grad}
    block = task.modules["stage_b"].down_blocks[0][0]
    assert id(block.channelwise[0].weight) in of[1] and id(block.depthwise.weight) in of[0]
    assert id(task.modules["stage_b"].clip_mapper.weight) in of[0]
    with pytest.raises(SystemExit, match="optimiser: 'sgd' is not known; use one of adamw, muon"):
        run(study, "b", "--set", "optimiser=sgd", out=study / "nothing")


def test_budgets_are_training_flops(study, tmp_path):
    longer = run(study, "baseline-ldm", "--budget", "c:steps=6", out=tmp_path / "longer")
    spent = json.loads((longer / "usage.json").read_text())
    allowed = diffusion_flops(preset("tiny"), "c", words(study), 6)
    per_step = spent["train_flops"] / spent["steps"]
    assert allowed <= spent["train_flops"] < allowed + per_step
    further = run(
        study, "baseline-ldm", "--budget", "c:steps=6", "b:steps=1", "--continue-from", longer, out=tmp_path / "further"
    )
    record = json.loads((further / "usage.json").read_text())
    assert record["steps"] > spent["steps"] and 0 < record["inherited"]["seconds"] < record["seconds"]
    at_once = run(study, "baseline-ldm", "--steps", record["steps"], out=tmp_path / "at-once")
    ours, theirs = (weights.load(folder / "model.safetensors")[0] for folder in (further, at_once))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_budget_that_is_spent_already_gives_the_same_model(study, tmp_path):
    longer = run(study, "baseline-ldm", "--steps", 2, out=tmp_path / "longer")
    same = run(study, "baseline-ldm", "--steps", 2, "--continue-from", longer, out=tmp_path / "same")
    ours, theirs = (weights.load(folder / "model.safetensors")[0] for folder in (same, longer))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_budgets_counted_beforehand_are_what_training_spends(study, tmp_path):
    spent = json.loads((run(study, "b", "--steps", 2, out=tmp_path / "b") / "usage.json").read_text())["train_flops"]
    assert spent == diffusion_flops(preset("tiny"), "b", words(study), 2)
    with pytest.raises(SystemExit, match="--budget: 'd'; use STAGE or STAGE:KEY=VALUE"):
        run(study, "baseline-ldm", "--budget", "d", out=tmp_path / "x")


def test_fields_of_the_recipe_can_be_set(study, tmp_path):
    out = run(study, "b", "--steps", 2, "--set", "batch_size=4", "learning_rate=0.5", "loss_weight=velocity",
              out=tmp_path / "b")  # fmt: skip
    assert json.loads((out / "usage.json").read_text())["samples"] == 8
    with open(out / "history.csv") as file:
        assert [float(row["learning_rate"]) for row in csv.DictReader(file)] == [0.25, 0.5]  # warm-up of two steps
    half = run(study, "baseline-ldm", "--budget", "c:steps=60,batch_size=8", out=tmp_path / "half")
    whole = run(study, "baseline-ldm", "--budget", "c:steps=60", out=tmp_path / "whole")
    spent = [json.loads((folder / "usage.json").read_text())["train_flops"] for folder in (half, whole)]
    assert spent[0] == pytest.approx(spent[1] / 2, rel=0.2)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("lr=1", "--set: 'lr=1'; use KEY=VALUE with a key of stage b's recipe: steps, batch_size, learning_rate,"),
        ("learning_rate", "--set: learning_rate should be a number, found ''"),
        ("learning_rate=high", "--set: learning_rate should be a number, found 'high'"),
        ("batch_size=1.5", "--set: batch_size should be a whole number, found '1.5'"),
        ("compiled=1", "--set: compiled should be true or false, found '1'"),
        ("betas=[0.9]", "--set: betas should be two numbers"),
    ],
)
def test_bad_settings_of_a_recipe_are_named(pair, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        overridden(preset("emoji"), "b", [pair])


def test_values_of_every_type_are_read():
    pairs = ["betas=[0.8,0.9]", "compiled=false", "warmup=3", "ema=1", "loss_weight=none"]
    changed = overridden(preset("emoji"), "c", pairs)
    recipe = changed.recipes["c"]
    assert (recipe.betas, recipe.compiled, recipe.warmup, recipe.ema) == ((0.8, 0.9), False, 3, 1.0)
    assert recipe.loss_weight == "none" and changed.recipes["b"] == preset("emoji").recipes["b"]


def test_a_training_without_a_length_or_with_an_unknown_weight_is_refused(study, tmp_path):
    with pytest.raises(SystemExit, match="stage b: loss_weight: 'p3' is not known; use one of p2-paper, p2-code"):
        run(study, "b", "--set", "loss_weight=p3", out=tmp_path / "x")
    with pytest.raises(SystemExit, match="stage baseline-ldm: .*give --steps or --budget"):
        run(study, "baseline-ldm", out=tmp_path / "x")


def test_a_loss_that_is_not_finite_stops_with_a_clear_error(study, tmp_path, monkeypatch):
    monkeypatch.setattr(optimisers, "learning_rate", lambda recipe, step: float("inf"))
    with pytest.raises(SystemExit, match=r"stage b: loss is (nan|inf) at step \d+.*learning rate"):
        run(study, "b", out=tmp_path / "b")
    assert not (tmp_path / "b/model.safetensors").exists()


def test_latents_of_other_pictures_are_refused(study, tmp_path):
    tensors, metadata = weights.load(study / "latents/a.safetensors")
    for name in ("trunk", "a"):
        weights.save(tmp_path / f"{name}.safetensors", tensors, metadata | {"ids": "0"})
    with pytest.raises(SystemExit, match="computed for other pictures"):
        train.main(
            ["--stage", "b", "--preset", "tiny", "--data", str(study / "data"), "--latents", str(tmp_path),
             "--seed", "0", "--out", str(tmp_path / "b")]
        )  # fmt: skip


def test_compressor_gives_normalised_latents_of_the_papers_shape(study):
    config = preset("emoji").compressor
    compressor = SemanticCompressor(config, pretrained=True)
    images = torch.rand(4, 3, 128, 128)
    with torch.no_grad():
        compressor.train()
        latents = compressor(images)
    assert latents.shape == (4, 16, 3, 3)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4
    assert not any(p.requires_grad for p in compressor.backbone[: compressor.frozen].parameters())
    assert all(p.requires_grad for p in compressor.backbone[compressor.frozen :].parameters())
    assert torch.allclose(compressor.head(compressor.trunk(images)), latents)


def test_compressor_keeps_small_variances_beside_large_means_in_half_precision():
    compressor = SemanticCompressor(preset("emoji").compressor, pretrained=True)
    compressor.mapper[0].weight.data = compressor.mapper[0].weight.data * 0.01 + 0.1
    features, compressor.backbone, compressor.frozen = torch.rand(16, 40, 12, 12), torch.nn.ModuleList(), 0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        latents = compressor.train().head(features.bfloat16())
    assert latents.std((0, 2, 3)) == pytest.approx(1, abs=0.05)


def test_pretrained_parameters_learn_at_their_own_rate(study):
    recipe = dataclasses.replace(preset("tiny").recipes["b"], pretrained_rate=0.5)
    task = make_task("b", preset("tiny"), study / "data", study / "latents", 0)
    trainer = train.Trainer(task, recipe, 0, "b", "")
    trainer.update()
    groups = trainer.optimisers[0].param_groups
    backbone = sum(p.numel() for p in task.modules["compressor"].backbone.parameters() if p.requires_grad)
    assert sum(p.numel() for p in groups[1]["params"]) == backbone
    assert groups[1]["lr"] == pytest.approx(0.5 * groups[0]["lr"])


def test_checkpoints_in_another_order_are_refused(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    state = {f"x.{name}": value for name, value in net.state_dict().items()}
    torch.save(state, tmp_path / "good.pth")
    load_by_order(net, tmp_path / "good.pth")
    torch.save(dict(reversed(state.items())), tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="x.1.bias"):
        load_by_order(net, tmp_path / "bad.pth")


def test_latent_scaling_inverts():
    x = torch.randn(2, 3, 4, 4)
    for scaling in (
        latent_scaling("released", {}),
        latent_scaling("unit", {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}),
    ):
        assert torch.allclose(unscale_latents(scale_latents(x, scaling), scaling), x, atol=1e-5)
    released = scale_latents(torch.ones(1, 1, 1, 1), latent_scaling("released", {}))
    assert released.item() == pytest.approx(2 / 42)
    with pytest.raises(ValueError, match="is constant"):
        latent_scaling("unit", {"mean": [0.0, 0.0], "std": [1.0, 0.0]})
    with pytest.raises(ValueError, match="latent_scaling: 'other'"):
        latent_scaling("other", {})


def test_checkpoints_name_what_is_wrong(tmp_path):
    path = tmp_path / "m.safetensors"
    net = torch.nn.Linear(2, 3)
    weights.save(path, {f"net.{k}": v for k, v in net.state_dict().items()} | {"net.more": torch.zeros(1)}, {"a": [1]})
    tensors, metadata = weights.load(path)
    assert metadata == {"a": [1]}
    with pytest.raises(ValueError, match="net.more is extra"):
        weights.load_module(net, tensors, "net.", path)
    del tensors["net.more"]
    with pytest.raises(ValueError, match=r"net.bias is \(3,\), expected \(2,\)"):
        weights.load_module(torch.nn.Linear(2, 2), tensors | {"net.weight": torch.zeros(2, 2)}, "net.", path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="cut short"):
        weights.load(path)
    with pytest.raises(ValueError, match="no such checkpoint"):
        weights.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv2d(8, 8, 3, padding=1, groups=8),
        torch.nn.Conv2d(8, 6, 3, stride=2),
        torch.nn.ConvTranspose2d(8, 4, 2, stride=2),
    ],
)
def test_the_gradient_of_a_convolution_takes_twice_its_flops(layer):
    own = {torch.ops.aten.convolution_backward: convolution_backward_flops}
    counted = []
    for backward in (False, True):
        with FlopCounterMode(display=False, custom_mapping=own) as counter:
            y = layer(torch.zeros(2, 8, 10, 10, requires_grad=True))
            y.sum().backward() if backward else None
        counted.append(counter.get_total_flops())
    per_output = 2 * layer.weight[0].numel()  # a multiplication and an addition per weight
    outputs = 2 * 8 * 100 if isinstance(layer, torch.nn.ConvTranspose2d) else y.numel()
    assert counted == [outputs * per_output, 3 * outputs * per_output]
