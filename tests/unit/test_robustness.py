import json

import numpy as np
import pytest
from PIL import Image
from random_network import RandomNetwork

from evaluation import extractors
from evaluation.frechet import distance_of_features
from evaluation.images import iter_images, write_shard
from evaluation.manipulations import NAMES, RESAMPLINGS, Choices, fan_out
from evaluation.prepare import centre_square
from evaluation.robustness import main, shift
from evaluation.robustness_features import Part, Plan, manipulated_features
from evaluation.robustness_features import main as features_main


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
    ids, features, ratios = manipulated_features(iter_images([shard]), Plan(tuple(names)), extractor)
    assert ids == [f"openmoji-{i:02d}" for i in range(30)] and list(features) == ["reference", *names]
    pictures = [picture for _, picture in iter_images([shard])]
    for name in names:
        alone = np.stack([fan_out(picture, [name])[name] for picture in pictures])
        assert features[name] == pytest.approx(extractor(alone, "none-128")[0], abs=1e-6)
        assert ratios[name].shape == (30,)
    nearest = np.stack([RESAMPLINGS["nearest"](picture, (128, 128)) for picture in pictures])
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


@pytest.fixture
def folder(tmp_path):
    """Twenty-two pictures of different sizes and formats."""
    random = np.random.default_rng(1)
    (tmp_path / "photos").mkdir()
    for i in range(22):
        grid = random.integers(0, 256, size=(9, 12, 3), dtype=np.uint8)
        picture = Image.fromarray(grid).resize((200 + 8 * i, 180 + 5 * (i % 3)), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "photos" / f"{i:02d}.{'jpg' if i % 2 else 'png'}")
    return tmp_path / "photos"


FLAGS = [
    "--extractor",
    "random",
    "--crop",
    "centre",
    "--size",
    "128",
    "--manipulations",
    "jpeg-50",
    "palette",
    "blur-1",
]


def test_parts_join_into_what_one_pass_gives(tmp_path, monkeypatch, folder):
    monkeypatch.setitem(extractors.EXTRACTORS, "random", RandomNetwork)
    study = ["--set", "photos", "--seed", "0", "--out"]
    whole, joined = tmp_path / "whole.json", tmp_path / "joined.json"
    main(["--pictures", str(folder), *study, str(whole), *FLAGS, "--order", "manipulate-first"])
    parts = ["--pictures", str(folder), "--out", str(tmp_path / "parts"), "--parts", "4", *FLAGS]
    parts += ["--order", "manipulate-first"]
    features_main([*parts, "--part", "2"])
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["2-of-4.npz"]
    with pytest.raises(SystemExit, match="3 parts are missing or of another division, such as 0-of-4.npz"):
        main(["--parts", str(tmp_path / "parts"), *study, str(joined)])
    features_main(parts)
    main(["--parts", str(tmp_path / "parts"), *study, str(joined)])
    expected, record = json.loads(whole.read_text()), json.loads(joined.read_text())
    for name, row in expected["manipulations"].items():
        assert record["manipulations"][name]["psnr_db"] == row["psnr_db"]
        assert record["manipulations"][name]["value"] == pytest.approx(row["value"], rel=1e-4)
    assert record["choices"]["options"]["order"] == "manipulate-first" and record["size"] == 128
    del expected["manipulations"], record["manipulations"]
    assert record == expected


def test_a_stopped_job_goes_on_and_recomputes_what_changed_alone(tmp_path, monkeypatch, capsys, folder):
    monkeypatch.setitem(extractors.EXTRACTORS, "random", RandomNetwork)
    out = tmp_path / "parts"
    parts = ["--pictures", str(folder), "--out", str(out), "--parts", "4", *FLAGS]

    def said() -> str:
        return capsys.readouterr().out.strip()

    calls = 0

    class Stops(RandomNetwork):
        def __call__(self, pictures, preprocessing):
            nonlocal calls
            calls += 1
            if calls == 3:
                raise KeyboardInterrupt
            return super().__call__(pictures, preprocessing)

    monkeypatch.setitem(extractors.EXTRACTORS, "stops", Stops)
    with pytest.raises(KeyboardInterrupt):
        features_main(["stops" if flag == "random" else flag for flag in parts])
    assert sorted(path.name for path in out.iterdir()) == ["0-of-4.npz", "1-of-4.npz"]  # whole ones alone
    stood = (out / "0-of-4.npz").stat().st_mtime_ns
    features_main(parts)
    assert said() == "22 pictures: 2 of 4 parts written, the others were there"
    assert (out / "0-of-4.npz").stat().st_mtime_ns == stood
    features_main(parts)
    assert said().startswith("22 pictures: 0 of 4")
    Image.new("RGB", (220, 200)).save(folder / "21.jpg")
    features_main(parts)
    assert said().startswith("22 pictures: 1 of 4")
    (out / "1-of-4.npz").write_bytes((out / "1-of-4.npz").read_bytes()[:5000])
    features_main(parts)
    assert said().startswith("22 pictures: 1 of 4")
    features_main([*parts, "--chroma", "4:4:4", "--part", "3"])
    assert said().startswith("22 pictures: 1 of 1")
    with pytest.raises(SystemExit, match="3-of-4.npz: made by another plan or network than 0-of-4.npz"):
        main(["--parts", str(out), "--set", "photos", "--seed", "0", "--out", str(tmp_path / "out.json")])


def test_a_part_keeps_its_pictures_in_order(tmp_path, monkeypatch, folder):
    monkeypatch.setitem(extractors.EXTRACTORS, "random", RandomNetwork)
    features_main(["--pictures", str(folder), "--out", str(tmp_path), *FLAGS])
    with Part(tmp_path / "0-of-1.npz") as part:
        assert part.ids == [f"{i:02d}" for i in range(22)]
        picture = centre_square(np.asarray(Image.open(folder / "07.jpg")))
        variants = fan_out(picture, ["blur-1"], Choices(), 128)
        for name in ("reference", "blur-1"):
            alone = RandomNetwork()(variants[name][None], "none-128")[0][0]
            assert part.features(name)[7] == pytest.approx(alone, abs=1e-5)
        assert part.psnr.shape == (22, 3)


def test_flags_that_make_no_sense_are_refused(tmp_path, monkeypatch, capsys, folder):
    monkeypatch.setitem(extractors.EXTRACTORS, "random", RandomNetwork)
    flags = ["--pictures", str(folder), "--out", str(tmp_path / "parts"), *FLAGS]
    with pytest.raises(SystemExit, match="--parts 23: there are only 22 pictures"):
        features_main([*flags, "--parts", "23"])
    with pytest.raises(SystemExit):
        features_main([*flags, "--parts", "3", "--part", "3"])
    assert "--part 3: with --parts 3, use 0 to 2" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="square picture is needed where nothing is cropped"):
        features_main([flag if flag != "centre" else "none" for flag in flags])
