import json

import numpy as np
import pytest
from PIL import Image

from evaluation import extractors
from evaluation.extractors import preprocess
from evaluation.frechet import distance_of_features
from evaluation.images import iter_images, write_shard
from evaluation.manipulations import NAMES, RESAMPLINGS, fan_out
from evaluation.robustness import main, manipulated_features, shift


class RandomNetwork:
    """An extractor with one layer of seeded random filters on 8x8 blocks."""

    name, sha256 = "random", "0" * 64

    def __init__(self):
        self.filters = np.random.default_rng(0).normal(size=(192, 24)).astype(np.float32) / 60

    def __call__(self, pictures, preprocessing):
        pixels = preprocess(pictures, preprocessing).permute(0, 2, 3, 1).numpy() / 127.5 - 1
        blocks = pixels.reshape(-1, 16, 8, 16, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(len(pixels), 256, 192)
        features = np.tanh(blocks @ self.filters).clip(0).mean(axis=1)
        return features, features


@pytest.fixture
def shard(tmp_path):
    """Thirty discs and bars in flat colours, 256 px."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:256, 0:256]
    pictures = {}
    for i in range(30):
        pixels = np.full((256, 256, 3), 255, np.uint8)
        centre, radius = random.integers(80, 176, size=2), random.integers(30, 80)
        pixels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = random.integers(0, 256, size=3)
        pixels[(x + y) % random.integers(40, 90) < 7] = random.integers(0, 256, size=3)
        pictures[f"openmoji-{i:02d}"] = Image.fromarray(pixels)
    write_shard(tmp_path / "set.zip", pictures, {"set": "openmoji"})
    return tmp_path / "set.zip"


def test_one_pass_gives_what_separate_passes_give(shard):
    extractor = RandomNetwork()
    names = ["jpeg-50", "nearest", "palette"]
    ids, features, ratios = manipulated_features(iter_images([shard]), names, extractor)
    assert ids == [f"openmoji-{i:02d}" for i in range(30)] and list(features) == ["reference", *names]
    pictures = [picture for _, picture in iter_images([shard])]
    for name in names:
        alone = np.stack([fan_out(picture, [name])[name] for picture in pictures])
        assert features[name] == pytest.approx(extractor(alone, "none-128")[0], abs=1e-6)
        assert ratios[name].shape == (30,)
    nearest = np.stack([RESAMPLINGS["nearest"](picture) for picture in pictures])
    assert np.array_equal(nearest, np.stack(pictures)[:, 1::2, 1::2])


def test_shift_of_nothing_is_zero_and_equal_pictures_have_no_psnr():
    features = np.random.default_rng(0).normal(size=(40, 8))
    ids = [f"p-{i}" for i in range(40)]
    result = shift(ids, features, features, np.full(40, np.inf))
    assert result["value"] == pytest.approx(0, abs=1e-6) and result["interval"][0] == 0
    assert result["psnr_db"] is None and result["unchanged"] == 40
    moved = shift(ids, features, features + 0.5, np.array([30.0] * 39 + [np.inf]))
    assert moved["value"] == pytest.approx(8 * 0.25, rel=1e-6) and moved["unchanged"] == 1
    assert moved["psnr_db"] == 30
    assert moved["value"] == pytest.approx(distance_of_features(features, features + 0.5))


def test_program_writes_a_column_of_table_3(tmp_path, monkeypatch, shard):
    monkeypatch.setitem(extractors.EXTRACTORS, "random", RandomNetwork)
    out = tmp_path / "openmoji.json"
    main(["--pictures", str(shard), "--set", "openmoji", "--seed", "0", "--extractor", "random", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["schema"] == 1 and record["set"] == "openmoji" and record["n"] == 30
    assert record["metric"] == "fd-random" and record["extractor"] == {"name": "random", "sha256": "0" * 64}
    assert list(record["manipulations"]) == list(NAMES)
    assert {"order", "jpeg", "palette", "contrast"} <= set(record["choices"])
    for name, row in record["manipulations"].items():
        assert 0 <= row["interval"][0] <= row["value"] <= row["interval"][1], name
        assert row["psnr_db"] > 15, name
    values = {name: row["value"] for name, row in record["manipulations"].items()}
    assert values["jpeg-50"] > values["jpeg-95"] and values["nearest"] > values["bilinear"]


def test_program_refuses_unknown_manipulations_and_other_sizes(tmp_path, monkeypatch, shard):
    monkeypatch.setitem(extractors.EXTRACTORS, "random", RandomNetwork)
    flags = ["--set", "openmoji", "--seed", "0", "--extractor", "random", "--out", str(tmp_path / "out.json")]
    with pytest.raises(SystemExit, match="unknown manipulation 'sepia'; known are: jpeg-95"):
        main(["--pictures", str(shard), *flags, "--manipulations", "palette", "sepia"])
    write_shard(tmp_path / "small.zip", {"a": Image.new("RGB", (128, 128))}, {})
    with pytest.raises(SystemExit, match="128x128, got 64x64"):
        main(["--pictures", str(tmp_path / "small.zip"), *flags])
    assert not (tmp_path / "out.json").exists()
