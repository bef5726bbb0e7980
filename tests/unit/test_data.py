import io
import json
import random
import struct
import zlib
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from wuerstchen import data, emoji, folder
from wuerstchen.files import read_json, sha256_file, write_jsonl
from wuerstchen.shards import read_shard


@pytest.fixture(scope="module")
def rows():
    return emoji.listing()[0]


@pytest.fixture(scope="module")
def split(rows):
    return data.assign_splits(rows, seed=0)


def test_split_is_80_10_10_of_the_pairs_and_balanced(rows, split):
    for special in (None, "flags", "clocks", "keycaps"):
        pairs = {(r["artist"], r["thing"]): split[r["id"]] for r in rows if r["special"] == special}
        counts = Counter(pairs.values())
        for name in ("test", "validation"):
            assert abs(counts[name] - 0.1 * len(pairs)) <= 1
            held = Counter(artist for (artist, _), where in pairs.items() if where == name)
            assert abs(held["openmoji"] - held["twemoji"]) <= 1


def test_held_out_pairs_are_whole_and_the_other_artist_was_seen(rows, split):
    places = defaultdict(set)
    for row in rows:
        places[row["thing"], row["artist"]].add(split[row["id"]])
    assert all(len(found) == 1 for found in places.values())
    other = {"openmoji": "twemoji", "twemoji": "openmoji"}
    for (thing, artist), found in places.items():
        if found != {"train"}:
            assert places[thing, other[artist]] == {"train"}


def test_split_depends_on_the_seed_and_not_on_order(rows, split):
    shuffled = list(rows)
    random.Random(3).shuffle(shuffled)
    assert data.assign_splits(shuffled, seed=0) == split
    assert data.assign_splits(rows, seed=1) != split


def test_split_keeps_what_a_row_asks_for_and_splits_the_rest():
    rows = [{"id": f"p{n}", "artist": "a", "thing": f"t{n}", "special": None} for n in range(40)]
    rows[0]["split"] = rows[1]["split"] = "test"
    found = data.assign_splits(rows, seed=0)
    assert found["p0"] == found["p1"] == "test"
    assert Counter(found.values()) == {"train": 30, "validation": 4, "test": 6}


def test_split_of_too_few_pictures_says_so():
    with pytest.raises(ValueError, match="none of the 3 pictures is in the validation split"):
        data.assign_splits(
            [{"id": f"p{n}", "artist": "a", "thing": f"t{n}", "special": None} for n in range(3)], seed=0
        )


def test_digest_is_of_sorted_lines():
    rows = [{"id": "b", "split": "test"}, {"id": "a", "split": "train"}]
    # printf 'a train\nb test\n' | sha256sum
    assert data.split_digest(rows) == data.split_digest(rows[::-1])
    import hashlib

    assert data.split_digest(rows) == hashlib.sha256(b"a train\nb test\n").hexdigest()


def picture(path, size=(40, 20), colour="red", mode="RGB", **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **save)


@pytest.fixture
def own(tmp_path):
    """A folder of 12 pictures in many formats, and its caption file."""
    root = tmp_path / "own"
    colours = ["red", "green", "blue", "black", "yellow", "orange", "pink", "gray", "cyan", "brown", "navy", "gold"]
    for number, colour in enumerate(colours):
        suffix = ("png", "jpg", "gif", "webp")[number % 4]
        picture(root / "in" / f"{number:02d} {colour}.{suffix}", colour=colour)
    lines = [
        {"image": f"in/{file.name}", "caption": f"a {file.stem[3:]} thing"} for file in sorted((root / "in").iterdir())
    ]
    write_jsonl(root / "captions.jsonl", lines)
    return root


def captions_of(root, lines):
    write_jsonl(root / "captions.jsonl", lines)
    return root / "captions.jsonl"


def test_build_from_a_folder(own, tmp_path):
    out = tmp_path / "data"
    arguments = ["--source", "folder", "--captions", str(own / "captions.jsonl"), "--size", "32", "--out", str(out)]
    data.main(arguments)
    index = data.load_index(out)
    assert [row["id"] for row in index] == sorted(row["id"] for row in index)
    assert index[0] | {"split": ""} == {
        "id": "in-00-red", "artist": "pictures", "thing": "a red thing", "name": "a red thing",
        "caption": "a red thing",
        "description": "a red thing", "group": "pictures", "subgroup": "pictures", "special": None, "split": "",
        "image": "in-00-red.png",
    }  # fmt: skip
    summary = read_json(out / "split.json")
    assert summary["sha256"] == data.split_digest(index)
    assert [summary["counts"][name]["total"] for name in data.SPLITS] == [10, 1, 1]
    assert summary["longest_tokens"] == 6  # [CLS] a cy ##an thing [SEP]
    pictures = data.load_pictures(out)
    assert pictures.shape == (12, 3, 32, 32) and pictures.dtype == np.uint8
    assert (pictures[0, :, :8] == 255).all() and (pictures[0, :, 24:] == 255).all()
    assert pictures[0, :, 16, 16].tolist() == [255, 0, 0]
    two = data.load_pictures(out, [index[5], index[0]])
    assert np.array_equal(two, pictures[[5, 0]])

    before = {name: (out / name).read_bytes() for name in ("index.jsonl", "pictures.zip", "split.json")}
    data.main(arguments)
    assert before == {name: (out / name).read_bytes() for name in before}


