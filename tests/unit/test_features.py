import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation import extractors, features, protocols
from evaluation.features import FeatureSet, extract, in_chunks, main, read_features, write_features
from evaluation.images import images_sha256, write_shard
from evaluation.picture_files import entries, source_of
from wuerstchen.files import write_jsonl


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


def counting(monkeypatch):
    """Counts the pictures that the extractor sees."""
    seen = []
    plain = Means.__call__
    monkeypatch.setattr(
        Means, "__call__", lambda self, pictures, p: seen.append(len(pictures)) or plain(self, pictures, p)
    )
    return seen


def test_what_stands_with_its_key_is_left_and_any_change_recomputes(tmp_path, means, monkeypatch):
    path, out = shard(tmp_path / "0000.zip", ["x-1", "x-2"]), tmp_path / "f.npz"
    seen = counting(monkeypatch)

    def runs(preprocessing="none-128"):
        seen.clear()
        main(["--of", str(out), str(path), "--extractor", "means", "--preprocessing", preprocessing])
        return sum(seen)

    assert runs() == 2
    before = out.stat().st_mtime_ns
    assert runs() == 0 and out.stat().st_mtime_ns == before
    shard(path, ["x-1", "x-2"])  # the same pictures, written anew
    assert runs() == 0
    assert runs("bicubic-128") == 2 and runs("bicubic-128") == 0
    monkeypatch.setattr(Means, "sha256", "f" * 64)  # other weights
    assert runs("bicubic-128") == 2
    shard(path, ["x-1", "x-3"])
    assert runs("bicubic-128") == 2 and read_features(out).ids == ["x-1", "x-3"]
    shard(path, ["x-3", "x-1"])  # another order
    assert runs("bicubic-128") == 2
    out.write_bytes(out.read_bytes()[:300])
    assert runs("bicubic-128") == 2
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == []


def test_an_interrupted_extraction_goes_on(tmp_path, means, monkeypatch):
    monkeypatch.setattr(features, "PART", 4)
    paths = [shard(tmp_path / f"{n}.zip", [f"p-{n}{i}" for i in range(5)], size=16) for n in range(3)]
    out, seen = tmp_path / "f.npz", counting(monkeypatch)

    def run(cut=None):
        seen.clear()
        if cut is None:
            return features.write_features_of(entries(paths), Small(), "p", out)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Small, "cut", cut)
            features.write_features_of(entries(paths), Small(), "p", out)

    class Small(Means):
        cut = None

        def __call__(self, pictures, preprocessing):
            if sum(seen) == self.cut:
                raise KeyboardInterrupt
            seen.append(len(pictures))
            values = pictures.reshape(len(pictures), -1)[:, :6].astype(np.float32)
            return values, values[:, :3]

    run(cut=8)
    assert seen == [4, 4] and not out.exists()
    assert sorted(path.name for path in (tmp_path / "state" / "f").iterdir()) == ["0000.npz", "0001.npz"]
    # a picture of the first part changes meanwhile: that part alone is computed again
    shard(paths[0], ["p-00", "q-01", "p-02", "p-03", "p-04"], size=16)
    assert run() and seen == [4, 4, 3]
    assert not (tmp_path / "state" / "f").exists()
    interrupted = out.read_bytes()
    out.unlink()
    assert run() and seen == [4, 4, 4, 3]
    assert out.read_bytes() == interrupted
    loaded = read_features(out)
    assert loaded.key["images_sha256"] == images_sha256(paths) and len(loaded.ids) == 15
    assert set(loaded.key) == {"images_sha256", "extractor", "preprocessing", "versions"}
    assert not run()


def test_folders_of_any_pictures_after_a_preparation(tmp_path, means):
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (150, 140, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "Photo 1.png")
    Image.fromarray(pixels[:130]).save(folder / "Photo 2.jpg")
    out = tmp_path / "f.npz"
    with pytest.raises(ValueError, match="image photo-2 is 140x130 px, those before it 140x150"):
        features.write_features_of(entries(folder), Means(), "none-128", out)
    corner = features.Preparation("corner-128", lambda picture: picture[:128, :128])
    assert features.write_features_of(entries(folder), Means(), "none-128", out, corner)
    loaded = read_features(out)
    assert loaded.key["preprocessing"] == "corner-128/none-128" and loaded.ids == ["photo-1", "photo-2"]
    assert np.allclose(loaded.features[0, :3], pixels[:128, :128].mean(axis=(0, 1)), rtol=1e-5)
    assert loaded.lossy == 1 and loaded.key["pictures"]["formats"] == {"JPEG": 1, "PNG": 1}
    assert loaded.key["pictures"]["sizes"] == {"140x130": 1, "140x150": 1} and loaded.key["pictures"]["choices"]
    assert not features.write_features_of(entries(folder), Means(), "none-128", out, corner)
    assert features.write_features_of(entries(folder)[:1], Means(), "none-128", out, corner)
    assert read_features(out).lossy == 0


def test_only_the_pictures_that_prompts_name(tmp_path, means):
    path = shard(tmp_path / "0000.zip", ["a", "b", "c"])
    row = {"prompt": "a thing", "category": None, "challenge": None, "source_id": None}
    write_jsonl(tmp_path / "p.jsonl", [row | {"id": "one", "image": "c.jpg"}, row | {"id": "two", "image": "a.jpg"}])
    main(["--of", str(tmp_path / "f.npz"), str(path), "--extractor", "means", "--matching", str(tmp_path / "p.jsonl")])
    loaded = read_features(tmp_path / "f.npz")
    main(["--of", str(tmp_path / "all.npz"), str(path), "--extractor", "means"])
    assert loaded.ids == ["one", "two"]
    assert np.array_equal(loaded.features, read_features(tmp_path / "all.npz").of(["c", "a"]))


def test_a_protocol_says_extractor_preparation_and_reference(tmp_path, means, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (150, 200, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    row = {"prompt": "a thing", "category": None, "challenge": None, "source_id": None}
    write_jsonl(tmp_path / "p.jsonl", [row | {"id": "one", "image": "b.png"}])
    ids = {}
    for reference in ("all", "matched"):
        mine = replace(protocols.CLEAN, id=reference, reference=reference, size=128, extractor="means")
        object.__setattr__(mine, "preprocessing", "none-128")  # one of the test's extractor
        monkeypatch.setitem(protocols.PROTOCOLS, reference, mine)
        out = tmp_path / f"{reference}.npz"
        main(["--of", str(out), str(folder), "--matching", str(tmp_path / "p.jsonl"), "--protocol", reference])
        loaded = read_features(out)
        assert loaded.key["preprocessing"] == "centre-square-lanczos-128/none-128" == mine.features_preprocessing
        ids[reference] = loaded.ids
    assert ids == {"all": ["a", "b"], "matched": ["one"]}
    with pytest.raises(SystemExit, match="unknown protocol 'clean'"):
        main(["--of", str(out), str(folder), "--protocol", "clean"])


def test_a_source_may_be_an_asset(tmp_path, monkeypatch):
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path))
    assert source_of("photos") == Path("photos")
    with pytest.raises(ValueError, match="asset celeba-hq is missing: "):
        source_of("celeba-hq")
    (tmp_path / "celeba-hq").mkdir()
    assert source_of("celeba-hq") == tmp_path / "celeba-hq"
