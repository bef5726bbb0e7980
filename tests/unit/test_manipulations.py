import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, features

from evaluation import manipulations
from evaluation.manipulations import EXTRAS, NAMES, OPTIONS, RESAMPLINGS, Choices, check_names, fan_out, psnr


@pytest.fixture
def picture():
    """A smooth colour field with hard edges and grain, 64 x 48."""
    y, x = np.mgrid[0:64, 0:48]
    field = np.stack([4 * y, 5 * x, 128 + 60 * np.sin(x / 5) * np.cos(y / 7)], axis=-1)
    field[16:40, 10:30] = (230, 40, 20)
    noise = np.random.default_rng(0).normal(scale=6, size=field.shape)
    return (field + noise).clip(0, 255).astype(np.uint8)


def test_the_papers_thirteen_in_its_order():
    assert len(NAMES) == 13 and not set(NAMES) & set(EXTRAS)
    assert NAMES[:8] == ("jpeg-95", "jpeg-90", "jpeg-80", "jpeg-70", "jpeg-60", "jpeg-50", "nearest", "bilinear")


def test_all_are_pure_uint8_and_change_the_picture(picture):
    before = picture.copy()
    variants = fan_out(picture, NAMES)
    again = fan_out(picture, NAMES)
    assert list(variants) == ["reference", *NAMES]
    for name, variant in variants.items():
        assert variant.dtype == np.uint8 and variant.shape == (32, 24, 3), name
        assert np.array_equal(variant, again[name]), name
        if name != "reference":
            assert 15 < psnr(variants["reference"], variant) < 60, name
    assert np.array_equal(picture, before)


def test_reference_and_bilinear_are_antialiased_as_torch_defines_it(picture):
    variants = fan_out(picture, ["bilinear", "nearest"])
    pixels = torch.tensor(picture).permute(2, 0, 1)[None].float()
    for name, mode in (("reference", "bicubic"), ("bilinear", "bilinear")):
        expected = F.interpolate(pixels, size=(32, 24), mode=mode, antialias=True)[0].permute(1, 2, 0).clamp(0, 255)
        assert np.abs(variants[name] - expected.numpy()).max() <= 1.5, name
    assert all((variants["nearest"][i, j] == picture[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]).all(-1).any()
               for i in range(32) for j in range(24))  # fmt: skip


def test_jpeg_gets_worse_with_quality_and_halves_the_chroma(picture):
    variants = fan_out(picture, NAMES)
    ratios = [psnr(variants["reference"], variants[f"jpeg-{quality}"]) for quality in (95, 90, 80, 70, 60, 50)]
    assert ratios == sorted(ratios, reverse=True)
    file = io.BytesIO()
    Image.fromarray(variants["reference"]).save(file, format="JPEG", quality=80, subsampling=2)
    assert np.array_equal(np.asarray(Image.open(file)), variants["jpeg-80"])
    assert "4:2:0" in Choices().record()["jpeg"]


def test_palette_is_the_dithered_web_cube(picture):
    variants = fan_out(picture, ["palette"])
    assert set(np.unique(variants["palette"])) <= {0, 51, 102, 153, 204, 255}
    grey = np.full((128, 128, 3), 128, np.uint8)
    dithered = fan_out(grey, ["palette"])["palette"]
    assert len(np.unique(dithered)) > 1 and abs(dithered.mean() - 128) < 3


def test_brightness_scales_and_contrast_turns_about_the_mean_grey():
    rows = np.repeat(np.array([100, 140], np.uint8), 32)
    striped = np.broadcast_to(rows[:, None, None], (64, 64, 3)).copy()
    variants = fan_out(striped, NAMES)
    ends = {name: (int(variants[name][2, 0, 0]), int(variants[name][-3, 0, 0])) for name in NAMES}
    assert ends["brightness-up"] == pytest.approx((110, 154), abs=1)
    assert ends["brightness-down"] == pytest.approx((90, 126), abs=1)
    assert ends["contrast-up"] == pytest.approx((98, 142), abs=1)
    assert ends["contrast-down"] == pytest.approx((102, 138), abs=1)


def test_pictures_of_any_size_are_reduced_to_the_one_asked_for(picture):
    square = picture[:48]
    assert {variant.shape for variant in fan_out(square, NAMES, size=20).values()} == {(20, 20, 3)}
    halved, asked = fan_out(square, NAMES), fan_out(square, NAMES, size=24)
    assert all(np.array_equal(halved[name], asked[name]) for name in halved)
    with pytest.raises(ValueError, match="square picture is needed to reduce it to 20x20, got 64x48"):
        fan_out(picture, NAMES, size=20)