def test_robustness_pictures_of_a_folder(own, tmp_path):
    out, captions = tmp_path / "data", str(own / "captions.jsonl")
    data.build("folder", captions, 32, 0, out)
    flags = ["--source", "folder", "--captions", captions, "--index", str(out / "index.jsonl"), "--size", "64"]
    data.main([*flags, "--robustness", "pictures", "--count", "5", "--out", str(tmp_path / "set.zip")])
    info, pngs = read_shard(tmp_path / "set.zip")
    assert len(pngs) == 5 and list(pngs) == sorted(pngs) and info["set"] == "pictures"
    assert {Image.open(io.BytesIO(png)).size for png in pngs.values()} == {(64, 64)}
    with pytest.raises(SystemExit, match="robustness.count is 500, but .* has 12 pictures of 'pictures'"):
        data.main([*flags, "--robustness", "pictures", "--out", str(tmp_path / "b.zip")])


def test_robustness_pictures_of_emoji_leave_specials_out(tmp_path, rows):
    some = [row | {"split": "train", "image": ""} for row in rows if row["special"] == "clocks"] + [
        row | {"split": "train", "image": ""} for row in rows if row["name"] in ("hot dog", "pizza", "zebra")
    ]
    write_jsonl(tmp_path / "index.jsonl", some)
    data.robustness(tmp_path / "index.jsonl", "emoji", None, "openmoji", 2, 256, 0, tmp_path / "a.zip")
    _, pngs = read_shard(tmp_path / "a.zip")
    assert len(pngs) == 2 and set(pngs) < {"openmoji-1f32d", "openmoji-1f355", "openmoji-1f993"}
    assert all(Image.open(io.BytesIO(png)).size == (256, 256) for png in pngs.values())


def test_spawned_workers_draw_what_one_process_draws():
    _, files = emoji.listing()
    files = dict(list(files.items())[:400])
    pngs, problems = data.draw_all(files, emoji.render, 32)
    assert not problems and list(pngs) == list(files)
    assert all(pngs[name] == emoji.render(files[name], 32) for name in list(files)[::57])


