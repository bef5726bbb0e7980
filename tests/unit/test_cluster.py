"""Training on a cluster: two processes on the CPU, killed and resumed; and each stage's recipe in one process."""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import lpips
import pytest
import torch
import torchvision
from cluster_runs import STEPS, arguments, held_out, in_two_processes, losses, same_state, same_weights
from torch._subclasses import FakeTensorMode

from wuerstchen import cluster, interpolate, latents, train, weights
from wuerstchen.compressor import SemanticCompressor
from wuerstchen.objectives import StageCObjective, compressed, make_objective, phases, view
from wuerstchen.perceptual import perceptual_loss
from wuerstchen.presets import Phase, preset
from wuerstchen.runs import Limit, duration
from wuerstchen.scaling import scale_latents
from wuerstchen.stage_c import StageC
from wuerstchen.webdata import Pictures, Selection, View

pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="session")
def killed(shards):
    """Stage B with its compressor by DDP and by FSDP2: a whole training, and one that was killed and resumed."""
    found, jobs = {}, []
    for parallel in ("ddp", "fsdp2"):
        found[parallel] = [shards / parallel / name for name in ("whole", "cut")]
        more = ["--parallel", parallel, "--micro-batch", 2, "--checkpoint-activations", *held_out(shards)]
        whole, cut = (arguments(shards, "b", out, *more) for out in found[parallel])
        jobs += [{"arguments": whole}, {"arguments": cut, "kill_at": random.randint(4, STEPS - 4)}, {"arguments": cut}]
    said = in_two_processes(jobs)
    # each was killed after a checkpoint and before its end, and went on from there
    resumed = [int(line.split()[-1]) for line in said.splitlines() if line.startswith("resuming at step")]
    assert len(resumed) == 2 and all(0 < step < STEPS and step % 3 == 0 for step in resumed), said
    return found


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_a_killed_training_of_two_processes_resumes_bit_by_bit(killed, parallel):
    whole, cut = killed[parallel]
    assert same_weights(whole, cut) and same_state(whole, cut)
    assert losses(whole) == losses(cut) and len(losses(cut)) == STEPS
    assert (cut / "state/previous.safetensors").exists()
    checked = losses(whole, "validation_loss")
    assert checked == losses(cut, "validation_loss")
    assert [i + 1 for i, value in enumerate(checked) if value] == [4, 8, 12, STEPS] and len({*checked}) == 5


def test_fsdp2_computes_what_ddp_computes(killed):
    ours, theirs = (weights.load(killed[p][0] / "model.safetensors")[0] for p in ("fsdp2", "ddp"))
    assert set(ours) == set(theirs)
    for column in ("loss", "validation_loss"):
        found = [[float(value or 0) for value in losses(killed[p][0], column)] for p in ("fsdp2", "ddp")]
        assert found[0] == pytest.approx(found[1], rel=1e-4)
    for name, tensor in theirs.items():
        # where a gradient is next to nothing, AdamW makes a whole step (1e-3) of its rounding
        assert torch.allclose(ours[name], tensor, rtol=1e-3, atol=1e-3), name
        assert (ours[name] - tensor).float().square().mean() < 1e-8 + 1e-6 * tensor.float().square().mean(), name
    moved = SemanticCompressor(preset("tiny").compressor, pretrained=True).state_dict()
    assert any((theirs[f"compressor.{name}"] != value).any() for name, value in moved.items() if "weight" in name)


def test_usage_counts_all_processes(killed):
    usage = json.loads((killed["ddp"][1] / "usage.json").read_text())
    assert usage["count"] == 2  # cores: each process was given one
    assert usage["images"] == usage["samples"] == 8 * STEPS and usage["steps"] == STEPS and usage["kwh"] > 0


