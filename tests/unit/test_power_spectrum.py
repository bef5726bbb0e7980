import json

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image, ImageFilter
from scipy import ndimage, signal

from evaluation.images import write_shard
from evaluation.power_spectrum import FLOOR, Spectra, main, measured, radial_power, spectra
from evaluation.spectrum_figure import power_spectra


def noise(exponent: float, seed: int, side: int = 256) -> np.ndarray:
    """A grey picture (side, side) of standard deviation 30 whose power falls as 1/f^exponent."""
    white = np.fft.rfft2(np.random.default_rng(seed).normal(size=(side, side)))
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    f[0, 0] = np.inf
    field = np.fft.irfft2(white * f ** (-exponent / 2), s=(side, side))
    return 128 + 30 * field / field.std()


def colour(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey.round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 2.6])
@pytest.mark.parametrize("side", [128, 255])
def test_the_slope_of_synthetic_noise_is_recovered(exponent, side):
    result = measured(spectra((str(i), noise(exponent, i, side)) for i in range(12)), None, 0)
    assert result["slope"]["value"] == pytest.approx(exponent, abs=0.06)
    low, high = result["slope"]["interval"]
    assert low < result["slope"]["value"] < high < low + 0.15


def test_white_noise_has_its_variance_at_every_frequency():
    power = spectra((str(i), 128 + 5 * np.random.default_rng(i).normal(size=(64, 64))) for i in range(200)).power
    assert power.mean(axis=0)[2:] == pytest.approx(np.full(30, 25.0), rel=0.12)
    assert power[:, 2:].mean() == pytest.approx(25, rel=0.01)


@pytest.mark.parametrize("side", [32, 33])
def test_rings_are_means_over_the_full_transform(side):
    grey = noise(1, 0, side)
    window = np.outer(*2 * [signal.windows.hann(side, sym=False)])
    grey_ = (grey - np.average(grey, weights=window)) * window
    power = np.abs(np.fft.fft2(grey_)) ** 2 / (window**2).sum()
    f = np.fft.fftfreq(side, 1 / side)
    rings = np.rint(np.hypot(f[:, None], f)).astype(int)
    assert radial_power(grey) == pytest.approx(ndimage.mean(power, rings, range(1, side // 2 + 1)))
    wave = np.tile(128 + 20 * np.sin(2 * np.pi * 9 * np.arange(side) / side), (side, 1))
    assert radial_power(wave).argmax() + 1 == 9


def test_blurred_pictures_have_less_power_at_high_frequencies_alone():
    sharp = [colour(noise(2.0, i)) for i in range(20)]
    blurred = [np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(1))) for p in sharp]
    real, ours = (spectra((f"p-{i}", p) for i, p in enumerate(some)) for some in (sharp, blurred))
    result = measured(ours, real, 0)["difference"]
    assert result["high_share"]["interval"][1] < 0 and result["slope"]["interval"][0] > 0
    change = np.array(result["power_db"]["value"])
    assert abs(change[3]) < 0.1 and change[100] < -15
    assert result["power_db"]["high"][100] < 0
    same = measured(real, real, 0)["difference"]
    assert same["slope"] == {"value": 0, "interval": [0, 0]} and not any(same["power_db"]["value"])


def test_a_flat_picture_lies_at_the_noise_of_rounding():
    flat = spectra([("a", np.full((32, 32, 3), 77, np.uint8))])
    assert flat.decibels() == pytest.approx(10 * np.log10(FLOOR)) and np.isfinite(flat.slopes()).all()


def test_pictures_are_paired_by_id_and_refused_otherwise():
    pictures = spectra((name, noise(1, i, 64)) for i, name in enumerate("abc"))
    shuffled = Spectra(["c", "a", "b"], pictures.power[[2, 0, 1]], 64)
    assert not any(measured(pictures, shuffled, 0)["difference"]["power_db"]["value"])
    with pytest.raises(ValueError, match="lacks 1 of the pictures, such as c"):
        measured(pictures, Spectra(["a", "b"], pictures.power[:2], 64), 0)
    with pytest.raises(ValueError, match="64 px cannot be set beside ones of 32 px"):
        measured(pictures, spectra([("a", noise(1, 0, 32))]), 0)
    with pytest.raises(ValueError, match="no pictures"):
        spectra([])
    with pytest.raises(ValueError, match="square picture of 16 px or more"):
        radial_power(np.zeros((8, 8, 3), np.uint8))


def test_program_and_figure(tmp_path):
    for name, exponent in (("real", 2.0), ("smooth", 2.6)):
        pictures = {f"p-{i}": Image.fromarray(colour(noise(exponent, i, 96))) for i in range(6)}
        write_shard(tmp_path / f"{name}.zip", pictures, {})
    records = []
    for name, more in (("real", []), ("smooth", ["--reference", str(tmp_path / "real.zip")])):
        out = tmp_path / f"{name}.json"
        flags = ["--model", name, "--prompts", "names", "--seed", "0", "--size", "64", "--out", str(out)]
        main(["--pictures", str(tmp_path / f"{name}.zip"), *flags, *more])
        records.append(json.loads(out.read_text()))
    real, smooth = records
    assert real["difference"] is None and real["n"] == smooth["n"] == 6
    assert smooth["reference_sha256"] == real["images_sha256"] != smooth["images_sha256"]
    assert smooth["difference"]["slope"]["value"] == pytest.approx(0.6, abs=0.1)
    assert len(smooth["frequency"]) == 32 and smooth["frequency"][-1] == 0.5
    figure = power_spectra(records)
    left, right = figure.axes
    assert len(left.lines) == 2 and len(right.lines) == 2 and left.get_xscale() == "log"
    assert "smooth: slope 2." in figure.legends[0].get_texts()[1].get_text()
    plt.close(figure)
