"""What a training on a cluster says of itself: its loss on samples that it never sees, and its FLOPs."""

import json
from dataclasses import replace

import pytest
import torch
from cluster_runs import arguments, held_out, in_two_processes, losses, same_state

from wuerstchen import latents, train
from wuerstchen.flops import diffusion_flops
from wuerstchen.objectives import make_objective, phases
from wuerstchen.presets import preset
from wuerstchen.seeds import derive, generator
from wuerstchen.webdata import Pictures, Selection, View

pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture
def noise_error(shards):
    """What an untrained Stage C, which predicts the noised latents themselves (3.2), makes of the held-out samples:
    the mean squared difference of these and the noise, which is all that is fixed."""
    chosen, paths = preset("tiny"), [shards / f"shards/{i:06d}.tar" for i in range(3)]
    samples = Pictures(paths, Selection(shards / "validation.safetensors", paths), derive(0, "validation"))
    n = samples.order.total
    assert 2 < n < 12
    objective = make_objective("c", chosen, phases(chosen, "c")[0], torch.device("cpu"), shards / "train")
    items = [samples[i, View.square(96)] for i in range(n)]
    batch = {"image": torch.stack([item["image"] for item in items]), "caption": [item["caption"] for item in items]}
    with torch.no_grad():
        clean = objective.prepare(batch)["clean"].double()
    noise = torch.stack([torch.randn(16, 3, 3, generator=generator(0, "validation", i)) for i in range(n)]).double()
    kept = torch.cos(((torch.arange(n).double() + 0.5) / n + 0.008) / 1.008 * torch.pi / 2) ** 2
    kept = (kept / torch.cos(torch.tensor(0.008 / 1.008 * torch.pi / 2).double()) ** 2).clamp(1e-4, 0.9999)
    kept = kept[:, None, None, None]
    return (kept.sqrt() * clean + (1 - kept).sqrt() * noise - noise).square().mean().item()


def still(shards, out, *more):
    """A Stage C that learns nothing."""
    return arguments(shards, "c", out, "--steps", 1, *held_out(shards), *more, settings=["learning_rate=0.0"])


def test_validation_is_the_same_with_any_number_of_processes(shards, tmp_path, noise_error):
    kinds = [["--parallel", "ddp"], ["--parallel", "fsdp2", "--micro-batch", 2]]
    folders = [tmp_path / name for name in ("ddp", "fsdp2", "one", "pieces")]
    in_two_processes([{"arguments": still(shards, out, *kind)} for out, kind in zip(folders, kinds, strict=False)])
    train.main(still(shards, tmp_path / "one"))
    train.main(still(shards, tmp_path / "pieces", "--micro-batch", 2))
    assert [float(losses(out, "validation_loss")[0]) for out in folders] == pytest.approx([noise_error] * 4, rel=1e-4)


def test_processes_that_see_different_states_say_so(shards, tmp_path):
    """As where --out is on a disk of each machine's own."""
    train.main(arguments(shards, "c", tmp_path / "0", "--steps", 2))
    flags = arguments(shards, "c", f"{tmp_path}/{{rank}}", "--steps", 3)
    said = in_two_processes([{"arguments": flags, "fails": True}])
    assert said.count("find other data or other states (steps 2, 0)") == 2


@pytest.mark.parametrize(("stage", "parallel"), [("a", "ddp"), ("b", "fsdp2")])
def test_validation_does_not_disturb_the_training(shards, tmp_path, stage, parallel):
    more = ["--parallel", parallel, "--selection", shards / "training.safetensors", "--steps", 5]
    train.main(arguments(shards, stage, tmp_path / "without", *more))
    train.main(arguments(shards, stage, tmp_path / "with", *more, *held_out(shards, every=2)))
    assert same_state(tmp_path / "without", tmp_path / "with")
    assert losses(tmp_path / "without") == losses(tmp_path / "with")
    checked = losses(tmp_path / "with", "validation_loss")
    assert [bool(value) for value in checked] == [False, True, False, True, True]
    assert losses(tmp_path / "without", "validation_loss") == [""] * 5


def test_only_samples_that_are_not_trained_on_validate(shards, tmp_path):
    def refused(*more):
        with pytest.raises(SystemExit) as stopped:
            train.main(arguments(shards, "c", tmp_path, *more))
        return str(stopped.value)

    validation, training = shards / "validation.safetensors", shards / "training.safetensors"
    assert "training.safetensors is a selection to train on" in refused("--validation", training)
    assert "does not leave out the samples of" in refused("--validation", validation)
    more = ["--selection", validation, "--validation", validation]
    assert "does not leave out the samples of" in refused(*more)
    assert "0.tar should be what `selection select --validation` wrote" in refused("--validation", "0.tar")
    assert "--validate-every: there is nothing to validate on; name --validation" in refused("--validate-every", 3)


def test_flops_are_those_of_the_studys_path(shards, tmp_path):
    """In which captions are as long as the network's text is; here all positions are computed."""
    tiny = preset("tiny")
    for stage in ("c", "baseline-ldm"):
        train.main(arguments(shards, stage, tmp_path / stage, "--steps", 2))
        train.main(arguments(shards, stage, tmp_path / stage, "--steps", 5))  # resumed
        recipe = replace(tiny.recipes[stage], batch_size=8)
        theirs = diffusion_flops(replace(tiny, recipes={stage: recipe}), stage, tiny.text.length, 5)
        assert json.loads((tmp_path / stage / "usage.json").read_text())["train_flops"] == theirs


def test_latents_of_held_out_samples_validate_a_training_on_latents(shards, tmp_path):
    for part, file in {"all": "shards/selection", "training": "training", "validation": "validation"}.items():
        latents.main(
            ["--preset", "tiny", "--stage", "c", "--what", "compressor", "tokens", "--weights", str(shards / "train"),
             "--data", f"{shards}/shards/{{000000..000002}}.tar", "--selection", str(shards / f"{file}.safetensors"),
             "--out", str(tmp_path / part)]
        )  # fmt: skip

    def train_on(part, out):
        flags = still(shards, tmp_path / out, "--validation", f"{tmp_path}/validation/{{000000..000002}}.safetensors")
        flags[flags.index("--data") + 1] = f"{tmp_path}/{part}/{{000000..000002}}.safetensors"
        del flags[flags.index("--selection") : flags.index("--selection") + 2]
        train.main(flags)

    train_on("training", "latents")
    train.main(still(shards, tmp_path / "pictures"))
    ours, theirs = (float(losses(tmp_path / name, "validation_loss")[0]) for name in ("latents", "pictures"))
    assert ours == pytest.approx(theirs, rel=0.05)  # crops of their middle, in half precision
    with pytest.raises(SystemExit, match="does not leave out the samples"):
        train_on("all", "x")
