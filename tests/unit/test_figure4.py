"""Figure 4 at the paper's size: the published networks to the parameter, and timings that survive a cut run."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation import figure4, speed
from evaluation.generators.paper_size import PaperStableDiffusion, PaperWuerstchen, build, entries
from evaluation.results import model_name
from wuerstchen.files import read_json
from wuerstchen.presets import StageAConfig, StageCConfig, UNetConfig, preset

CPU = torch.device("cpu")
VAE, CLIP_L = 83_653_863, 123_060_480
PARAMETERS = {
    "wuerstchen": {
        "text_encoder_c": 693_021_440,
        "text_encoder_b": 352_984_064,
        "stage_c": 993_636_896,
        "stage_b": 1_055_365_280,
        "stage_a": 18_406_894,
    },
    "sd-1.4": {"unet": 859_520_964, "vae": VAE, "text_encoder": CLIP_L},
    "sd-2.1": {"unet": 865_910_724, "vae": VAE, "text_encoder": 340_387_840},
    "sd-xl": {"unet": 2_567_463_684, "vae": VAE, "text_encoder": CLIP_L, "text_encoder_2": 694_659_840},
}
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}


@pytest.mark.parametrize("model", PARAMETERS)
def test_networks_have_their_published_parameters(model):
    assert build(model, torch.device("meta"), torch.bfloat16).parameters == PARAMETERS[model]
    assert model_name(model) != model


def small(model: str) -> dict:
    """An entry of the published file with narrow networks, and all else as it is."""
    entry = copy.deepcopy(entries()[model])
    for name in entry:
        if name.startswith("text_encoder"):
            entry[name] |= TEXT | ({"projection_dim": 24} if "projection_dim" in entry[name] else {})
    if "unet" in entry:
        double = "text_encoder_2" in entry
        levels = len(entry["unet"]["block_out_channels"])
        entry["unet"] |= {"block_out_channels": [32, 32, 64, 64][:levels], "attention_head_dim": 4}
        entry["unet"] |= {"cross_attention_dim": 64 if double else 32, "layers_per_block": 1, "sample_size": 8}
        entry["vae"] |= {"block_out_channels": [32, 32], "layers_per_block": 1}
        for kind in ("down", "up"):
            entry["vae"][f"{kind}_block_types"] = entry["vae"][f"{kind}_block_types"][:2]
        if double:
            entry["unet"] |= {"transformer_layers_per_block": 1, "addition_time_embed_dim": 8}
            entry["unet"] |= {"projection_class_embeddings_input_dim": 24 + 6 * 8}
    return entry


def tiny(model: str, dtype: torch.dtype = torch.float32):
    """A narrow model that draws 128 px (Stable Diffusion: 32 px) on the CPU."""
    if model != "wuerstchen":
        return PaperStableDiffusion(small(model), CPU, dtype, size=32)
    unet = UNetConfig(widths=(16, 32), heads=(0, 2), levels=("CT", "CTA"), down=(1, 1), up=(1, 1), c_cond=16, c_text=32,
                      inject_image=(False, True))  # fmt: skip
    tiny_preset = preset("tiny")
    of = type(tiny_preset)(
        name="narrow", image_size=128, text=tiny_preset.text, compressor=tiny_preset.compressor, stage_b=unet,
        stage_a=StageAConfig(bottleneck_blocks=1, width=16, codebook_size=8), baseline_ldm=unet,
        stage_c=StageCConfig(width=32, c_text=32, depth=2, heads=2),
    )  # fmt: skip
    return PaperWuerstchen(small(model), CPU, dtype, size=128, of=of)


@pytest.mark.parametrize("model", PARAMETERS)
def test_a_batch_takes_the_published_steps_with_guidance(model):
    made, calls = tiny(model, torch.bfloat16), {}
    for name, network in made.networks.items():
        network.register_forward_hook(lambda *a, name=name: calls.setdefault(name, []).append(len(a[2][0])))
    pictures = made.draw(3, 2)
    assert pictures.shape == (3, made.size, made.size, 3) and pictures.dtype == np.uint8 and made.finite
    assert len(np.unique(pictures)) > 4
    calls.clear()
    pictures = made.draw(1)
    if model == "wuerstchen":
        assert calls["stage_c"] == [2] * 60 and calls["stage_b"] == [2] * 12  # a doubled batch: guidance in both
    else:
        assert calls["unet"] == [2] * (51 if model == "sd-1.4" else 50)
    assert made.finite


def about(**more) -> dict:
    return {"device": "a machine", "precision": "fp32", "image_size": 128, "models": {}} | more


ORDER = ((False, 1), (False, 2), (True, 1))


def test_a_cut_run_goes_on_where_it_was(tmp_path, capsys):
    out, built = tmp_path / "figure4.json", []

    def make(model):
        built.append(model)
        made = tiny(model)
        made.steps = dict.fromkeys(made.steps, 2)
        return made

    makers = {model: lambda model=model: make(model) for model in ("wuerstchen", "sd-2.1")}
    assert figure4.measure(makers, out, about(), minutes=0, order=ORDER) is False and not built
    assert figure4.measure(makers, out, about(), order=ORDER[:1]) is True
    first = read_json(out)["cells"]
    assert [(cell["model"], cell["batch_size"], cell["compiled"]) for cell in first] == [
        ("wuerstchen", 1, False),
        ("sd-2.1", 1, False),
    ]
    built.clear()
    assert figure4.measure(makers, out, about(), order=ORDER[:2]) is True
    cells = read_json(out)["cells"]
    assert cells[:2] == first and len(cells) == 4 and built == ["wuerstchen", "sd-2.1"]
    for cell in cells:
        assert 0 < cell["fastest"] <= cell["seconds_per_batch"] <= cell["slowest"] and cell["finite"]
        assert 1 <= cell["repeats"] <= figure4.REPEATS and cell["parameters"]
    assert figure4.measure(makers, out, about(), order=ORDER[:2]) is True and len(built) == 2
    assert "sd-2.1, batch 2, plain: " in capsys.readouterr().out
    with pytest.raises(ValueError, match="its device is 'a machine', here it is 'another'; name another file"):
        figure4.measure(makers, out, about(device="another"), order=ORDER)


def test_what_runs_out_of_memory_is_recorded_and_the_rest_goes_on(tmp_path):
    class Large:
        def draw(self, batch_size, steps=None):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB.")

    makers = {"sd-xl": Large, "wuerstchen": lambda: tiny("wuerstchen")}
    assert figure4.measure(makers, tmp_path / "out.json", about(), order=ORDER[:1])
    large, ours = read_json(tmp_path / "out.json")["cells"]
    assert large == {"model": "sd-xl", "batch_size": 1, "compiled": False, "failed": "out of memory"}
    assert ours["seconds_per_batch"] > 0


def test_the_order_has_what_is_quick_first():
    assert figure4.ORDER == (*((False, size) for size in (1, 2, 4, 8, 16)), (True, 1), (True, 8))


def test_it_needs_neither_snakemake_nor_open_clip():
    program = "import sys, evaluation.speed, evaluation.generators.paper_size as paper; paper.entries()"
    program += "; print(sorted({'snakemake', 'open_clip'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.stdout.strip() == "[]", run.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path):
    with pytest.raises(SystemExit, match="torch finds no GPU here"):
        speed.main(["--figure4", "--out", str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()