def test_each_option_touches_its_own_manipulations(picture):
    default = fan_out(picture, NAMES)

    def changed(**choice: str) -> set[str]:
        variants = fan_out(picture, NAMES, Choices(**choice))
        return {name for name in variants if not np.array_equal(variants[name], default[name])}

    assert changed(chroma="4:4:4") == set(NAMES[:6])
    assert changed(palette="adaptive") == {"palette"}
    assert changed(pivot="mid-grey") == {"contrast-up", "contrast-down"}
    assert set(NAMES[:6]) | {"palette"} <= changed(order="manipulate-first") <= set(NAMES) - {"nearest", "bilinear"}
    for option, values in OPTIONS.items():
        for value in values:
            record = Choices(**{option: value}).record()
            assert record["options"] == {**Choices().record()["options"], option: value}
    with pytest.raises(ValueError, match="order 'first' is unknown; known are: reduce-first, manipulate-first"):
        Choices(order="first")


def test_options_are_what_their_words_say(picture):
    full = Image.fromarray(picture)
    small = full.resize((24, 32), Image.Resampling.BICUBIC)
    first = fan_out(picture, NAMES, Choices("manipulate-first", "4:4:4", "adaptive", "mid-grey"))
    file = io.BytesIO()
    full.save(file, "JPEG", quality=70, subsampling=0)
    expected = Image.open(file).resize((24, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(first["jpeg-70"], np.asarray(expected))
    darker = ImageEnhance.Brightness(full).enhance(0.9).resize((24, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(first["brightness-down"], np.asarray(darker))
    then = fan_out(picture, NAMES, Choices(palette="adaptive", pivot="mid-grey"))
    assert np.array_equal(then["palette"], np.asarray(small.quantize(256).convert("RGB")))
    assert len(np.unique(then["palette"].reshape(-1, 3), axis=0)) <= 256
    pivoted = (np.asarray(small).astype(float) - 128) * 1.1 + 128
    assert np.abs(then["contrast-up"] - pivoted.clip(0, 255)).max() <= 1


def test_what_goes_beyond_the_paper(picture):
    names = [name for name in EXTRAS if not name.startswith("avif") or features.check("avif")]
    variants = fan_out(picture, names)
    ratios = {name: psnr(variants["reference"], variants[name]) for name in names}
    assert all(15 < ratio < 60 for ratio in ratios.values()), ratios
    for codec in ("webp", "avif"):
        some = [ratios[name] for name in names if name.startswith(codec)]
        assert some == sorted(some, reverse=True)
    assert ratios["blur-1"] > ratios["blur-2"]


def test_resampling_without_antialias_interpolates_neighbours_alone():
    """Reduced four times with half-pixel centres, only the two pixels (or four) around each centre count."""
    row = np.zeros((4, 16, 3), np.uint8)
    row[:, 5], row[:, 6] = 100, 200  # the second centre lies between them
    bilinear = RESAMPLINGS["torch-bilinear"](row, (1, 4))[0, :, 0]
    assert list(bilinear) == [0, 150, 0, 0]
    bicubic = RESAMPLINGS["cv2-bicubic"](row, (1, 4))[0, :, 0]
    inner = 1.25 / 8 - 2.25 / 4 + 1  # weight at distance 1/2 of the cubic with coefficient -0.75
    assert list(bicubic) == [0, round(300 * inner), 0, 0]


def test_a_codec_that_pillow_lacks_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(manipulations.features, "check", lambda codec: codec != "avif")
    with pytest.raises(ValueError, match="avif-75 needs a Pillow that was built with AVIF; leave it out"):
        check_names(["webp-75", "avif-75"])


def test_bad_names_and_pictures_are_refused(picture):
    with pytest.raises(ValueError, match="unknown manipulation 'jpg-95'; known are: jpeg-95"):
        check_names(["jpg-95"])
    with pytest.raises(ValueError, match="named twice"):
        check_names(["palette", "palette"])
    with pytest.raises(ValueError, match="uint8"):
        fan_out(picture.astype(np.float32), [])
    with pytest.raises(ValueError, match="even"):
        fan_out(picture[:-1], [])


def test_psnr_by_hand():
    black = np.zeros((2, 2, 3), np.uint8)
    grey = black + np.uint8(51)
    assert psnr(black, grey) == pytest.approx(20 * np.log10(5))
    assert psnr(black, black) == float("inf")
