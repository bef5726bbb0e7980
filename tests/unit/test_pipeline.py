"""From prompts to pictures with the pipeline: sizes, settings, noise, negative prompts, precision, and the program."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import small_clip
import torch
from PIL import Image

from benchmarks.sampling import networks, randomised
from wuerstchen import assets, clip, generate, weights
from wuerstchen.assets_table import DECODER
from wuerstchen.clip import SIZES
from wuerstchen.pipeline import Pipeline, Wuerstchen
from wuerstchen.presets import (
    CompressorConfig,
    Sampling,
    StageAConfig,
    StageCConfig,
    TextConfig,
    UNetConfig,
    preset,
    ranges,
    to_dict,
)
from wuerstchen.sampling import SAMPLING, grids, settings
from wuerstchen.stage_b import UNet

SMALL = replace(
    preset("released-v2"),
    image_size=128,
    stage_a=StageAConfig(bottleneck_blocks=1, width=16, codebook_size=8),
    compressor=CompressorConfig(input_size=96),
    stage_b=UNetConfig(
        widths=(16, 16, 32, 32), heads=(0, 2, 2, 2), down=(1, 1, 1, 1), up=(1, 1, 1, 1), c_cond=24, c_text=20
    ),
    stage_c=StageCConfig(width=32, c_text=20, depth=2, heads=4),
    sampling=Sampling(3, 4.0, 2, 2.0),
)
A, B = "a red apple", "two pears"


def pipeline(dtype=torch.float32, **changed) -> Pipeline:
    return Pipeline(networks(replace(SMALL, **changed), dtype, "cpu"))


def latents(p: Pipeline, *args, **more) -> torch.Tensor:
    """What Stage A decodes: pictures of random networks are pale, so their bytes tell little."""
    seen = []
    decode = p.decode
    p.decode = lambda x: seen.append(x) or decode(x)
    pictures = p(*args, **more)
    del p.decode
    assert pictures.dtype == np.uint8 and pictures.shape[0] == len(seen[0]) and pictures.shape[3] == 3
    return seen[0]


def distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """The largest difference, in standard deviations."""
    return ((x - y).abs().max() / y.std()).item()


def test_sizes_are_those_of_the_networks():
    released = preset("released-v2")
    assert grids(released, 1024, 1024) == ((24, 24), (256, 256))
    assert grids(released, 512, 1536) == ((36, 12), (384, 128))
    assert grids(preset("emoji"), 128, 128) == ((3, 3), (32, 32))
    for width, near in ((1000, "896 or 1024 "), (1600, "1536 "), (64, "128 "), (1100, "1024 or 1152 ")):
        with pytest.raises(ValueError, match=f"width: {width} .*nearest is {near}"):
            grids(released, width, 1024)
    with pytest.raises(ValueError, match="height: 0 "):
        grids(released, 1024, 0)
    # every allowed size passes through both U-Net and Stage C without a rest
    for side in range(128, 1537, 128):
        (c, _), (b, _) = grids(released, side, side)
        assert b % 16 == 0 and c * 1024 == side * 24


def test_named_settings():
    released = preset("released-v2")
    assert settings(released) == SAMPLING["released"] and len(SAMPLING["released"].steps_c) == 31
    assert SAMPLING["released"].steps_c[20] == pytest.approx(2 / 3)
    paper = settings(released, "paper", guidance_c=6.0)
    assert (paper.steps_c, paper.guidance_c, paper.steps_b, paper.guidance_b) == (60, 6.0, 12, 4.0)
    assert paper.start_b == "noise"  # the released Stage B was trained for that
    for bad, said in (
        (dict(name="theirs"), "sampling: 'theirs'.*paper or released"),
        (dict(steps_c=0), "steps_c: 0"),
        (dict(steps_b=(1.0, 0.5, 0.6, 0.0)), "steps_b.*fall from 1 to 0"),
        (dict(steps_b=(0.9, 0.0)), "steps_b.*fall from 1 to 0"),
    ):
        with pytest.raises(ValueError, match=said):
            settings(released, **bad)


def test_equal_steps_by_number_or_one_by_one_are_the_same():
    p = pipeline()
    given = latents(p, A, steps_c=ranges((0.0, 3)), steps_b=ranges((0.5, 1), (0.0, 1)))
    assert distance(given, latents(p, A)) < 1e-5
    assert distance(given, latents(p, A, steps_c=4)) > 1e-3


def test_a_picture_depends_on_its_prompt_seed_and_id_alone():
    p = pipeline()
    together = latents(p, [A, B, A], seed=5, ids=["x", "y", "z"], negative_prompts=["", "blurry", ""])
    alone = latents(p, B, seed=5, ids=["y"], negative_prompts="blurry")
    assert distance(together[1:2], alone) < 1e-4
    assert distance(together[0], together[2]) > 0.1
    assert distance(latents(p, B, seed=6, ids=["y"], negative_prompts="blurry"), alone) > 0.1


def test_negative_prompts_steer_and_the_empty_one_is_the_default():
    p = pipeline()
    plain = latents(p, A)
    assert distance(plain, latents(p, A, negative_prompts="")) == 0
    assert distance(plain, latents(p, A, negative_prompts="blurry")) > 1e-3
    with pytest.raises(ValueError, match="negative_prompts.*guidance_c and guidance_b are both 1"):
        p(A, negative_prompts="blurry", guidance_c=1.0, guidance_b=1.0)
    with pytest.raises(ValueError, match="negative_prompts: 3 for 2 prompts"):
        p([A, B], negative_prompts=["x"] * 3)
    with pytest.raises(ValueError, match="ids: 1 for 2 prompts"):
        p([A, B], ids=["x"])


def test_aspect_ratios(monkeypatch):
    wide = pipeline(image_size=256, compressor=CompressorConfig(input_size=192))
    assert wide(A, 384, 128).shape == (1, 128, 384, 3)
    with pytest.raises(ValueError, match="width: 300 .*256 or 384"):
        wide(A, 300, 128)


def test_stage_b_starts_from_what_its_weights_were_trained_for():
    codebook = replace(SMALL.sampling, start_b="codebook")
    assert distance(latents(pipeline(), A), latents(pipeline(sampling=codebook), A)) > 1e-3


def test_in_bf16_timesteps_and_sampler_stay_in_float32():
    p, seen = pipeline(torch.bfloat16), []
    for network in (p.networks.stage_c, p.networks.stage_b):
        network.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0].dtype, inputs[1].dtype)))
    half = latents(p, A)
    assert set(seen) == {(torch.bfloat16, torch.float32)} and half.dtype == torch.float32
    whole = latents(pipeline(), A)
    assert 0 < (half - whole).abs().mean() < 0.01 * whole.std()


def test_a_study_draws_as_its_own_pipeline_does(trained):
    how = dict(steps_c=4, guidance_c=3.0, steps_b=3, guidance_b=2.0)
    theirs = Wuerstchen(trained / "train", compiled=False).generate([A, B], ["x", "y"], 3, **how)
    ours = Pipeline.from_pretrained(trained / "train")([A, B], seed=3, ids=["x", "y"], **how)
    assert ours.std() > 5 and np.abs(ours.astype(int) - theirs).max() <= 1


def test_stage_b_reads_its_own_text(trained, tmp_path, monkeypatch):
    """As in released-v2, where Stage C has CLIP-bigG's text and Stage B CLIP-H's."""
    other = replace(SIZES["clip-h"], width=48, depth=2, heads=4)
    monkeypatch.setitem(clip.SIZES, "clip-h", other)
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path / "assets"))
    for name in ("clip-h/text", "clip-h/tokenizer"):
        monkeypatch.setitem(assets.ASSETS, name, replace(assets.ASSETS[name], bytes=None, sha256=None))
    small_clip.save(tmp_path / "assets" / DECODER[0], "", small_clip.model(48, 2, 4), small_clip.tokenizer())
    for stage in "abc":
        shutil.copytree(trained / "train" / stage, tmp_path / "train" / stage)
    file = tmp_path / "train" / "b" / "model.safetensors"
    tensors, about = weights.load(file)
    torch.manual_seed(0)
    config = replace(preset("tiny").stage_b, c_text=48)
    tensors |= {f"stage_b.{name}": x for name, x in randomised(UNet(config)).state_dict().items()}
    weights.save(file, tensors, about | {"stage_b": to_dict(config), "text": to_dict(TextConfig("clip-h", 48))})
    how = dict(steps_c=2, guidance_c=3.0, steps_b=2, guidance_b=2.0)
    draw = Wuerstchen(tmp_path / "train", compiled=False)
    theirs = draw.generate([A, B], ["x", "y"], 3, **how)
    ours = Pipeline.from_pretrained(tmp_path / "train")([A, B], seed=3, ids=["x", "y"], **how)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    draw.null_b = draw.encoder_b.encode(["another"])  # what guidance leads away from
    assert (draw.generate([A, B], ["x", "y"], 3, **how) != theirs).any()


def run(*args) -> None:
    generate.main([str(arg) for arg in args])


def test_program_writes_a_picture_that_says_how_it_was_drawn(trained, tmp_path):
    out, again = tmp_path / "picture.png", tmp_path / "again.png"
    common = [A, "--model", trained / "train", "--size", "128x128", "--seed", 7, "--steps-c", 3, "--steps-b", 2]
    run(*common, "--negative-prompt", "ß", "--device", "cpu", "--out", out)
    run(*common, "--negative-prompt", "ß", "--device", "cpu", "--out", again)
    assert out.read_bytes() == again.read_bytes()
    with Image.open(out) as picture:
        assert picture.size == (128, 128) and picture.mode == "RGB"
        texts = picture.text
    assert (texts["prompt"], texts["negative_prompt"], texts["seed"]) == (A, "ß", "7")
    files = [trained / "train" / stage / "model.safetensors" for stage in "abc"]
    assert texts["weights_sha256"] == weights.digest(*files)
    how = json.loads(texts["settings"])
    assert (how["steps_c"], how["steps_b"], how["precision"], how["guidance_b"]) == (3, 2, "fp32", 4.0)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--size", "1024"], "--size: '1024'; use WIDTHxHEIGHT"),
        (["--size", "200x128"], "width: 200 .*nearest is 128 "),
        (["--steps-c", "0"], "steps_c: 0"),
        (["--out", "picture.jpg"], "--out: picture.jpg should end in .png"),
        (["--device", "cuda:99"], "--device: 'cuda:99' is not there"),
        (["--model", "released-v9"], "'released-v9' is neither a folder nor one of released-v2"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(trained, tmp_path, more, said):
    out = tmp_path / "picture.png"
    with pytest.raises(SystemExit, match=said) as error:
        run(A, "--model", trained / "train", "--device", "cpu", "--out", out, *more)
    assert "\n" not in str(error.value) and not out.exists()