@pytest.mark.parametrize("stage", ["a", "c", "baseline-ldm"])
def test_a_training_told_to_stop_goes_on_as_if_it_had_not_been(shards, tmp_path, monkeypatch, stage):
    tiny = preset("tiny")
    dropping = {name: replace(getattr(tiny, name), dropout=0.1) for name in ("stage_c", "baseline_ldm")}
    monkeypatch.setattr(cluster, "preset", lambda name: replace(tiny, **dropping))
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


def test_a_training_told_to_stop_before_its_first_step_makes_none(shards, tmp_path, monkeypatch, capsys):
    def told(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return make_objective(*args)

    monkeypatch.setattr(cluster, "make_objective", told)
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments(shards, "c", tmp_path))
    assert stopped.value.code == cluster.STOPPED and "stopped in time at step 0 of 14" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("by", ["limit", "SIGTERM"])
def test_torchruns_exit_status_says_that_a_training_stopped_in_time(shards, tmp_path, by):
    more = ["--stop-after", "1s"] if by == "limit" else ["--steps", 100_000, "--workers", 1]
    with subprocess.Popen(
        [sys.executable, "-m", "wuerstchen.distributed", "--standalone", "--nproc-per-node", "2",
         "-m", "wuerstchen.train", *arguments(shards, "c", tmp_path, *more)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as launcher:  # fmt: skip
        history = tmp_path / "state/history.csv"
        while by == "SIGTERM" and launcher.poll() is None:
            if history.exists() and history.read_text().count("\n") > 3:
                launcher.terminate()
                break
            time.sleep(0.05)
        out, err = launcher.communicate(timeout=300)
    assert launcher.returncode == cluster.STOPPED, err
    step = weights.metadata(tmp_path / "state/last.safetensors")["step"]
    assert f"stopped in time at step {step} of " in out
    assert not (tmp_path / "model.safetensors").exists()


def test_latents_are_precomputed_by_shard_and_trained_from(shards, tmp_path):
    out = tmp_path / "latents"
    precompute = [
        "--preset", "tiny", "--stage", "b", "--what", "a", "compressor", "tokens", "--weights", str(shards / "train"),
        "--data", f"{shards}/shards/{{000000..000002}}.tar", "--batch-size", "3", "--out", str(out),
    ]  # fmt: skip
    latents.main(precompute)
    tensors, about = weights.load(out / "000001.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == {"a": (8, 4, 32, 32), "compressor": (8, 16, 3, 3), "tokens": (8, 40, 384), "null": (1, 40, 384)}
    assert about["count"] == 8 and about["corrupt"] == 0
    before = (out / "000001.safetensors").stat().st_mtime_ns
    latents.main(precompute)
    assert (out / "000001.safetensors").stat().st_mtime_ns == before  # what is there is not made again
    with pytest.raises(SystemExit, match="000000.safetensors was made with other settings"):
        latents.main([*precompute, "--what", "a"])

    def started(stage, *settings):
        flags = arguments(shards, stage, tmp_path / stage, "--steps", 1, settings=settings)
        flags[flags.index("--data") + 1] = f"{out}/{{000000..000002}}.safetensors"
        train.main(flags)
        return float(losses(tmp_path / stage)[0])

    # the first loss is that of the untrained network, the same kind of number as on the pictures themselves
    for stage, settings in (("b", ["compressor_steps=0"]), ("baseline-ldm", []), ("c", [])):
        train.main(arguments(shards, stage, tmp_path / "pictures" / stage, "--steps", 1, settings=settings))
        on_pictures = float(losses(tmp_path / "pictures" / stage)[0])
        assert started(stage, *settings) == pytest.approx(on_pictures, rel=0.3), stage
    with pytest.raises(SystemExit, match="precomputed latents cannot train the compressor"):
        started("b")
    with pytest.raises(SystemExit, match="Stage A is trained on pictures, not on latents"):
        started("a")


def test_precomputed_latents_are_what_training_computes(shards, tmp_path):
    """The same crops through the same networks, but for float16."""
    latents.main(
        ["--preset", "tiny", "--stage", "c", "--what", "compressor", "tokens", "--weights", str(shards / "train"),
         "--data", f"{shards}/shards/000000.tar", "--out", str(tmp_path)]
    )  # fmt: skip
    chosen, device = preset("tiny"), torch.device("cpu")
    phase = phases(chosen, "c")[0]
    objective = make_objective("c", chosen, phase, device, shards / "train")
    paths = [shards / "shards/000000.tar"]
    pictures = Pictures(paths, Selection(shards / "shards/selection.safetensors", paths), 0)
    read = [pictures.read(0, row, view(chosen, "c", phase.sizes[0]), None) for row in range(8)]
    batch = {
        "image": torch.stack([torch.from_numpy(image) for image, _ in read]),
        "caption": [text for _, text in read],
    }
    inputs = objective.prepare(batch)
    tensors, _ = weights.load(tmp_path / "000000.safetensors")
    assert torch.allclose(
        scale_latents(tensors["compressor"].float(), objective.scaling), inputs["clean"], rtol=1e-3, atol=1e-3
    )
    assert torch.allclose(tensors["tokens"].float(), inputs["tokens"], rtol=1e-3, atol=1e-3)


def test_phases_go_on_from_the_one_before_at_their_own_sizes(shards, tmp_path, monkeypatch):
    """Three aspect ratios, one for each batch; then 50:50 between the last two phases, as the paper's final model."""
    sizes = ((96, 160), (160, 96), (96, 96))
    recipe = replace(
        preset("tiny").recipes["c"], steps=9, batch_size=4, optimiser="adamw", precision="fp32",
        phases=(Phase(2, 4, ((96, 96),)), Phase(5, 4, sizes), Phase(2, 2, ((96, 96),), data="aesthetic")),
    )  # fmt: skip
    chosen = replace(preset("tiny"), recipes={"c": recipe})
    monkeypatch.setattr(cluster, "preset", lambda name: chosen)
    seen, prepare = [], StageCObjective.prepare

    def noted(self, batch):
        inputs = prepare(self, batch)
        seen.append((len(batch["image"]), tuple(inputs["clean"].shape[-2:])))
        return inputs

    monkeypatch.setattr(StageCObjective, "prepare", noted)
    for number in (1, 2, 3):
        more = ["--continue-from", tmp_path / str(number - 1)] if number > 1 else []
        flags = arguments(shards, "c", tmp_path / str(number), "--phase", number, *more)
        del flags[flags.index("--steps") : flags.index("--steps") + 2]
        flags[flags.index("--set") + 1 : flags.index("optimiser=adamw") + 1] = ["clip=1.0"]
        train.main(flags)
    # it is warmed up once (here in two steps), for all phases; the weights alone have nothing that is warm
    rates = [[float(rate) for rate in losses(tmp_path / str(number), "learning_rate")] for number in (1, 2, 3)]
    assert rates == [[0.0005, 0.001], [0.001] * 5, [0.001] * 2]
    moments = weights.load(tmp_path / "3/state/last.safetensors")[0]
    assert {moments[name].item() for name in moments if name.endswith("/step")} == {9}
    assert weights.metadata(tmp_path / "3/state/last.safetensors")["before"] == 7
    shutil.copytree(tmp_path / "2", tmp_path / "bare", ignore=shutil.ignore_patterns("state"))
    out = {"--out": tmp_path / "alone", "--continue-from": tmp_path / "bare"}
    train.main([str(out.get(before, flag)) for before, flag in zip(["", *flags], flags, strict=False)])
    assert [float(rate) for rate in losses(tmp_path / "alone", "learning_rate")] == [0.0005, 0.001]
    assert seen[:2] == [(4, (3, 3))] * 2 and seen[7:] == [(2, (3, 3))] * 4
    assert {shape for _, shape in seen[2:7]} <= {(3, 5), (5, 3), (3, 3)} and len({s for _, s in seen[2:7]}) > 1
    models = [tmp_path / str(number) / "model.safetensors" for number in (1, 2, 3)]
    interpolate.main([str(models[1]), str(models[2]), "--out", str(tmp_path / "final.safetensors")])
    (a, about), (b, _), (final, said) = (weights.load(path) for path in (*models[1:], tmp_path / "final.safetensors"))
    assert all(torch.allclose(final[name], (a[name] + b[name]) / 2) for name in a) and set(final) == set(a)
    assert about["stage_c"] == said["stage_c"] and [part["share"] for part in said["interpolated"]] == [0.5, 0.5]
    # a phase starts from what the one before has learnt
    first, before = weights.load(models[0])[0], StageC(chosen.stage_c).state_dict()
    assert any(not torch.equal(first[f"stage_c.{name}"], tensor) for name, tensor in before.items())
    other = tmp_path / "other.safetensors"
    weights.save(other, a, about | {"latent_scaling": {"name": "released"}})
    with pytest.raises(SystemExit, match="interpolate: .*other.safetensors: latent_scaling is "):
        interpolate.main([str(models[1]), str(other), "--out", str(tmp_path / "x")])
    with pytest.raises(SystemExit, match="--phase: 4; stage c of preset tiny has 3"):
        train.main([*flags, "--phase", "4"])


def test_a_state_that_is_cut_short_is_replaced_by_the_one_before(shards, tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train.main(arguments(shards, "c", whole))
    train.main(arguments(shards, "c", cut))
    for name in ("model.safetensors", "history.csv", "usage.json"):  # as Snakemake does
        (cut / name).unlink()
    state = cut / "state/last.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    train.main(arguments(shards, "c", cut))
    said = capsys.readouterr()
    assert "cut short" in said.err and "going on from previous.safetensors" in said.err
    assert "resuming at step 12" in said.out and same_weights(whole, cut)
    for name in ("last", "previous"):
        (cut / f"state/{name}.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit, match="cut short.*to train anew"):
        train.main(arguments(shards, "c", cut))


def test_what_a_training_cannot_use_is_one_line(shards, tmp_path):
    def refused(stage, *more, data=None, settings=()):
        with pytest.raises(SystemExit) as stopped:
            train.main(arguments(shards, stage, tmp_path, *more, data=data, settings=settings))
        return str(stopped.value)

    assert "--micro-batch: 3 samples in each of 1 processes do not divide the batch of 8" in refused(
        "c", "--micro-batch", 3
    )
    assert "optimiser: 'muon' does not run on a cluster" in refused("c", settings=["optimiser=muon"])
    for key in ("loss_weight", "timesteps", "drop_text_per", "drop_image_per"):
        assert f"stage c: {key}: 'foo' is not known; use one of " in refused("c", settings=[f"{key}=foo"])
    assert "stage a: perceptual: 'vgg' is not known; use one of lpips" in refused("a", settings=["perceptual=vgg"])
    assert "preset released-v1 has no training recipe for stage c" in refused("c", "--preset", "released-v1")
    assert "set it to 0 (--set revive_codes_every=0)" in refused("a", settings=["revive_codes_every=4"])
    assert "compressor_steps is 3 of 14" in refused("b", settings=["compressor_steps=3"])
    assert "fit_compressor needs all pictures" in refused("b", settings=["fit_compressor=true"])
    assert "no file" in refused("c", data=tmp_path)
    assert "--budget is for trainings on a study's data folder" in refused("c", "--budget", "c")
    for stage in ("df-gan", "probe"):
        assert f"--stage: {stage} is trained on a study's data folder, not on shards" in refused(stage)
    with pytest.raises(SystemExit, match="--stop-after is for trainings on shards"):
        train.main([*"--stage c --preset tiny --data data --seed 0 --out out --stop-after 3h".split()])
    train.main(arguments(shards, "c", tmp_path, "--steps", 3))
    assert "was made with seed 0, now it is 1; delete" in refused("c", "--seed", 1)
    assert "is at step 3, past the 2 asked for" in refused("c", "--steps", 2)


def test_too_many_corrupt_samples_stop_a_training(shards, tmp_path):
    for path in (shards / "shards").glob("*.*"):
        shutil.copy(path, tmp_path)
    chosen = Selection(tmp_path / "selection.safetensors", [tmp_path / "000000.tar"])
    data = bytearray((tmp_path / "000000.tar").read_bytes())
    for row in range(7):
        offset, size, *_ = chosen.place(0, row)
        data[offset : offset + size] = bytes(size)
    (tmp_path / "000000.tar").write_bytes(data)
    with pytest.raises(SystemExit, match="samples are corrupt, more than --corrupt-limit 0.001 allows"):
        train.main(arguments(shards, "c", tmp_path / "out", "--corrupt-limit", 0.001, data=tmp_path))
    train.main(arguments(shards, "c", tmp_path / "out", "--corrupt-limit", 0.9, data=tmp_path))
    with open(tmp_path / "out/history.csv") as file:
        assert int(list(csv.DictReader(file))[-1]["corrupt"]) > 0


@pytest.mark.parametrize(("text", "seconds"), [("3h50m", 13800), ("90m", 5400), ("45s", 45), ("1h1s", 3601)])
def test_times_are_read(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "3", "1.5h", "50m3h", "-5s"])
def test_other_times_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="should be a time such as 3h50m"):
        duration(text)


def test_the_limit_leaves_time_for_a_step_and_a_checkpoint():
    limit = Limit(100.0, time.monotonic() - 60)
    assert not limit.due()
    limit.longest_step, limit.longest_save = 4.0, 25.0
    assert limit.due()


def test_lpips_is_the_packages_with_vgg_from_a_file(tmp_path):
    """The authors' package with the same random VGG16, and torchvision's names in the file."""
    torch.manual_seed(0)
    reference = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    vgg = torchvision.models.vgg16(weights=None).features
    theirs = [p.detach() for p in reference.net.parameters()]
    named = {f"features.{name}": tensor for (name, _), tensor in zip(vgg.named_parameters(), theirs, strict=True)}
    torch.save(named | {"classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg16.pth")
    ours = perceptual_loss("lpips", tmp_path / "vgg16.pth")
    x, y = torch.rand(2, 2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(x, y), reference(2 * x - 1, 2 * y - 1).mean(), atol=1e-6)
    x.requires_grad_()
    ours(x, y).backward()
    assert x.grad.abs().sum() > 0 and not any(p.requires_grad for p in ours.parameters())
    del named["features.0.weight"]
    torch.save(named, tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match="is not VGG16: features.0.weight is missing"):
        perceptual_loss("lpips", tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match="perceptual: 'vgg' is not known"):
        perceptual_loss("vgg")


def test_phases_of_the_paper_have_its_sizes_of_latents():
    """E.2 and E.3, through the real backbone, without computing: 12x12, 24x24, and the three aspect ratios."""
    paper = preset("paper")
    with FakeTensorMode():
        compressor = SemanticCompressor(paper.compressor).eval()
        sizes = {"b": [], "c": []}
        for stage, found in sizes.items():
            for phase in phases(paper, stage):
                for size in phase.sizes:
                    images = torch.empty(1, 3, *view(paper, stage, size).crop)
                    seen = compressor(images, size) if stage == "c" else compressed(compressor, paper, images)
                    found.append(tuple(seen.shape[1:]))
    assert sizes["b"] == [(16, 12, 12), (16, 24, 24)]
    assert sizes["c"] == [(16, 12, 12), (16, 24, 24), (16, 24, 40), (16, 40, 24), (16, 24, 24), (16, 24, 24)]
    stage_a = phases(paper, "a")[0]
    assert view(paper, "a", stage_a.sizes[0]) == View.square(128, 256) and stage_a.batch_size == 256
    assert paper.recipes["a"].perceptual == "lpips"
