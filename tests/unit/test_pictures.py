"""Every kind of picture file has a behaviour: read as it is said to be, or refused with its name."""

import hashlib
import io
import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from data_folder import published
from PIL import Image, ImageCms, features

from evaluation import images, picture_files, pictures
from evaluation.picture_files import entries, files_sha256, listing, matching, picture_id
from evaluation.pictures import CHOICES, decode, describe, iter_pictures, main

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def saved(pixels, format_="PNG", **options) -> bytes:
    file = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(file, format_, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    """A PNG written without Pillow, of rows that each begin with their filter's byte."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("format_", "options", "lossy"),
    [
        ("PNG", {}, False),
        ("BMP", {}, False),
        ("TIFF", {}, False),
        ("TIFF", {"compression": "tiff_lzw"}, False),
        ("WEBP", {"lossless": True, "exact": True}, False),
        ("WEBP", {"quality": 90}, True),
        ("JPEG", {"quality": 95}, True),
        ("TIFF", {"compression": "jpeg"}, True),
        ("AVIF", {"quality": 90}, True),
    ],
)
def test_what_was_saved_with_loss_is_known(format_, options, lossy):
    if format_ == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    suffix = picture_files.SUFFIXES[format_][0]
    read = decode(saved(flat, format_, **options), f"a{suffix}")
    assert (read.format, read.lossy, read.notes) == (format_, lossy, ())
    assert read.pixels.dtype == np.uint8 and np.abs(read.pixels.astype(int) - flat).max() <= 4 * lossy
    if not lossy:
        assert np.array_equal(decode(saved(RGB, format_, **options), f"a{suffix}").pixels, RGB)


def test_kinds_of_pixels():
    grey, alpha = RGB[:, :, 0], np.full((6, 8), 255, np.uint8)
    alpha[0, 0], alpha[0, 1] = 0, 51
    read = decode(saved(grey), "a.png")
    assert read.notes == ("grey",) and np.array_equal(read.pixels, np.stack([grey] * 3, axis=2))
    bilevel = decode(saved(Image.fromarray(grey > 99)), "a.png")
    assert bilevel.notes == ("grey",) and np.array_equal(bilevel.pixels[:, :, 1], 255 * (grey > 99))

    palette = Image.fromarray(RGB).quantize(16)
    read = decode(saved(palette), "a.png")
    assert read.notes == ("palette",) and np.array_equal(read.pixels, np.asarray(palette.convert("RGB")))

    # by the formula: colour * alpha + white * (1 - alpha)
    read = decode(saved(np.dstack([RGB, alpha])), "a.png")
    share = alpha[:, :, None] / 255
    assert read.notes == ("alpha",)
    assert np.abs(read.pixels - (RGB * share + 255 * (1 - share))).max() <= 0.5 + 1e-9
    assert (read.pixels[0, 0] == 255).all()
    assert decode(saved(np.dstack([RGB, np.full_like(grey, 255)])), "a.png").notes == ()  # nothing shows through
    assert decode(saved(np.dstack([grey, alpha])), "a.png").notes == ("grey", "alpha")
    see_through = decode(saved(palette, transparency=palette.getpixel((0, 0))), "a.png")
    assert see_through.notes == ("palette", "alpha") and (see_through.pixels[0, 0] == 255).all()

    inks = Image.fromarray(RGB).convert("CMYK")
    read = decode(saved(inks, "TIFF"), "a.tif")
    assert read.notes == ("cmyk",) and np.array_equal(read.pixels, np.asarray(inks.convert("RGB")))
    assert decode(saved(inks, "JPEG"), "a.jpg").notes == ("cmyk",)


def test_sixteen_bits_become_the_higher_eight_in_grey_and_in_colour():
    levels = np.random.default_rng(1).integers(0, 65536, (4, 5, 3), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    read = decode(png(5, 4, 16, 2, rows), "a.png")
    assert read.notes == ("16-bit",) and np.array_equal(read.pixels, (levels >> 8).astype(np.uint8))
    grey = levels[:, :, 0]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in grey)
    for content, name in ((png(5, 4, 16, 0, rows), "a.png"), (saved(grey, "TIFF"), "a.tif")):
        read = decode(content, name)
        assert read.notes == ("grey", "16-bit")
        assert np.array_equal(read.pixels, np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


def test_orientation_is_noted_and_pixels_are_as_stored():
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    for format_, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        read = decode(saved(RGB, format_, exif=exif, **options), f"a.{format_.lower()}")
        assert read.notes == ("orientation",) and np.array_equal(read.pixels, RGB)
    stored = decode(saved(RGB, "JPEG", exif=exif), "a.jpg")
    assert stored.notes == ("orientation",) and stored.pixels.shape == RGB.shape
    turned = decode(saved(RGB, "TIFF", exif=exif), "a.tif")
    assert turned.notes == ("orientation",) and np.array_equal(turned.pixels, np.rot90(RGB, -1))


def test_the_content_says_what_a_file_is():
    read = decode(saved(RGB), "folder/photo.jpg")
    assert (read.format, read.lossy, read.notes) == ("PNG", False, ("misnamed",))
    assert decode(saved(RGB, "JPEG"), "photo.JPEG").notes == ()
    assert set(read.notes) <= set(CHOICES)


def test_a_jpeg_with_previews_is_its_first_picture():
    several = saved(Image.fromarray(RGB), "MPO", save_all=True, append_images=[Image.fromarray(RGB[::-1])])
    read = decode(several, "a.jpg")
    assert read.format == "JPEG" and read.lossy and read.notes == ()
    assert np.array_equal(read.pixels, decode(saved(RGB, "JPEG"), "a.jpg").pixels)


BROKEN = {
    "empty": (b"", "an empty file"),
    "text": (b"<html>404</html>", "not a whole picture of a known format"),
    "truncated PNG": (saved(RGB)[:-30], "not a whole picture"),
    "truncated JPEG": (saved(np.tile(RGB, (20, 20, 1)), "JPEG")[:2000], "not a whole picture"),
    "truncated WebP": (saved(np.tile(RGB, (20, 20, 1)), "WEBP")[:2000], "not a whole picture"),
    "truncated BMP": (saved(RGB, "BMP")[:100], "not a whole picture"),
    "truncated TIFF": (saved(RGB, "TIFF")[:120], "not a whole picture"),
    "truncated GIF": (saved(np.tile(RGB, (20, 20, 1)), "GIF")[:1200], "not a whole picture"),
    "header alone": (saved(RGB)[:20], "not a whole picture"),
    "huge": (png(20_000, 20_000, 8, 2, bytes(99)), "pixels"),
    "large": (png(9_000, 8_000, 8, 2, bytes(99)), "9000 x 8000 pixels are more than 64000000"),
    "animated GIF": (
        saved(Image.fromarray(RGB), "GIF", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
        "2 pictures in one file",
    ),
    "animated PNG": (
        saved(Image.fromarray(RGB), "PNG", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
        "2 pictures in one file",
    ),
    "32-bit": (saved(RGB[:, :, 0].astype(np.float32), "TIFF"), "pixels of mode F are not 8-bit"),
    "Lab": (
        saved(
            ImageCms.profileToProfile(
                Image.fromarray(RGB), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
            ),
            "TIFF",
        ),
        "pixels of mode LAB",
    ),
    "PostScript, drawn by another program": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "known format",
    ),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore:Truncated File Read")
@pytest.mark.parametrize("what", BROKEN)
def test_what_is_refused_is_named(what):
    content, problem = BROKEN[what]
    with pytest.raises(ValueError, match=f"^some/file.png: .*{problem}"):
        decode(content, "some/file.png")


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_no_cut_of_a_file_is_read_silently():
    for format_ in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        whole = saved(np.tile(RGB, (4, 4, 1)), format_)
        pixels = decode(whole, "a.png").pixels
        for length in range(0, len(whole), 61):
            try:
                assert np.array_equal(decode(whole[:length], "a.png").pixels, pixels)  # only what comes after was cut
            except ValueError as error:
                assert str(error).startswith("a.png: ")


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("parti-0001", "parti-0001"),
        ("000000137576", "000000137576"),
        ("COCO_val2014_000000391895", "coco-val2014-000000391895"),
        ("A photo of a dog!", "a-photo-of-a-dog"),
    ],
)
def test_ids_come_from_names(name, id_):
    assert picture_id(name) == id_


def test_ids_of_long_and_foreign_names_are_ids_of_their_own():
    names = ["鸟", "鱼", "x" * 80, "x" * 81, "_", "é" * 70, "-" * 70]
    ids = [picture_id(name) for name in names]
    assert len(set(ids)) == len(names)
    assert all(picture_files.ID.fullmatch(id_) for id_ in ids)
    assert ids[2].startswith("x" * 55 + "-")


@pytest.fixture
def folder(tmp_path):
    """Pictures in folders, one without a suffix, and files that are none."""
    root = tmp_path / "pictures"
    for name, content in {
        "b.png": saved(RGB),
        "a/c.jpg": saved(RGB, "JPEG"),
        "a/no-suffix": saved(RGB[::-1]),
        "notes.txt": b"not a picture",
        ".hidden.png": b"",
        "a/.cache/d.png": b"",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(folder, path, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


def test_folders_and_zips_are_read_alike(folder, tmp_path):
    archive = zipped(folder, tmp_path / "pictures.zip")
    there, packed = dict(iter_pictures(folder)), dict(iter_pictures([archive]))
    assert list(there) == list(packed) == ["c", "no-suffix", "b"]
    assert all(np.array_equal(there[name], packed[name]) for name in there)
    assert np.array_equal(there["b"], RGB) and np.array_equal(there["no-suffix"], RGB[::-1])
    for source in (folder, archive):
        assert listing(source)[1] == [".hidden.png", "a/.cache/d.png", "notes.txt"]
        described = describe(source)
        assert described == {
            "n": 3,
            "formats": {"JPEG": 1, "PNG": 2},
            "lossy": 1,
            "sizes": {"8x6": 3},
            "notes": {"misnamed": 1},
            "others": [".hidden.png", "a/.cache/d.png", "notes.txt"],
        }


def test_the_command_prints_the_description_or_one_line(folder, capsys):
    main([str(folder)])
    said = json.loads(capsys.readouterr().out)
    assert said["lossy"] == 1 and said["choices"] == {"misnamed": CHOICES["misnamed"]}
    (folder / "a" / "broken.png").write_bytes(b"")
    with pytest.raises(SystemExit, match="^pictures: .*a/broken.png: an empty file$"):
        main([str(folder)])


def test_shards_are_read_as_ever(tmp_path):
    images.write_shard(tmp_path / "0.zip", [("z", Image.fromarray(RGB)), ("a", Image.fromarray(RGB[::-1]))], {})
    images.write_shard(tmp_path / "1.zip", [("b", Image.fromarray(RGB[:, ::-1]))], {})
    shards = [tmp_path / "0.zip", tmp_path / "1.zip"]
    expected, read = list(images.iter_images(shards)), list(iter_pictures(shards))
    assert [name for name, _ in read] == [name for name, _ in expected] == ["z", "a", "b"]
    assert all(np.array_equal(ours, theirs) for (_, ours), (_, theirs) in zip(read, expected, strict=True))
    digests = [(entry.id, hashlib.sha256(entry.read()).hexdigest()) for entry in entries(shards)]
    assert files_sha256(digests) == images.images_sha256(shards)
    with pytest.raises(ValueError, match="1.zip: b.png: image b is already in .*1.zip"):
        entries([*shards, shards[1]])
    whole = shards[0].read_bytes()
    for cut in (whole[:-30], whole[:200], whole[:-200]):
        shards[0].write_bytes(cut)
        with pytest.raises(ValueError, match="0.zip"):
            list(iter_pictures(shards))


def test_equal_names_in_two_folders_are_told_apart_and_equal_ids_refused(tmp_path):
    for name in ("cats/1.png", "dogs/1.png", "dogs/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(saved(RGB))
    assert [entry.id for entry in entries(tmp_path)] == ["cats-1", "dogs-1", "dogs-2"]
    (tmp_path / "dogs" / "1.jpg").write_bytes(saved(RGB, "JPEG"))
    with pytest.raises(ValueError, match="dogs/1.jpg and dogs/1.png both have the id dogs-1; rename one"):
        entries(tmp_path)


def test_sources_that_are_none_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, problem in (("absent", "no such file or folder"), ("empty", "no pictures in it")):
        with pytest.raises(ValueError, match=f"{name}: {problem}"):
            entries(tmp_path / name)
    (tmp_path / "text.zip").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="text.zip: not a whole zip file"):
        entries(tmp_path / "text.zip")
    (tmp_path / "text.md").write_bytes(b"nor a picture")
    with pytest.raises(ValueError, match="text.md: no pictures in it"):
        entries(tmp_path / "text.md")
    (tmp_path / "one.png").write_bytes(saved(RGB))
    assert [entry.id for entry in entries(str(tmp_path / "one.png"))] == ["one"]
    os.symlink(tmp_path / "gone.png", tmp_path / "empty" / "link.png")
    with pytest.raises(ValueError, match="link.png: cannot be read"):
        list(iter_pictures(tmp_path / "empty"))


def test_a_damaged_member_of_a_zip_is_named(folder, tmp_path):
    archive = zipped(folder, tmp_path / "pictures.zip", zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="pictures.zip: .*: cannot be read .*CRC"):
        list(iter_pictures(archive))


def test_zips_that_would_expand_are_refused_before_they_do(tmp_path, monkeypatch):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.bmp", bytes(2**20))
    monkeypatch.setattr(picture_files, "FREE_EXPANSION", 2**20)
    with pytest.raises(ValueError, match=r"bomb.zip: [\d,]+ bytes that unpack to 3,145,728, over 20 times as many"):
        entries(bomb)
    monkeypatch.setattr(picture_files, "MAX_BYTES", 2**19)
    with pytest.raises(ValueError, match="bomb.zip: 0.bmp unpacks to 1,048,576 bytes, over 524,288"):
        entries(bomb)
    large = tmp_path / "large.bmp"
    large.write_bytes(bytes(2**20))
    with pytest.raises(ValueError, match="large.bmp: 1,048,576 bytes, over 524,288"):
        list(iter_pictures(large))


def test_a_member_cannot_unpack_to_more_than_it_claims(tmp_path):
    """zipfile itself stops at the size in the directory, which is what is bounded, and refuses the rest."""
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**20))
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 2**20), struct.pack("<I", 1000)))
    with pytest.raises(ValueError, match="liar.zip: a.png: cannot be read"):
        list(iter_pictures(path))


def test_pictures_that_prompts_name(folder):
    prompts = [{"id": "one", "image": "val/b.jpg"}, {"id": "two", "image": "c.png"}, {"id": "again", "image": "b.png"}]
    assert [(entry.id, entry.path.name) for entry in matching(entries(folder), prompts)] == [
        ("one", "b.png"),
        ("two", "c.jpg"),
    ]
    with pytest.raises(ValueError, match="image d.png of prompt three is not among 3 pictures"):
        matching(entries(folder), [{"id": "three", "image": "d.png"}])
    with pytest.raises(ValueError, match="prompt four names no image"):
        matching(entries(folder), [{"id": "four", "image": None}])


def test_photographs_are_read_as_pillow_alone_reads_them():
    photos = published("photos_coco_mini/val2017")
    described = describe(photos)
    assert described["n"] == described["lossy"] == 159 and described["formats"] == {"JPEG": 159}
    for entry in entries(photos)[::40]:
        with Image.open(entry.path) as photo:
            assert np.array_equal(decode(entry.read(), entry.where).pixels, np.asarray(photo.convert("RGB")))
