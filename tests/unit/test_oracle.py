"""Our networks and sampler give what diffusers' give with the same weights, and published files would fit.

Small sizes in every run; the paper's are behind the marker `big` (`pytest -m big`, up to 8 GiB of memory).
"""

import pytest
import torch
from oracle import (
    OURS,
    SMALL_A,
    SMALL_B,
    SMALL_C,
    THEIRS,
    a_and_b,
    equal_steps,
    in_double,
    inputs,
    our_chain,
    pair,
    scheduler,
    their_chain,
)

from wuerstchen import convert
from wuerstchen.compressor import SemanticCompressor
from wuerstchen.diffusion import CosineSchedule, ddpm_step, predicted_noise_c
from wuerstchen.presets import CompressorConfig, preset

PRECISIONS = [pytest.param(torch.float32, 1e-5, id="fp32"), pytest.param(torch.float64, 1e-10, id="fp64")]


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    assert theirs.std() > 0.01  # there is something to agree on
    return (ours - theirs).abs().max().item()


def stage_c_difference(config, size: int, words: int, dtype: torch.dtype, n: int = 2) -> float:
    ours, theirs = pair("stage-c", config, dtype=dtype)
    x, t, text = inputs(config.c_in, size, config.c_text, dtype, words, n)
    a, b = ours(x, t, ours.condition(text))
    with in_double(dtype):
        a_of_them, b_of_them = a_and_b(theirs, x, t, text)
        if n > 1:  # at the paper's size once is enough
            scaled = predicted_noise_c(x, 0.05 * a, 0.05 * b)
            assert difference(scaled, (x - 0.05 * a_of_them) / ((1 - 0.05 * b_of_them).abs() + 1e-5)) < 1e-5
    return max(difference(a, a_of_them), difference(b, b_of_them))


def stage_b_difference(config, size: int, words: int, dtype: torch.dtype, n: int = 2) -> float:
    ours, theirs = pair("stage-b", config, dtype=dtype)
    x, t, text = inputs(config.c_in, size, config.c_text, dtype, words, n)
    image = torch.randn(n, config.c_image, 3, 3, generator=torch.Generator().manual_seed(2), dtype=dtype)
    a, b = ours(x, t, ours.condition(text, image, (size, size)))
    with in_double(dtype):
        a_of_them, b_of_them = theirs(x, t, image, text, return_noise=False)
    return max(difference(a, a_of_them), difference(b, b_of_them))


def stage_a_differences(config, size: int, dtype: torch.dtype) -> list[float]:
    ours, theirs = pair("stage-a", config, dtype=dtype)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=dtype)
    latents = ours.encode(images)
    encoded = difference(latents, theirs.encode(images).latents)
    return [encoded, difference(ours.decode(latents), theirs.decode(latents).sample)]


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "most"), PRECISIONS)
def test_stage_c_gives_the_a_and_b_of_diffusers(dtype, most):
    assert stage_c_difference(SMALL_C, 3, 7, dtype) < most


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "most"), PRECISIONS)
def test_stage_b_gives_the_a_and_b_of_diffusers(dtype, most):
    assert stage_b_difference(SMALL_B, 32, 7, dtype) < most


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "most"), PRECISIONS)
def test_stage_a_encodes_and_decodes_like_diffusers(dtype, most):
    assert max(stage_a_differences(SMALL_A, 64, dtype)) < most


@torch.inference_mode()
def test_stage_a_quantises_like_diffusers():
    ours, theirs = pair("stage-a", SMALL_A)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    quantised, indices, _ = ours.vquantizer(latents)
    their_map, _, (_, _, their_indices) = theirs.vquantizer(latents)
    assert torch.equal(indices.flatten(), their_indices.flatten()) and len(indices.unique()) > 10
    assert difference(quantised, their_map) < 1e-6


@pytest.mark.parametrize(("dtype", "most"), PRECISIONS)
@pytest.mark.parametrize("steps", [60, 12])
def test_alpha_bar_and_every_ddpm_step_are_those_of_diffusers(steps, dtype, most):
    times, schedule = equal_steps(steps, dtype), CosineSchedule()
    theirs = scheduler(times)
    alpha_bars = schedule.alpha_bar(times)
    assert difference(alpha_bars, theirs._alpha_cumprod(times, "cpu")) < most
    clean, eps, error = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)
    for i, t in enumerate(times[:-1]):
        x = schedule.add_noise(clean, t.expand(2), eps + 0.05 * error)  # a good prediction: steps are of its size
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(i), dtype=dtype)
        step = theirs.step(eps, t.expand(2), x, generator=torch.Generator().manual_seed(i)).prev_sample
        mine = ddpm_step(x, eps, *alpha_bars[i : i + 2].tolist(), noise if i < steps - 1 else None)
        assert difference(mine, step) < most, i


