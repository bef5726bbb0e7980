"""Tar shards: what is read of them, which samples are chosen, and in which order they come."""

import io
import json
import pickle

import imagehash
import numpy as np
import pytest
import tar_shards
import torch
from PIL import Image
from torch.utils.data import DataLoader

from wuerstchen import selection, weights
from wuerstchen.selection import Filter, first_of_each, held_out, near, perceptual_hash, select
from wuerstchen.webdata import (
    Batches,
    CorruptSample,
    Order,
    Pictures,
    Selection,
    View,
    decode,
    expand,
    framed,
    positions,
)


class Trap:
    """A pickle that notices being loaded."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was loaded')",))


def scanned(folder, *shards):
    for i, samples in enumerate(shards):
        tar_shards.write(folder / f"{i}.tar", samples)
    pattern = f"{folder}/{{0..{len(shards) - 1}}}.tar"
    selection.main(["scan", "--data", pattern, "--out", str(folder / "scans"), "--workers", "1"])
    return expand(pattern)


def selected(folder, paths, exclude=(), limit=1.0, **bounds):
    bounds = Filter(**{"smallest": 100, **bounds})
    exclude = np.array(exclude, dtype=np.uint64)
    return select(paths, folder / "scans", folder / "selection.safetensors", bounds, exclude, 4, limit)


def test_patterns_name_files(tmp_path):
    for i in range(9, 12):
        (tmp_path / f"{i:03d}.tar").touch()
    assert [path.name for path in expand(f"{tmp_path}/{{009..011}}.tar")] == ["009.tar", "010.tar", "011.tar"]
    with pytest.raises(ValueError, match=r"no file .*012.tar \(1 of the 4 named are missing\)"):
        expand(f"{tmp_path}/{{009..012}}.tar")
    with pytest.raises(ValueError, match="should count upwards"):
        expand(f"{tmp_path}/{{011..009}}.tar")


def test_only_pictures_text_and_metadata_are_read(tmp_path):
    trap = pickle.dumps(Trap())
    paths = scanned(tmp_path, [{**tar_shards.sample(1), "pickle": trap, "pth": trap, "cls": trap}])
    report = selected(tmp_path, paths)
    assert report["selected"] == 1
    pictures = Pictures(paths, Selection(tmp_path / "selection.safetensors", paths), 0)
    item = pictures[0, View.square(96)]
    assert item["caption"] == "picture number 1" and item["image"].shape == (3, 96, 96) and item["corrupt"] == 0


def test_corrupt_samples_are_counted_by_reason_and_left_out(tmp_path):
    whole = tar_shards.sample
    shard = [
        whole(1),
        {**whole(2), "jpg": whole(2)["jpg"][:500]},
        {**whole(3), "jpg": b"not a picture"},
        {**whole(4), "txt": b"\xff\xfe"},
        {**whole(5), "json": b"[1, 2]"},
        {**whole(6), "json": b"{"},
        {key: value for key, value in whole(7).items() if key != "txt"},
        {key: value for key, value in whole(8).items() if key != "json"},
        {key: value for key, value in whole(9).items() if key != "jpg"},
    ]
    paths = scanned(tmp_path, shard)
    report = selected(tmp_path, paths)
    assert report["samples"] == 9 and report["corrupt"] == 8 and report["selected"] == 1
    left_out = {reason: n for reason, n in report["left_out"].items() if n}
    assert left_out == {
        "the picture cannot be decoded": 2, "the caption is not UTF-8 text": 1, "the metadata are no JSON object": 2,
        "no caption": 1, "no metadata": 1, "no picture": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match="8 of 9 samples are corrupt, more than --corrupt-limit 0.5 allows"):
        selected(tmp_path, paths, limit=0.5)


def test_a_shard_that_is_cut_short_keeps_what_is_whole(tmp_path):
    tar_shards.write(tmp_path / "0.tar", [tar_shards.sample(i) for i in range(4)])
    data = (tmp_path / "0.tar").read_bytes()
    rows = list(selection.samples(tmp_path / "0.tar"))
    (tmp_path / "0.tar").write_bytes(data[: rows[2]["jpg"][0] + 700])
    selection.main(["scan", "--data", f"{tmp_path}/0.tar", "--out", str(tmp_path / "scans"), "--workers", "1"])
    report = selected(tmp_path, [tmp_path / "0.tar"])
    assert report["selected"] == 2 and report["left_out"]["the shard is cut short"] == 1


def test_samples_are_filtered_as_the_authors_filtered_them(tmp_path):
    small, large = tar_shards.sample(1), tar_shards.sample(2)
    small["jpg"], large["jpg"] = tar_shards.picture(1, (99, 300)), tar_shards.picture(2, (300, 900))
    paths = scanned(
        tmp_path,
        [small, large, tar_shards.sample(3, aesthetic=4.9), tar_shards.sample(4, pwatermark=0.6)],
        [tar_shards.sample(5, punsafe=0.995), tar_shards.sample(6, pwatermark=None), tar_shards.sample(7)],
        [{**tar_shards.sample(8), "json": json.dumps({"AESTHETIC_SCORE": 5, "pwatermark": 0, "punsafe": 0}).encode()}],
    )
    report = selected(tmp_path, paths, largest=800)
    left_out = {reason: n for reason, n in report["left_out"].items() if n}
    assert left_out == {"too small": 1, "too large": 1, "aesthetic score": 1, "watermark": 2, "unsafe": 1}
    chosen = Selection(tmp_path / "selection.safetensors", paths)
    assert chosen.counts.tolist() == [0, 1, 1]
    assert selected(tmp_path, paths, aesthetic=5.5)["selected"] == 2  # the aesthetic set needs no second scan
    with pytest.raises(ValueError, match="none of 8 samples is selected; most were left out for: aesthetic score"):
        selected(tmp_path, paths, aesthetic=7.0)


def test_duplicates_and_evaluation_pictures_are_left_out(tmp_path):
    again = {**tar_shards.sample(1), "jpg": None}
    buffer = io.BytesIO()  # the same picture, smaller and compressed harder
    decode(tar_shards.picture(1)).resize((128, 112)).save(buffer, "JPEG", quality=60)
    again["jpg"] = buffer.getvalue()
    paths = scanned(tmp_path, [tar_shards.sample(i) for i in range(3)], [tar_shards.sample(2), again])
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "a.png").write_bytes(tar_shards.picture(1, (320, 280), "PNG"))
    selection.main(["hash", "--pictures", str(folder), "--out", str(tmp_path / "list")])
    report = selected(tmp_path, paths, exclude=selection.read_hashes(tmp_path / "list"))
    assert report["left_out"]["duplicate"] + report["left_out"]["evaluation picture"] == 3
    assert report["left_out"]["duplicate"] >= 1 and report["selected"] == 2
    (folder / "b.png").write_bytes(b"")
    with pytest.raises(SystemExit, match="selection hash: .*b.png: not a whole picture"):
        selection.main(["hash", "--pictures", str(folder), "--out", str(tmp_path / "list")])


def test_a_picture_is_held_out_in_every_selection_and_with_its_copies(tmp_path):
    # eight copies, which the second shard does not know as such
    paths = scanned(tmp_path, *([tar_shards.sample(i) for i in numbers] for numbers in (range(40), range(8))))

    def parts(name, shards, share, size):
        selection.main(
            ["select", "--data", f"{tmp_path}/{shards}.tar", "--scans", str(tmp_path / "scans"), "--size", str(size),
             "4096", "--validation", str(tmp_path / f"{name}-v"), "--share", str(share), "--out", str(tmp_path / name)]
        )  # fmt: skip
        found = []
        for file in (tmp_path / name, tmp_path / f"{name}-v"):
            chosen = Selection(file, used := expand(f"{tmp_path}/{shards}.tar"))
            samples = Pictures(used, chosen, 0)
            found.append({samples[i, View.square(64)]["caption"] for i in range(int(chosen.counts.sum()))})
        report = weights.metadata(tmp_path / name)["report"]
        assert (report["selected"], report["held_out"]) == (len(found[0]), len(found[1])) and report["share"] == share
        return found

    trained, held = parts("first", "0", 0.5, 100)
    assert not trained & held and len(trained | held) == 40 and 8 < len(held) < 32
    again, still = parts("second", "1", 0.5, 64)
    assert again <= trained and still <= held and len(again | still) == 8
    fewer = parts("third", "0", 0.25, 100)[1]
    assert fewer < held
    with pytest.raises(SystemExit, match="--share: 1e-06 holds none of 40 samples out; raise it"):
        parts("none", "0", 1e-6, 100)
    with pytest.raises(SystemExit, match="--share: 0.999999 holds all of 40 samples out; lower it"):
        parts("none", "0", 0.999999, 100)
    with pytest.raises(ValueError, match="--share: 1 should be between 0 and 1"):
        select(paths, tmp_path / "scans", tmp_path / "x", Filter(), np.array([], np.uint64), 4, share=1)


def test_the_share_that_is_held_out_is_that_of_the_hashes():
    hashes = np.random.default_rng(0).integers(0, 2**64, 200_000, dtype=np.uint64)
    assert held_out(hashes, 0.001).mean() == pytest.approx(0.001, rel=0.3)
    near_each_other = np.arange(200_000, dtype=np.uint64)
    assert held_out(near_each_other, 0.25).mean() == pytest.approx(0.25, rel=0.02)


def test_hashes_are_those_of_imagehash_and_distances_are_in_bits():
    picture = decode(tar_shards.picture(3))
    assert f"{perceptual_hash(picture):016x}" == str(imagehash.phash(picture))
    hashes = np.array([0b1111, 0, 2**63, 0b1111], dtype=np.uint64)
    assert near(hashes, np.array([0b0111], dtype=np.uint64), 1).tolist() == [True, False, False, True]
    assert near(hashes, np.array([1], dtype=np.uint64), 2).tolist() == [False, True, True, False]
    assert first_of_each(hashes).tolist() == [True, True, True, False]


def test_shards_that_changed_since_the_scan_are_refused(tmp_path):
    paths = scanned(tmp_path, [tar_shards.sample(1)])
    selected(tmp_path, paths)
    tar_shards.write(paths[0], [tar_shards.sample(1), tar_shards.sample(2)])
    with pytest.raises(ValueError, match="has changed since .* was made; scan it again"):
        selected(tmp_path, paths)
    with pytest.raises(ValueError, match="is not the file that was scanned"):
        Selection(tmp_path / "selection.safetensors", paths)
    with pytest.raises(ValueError, match="no file .*none; make it with `python -m wuerstchen.selection scan`"):
        Selection(tmp_path / "none", paths)


def test_a_sample_that_rots_after_the_scan_is_replaced_and_counted(tmp_path):
    paths = scanned(tmp_path, [tar_shards.sample(i) for i in range(3)])
    selected(tmp_path, paths)
    chosen = Selection(tmp_path / "selection.safetensors", paths)
    data = bytearray(paths[0].read_bytes())
    offset, size, *_ = chosen.place(0, 1)
    data[offset : offset + size] = bytes(size)
    paths[0].write_bytes(data)
    pictures = Pictures(paths, chosen, 0)
    items = [pictures[i, View.square(64)] for i in range(3)]
    assert sorted(item["corrupt"] for item in items) == [0, 0, 1]
    assert sorted(item["caption"][-1] for item in items) == ["0", "2", "2"]


def test_every_epoch_visits_each_sample_once_in_another_order():
    order = Order([5, 0, 7, 3, 1], seed=1, block=2)
    epochs = [[order[16 * epoch + i] for i in range(16)] for epoch in range(3)]
    everything = sorted((shard, row) for shard, n in enumerate([5, 0, 7, 3, 1]) for row in range(n))
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    # any position is found directly, by an object that has seen nothing before
    assert [Order([5, 0, 7, 3, 1], seed=1, block=2)[i] for i in (40, 3, 17)] == [
        epochs[2][8],
        epochs[0][3],
        epochs[1][1],
    ]
    assert [Order([5, 0, 7, 3, 1], seed=2, block=2)[i] for i in range(16)] != epochs[0]
    # a block's samples come together: at most two shards are open at a time
    shards = [shard for shard, _ in epochs[0]]
    firsts = [shards.index(s) for s in sorted(set(shards))]
    lasts = [len(shards) - shards[::-1].index(s) for s in sorted(set(shards))]
    assert all(sum(a <= i < b for a, b in zip(firsts, lasts, strict=True)) <= 2 for i in range(16))


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 3), (3, 2)])
def test_all_processes_together_take_each_position_once(world, accumulate):
    taken = [
        p for step in range(4) for micro in range(accumulate) for rank in range(world)
        for p in positions(step, micro, rank, world, 12, accumulate)
    ]  # fmt: skip
    assert taken == list(range(48))


def test_batches_are_the_same_with_any_number_of_workers_and_from_any_step(tmp_path):
    paths = expand(tar_shards.prepared(tmp_path))
    pictures = Pictures(paths, Selection(tmp_path / "selection.safetensors", paths), 5)

    def read(first, workers):
        sampler = Batches(range(first, 8), 1, 2, 8, 2, lambda step: View.square(64 + 16 * (step % 2)))
        loader = DataLoader(pictures, batch_sampler=sampler, num_workers=workers)
        return [(batch["caption"], batch["image"]) for batch in loader]

    whole, resumed = read(0, 2), read(3, 0)
    assert len(whole) == 16 and len(resumed) == 10 and whole[2][1].shape == (2, 3, 80, 80)
    for (captions, images), (others, theirs) in zip(whole[6:], resumed, strict=True):
        assert captions == others and torch.equal(images, theirs)


def test_views_cover_and_cut():
    wide = Image.fromarray(np.arange(300 * 400 * 3, dtype=np.uint32).astype(np.uint8).reshape(300, 400, 3))
    assert framed(wide, View.square(128, 256), None).shape == (3, 128, 128)
    assert framed(wide, View((96, 160), (96, 160)), torch.Generator().manual_seed(0)).shape == (3, 96, 160)
    plain = np.asarray(wide).transpose(2, 0, 1)
    assert np.array_equal(framed(wide, View.square(300), None), plain[:, :, 50:350])
    corners = {framed(wide, View.square(300), torch.Generator().manual_seed(i))[0, 0, 0].item() for i in range(8)}
    assert len(corners) > 3


def test_pictures_that_claim_too_much_are_not_decoded():
    buffer = io.BytesIO()
    Image.new("1", (20_000, 2)).save(buffer, "PNG")
    with pytest.raises(CorruptSample, match="claims 20000x2 pixels"):
        decode(buffer.getvalue())
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "BMP")
    with pytest.raises(CorruptSample, match="not a whole picture"):
        decode(buffer.getvalue())


def test_a_scan_is_not_repeated(tmp_path, monkeypatch):
    paths = scanned(tmp_path, [tar_shards.sample(1)])
    before = weights.metadata(tmp_path / "scans/0.safetensors")
    monkeypatch.setattr(selection, "samples", None)
    selection.scan(paths[0], tmp_path / "scans")
    assert weights.metadata(tmp_path / "scans/0.safetensors") == before
