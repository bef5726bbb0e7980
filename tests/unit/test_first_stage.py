"""The baseline LDM in the latents of Stable Diffusion's first stage and with its text, against diffusers' own classes.

The files are as the hub has them, of small networks with random weights.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import small_clip
import tar_shards
import torch
from diffusers import AutoencoderKL
from hub_server import HubServer
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from evaluation.generators import make
from wuerstchen import assets, assets_table, clip, cluster, latents, paper, train, weights
from wuerstchen.clip import SIZES
from wuerstchen.first_stage import RENAMED, load_first_stage
from wuerstchen.objectives import make_objective, phases, view
from wuerstchen.paper import BASELINE_READINGS, BaselineReading
from wuerstchen.presets import TextConfig, preset
from wuerstchen.stage_b import UNet
from wuerstchen.webdata import Pictures, Selection

PUBLISHED = json.loads((Path(__file__).parents[2] / "evaluation/published/networks.json").read_text())
REPOSITORIES = {"sd-1.4": assets_table.SD_1_4, "sd-2.1": assets_table.SD_2_1}
WIDTHS = {"clip-l": 32, "clip-h-penultimate": 48}
ACTIVATIONS = {"clip-l": "quick_gelu", "clip-h-penultimate": "gelu"}
TINY = preset("tiny")


def small_vae(seed: int, **more) -> AutoencoderKL:
    """Stable Diffusion's autoencoder with eight channels everywhere."""
    torch.manual_seed(seed)
    kinds = {key: PUBLISHED["sd-1.4"]["vae"][key] for key in ("down_block_types", "up_block_types")}
    net = AutoencoderKL(**kinds, block_out_channels=[8] * 4, layers_per_block=1, norm_num_groups=4, **more)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return net.eval().requires_grad_(False)


def with_old_names(file: Path) -> None:
    """The file with its attention layers named as in 2022, when Stable Diffusion's were written."""
    old = {new: name for name, new in RENAMED.items()}
    tensors = {}
    for name, tensor in load_file(file).items():
        for new in old:
            if "attentions" in name:
                name = name.replace(f".{new}.", f".{old[new]}.")
        tensors[name] = tensor
    assert any(".query." in name for name in tensors)
    save_file(tensors, file)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Folder of assets with both readings' first stages and text encoders, at sizes other than the published ones."""
    folder = tmp_path / "assets"
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    tokenizer = small_clip.tokenizer()
    for seed, (reading, (name, encoder)) in enumerate(
        {"appendix-e4": ("sd-1.4", "clip-l"), "section-4": ("sd-2.1", "clip-h-penultimate")}.items()
    ):
        repository, width = folder / REPOSITORIES[name][0], WIDTHS[encoder]
        small_vae(seed).save_pretrained(repository / "vae")
        small_clip.save(repository, "", small_clip.model(width, 2, 4, seed, ACTIVATIONS[encoder]), tokenizer)
        monkeypatch.setitem(clip.SIZES, encoder, replace(SIZES[encoder], width=width, depth=2, heads=4))
        unet = replace(TINY.baseline_ldm, c_text=width)
        monkeypatch.setitem(paper.BASELINE_READINGS, reading, BaselineReading(name, TextConfig(encoder, width), unet))
    with_old_names(folder / assets_table.SD_1_4[0] / "vae" / assets_table.DIFFUSERS)
    shutil.copytree(repository / "tokenizer", folder / "warp-ai/wuerstchen/tokenizer")
    for name in (name for names in assets.BASELINES.values() for name in names):
        monkeypatch.setitem(assets.ASSETS, name, replace(assets.ASSETS[name], bytes=None, sha256=None))
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    tar_shards.prepared(folder, shards=2)
    return folder


@pytest.fixture
def small(files, monkeypatch):
    """The preset that cluster and latents are given: a tiny one whose baseline has readings as the paper's do."""
    chosen = replace(TINY, baseline_first_stage="sd-2.1")
    for module in (cluster, latents):
        monkeypatch.setattr(module, "preset", lambda name: chosen)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return chosen


def trained(shards, out, reading, *more, data=None):
    """Two steps of the baseline, as a user would make them: without a folder of trained stages."""
    train.main(
        ["--stage", "baseline-ldm", "--preset", "tiny", "--data", data or f"{shards}/{{000000..000001}}.tar",
         "--baseline", reading, "--seed", "0", "--workers", "0", "--steps", "2", "--out", str(out),
         "--set", "batch_size=4", "optimiser=adamw", *more]
    )  # fmt: skip


def refused(call, *args, **more) -> str:
    """The single line of an error."""
    with pytest.raises((ValueError, SystemExit)) as error:
        call(*args, **more)
    (line,) = str(error.value).splitlines()
    return line


