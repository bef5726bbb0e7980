import json

import numpy as np
import pytest
from PIL import Image

from evaluation import extractors
from evaluation.features import FeatureSet, extract, in_chunks, main, read_features, write_features
from evaluation.images import images_sha256, write_shard


class Means:
    """An extractor without a network: mean and deviation of each colour."""

    name, sha256 = "means", "0" * 64

    def __call__(self, pictures, preprocessing):
        pixels = extractors.preprocess(pictures, preprocessing).numpy().astype(np.float32)
        features = np.concatenate([pixels.mean(axis=(2, 3)), pixels.std(axis=(2, 3))], axis=1)
        return features, features[:, :3]


@pytest.fixture
def means(monkeypatch):
    monkeypatch.setitem(extractors.EXTRACTORS, "means", Means)


def shard(path, ids, size=128):
    pictures = {}
    for name in ids:
        pixels = np.random.default_rng(sum(map(ord, name))).integers(0, 256, (size, size, 3), np.uint8)
        pictures[name] = Image.fromarray(pixels)
    write_shard(path, pictures, {"model": "test"})
    return path


def a_set(n=5, **key):
    key = {"images_sha256": "1" * 64, "extractor": {"name": "means", "sha256": "0" * 64}, "preprocessing": "none-128",
           "versions": {}} | key  # fmt: skip
    random = np.random.default_rng(n)
    return FeatureSet(
        [f"p-{i}" for i in range(n)], random.random((n, 4), np.float32), random.random((n, 3), np.float32), key
    )


def test_program_joins_shards_in_order_and_records_its_key(tmp_path, means):
    paths = [shard(tmp_path / "0000.zip", ["b-1", "a-1"]), shard(tmp_path / "0001.zip", [f"c-{i}" for i in range(70)])]
    alone = shard(tmp_path / "alone.zip", ["a-1"])
    both = [["--of", tmp_path / "f.npz", *paths], ["--of", tmp_path / "alone.npz", alone]]
    main([*map(str, sum(both, [])), "--extractor", "means"])
    loaded = read_features(tmp_path / "f.npz")
    assert loaded.ids[:3] == ["b-1", "a-1", "c-0"] and len(loaded.ids) == 72
    assert loaded.features.shape == (72, 6) and loaded.features.dtype == np.float32 and loaded.logits.shape == (72, 3)
    assert loaded.key["images_sha256"] == images_sha256(paths)
    assert loaded.key["extractor"] == {"name": "means", "sha256": "0" * 64}
    assert loaded.key["preprocessing"] == "none-128" and "pillow" in loaded.key["versions"]
    assert np.array_equal(read_features(tmp_path / "alone.npz").features, loaded.of(["a-1"]))


def test_program_is_reproducible(tmp_path, means):
    path = shard(tmp_path / "0000.zip", ["x-1", "x-2"])
    for name in ("one.npz", "two.npz"):
        main(["--of", str(tmp_path / name), str(path), "--extractor", "means"])
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_program_errors_are_one_line(tmp_path, means):
    small = shard(tmp_path / "small.zip", ["x-1"], size=64)
    out = ["--of", str(tmp_path / "f.npz")]
    with pytest.raises(SystemExit, match="128x128, got 64x64"):
        main([*out, str(small), "--extractor", "means"])
    with pytest.raises(SystemExit, match="unknown extractor 'nothing'"):
        main([*out, str(small), "--extractor", "nothing"])
    mixed = shard(tmp_path / "large.zip", ["x-2"])
    with pytest.raises(SystemExit, match="image x-1 is 64x64 px, those before it 128x128"):
        main([*out, str(mixed), str(small), "--extractor", "means"])
    with pytest.raises(SystemExit, match="name the image shards after it"):
        main([*out, "--extractor", "means"])
    assert not (tmp_path / "f.npz").exists()


def test_written_sets_are_read_as_they_were(tmp_path):
    before = a_set()
    write_features(tmp_path / "f.npz", before)
    after = read_features(tmp_path / "f.npz", like=before)
    assert after.ids == before.ids and after.key == before.key
    assert np.array_equal(after.features, before.features) and np.array_equal(after.logits, before.logits)
    assert np.array_equal(after.of(["p-3", "p-0"]), before.features[[3, 0]])
    with pytest.raises(ValueError, match="2 images, such as q-1, q-2"):
        after.of(["p-0", "q-1", "q-2"])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({"preprocessing": "bicubic-128"}, 'preprocessing is "bicubic-128".*preprocessing "none-128"'),
        ({"extractor": {"name": "means", "sha256": "f" * 64}}, "extractor is .*ffff.*extractor .*0000"),
    ],
)
def test_features_of_another_key_are_refused(tmp_path, key, message):
    write_features(tmp_path / "f.npz", a_set(**key))
    with pytest.raises(ValueError, match=message):
        read_features(tmp_path / "f.npz", like=a_set())


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "f.npz"
    with pytest.raises(ValueError, match="f.npz: no such file"):
        read_features(path)
    write_features(path, a_set())
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="f.npz: not a feature file"):
        read_features(path)
    key = np.array(json.dumps({}))
    np.savez(path, ids=np.array(["a", "a"]), features=np.zeros((2, 3)), logits=np.zeros((2, 2)), key=key)
    with pytest.raises(ValueError, match="1 distinct"):
        read_features(path)


def test_nan_and_emptiness_are_refused():
    class Broken(Means):
        def __call__(self, pictures, preprocessing):
            return np.full((len(pictures), 2), np.nan, np.float32), np.zeros((len(pictures), 2), np.float32)

    with pytest.raises(ValueError, match="NaN"):
        extract([("a", np.zeros((128, 128, 3), np.uint8))], Broken(), "none-128")
    with pytest.raises(ValueError, match="no images"):
        extract([], Means(), "none-128")
    assert [ids for ids, _ in in_chunks([(str(i), np.zeros((1, 1, 3))) for i in range(5)], 2)] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]
