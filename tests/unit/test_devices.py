"""The trained models on a GPU: there is none here, so torch's fake one says which tensors are where, and in what."""

import numpy as np
import pytest
import torch
from no_gpu import PRODUCTS, NoGpu

from evaluation.generators import batched, device_of, make
from evaluation.generators.trained import BATCH_ON_GPU
from wuerstchen import pipeline

A, B = "a red apple", "two pears"
STAGES = {"steps_c": 2, "guidance_c": 3.0, "steps_b": 2, "guidance_b": 2.0}
MODELS = {
    "wuerstchen": STAGES,
    "baseline-ldm": {"steps": 2, "guidance": 3.0},
    "ceiling-stage-a": {"steps_b": 2, "guidance_b": 2.0},
    "ceiling-compressor": {"steps_b": 2, "guidance_b": 1.0},
}


@pytest.fixture
def gpu(monkeypatch):
    """One that is found, and that computes nothing."""
    monkeypatch.setattr(batched, "best_device", lambda: "cuda")
    return NoGpu()


def drawn(model, trained, device):
    """One batch of a model, and its generator."""
    pictures = trained / "data" / "pictures.zip" if model.startswith("ceiling") else None
    generator = make(model, trained / "train", MODELS[model], pictures, device=device)
    assert generator.device == "cuda" and generator.batch_size == BATCH_ON_GPU
    generator.batch_size = 2
    prompts = [{"id": f"p-{i}", "prompt": text, "image": f"pictures-{i:02d}.png"} for i, text in enumerate((A, B))]
    return generator, np.stack(generator.generate(prompts, 0))


@pytest.mark.parametrize("model", MODELS)
def test_whole_models_run_on_a_gpu_in_bf16(trained, gpu, model):
    """Any operation on tensors of two devices, or products of two precisions, raise an error there."""
    with gpu:
        generator, pictures = drawn(model, trained, "auto")
    assert pictures.shape == (2, 128, 128, 3) and not pictures.any()  # nothing was computed, and all of it on the GPU
    about = generator.describe()
    assert about["precision"] == "bf16" and about["compiled"] is False
    products = {precision for name, precision in gpu.computed if name in PRODUCTS and "mm" not in name}
    # the compressor stays in float32, as in its training; what attention multiplies, the fake has in float32 always
    assert products == {torch.bfloat16} | ({torch.float32} if model == "ceiling-compressor" else set())


def test_weights_of_the_curve_are_loaded_where_the_others_are(trained, gpu):
    with gpu:
        draw = pipeline.Wuerstchen(trained / "train", device="cuda")
        assert draw.load(draw.files[-1]) == 12
    assert {(p.device.type, p.dtype) for p in draw.stage_c.parameters()} == {("cuda", torch.bfloat16)}


@pytest.mark.parametrize("start", ["noise", "codebook"])
def test_stage_b_starts_on_the_gpu_with_the_noise_of_the_cpu(trained, gpu, monkeypatch, start):
    """The noise is drawn on the CPU, picture by picture, whatever the device and the batch."""
    drawn_on, randn = [], torch.randn

    def seen(*size, **how):
        drawn_on.append(how["generator"].device.type)
        return randn(*size, **how)

    monkeypatch.setattr(torch, "randn", seen)
    with gpu:
        draw = pipeline.Wuerstchen(trained / "train", device="cuda")
        draw.start = start
        assert draw.generate([A, B], ["x", "y"], 0, **STAGES).shape == (2, 128, 128, 3)
    # two pictures, one draw at first and one at each step but the last, unless it starts from the codebook
    assert set(drawn_on) == {"cpu"} and len(drawn_on) == 2 * (4 if start == "noise" else 3)


def test_in_float64_on_the_cpu_it_is_the_same_path(trained):
    """What the GPU runs, run for real: weights of another precision than the training's, no autocast."""
    draw = pipeline.Wuerstchen(trained / "train", compiled=False)
    expected = draw.generate([A, B], ["x", "y"], 3, **STAGES)
    draw.precision, draw.dtype = "fp32", torch.bfloat16
    for network in (draw.stage_c, draw.stage_b, draw.first_stage):
        network.to(torch.bfloat16)
    draw.null = draw.null_b = draw.null.bfloat16()
    found = draw.generate([A, B], ["x", "y"], 3, **STAGES)
    assert expected.std() > 5 and 0 < np.abs(found.astype(int) - expected).mean() < 3


def test_the_fake_gpu_refuses_what_a_gpu_does(gpu):
    with gpu:
        there = torch.zeros(2, 3, device="cuda", dtype=torch.bfloat16)
        with pytest.raises(RuntimeError, match="cpu"):
            there + torch.zeros(2, 3)
        with pytest.raises(RuntimeError, match="mm of"):
            there @ torch.zeros(3, 2).to("cuda")
        assert (torch.ones(2).to("cuda") * 2).cpu().tolist() == [0, 0]


def test_without_a_word_only_others_models_use_a_gpu(trained, tmp_path, monkeypatch):
    """The emoji study draws the same on every machine."""
    folder, pictures = trained / "train", trained / "data" / "pictures.zip"
    monkeypatch.setattr(batched, "best_device", lambda: "cuda")
    for model in ("wuerstchen", "wuerstchen-probe", "baseline-ldm", "baseline-ldm-bc"):
        assert [device_of(model, folder, None, given) for given in (None, "cpu", "auto")] == ["cpu", "cpu", "cuda"]
    assert device_of("ceiling-compressor", folder, pictures) == "cpu"
    for model, weights in (("wuerstchen", tmp_path), ("df-gan", None), ("galip", None), ("sd-xl", None)):
        assert device_of(model, weights, None) == "cuda" and device_of(model, weights, None, "cpu") == "cpu"
    assert device_of("real", folder, pictures, "auto") == device_of("my-model", None, pictures, "cuda") == "cpu"
    monkeypatch.setattr(batched, "best_device", lambda: "cpu")
    assert device_of("sd-xl", None, None) == device_of("wuerstchen", folder, None, "auto") == "cpu"
    with pytest.raises(ValueError, match="--device: cuda, but torch finds no GPU here"):
        device_of("wuerstchen", folder, None, "cuda")