def test_pictures_of_another_index_are_refused(own, tmp_path):
    data.build("folder", str(own / "captions.jsonl"), 32, 0, tmp_path / "data")
    with open(tmp_path / "data" / "index.jsonl", "a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match="not made for this index"):
        data.load_pictures(tmp_path / "data")


BAD = [
    ({"image": "/etc/hostname", "caption": "a"}, "absolute path"),
    ({"image": "../outside.png", "caption": "a"}, "has '..'"),
    ({"image": "in/../../outside.png", "caption": "a"}, "has '..'"),
    ({"image": "link.png", "caption": "a"}, "link that leaves"),
    ({"image": "linked/outside.png", "caption": "a"}, "link that leaves"),
    ({"image": "in/none.png", "caption": "a"}, "no such file"),
    ({"image": "in", "caption": "a"}, "no such file"),
    ({"image": "in/00 red.png", "caption": " \t"}, "'caption' must be a text that is not empty"),
    ({"image": "in/00 red.png"}, "'caption' must be a text that is not empty"),
    ({"caption": "a"}, "'image' must be a text"),
    ({"image": 3, "caption": "a"}, "'image' must be a text"),
    ({"image": "in/00 red.png", "caption": "a", "id": "A b"}, "'id' must match"),
    ({"image": "in/00 red.png", "caption": "a", "artist": "../x"}, "'artist' must match"),
    ({"image": "in/00 red.png", "caption": "a", "split": "dev"}, "'split' must be one of"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_bad_rows_are_refused_by_name(own, line, message):
    picture(own.parent / "outside.png")
    (own / "link.png").symlink_to(own.parent / "outside.png")
    (own / "linked").symlink_to(own.parent)
    found, _, problems = folder.read_captions(captions_of(own, [line]))
    assert found == [] and len(problems) == 1
    assert message in problems[0] and "line 1" in problems[0]


def png_header(width, height):
    """A PNG that claims a size, with hardly any of its pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    packed = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_all_problems_are_listed_at_once(own, tmp_path):
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(whole, "JPEG")
    (own / "truncated.jpg").write_bytes(whole.getvalue()[:-200])
    (own / "text.png").write_text("no picture")
    (own / "bomb.png").write_bytes(png_header(30000, 30000))
    (own / "large.png").write_bytes(png_header(9000, 9000))
    (own / "inside.png").symlink_to("in/00 red.png")
    good = {"image": "in/00 red.png", "caption": "a"}
    names = ("truncated.jpg", "text.png", "bomb.png", "large.png", "inside.png")
    lines = [good, good, *({"image": name, "caption": "a"} for name in names), *(line for line, _ in BAD[:2])]
    captions = captions_of(own, lines)
    captions.write_bytes(captions.read_bytes() + b'{"image": \n[1]\n\xff\n')
    with pytest.raises(SystemExit) as error:
        data.main(["--source", "folder", "--captions", str(captions), "--out", str(tmp_path / "data")])
    message = str(error.value)
    assert message.startswith("data: 10 problem(s)")
    for part in (
        "line 2: id 'in-00-red' is already used in line 1", "truncated.jpg: not a readable", "text.png: not a readable",
        "bomb.png: more than 64000000 pixels", "large.png: 9000 x 9000 pixels", "line 8:", "line 9:", "line 10: not",
        "line 11: expected an object", "line 12: not",
    ):  # fmt: skip
        assert part in message
    assert "inside.png" not in message and not (tmp_path / "data").exists()


def test_missing_caption_file_is_named(tmp_path):
    with pytest.raises(SystemExit, match="none.jsonl: no such file"):
        data.main(["--source", "folder", "--captions", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "data")])
    with pytest.raises(SystemExit, match="needs data.captions"):
        data.main(["--source", "folder", "--out", str(tmp_path / "data")])


def load(path, size=16):
    return np.asarray(Image.open(io.BytesIO(folder.load_picture(path, size)))).astype(int)


def test_transparency_goes_onto_white(tmp_path):
    picture(tmp_path / "a.png", (16, 16), (0, 0, 0, 0), "RGBA")
    picture(tmp_path / "b.png", (16, 16), (0, 128), "LA")
    Image.new("P", (16, 16), 0).save(tmp_path / "c.png", transparency=0)
    assert (load(tmp_path / "a.png") == 255).all()
    assert (abs(load(tmp_path / "b.png") - 127) <= 1).all()
    assert (load(tmp_path / "c.png") == 255).all()


def test_every_colour_mode_becomes_rgb(tmp_path):
    picture(tmp_path / "l.png", (16, 16), 100, "L")
    Image.fromarray(np.full((16, 16), 100 * 257, np.uint16)).save(tmp_path / "i.png")
    picture(tmp_path / "k.jpg", (16, 16), (0, 255, 255, 0), "CMYK", quality=95)
    palette = Image.new("RGB", (16, 16), (10, 200, 30)).quantize(4)
    palette.save(tmp_path / "p.png")
    assert (load(tmp_path / "l.png") == 100).all() and (load(tmp_path / "i.png") == 100).all()
    assert (abs(load(tmp_path / "k.jpg") - (255, 0, 0)) <= 6).all()
    assert (abs(load(tmp_path / "p.png") - (10, 200, 30)) <= 4).all()


def test_exif_orientation_is_applied(tmp_path):
    sideways = Image.new("RGB", (16, 16), "black")
    sideways.paste("white", (0, 0, 8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright: left becomes top
    sideways.save(tmp_path / "a.png", exif=exif)
    pixels = load(tmp_path / "a.png")
    assert (pixels[:8] == 255).all() and (pixels[8:] == 0).all()


def test_a_long_thin_picture_is_padded_without_a_huge_square(tmp_path):
    picture(tmp_path / "a.png", (50000, 1), "black")
    pixels = load(tmp_path / "a.png")
    assert (pixels == 0).all(axis=2).sum() == 16


def test_small_pictures_are_antialiased(tmp_path):
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert (abs(load(tmp_path / "a.png")[:, 2:-2] - 127.5) < 8).all()


def test_slugs():
    assert folder.slug("Birds/robin 1.jpg") == "birds-robin-1"
    for image in ("Vögel/rotkehlchen.jpg", "鳥.png", "x" * 200 + ".png", "???.png"):
        assert folder.NAME.fullmatch(folder.slug(image))
    assert folder.slug("鳥.png") != folder.slug("魚.png")


def test_index_columns_are_text_or_null(rows):
    row = rows[0] | {"split": "train", "image": "x.png"}
    assert set(row) == set(data.COLUMNS)
    assert all(isinstance(value, str) or key == "special" for key, value in json.loads(json.dumps(row)).items())


def test_written_index_digest_stands_in_the_pictures(own, tmp_path):
    data.build("folder", str(own / "captions.jsonl"), 16, 0, tmp_path / "data")
    info, _ = read_shard(tmp_path / "data" / "pictures.zip")
    assert info["index_sha256"] == sha256_file(tmp_path / "data" / "index.jsonl")
    assert info["ids"] == [row["id"] for row in data.load_index(tmp_path / "data")]
