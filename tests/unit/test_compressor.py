from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wuerstchen.compressor import SemanticCompressor
from wuerstchen.presets import preset

CONFIG = preset("emoji").compressor


def told(compressor, trunk, small):
    """Share of the variance of small pictures that a linear map reads from the latents, by numpy's least squares."""
    with torch.no_grad():
        latents = compressor.eval().head(trunk)
    x = latents.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    y = F.pixel_unshuffle(small, 4).permute(0, 2, 3, 1).flatten(0, 2).numpy()
    y = y - y.mean(0)
    solution = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    return 1 - ((np.c_[x, np.ones(len(x))] @ solution - y) ** 2).sum() / (y**2).sum()


def test_a_fitted_projection_tells_the_most_of_small_pictures():
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    compressor = SemanticCompressor(CONFIG)
    trunk = torch.randn(200, CONFIG.c_features, 12, 12, generator=random)
    x = F.pixel_unshuffle(trunk, CONFIG.unshuffle)
    # 64 numbers a position, a linear map of the features: 16 loud ones and 48 quiet ones, mixed
    sizes = torch.cat([torch.full((16,), 10.0), torch.full((48,), 1.0)])
    mix = torch.randn(x.shape[1], 64, generator=random) @ torch.diag(sizes)
    turn = torch.linalg.qr(torch.randn(64, 64, generator=random))[0]
    small = F.pixel_shuffle(torch.einsum("nchw,cd,de->nehw", x, mix, turn), 4)

    at_random = told(compressor, trunk, small)
    compressor.fit(trunk, small)
    fitted = told(compressor, trunk, small)

    # no 16 numbers tell more than the first 16 principal components
    flat = F.pixel_unshuffle(small, 4).permute(0, 2, 3, 1).flatten(0, 2)
    spectrum = torch.linalg.svdvals(flat - flat.mean(0)).square()
    best = (spectrum[:16].sum() / spectrum.sum()).item()
    assert at_random < 0.1 and best > 0.9
    assert best - 0.02 < fitted < best + 1e-4


def test_fitted_latents_are_standardised_and_uncorrelated():
    random = torch.Generator().manual_seed(0)
    compressor = SemanticCompressor(CONFIG)
    trunk = 3 + torch.randn(150, CONFIG.c_features, 12, 12, generator=random)
    small = torch.rand(150, 4, 12, 12, generator=random)
    compressor.fit(trunk, small)
    with torch.no_grad():
        latents = compressor.eval().head(trunk).permute(0, 2, 3, 1).flatten(0, 2).double()
    assert latents.mean(0).abs().max() < 1e-3
    assert (torch.cov(latents.T) - torch.eye(CONFIG.c_latent)).abs().max() < 0.02


def test_both_ways_to_the_compressors_size_are_torchvisions():
    """The paper's bicubic of the whole picture; the released code's bilinear resize of the shorter side, and crop."""
    from torchvision.transforms import functional as tv

    images = torch.rand(1, 3, 128, 171, generator=torch.Generator().manual_seed(0))
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    for resize in ("bicubic", "bilinear-crop"):
        compressor = SemanticCompressor(replace(CONFIG, resize=resize, **plain))
        if resize == "bicubic":
            expected = tv.resize(images, [96, 96], tv.InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
        else:
            expected = tv.center_crop(tv.resize(images, 96, tv.InterpolationMode.BILINEAR, antialias=True), 96)
        assert torch.allclose(compressor.preprocess(images), expected, atol=1e-6), resize
    tall = compressor.preprocess(images, (120, 72))
    assert tall.shape == (1, 3, 120, 72)
    assert torch.allclose(tall, tv.center_crop(tv.resize(images, 120, antialias=True), [120, 72]), atol=1e-6)


def test_an_unknown_way_to_the_compressors_size_is_refused():
    with pytest.raises(ValueError, match="compressor.resize: 'nearest' is not known; use one of bicubic, bilinear-cr"):
        SemanticCompressor(replace(CONFIG, resize="nearest"))
