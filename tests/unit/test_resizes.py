import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer, make_resizer
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchvision.transforms.v2.functional import InterpolationMode, resize

from evaluation.resizes import RESIZES, parse, resized

SIZES = [(256, 256), (299, 299), (480, 640), (700, 333), (96, 128), (7, 5)]


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def pictures(request):
    return np.random.default_rng(0).integers(0, 256, size=(2, *request.param, 3), dtype=np.uint8)


def nchw(pictures):
    return torch.tensor(pictures).permute(0, 3, 1, 2).contiguous().float()


def by_picture(function, pictures):
    return torch.from_numpy(np.stack([function(picture) for picture in pictures])).permute(0, 3, 1, 2).float()


def test_tf1_is_torch_fidelitys(pictures):
    expected = interpolate_bilinear_2d_like_tensorflow1x(nchw(pictures), size=(299, 299), align_corners=False)
    assert torch.allclose(resized(pictures, "tf1-299"), expected, rtol=0, atol=1e-6 * 255)


def test_torch_is_clean_fids_legacy_pytorch(pictures):
    assert torch.equal(resized(pictures, "torch-299"), by_picture(build_resizer("legacy_pytorch"), pictures))


def test_torch_antialias_is_torchvisions(pictures):
    expected = resize(nchw(pictures), [299, 299], InterpolationMode.BILINEAR, antialias=True)
    assert torch.allclose(resized(pictures, "torch-antialias-299"), expected, rtol=0, atol=1e-6 * 255)


def test_pil_float_is_clean_fids_clean(pictures):
    assert torch.equal(resized(pictures, "pil-float-299"), by_picture(build_resizer("clean"), pictures))


def test_pil_uint8_is_clean_fids_quantised(pictures):
    quantised = make_resizer("PIL", True, "bicubic", (299, 299))
    assert torch.equal(resized(pictures, "pil-uint8-299"), by_picture(quantised, pictures))


@pytest.mark.parametrize("name", RESIZES)
def test_each_has_its_size_and_layout(name):
    pictures = np.random.default_rng(1).integers(0, 256, size=(3, 40, 60, 3), dtype=np.uint8)
    pixels = resized(pictures, f"{name}-32")
    assert pixels.shape == (3, 3, 32, 32) and pixels.dtype == torch.float32
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= pixels.min() and pixels.max() <= 255
    flat = np.full((1, 40, 60, 3), 77, dtype=np.uint8)
    assert torch.allclose(resized(flat, f"{name}-32"), torch.tensor(77.0))


def test_floats_are_taken_where_that_makes_sense():
    pictures = np.random.default_rng(2).integers(0, 256, size=(1, 64, 64, 3), dtype=np.uint8)
    for name in ("tf1", "torch", "torch-antialias", "pil-float"):
        assert torch.equal(resized(pictures, f"{name}-48"), resized(pictures.astype(np.float32), f"{name}-48"))
    with pytest.raises(ValueError, match="uint8"):
        resized(pictures.astype(np.float32), "pil-uint8-48")


@pytest.mark.parametrize("wrong", ["clean-299", "pil-float", "tf1-0", "tf1-", "torch-299px", "299"])
def test_unknown_preprocessings_are_refused(wrong):
    with pytest.raises(ValueError, match=f"unknown preprocessing '{wrong}'; known are: tf1-299, torch-299"):
        parse(wrong)


def test_other_arrays_are_refused():
    for wrong in (np.zeros((2, 8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8 pictures"):
            resized(wrong, "tf1-299")
    assert parse("torch-antialias-224") == ("torch-antialias", 224)