def chain_difference(configs: dict, words: int, dtype: torch.dtype, n: int = 2) -> float:
    """Of pictures of 128 pixels, 60 and 12 steps, both stages guided."""
    pairs = [pair(part, config, scaled=part != "stage-a", dtype=dtype) for part, config in configs.items()]
    c_text = configs["stage-c"].c_text
    text, null = torch.randn(2, n, words, c_text, generator=torch.Generator().manual_seed(4), dtype=dtype)
    ours = our_chain(*(mine for mine, _ in pairs), text, null, 4.0, (3, 32))
    scale = configs["stage-a"].scale_factor
    theirs = their_chain(*(other for _, other in pairs), text, null, 4.0, (3, 32), scale)
    assert 0.1 < ours.std() < 10
    assert n == 1 or not torch.allclose(ours[0], ours[1], atol=0.1)
    return difference(ours, theirs)


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "most"), PRECISIONS)
def test_the_whole_chain_draws_what_diffusers_draws(dtype, most):
    """From the same noise: 60 steps of Stage C, 12 of Stage B, both guided, then Stage A."""
    assert chain_difference({"stage-a": SMALL_A, "stage-b": SMALL_B, "stage-c": SMALL_C}, 7, dtype) < most


# Published files: names and shapes.


def paper_size(part: str) -> list:
    """Our configurations of the paper's size for which diffusers has a class."""
    names = ("paper", "paper-text", "released-v1", "released-v2")
    return list(dict.fromkeys(getattr(preset(name), part.replace("-", "_")) for name in names))


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def in_the_authors_naming(names: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """diffusers' names and shapes in the authors': torch's MultiheadAttention, and another name for the codebook."""
    theirs = {}
    for name, tensor in names.items():
        before, found, kind = name.partition(".attention.to_q.")
        if found:
            theirs[f"{before}.attention.attn.in_proj_{kind}"] = torch.cat([tensor] * 3)
        elif ".to_k." not in name and ".to_v." not in name:
            name = name.replace("vquantizer.embedding", "vquantizer.codebook")
            theirs[name.replace("attention.to_out.0", "attention.attn.out_proj")] = tensor
    return theirs


@pytest.mark.parametrize("part", ["stage-a", "stage-b", "stage-c"])
def test_files_of_the_papers_size_fit_in_both_namings(part):
    for config in paper_size(part):
        theirs = THEIRS[part](config).state_dict()
        with torch.device("meta"):
            ours = OURS[part](config).state_dict()
        assert shapes(convert.from_diffusers(part, theirs)) == shapes(ours)
        assert shapes(convert.to_diffusers(part, ours)) == shapes(theirs)
        authors = in_the_authors_naming(theirs)
        assert shapes(convert.from_authors(part, authors)) == shapes(ours)
        assert shapes(convert.to_authors(part, ours)) == shapes(authors)


def test_the_compressors_file_fits():
    """The authors name it after torchvision's EfficientNetV2-S: `backbone.` and that network's `features`."""
    import torchvision.models

    with torch.device("meta"):
        ours = SemanticCompressor(CompressorConfig()).state_dict()
        features = torchvision.models.efficientnet_v2_s(weights=None).features.state_dict()
    projection = {"mapper.0.weight": torch.empty(16, 1280, 1, 1, device="meta")}
    norm = torch.nn.BatchNorm2d(16, device="meta").state_dict()
    file = {f"backbone.{name}": tensor for name, tensor in features.items()} | projection
    file |= {f"mapper.1.{name}": tensor for name, tensor in norm.items()}
    assert len(file) == 786
    for name in ("from_authors", "from_diffusers", "to_authors", "to_diffusers"):
        assert shapes(getattr(convert, name)("compressor", file)) == shapes(ours), name
    del file["mapper.1.running_var"]
    with pytest.raises(ValueError, match="compressor: tensor mapper.1.running_var is missing, in torchvision's naming"):
        convert.from_authors("compressor", file)


def test_conversion_and_back_gives_the_same_tensors():
    for part, config in (("stage-a", SMALL_A), ("stage-b", SMALL_B), ("stage-c", SMALL_C)):
        ours = pair(part, config)[0].state_dict()
        for there, back in (
            (convert.to_diffusers, convert.from_diffusers),
            (convert.to_authors, convert.from_authors),
        ):
            again = back(part, there(part, ours))
            assert set(again) == set(ours) and all(torch.equal(again[name], ours[name]) for name in ours)
        stored = [t.untyped_storage().data_ptr() for t in convert.to_diffusers(part, ours).values() if t.numel()]
        assert len(set(stored)) == len(stored)  # or safetensors would refuse to save them


@pytest.mark.parametrize(
    ("part", "config", "removed", "said"),
    [
        ("stage-c", SMALL_C, "blocks.2.attention.to_k.bias", "blocks.2.attention.to_k.bias is missing"),
        ("stage-c", SMALL_C, "projection.weight", "projection.weight is missing"),
        ("stage-c", SMALL_C, "blocks.4.mapper", "blocks.4.* is missing"),
        ("stage-c", SMALL_C, "out.1", "out.1.bias is missing"),
        ("stage-b", SMALL_B, "up_blocks.1.0.channelwise.2.beta", "up_blocks.1.0.channelwise.2.beta is missing"),
        ("stage-b", SMALL_B, "down_blocks.1.0.1.weight", "down_blocks.1.0.1.weight is missing"),
        ("stage-a", SMALL_A, "down_blocks.3.1.running_mean", "down_blocks.3.1.running_mean is missing"),
        ("stage-a", SMALL_A, "vquantizer.embedding.weight", "vquantizer.embedding.weight is missing"),
    ],
)
def test_a_missing_tensor_is_named(part, config, removed, said):
    tensors = THEIRS[part](config).state_dict()
    left = {name: tensor for name, tensor in tensors.items() if not name.startswith(removed)}
    assert len(left) < len(tensors)
    with pytest.raises(ValueError) as error:
        convert.from_diffusers(part, left)
    assert str(error.value) == f"{part}: tensor {said}, in diffusers' naming"


@pytest.mark.parametrize("part", ["stage-a", "stage-b", "stage-c"])
def test_an_extra_tensor_or_another_naming_is_named(part):
    config = {"stage-a": SMALL_A, "stage-b": SMALL_B, "stage-c": SMALL_C}[part]
    theirs = THEIRS[part](config).state_dict()
    for name in ("blocks.0.more.weight", "down_blocks.0.0.depthwise.weights", "module.out.1.bias"):
        with pytest.raises(ValueError, match=f"{part}: tensor {name} is extra, in diffusers' naming"):
            convert.from_diffusers(part, theirs | {name: torch.zeros(1)})
    with pytest.raises(ValueError, match=f"{part}: tensor .* is extra, in the authors' naming"):
        convert.from_authors(part, theirs)
    with pytest.raises(ValueError, match="part: 'stage-d' is not known; use one of stage-a, stage-b, stage-c, comp"):
        convert.from_authors("stage-d", theirs)


# The paper's size.


@pytest.mark.big
@torch.inference_mode()
@pytest.mark.parametrize("name", ["paper-text", "paper", "released-v2"])
def test_stage_c_at_the_papers_size(name):
    found = stage_c_difference(preset(name).stage_c, 24, 77, torch.float32, n=1)
    print(f"Stage C of {name}: A and B differ by {found:.1e} at most")
    assert found < 1e-5


@pytest.mark.big
@torch.inference_mode()
def test_stage_b_at_the_papers_size():
    found = stage_b_difference(preset("paper").stage_b, 128, 77, torch.float32, n=1)
    print(f"Stage B: A and B differ by {found:.1e} at most")
    assert found < 1e-5


@pytest.mark.big
@torch.inference_mode()
def test_stage_a_at_the_papers_size():
    found = stage_a_differences(preset("paper").stage_a, 256, torch.float32)
    print(f"Stage A: latents and pictures differ by {found[0]:.1e} and {found[1]:.1e} at most")
    assert max(found) < 1e-5


@pytest.mark.big
@torch.inference_mode()
def test_the_whole_chain_of_the_papers_networks():
    """At 128 pixels: what is compared are networks of the paper's size, not pictures."""
    p = preset("paper-text")
    found = chain_difference({"stage-a": p.stage_a, "stage-b": p.stage_b, "stage-c": p.stage_c}, 77, torch.float32, 1)
    print(f"the whole chain: pictures differ by {found:.1e} at most")
    assert found < 1e-5
