"""Pipelines of diffusers with random weights, saved and loaded as real ones are; nothing is downloaded."""

import inspect
import json
import os
import shutil

import diffusers
import numpy as np
import pytest
import small_pipelines
import torch
from hub_server import HubServer
from PIL import Image

from evaluation import sample, speed
from evaluation.generators import hub, make
from evaluation.images import iter_images
from wuerstchen import assets
from wuerstchen.files import write_jsonl
from wuerstchen.seeds import generator
from wuerstchen.shards import read_info

PROMPTS = [{"id": f"p-{i}", "prompt": f"{i} red apples"} for i in range(3)]
FEW = {"steps": 2.0}


@pytest.fixture(scope="module", params=["sd-1.4", "sd-2.1", "sd-xl"])
def published(request, tmp_path_factory):
    """Id, pipeline and folder."""
    folder = tmp_path_factory.mktemp("pipelines") / request.param
    return request.param, small_pipelines.save(request.param, folder), folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of a small SD 1.4."""
    folder = tmp_path_factory.mktemp("small") / "pipeline"
    small_pipelines.save("sd-1.4", folder)
    return folder


@pytest.fixture
def one(small, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(small, tmp_path / "pipeline")


def test_pictures_are_those_of_diffusers_alone(published):
    """Each from its own generator, whatever it is drawn with; those of the library itself, one at a time, as PIL."""
    model, pipeline, folder = published
    ours = make("any-name", folder, FEW)
    drawn = ours.generate(PROMPTS, seed=3)
    for prompt, picture in zip(PROMPTS, drawn, strict=True):
        how = {"generator": generator(3, prompt["id"], "diffusers"), "num_inference_steps": 2}
        theirs = np.asarray(pipeline(prompt["prompt"], **how).images[0]).astype(int)
        assert picture.dtype == np.uint8 and picture.shape == theirs.shape and theirs.std() > 5
        assert np.abs(picture - theirs).max() <= 1  # a batch's arithmetic differs in the last bits
    assert np.array_equal(ours.generate(PROMPTS[1:2], seed=3)[0], drawn[1])
    assert not np.array_equal(ours.generate(PROMPTS[1:2], seed=4)[0], drawn[1])


def test_settings_are_the_pipelines_own(published):
    model, pipeline, folder = published
    record = make(model, folder, {}).describe()
    assert record["settings"] == {"steps": 50, "guidance": 5.0 if model == "sd-xl" else 7.5}
    assert record["sampler"] == type(pipeline.scheduler).__name__ and record["precision"] == "float32"
    assert record["scheduler"]["beta_end"] == 0.012 and len(record["weights_sha256"]) == 64
    assert (record["scheduler"].get("prediction_type") == "v_prediction") == (model == "sd-2.1")


def test_the_program_draws_with_it(small, tmp_path):
    blank = {"image": None, "category": None, "challenge": None, "source_id": None}
    write_jsonl(tmp_path / "prompts.jsonl", [prompt | blank for prompt in PROMPTS])
    out = tmp_path / "x.zip"
    sample.main(
        ["--model", "my-sd", "--weights", str(small), "--prompts", str(tmp_path / "prompts.jsonl"), "--seed", "0",
         "--set", "steps=2", "--out", str(out)]
    )  # fmt: skip
    assert [name for name, _ in iter_images([out])] == ["p-0", "p-1", "p-2"]
    info = read_info(out)
    assert info["pipeline"] == "StableDiffusionPipeline" and info["settings"] == {"steps": 2, "guidance": 7.5}
    assert info["black"] == [] and info["truncated"] == []


def test_the_speed_of_a_pipeline_is_measured(small, tmp_path):
    out = tmp_path / "speed.json"
    speed.main(
        ["--model", "mine", "--weights", str(small), "--batch-sizes", "1", "2", "--repeats", "1", "--set", "steps=2",
         "--out", str(out)]
    )  # fmt: skip
    record = json.loads(out.read_text())
    assert record["steps"]["steps"] == 2 and record["precision"] in ("float32", "float16")
    assert [batch["batch_size"] for batch in record["batches"]] == [1, 2] and record["image_size"] > 0


def test_safety_checkers_are_not_loaded(one):
    """What they black out would count as pictures. Neither code nor weights of theirs need be there."""
    index = json.loads((one / hub.INDEX).read_text())
    index |= {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": True,
    }
    (one / hub.INDEX).write_text(json.dumps(index))
    drawing = make("my-sd", one, FEW)
    assert drawing.pipeline.safety_checker is None and drawing.generate(PROMPTS[:1], 0)[0].any()


def test_black_pictures_and_cut_prompts_are_named(small):
    drawing = make("my-sd", small, FEW)
    decoder = drawing.pipeline.vae.decoder.conv_out
    long = {"id": "long", "prompt": "apple " * 90}
    drawing.generate([*PROMPTS, long], 0)
    assert drawing.describe()["truncated"] == ["long"] and drawing.describe()["black"] == []
    decoder.weight.data.zero_()
    decoder.bias.data.fill_(-2)
    drawing.generate(PROMPTS, 0)
    assert drawing.describe()["black"] == ["p-0", "p-1", "p-2"] and drawing.describe()["truncated"] == []
    decoder.bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="the picture of prompt p-0 is not finite"):
        drawing.generate(PROMPTS, 0)


def test_weights_are_read_from_safetensors_alone(one):
    network = one / "unet" / "diffusion_pytorch_model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(network), network.with_suffix(".bin"))
    network.unlink()
    with pytest.raises(ValueError, match="not loaded: .*safetensors") as error:
        make("my-sd", one, FEW)
    assert "\n" not in str(error.value)


def test_text_encoders_too(one):
    network = one / "text_encoder" / "model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(network), network.with_name("pytorch_model.bin"))
    network.unlink()
    with pytest.raises(ValueError, match="not loaded: .*safetensors"):
        make("my-sd", one, FEW)


def test_no_code_of_a_repository_is_run(one):
    index = json.loads((one / hub.INDEX).read_text())
    (one / "unet" / "mine.py").write_text("raise SystemExit('this ran')")
    for change, message in (
        ({"unet": ["mine", "Network"]}, "unet is from 'mine'; only diffusers and transformers"),
        ({"_class_name": ["mine", "Pipeline"]}, r"_class_name is \['mine', 'Pipeline'\]"),
        ({"_class_name": "NoSuchPipeline"}, "_class_name is 'NoSuchPipeline', which diffusers .* has not"),
        ({"_class_name": "DDPMPipeline"}, "DDPMPipeline is no text-to-image pipeline: it takes no prompt"),
    ):
        (one / hub.INDEX).write_text(json.dumps(index | change))
        with pytest.raises(ValueError, match=message):
            make("my-sd", one, FEW)


def test_what_is_missing_is_named(tmp_path, monkeypatch, small):
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path / "assets"))
    with pytest.raises(ValueError) as error:
        make("sd-xl", None, {})
    for part in ("13.9 GB", "stabilityai/stable-diffusion-xl-base-1.0 at 46216598", "assets fetch sd-xl"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="nobody/nothing at v1 .* run: hf download nobody/nothing --revision v1$"):
        make("my-sd", hub.Path("nobody/nothing@v1"), {})
    with pytest.raises(ValueError, match="neither a folder nor OWNER/NAME"):
        make("my-sd", tmp_path / "nothing", {})
    with pytest.raises(ValueError, match="'sd-3' is not known .*wuerstchen.* it has no model_index.json"):
        make("sd-3", tmp_path, {})
    with pytest.raises(ValueError, match="--set: guidance_c is unknown; this model takes steps, guidance"):
        make("my-sd", small, {"guidance_c": 1.0})


def test_a_published_pipeline_is_fetched_whole_and_found(small, one, tmp_path, monkeypatch):
    """The one in small, as the files that the table lists, from a hub on loopback."""
    small_pipelines.as_published(one / "tokenizer")
    server, asset = HubServer(), assets.ASSETS["sd-1.4"]
    of = asset.source
    for path in of.paths:
        server.files[f"{of.repo}/resolve/{of.revision}/{path}"] = (one / path).read_bytes()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path / "assets"))
    try:
        last = f"{of.repo}/resolve/{of.revision}/{of.paths[-1]}"
        kept = server.files.pop(last)
        with pytest.raises(SystemExit, match="sd-1.4 was not fetched"):
            assets.main(["fetch", "sd-1.4"])
        with pytest.raises(ValueError, match="sd-1.4 is missing"):
            make("sd-1.4", None, FEW)  # half a pipeline is none
        server.files[last] = kept
        sent = len(server.sent)
        assets.main(["fetch", "sd-1.4"])
        assert len(server.sent) == sent + 1  # only what was missing
    finally:
        server.close()
    ours, theirs = make("sd-1.4", None, FEW), make("my-sd", small, FEW)
    text = "A photo of 12 Dogs, naïvely; " + "apple " * 90
    assert ours.pipeline.tokenizer(text).input_ids == theirs.pipeline.tokenizer(text).input_ids
    assert ours.too_long(text) and not ours.too_long(PROMPTS[0]["prompt"])
    assert np.array_equal(ours.generate(PROMPTS, 0)[2], theirs.generate(PROMPTS, 0)[2])
    assert assets.check("sd-1.4") == (True, f"sd-1.4: there: {tmp_path / 'assets' / of.repo}")


def test_a_repository_in_the_hubs_cache_is_found(small, tmp_path, monkeypatch):
    """As `hf download` leaves it, by a revision's name or none."""
    cache = tmp_path / "models--me--mine"
    shutil.copytree(small, cache / "snapshots" / ("a" * 40))
    (cache / "refs").mkdir()
    for name in ("main", "v1"):
        (cache / "refs" / name).write_text("a" * 40)
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert "HF_HUB_CACHE" in inspect.getsource(file_download.try_to_load_from_cache)
    for source in ("me/mine", "me/mine@v1", f"me/mine@{'a' * 40}"):
        assert hub.folder_of("my-sd", hub.Path(source)) == cache / "snapshots" / ("a" * 40)
    assert os.path.isfile(hub.folder_of("my-sd", hub.Path("me/mine")) / hub.INDEX)


def test_the_table_lists_what_diffusers_loads():
    """Of each part that a published pipeline has, configuration and safetensors."""
    for name, parts in (
        ("sd-1.4", ("unet", "vae", "text_encoder")),
        ("sd-xl", ("unet", "vae", "text_encoder", "text_encoder_2")),
    ):
        paths = assets.ASSETS[name].source.paths
        assert len(set(paths)) == len(paths) and {path.split("/")[0] for path in paths} >= {hub.INDEX, "scheduler"}
        for part in parts:
            assert f"{part}/config.json" in paths
            assert any(hub.NETWORK.fullmatch(path.removeprefix(f"{part}/")) for path in paths), (name, part)
        assert [path for path in paths if path.startswith("tokenizer_2/")] or name == "sd-1.4"


def test_pillow_rounds_as_we_do():
    values = np.linspace(0, 1, 1001, dtype=np.float32)[None, :, None].repeat(3, 2)
    theirs = diffusers.image_processor.VaeImageProcessor.numpy_to_pil(values)[0]
    assert np.array_equal(np.round(values * 255).astype(np.uint8), np.asarray(theirs)) and isinstance(
        theirs, Image.Image
    )
