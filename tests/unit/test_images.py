import hashlib
import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from evaluation.images import images_sha256, iter_images, read_shard, write_shard


def noise(seed, size=8):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def png_header(width, height):
    """A PNG that claims a size, with hardly any of its pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    packed = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "0000.zip"
    write_shard(path, {"b": noise(1), "a": png(noise(2))}, {"model": "m", "seed": 3})
    return path


def test_round_trip_is_lossless_and_stored(shard):
    info, pngs = read_shard(shard)
    assert info == {"model": "m", "seed": 3, "ids": ["b", "a"]} and list(pngs) == ["b", "a"]
    images = dict(iter_images([shard]))
    assert np.array_equal(images["b"], np.asarray(noise(1))) and np.array_equal(images["a"], np.asarray(noise(2)))
    with zipfile.ZipFile(shard) as archive:
        assert archive.namelist() == ["b.png", "a.png", "shard.json"] and archive.testzip() is None
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_equal_content_gives_equal_bytes(shard, tmp_path):
    write_shard(tmp_path / "again.zip", [("b", noise(1)), ("a", png(noise(2)))], {"model": "m", "seed": 3})
    assert (tmp_path / "again.zip").read_bytes() == shard.read_bytes()


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([("A", noise(1))], "picture id 'A'"),
        ([("../a", noise(1))], "picture id"),
        ([("a", noise(1)), ("a", noise(2))], "unique"),
        ([("a", b"GIF89a")], "not a PNG"),
        ([], "at least one picture"),
    ],
)
def test_bad_pictures_are_not_written(tmp_path, pictures, message):
    with pytest.raises(ValueError, match=message):
        write_shard(tmp_path / "a.zip", pictures, {})
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_refused(shard):
    whole = shard.read_bytes()
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        shard.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="0000.zip"):
            read_shard(shard)


def test_a_flipped_bit_of_a_picture_is_refused(shard):
    whole = bytearray(shard.read_bytes())
    whole[120] ^= 1
    shard.write_bytes(whole)
    with pytest.raises(ValueError, match="0000.zip.*CRC"):
        read_shard(shard)


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)


PNG = png(noise(1))
INFO = json.dumps({"ids": ["a"]})


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", PNG)], "last member is not shard.json"),
        ([("shard.json", INFO), ("a.png", PNG)], "last member is not shard.json"),
        ([("a.png", PNG), ("shard.json", "{")], "not JSON"),
        ([("a.png", PNG), ("shard.json", "[]")], "needs 'ids'"),
        ([("a.png", PNG), ("shard.json", '{"ids": ["../a"]}')], "needs 'ids'"),
        ([("b.png", PNG), ("shard.json", INFO)], "are not the pictures"),
        ([("a.png", PNG), ("b.png", PNG), ("shard.json", INFO)], "are not the pictures"),
        ([("shard.json", INFO)], "are not the pictures"),
        ([("a.png", b"GIF89a"), ("shard.json", INFO)], "a.png is not a PNG"),
    ],
)
def test_other_zips_are_refused_by_name(tmp_path, members, message):
    write_zip(tmp_path / "bad.zip", members)
    with pytest.raises(ValueError, match=message) as error:
        read_shard(tmp_path / "bad.zip")
    assert "bad.zip" in str(error.value)


def test_compressed_and_overlapping_zips_are_refused(tmp_path):
    write_zip(tmp_path / "bad.zip", [("a.png", PNG), ("shard.json", INFO)], zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="stored, not compressed"):
        read_shard(tmp_path / "bad.zip")
    # One stored member that the directory lists many times: the way of small zips that grow without bound.
    large = png(noise(1, 64))
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("a.png", large)
        archive.writestr("shard.json", INFO)
        archive.filelist[1:1] = [archive.filelist[0]] * 50
        archive._didModify = True
    with pytest.raises(ValueError, match="more bytes than the file has"):
        read_shard(tmp_path / "bad.zip")


def test_missing_shard_is_named(tmp_path):
    with pytest.raises(ValueError, match="none.zip: no such image shard"):
        read_shard(tmp_path / "none.zip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PNG[:60], "a.png: not a whole PNG"),
        (PNG[:-40], "a.png: not a whole PNG"),
        (png_header(9000, 9000), "9000 x 9000 pixels"),
        (png_header(30000, 30000), "more than 64000000 pixels"),
    ],
    ids=["head", "truncated", "large", "bomb"],
)
def test_broken_and_huge_pictures_are_refused(tmp_path, content, message):
    write_shard(tmp_path / "a.zip", {"a": content}, {})
    with pytest.raises(ValueError, match=message):
        list(iter_images([tmp_path / "a.zip"]))


def test_digest_ignores_shards_and_sees_pixels(tmp_path):
    pngs = {name: png(noise(seed)) for seed, name in enumerate("abc")}
    write_shard(tmp_path / "all.zip", pngs, {"k": 1})
    write_shard(tmp_path / "one.zip", {"c": pngs["c"]}, {})
    write_shard(tmp_path / "two.zip", {"b": pngs["b"], "a": pngs["a"]}, {})
    digest = images_sha256([tmp_path / "all.zip"])
    assert digest == images_sha256([tmp_path / "one.zip", tmp_path / "two.zip"])
    lines = "".join(f"{name} {hashlib.sha256(pngs[name]).hexdigest()}\n" for name in "abc")
    assert digest == hashlib.sha256(lines.encode()).hexdigest()
    write_shard(tmp_path / "one.zip", {"c": pngs["a"]}, {})
    assert digest != images_sha256([tmp_path / "one.zip", tmp_path / "two.zip"])


def test_an_id_in_two_shards_is_refused(shard, tmp_path):
    write_shard(tmp_path / "0001.zip", {"a": noise(5)}, {})
    with pytest.raises(ValueError, match="image a is already in"):
        list(iter_images([shard, tmp_path / "0001.zip"]))