@pytest.mark.parametrize("name", REPOSITORIES)
def test_latents_and_pictures_are_those_of_diffusers(files, name):
    """1.4's files have the names of 2022, and those of 2.1 today's: diffusers itself reads both."""
    theirs = AutoencoderKL.from_pretrained(files / REPOSITORIES[name][0] / "vae").eval()
    ours, images = load_first_stage(name, None), torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        posterior = theirs.encode(2 * images - 1).latent_dist
        latent = ours.encode(images)
        expected = (theirs.decode(latent / 0.18215).sample / 2 + 0.5).clamp(0, 1)
        assert latent.shape == (2, 4, 8, 12) and (ours.channels, ours.factor) == (4, 8)
        assert (latent - 0.18215 * posterior.mode()).abs().max() < 1e-6
        assert (ours.decode(latent).clamp(0, 1) - expected).abs().max() < 1e-5
        with torch.autocast("cpu", torch.bfloat16):
            assert (ours.decode(latent).clamp(0, 1) - expected).abs().max() < 1e-5  # in float32 all the same
    assert expected.std() > 0.01 and latent.std() > 0.01
    assert not any(p.requires_grad for p in ours.parameters()) and not ours.training


def test_files_that_do_not_fit_are_named(files, tmp_path):
    folder = files / assets_table.SD_1_4[0] / "vae"
    file, config = folder / assets_table.DIFFUSERS, folder / "config.json"
    whole, right = load_file(file), config.read_text()
    name = "decoder.conv_in.weight"
    cases = {
        f"tensor {name} is missing": {k: v for k, v in whole.items() if k != name},
        "tensor extra is extra": whole | {"extra": torch.zeros(1)},
        f"tensor {name} is (8, 5, 3, 3), expected (8, 4, 3, 3)": whole | {name: torch.zeros(8, 5, 3, 3)},
    }
    for said, tensors in cases.items():
        save_file(tensors, file)
        assert f"{file}: {said}" in refused(load_first_stage, "sd-1.4", None)
    file.write_bytes(b"cut short")
    assert f"{file}: not a safetensors file, or cut short" in refused(load_first_stage, "sd-1.4", None)
    config.write_text(json.dumps(json.loads(right) | {"_class_name": "VQModel"}))
    assert f"{config}: not the configuration of an AutoencoderKL" in refused(load_first_stage, "sd-1.4", None)
    config.unlink()
    line = refused(load_first_stage, "sd-1.4", None)
    assert "asset sd-1.4/vae-config is missing" in line and "assets fetch sd-1.4/vae-config" in line
    assert "'sd-3' is not known; use stage-a, sd-1.4, sd-2.1" in refused(load_first_stage, "sd-3", None)
    assert "--weights: Stage A is needed" in refused(load_first_stage, "stage-a", None)


def test_another_file_in_the_place_of_a_known_one_is_refused(files, monkeypatch):
    monkeypatch.undo()  # the table as it is
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(files))
    assert "but asset sd-2.1/vae-config has 611" in refused(load_first_stage, "sd-2.1", None)


def test_a_reading_comes_through_the_hubs_client(files, tmp_path, monkeypatch, capsys):
    hub = HubServer()
    names = assets.BASELINES["appendix-e4"]
    for source in (assets.ASSETS[name].source for name in names):
        hub.files[f"{source.repo}/resolve/{source.revision}/{source.path}"] = (
            files / source.repo / source.path
        ).read_bytes()
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    expected = load_first_stage("sd-1.4", None).state_dict()
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path / "fetched"))
    assert "asset sd-1.4/vae-config is missing" in refused(load_first_stage, "sd-1.4", None)
    assets.main(["fetch", "appendix-e4"])
    hub.close()
    assert len(capsys.readouterr().out.split()) == len(names) == 4
    found = load_first_stage("sd-1.4", None).state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected | found)


@pytest.mark.parametrize("reading", BASELINE_READINGS)
def test_each_reading_is_trained_and_draws(files, small, shards, tmp_path, reading):
    trained(shards, tmp_path / "baseline-ldm", reading)
    said = BASELINE_READINGS[reading]
    _, about = weights.load(tmp_path / "baseline-ldm/model.safetensors")
    assert about["text"]["encoder"] == said.text.encoder
    assert (about["first_stage"], about["image_size"]) == (said.first_stage, 128)
    usage = json.loads((tmp_path / "baseline-ldm/usage.json").read_text())
    assert usage["first_stage"] == said.first_stage
    # there is no Stage A to draw with
    drawing = make("baseline-ldm", tmp_path, {"steps": 2, "guidance": 2.0})
    drawing.batch_size = 2
    prompts = [{"id": name, "prompt": f"a thing named {name}"} for name in "abc"]
    first, second, third = drawing.generate(prompts, 0)
    assert first.shape == (128, 128, 3) and first.dtype == "uint8" and (first != second).any()
    (alone,) = drawing.generate(prompts[2:], 0)
    assert (alone == third).all()
    assert drawing.pipeline.shape == (4, 16, 16) and drawing.pipeline.image_size == 128
    vae = files / REPOSITORIES[said.first_stage][0] / "vae" / assets_table.DIFFUSERS
    digest = weights.digest(vae, tmp_path / "baseline-ldm/model.safetensors")
    assert drawing.describe()["weights_sha256"] == digest


@pytest.mark.parametrize("reading", BASELINE_READINGS)
def test_precomputed_latents_are_what_training_computes(small, shards, tmp_path, reading):
    """The same crops through the same networks, but for float16."""
    precompute = [
        "--preset", "tiny", "--stage", "baseline-ldm", "--baseline", reading, "--what", "vae", "tokens",
        "--data", f"{shards}/{{000000..000001}}.tar", "--batch-size", "3", "--out", str(tmp_path),
    ]  # fmt: skip
    latents.main(precompute)
    chosen = paper.with_baseline(small, reading)
    phase = phases(chosen, "baseline-ldm")[0]
    objective = make_objective("baseline-ldm", chosen, phase, torch.device("cpu"), None)
    paths = [shards / "000000.tar"]
    pictures = Pictures(paths, Selection(shards / "selection.safetensors", paths), 0)
    read = [pictures.read(0, row, view(chosen, "baseline-ldm", phase.sizes[0]), None) for row in range(8)]
    images, captions = zip(*read, strict=True)
    inputs = objective.prepare({"image": torch.stack([torch.from_numpy(i) for i in images]), "caption": list(captions)})
    tensors, about = weights.load(tmp_path / "000000.safetensors")
    assert tensors["vae"].shape == (8, 4, 16, 16) and about["first_stage"] == chosen.baseline_first_stage
    assert torch.allclose(tensors["vae"].float(), inputs["clean"], rtol=1e-3, atol=1e-3)
    assert torch.allclose(tensors["tokens"].float(), inputs["tokens"], rtol=1e-3, atol=5e-3)
    data = f"{tmp_path}/{{000000..000001}}.safetensors"
    trained(shards, tmp_path / "out", reading, data=data)
    assert weights.metadata(tmp_path / "out/model.safetensors")["first_stage"] == chosen.baseline_first_stage
    (other,) = set(BASELINE_READINGS) - {reading}
    line = refused(trained, shards, tmp_path / "x", other, data=data)
    first_stage = BASELINE_READINGS[other].first_stage
    assert f"holds latents of {chosen.baseline_first_stage}, but this baseline works on {first_stage}" in line
    line = refused(latents.main, [*precompute, "--what", "a", "tokens"])
    assert "--what: a; stage baseline-ldm of preset tiny works on vae" in line
    line = refused(latents.main, [*precompute, "--stage", "c"])
    assert "--what: vae; stage c of preset tiny works on a" in line


def test_what_a_baseline_cannot_be_trained_with_is_one_line(files, small, shards, tmp_path, monkeypatch):
    (files / assets_table.SD_2_1[0] / "text_encoder/model.safetensors").unlink()
    assert "asset clip-h-penultimate/text is missing" in refused(trained, shards, tmp_path, "section-4")
    small_vae(0, latent_channels=3).save_pretrained(files / assets_table.SD_2_1[0] / "vae")
    line = refused(trained, shards, tmp_path, "section-4")
    assert "it has latents of 3 channels, the baseline of preset tiny takes 4" in line
    monkeypatch.setattr(cluster, "preset", preset)
    assert "works on Stage A's latents" in refused(trained, shards, tmp_path, "section-4")
    line = refused(
        train.main, [*"--stage baseline-ldm --preset paper --data d --seed 0 --out o".split(), "--latents", "l"]
    )
    assert "the baseline of preset paper works on latents of sd-2.1, not on Stage A's" in line


def test_the_papers_baseline_has_its_grids():
    """E.4 through the published autoencoder, without computing: 512 pixels are 64x64 latents."""
    chosen = preset("paper")
    (size,) = phases(chosen, "baseline-ldm")[0].sizes
    for reading in BASELINE_READINGS.values():
        seen = []
        with torch.device("meta"):
            vae, unet = AutoencoderKL(**PUBLISHED[reading.first_stage]["vae"]), UNet(reading.unet)
            images, text = torch.empty(1, 3, *size), torch.empty(1, 77, reading.text.dimensions)
            with FlopCounterMode(display=False) as encoding:
                clean = vae.encode(images).latent_dist.mean
            for level in (unet.embedding, *(level[0] for level in unet.down_blocks[1:])):
                level.register_forward_hook(lambda module, args, out, seen=seen: seen.append(tuple(out.shape[1:])))
            with FlopCounterMode(display=False) as denoising:
                a, b = unet(clean, torch.empty(1), unet.condition(text))
        assert size == (512, 512) and clean.shape == a.shape == b.shape == (1, 4, 64, 64)
        assert seen == [(320, 32, 32), (640, 16, 16), (1280, 8, 8), (1280, 4, 4)]
        # which is why its latents are best precomputed
        assert encoding.get_total_flops() > 6 * denoising.get_total_flops()
