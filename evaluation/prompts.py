"""The three prompt sets of a study: short names, long descriptions, and compositions that nobody drew."""

import argparse
import itertools
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from wuerstchen.files import read_jsonl, write_jsonl
from wuerstchen.seeds import derive

SETS = ("names", "descriptions", "compositions")
KEYS = ("id", "prompt", "image", "category", "challenge", "source_id")
ID = re.compile(r"[a-z0-9-]{1,64}")

# Shares of a set with pictures; what is left was seen in training.
HELD_OUT = 0.45
SPECIAL = 0.1

COUNTS = ("two", "three", "four", "five")
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "pink", "black")
MATERIALS = ("glass", "wood", "gold", "paper", "ice", "stone")
PLACES = ("on a beach", "on the moon", "in a snowy forest", "under a rainbow", "in a city at night", "on a mountain")
ACTIONS = ("riding a bicycle", "playing a guitar", "reading a book", "swimming", "dancing", "eating an apple")
FACES = ("a smiling face", "a crying face", "a sleeping face", "an angry face", "sunglasses", "a party hat")

CREATURES = re.compile(r"animal-|cat-face|monkey-face|face-costume")
COUNTABLE = ("Animals & Nature", "Food & Drink", "Objects")


def read_prompts(path: str | Path) -> list[dict]:
    """Prompts of a jsonl file, each {"id", "prompt", "image", "category", "challenge", "source_id"}.

    Raises ValueError naming file, line and key for a missing or unknown key, a wrong type, a bad or repeated id, an
    empty prompt, an image path that is absolute or has "..", and for a file without prompts.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such prompt file")
    rows = read_jsonl(path)
    lines: dict[str, int] = {}
    with open(path, encoding="utf-8") as file:
        numbers = [number for number, line in enumerate(file, 1) if line.strip()]
    for number, row in zip(numbers, rows, strict=True):
        where = f"{path}, line {number}"
        for key in KEYS:
            if key not in row:
                raise ValueError(f"{where}: key {key!r} is missing; a prompt has {', '.join(KEYS)}")
        for key, value in row.items():
            _check(where, key, value)
        if row["id"] in lines:
            raise ValueError(f"{where}: id {row['id']!r} is already used in line {lines[row['id']]}")
        lines[row["id"]] = number
    if not rows:
        raise ValueError(f"{path}: no prompts")
    return rows


def _check(where: str, key: str, value: object) -> None:
    if key not in KEYS:
        raise ValueError(f"{where}: unknown key {key!r}; a prompt has {', '.join(KEYS)}")
    if value is None and key in ("image", "category", "challenge", "source_id"):
        return
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key!r} must be a text that is not empty, found {value!r}")
    if key == "id" and not ID.fullmatch(value):
        raise ValueError(f"{where}: 'id' must match [a-z0-9-]{{1,64}}, found {value!r}")
    if key == "image" and (PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts):
        raise ValueError(f"{where}: 'image' must be a relative path without '..', found {value!r}")


def in_turns(rows: list[dict], seed: int, tag: str) -> list[dict]:
    """Rows in a seeded order in which special families and artists take turns, whatever the order given."""
    families: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (derive(seed, tag, row["id"]), row["id"])):
        families[row["special"] or "", row["artist"]].append(row)
    rounds = itertools.zip_longest(*(families[family] for family in sorted(families)))
    return [row for turn in rounds for row in turn if row is not None]


def pictured(index: list[dict], name: str, count: int, seed: int) -> list[dict]:
    """`count` prompts with pictures: "names" (captions) or "descriptions" (long captions).

    45 % ask for held-out pictures (test split), 10 % for flags, keycaps and clocks (train and test), the rest for seen
    ones (train); where held-out or special pictures run out, seen ones fill in, and the other way round. The artists
    take turns. Raises ValueError when there are fewer pictures than prompts.
    """
    pools = {
        "special": in_turns([r for r in index if r["special"] and r["split"] != "validation"], seed, f"{name} special"),
        "held-out": in_turns([r for r in index if not r["special"] and r["split"] == "test"], seed, f"{name} held-out"),
        "seen": in_turns([r for r in index if not r["special"] and r["split"] == "train"], seed, f"{name} seen"),
    }
    if sum(map(len, pools.values())) < count:
        raise ValueError(
            f"prompts.{name}.count is {count}, but only {sum(map(len, pools.values()))} pictures are in the train and "
            "test splits; lower the count"
        )
    taken = {"special": round(SPECIAL * count), "held-out": round(HELD_OUT * count)}
    taken = {pool: min(wanted, len(pools[pool])) for pool, wanted in taken.items()}
    taken["seen"] = min(count - sum(taken.values()), len(pools["seen"]))
    for pool in ("held-out", "special"):
        taken[pool] = min(taken[pool] + count - sum(taken.values()), len(pools[pool]))
    key, suffix = ("caption", "") if name == "names" else ("description", "-long")
    prompts = [
        {
            "id": row["id"] + suffix,
            "prompt": row[key],
            "image": row["image"],
            "category": row["group"],
            "challenge": row["special"] or pool,
            "source_id": row["id"],
        }
        for pool, number in taken.items()
        for row in pools[pool][:number]
    ]
    # Mixed, so that any first few prompts (a collage, a shard) are a fair sample.
    return sorted(prompts, key=lambda prompt: (derive(seed, name, "order", prompt["id"]), prompt["id"]))


def plural(name: str) -> str:
    """English plural of a name's last word: "hot dog" -> "hot dogs", "box" -> "boxes", "cherry" -> "cherries"."""
    if name.endswith(("ss", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("s"):
        return name
    if re.search(r"[^aeiou]y$", name):
        return name[:-1] + "ies"
    return name + "s"


def compositions(index: list[dict], count: int, seed: int) -> list[dict]:
    """`count` prompts without pictures that combine what the artist's training pictures show into what nobody drew.

    Eight challenges take turns (seven where there is one artist): two-things, counting, colour, material, place,
    action, expression, style-mix; the artists take turns too. Raises ValueError when no new combination is left.
    """
    drawn = {row["caption"] for row in index}
    artists = sorted({row["artist"] for row in index})
    seen = {a: [r for r in index if r["artist"] == a and r["split"] == "train" and not r["special"]] for a in artists}
    artists = [artist for artist in artists if seen[artist]]
    challenges = ["two-things", "counting", "colour", "material", "place", "action", "expression"]
    if len(artists) > 1:
        challenges.append("style-mix")
    prompts: list[dict] = []
    used: set[str] = set()
    draws = itertools.count()
    while len(prompts) < count:
        number = len(prompts)
        challenge = challenges[number % len(challenges)]
        artist = artists[number // len(challenges) % len(artists)] if artists else ""
        for draw in itertools.islice(draws, 1000):
            thing, text = _compose(challenge, artist, artists, seen, derive(seed, "compositions", draw)) or (None, "")
            if text and text not in used and text not in drawn:
                break
        else:
            raise ValueError(
                f"prompts.compositions.count is {count}, but only {number} new combinations were found; lower the count"
            )
        used.add(text)
        prompts.append(
            {
                "id": f"compose-{number + 1:04d}-{challenge}",
                "prompt": text,
                "image": None,
                "category": thing["group"],
                "challenge": challenge,
                "source_id": None,
            }
        )
    return prompts


def _compose(
    challenge: str, artist: str, artists: list[str], seen: dict[str, list[dict]], seed: int
) -> tuple[dict, str] | None:
    rows = seen.get(artist, [])

    def pick(choices, part):
        return choices[derive(seed, part) % len(choices)]

    # A folder of the user's own has other groups; then anything goes.
    things = [row for row in rows if row["group"] in COUNTABLE] or rows
    creatures = [row for row in rows if CREATURES.match(row["subgroup"])] or things
    if not things:
        return None
    thing = pick(creatures if challenge == "action" else things, "thing")
    name = thing["name"].rstrip(" .")
    if challenge == "two-things":
        other = pick(things, "other")
        if other["thing"] == thing["thing"]:
            return None
        what = f"{name} beside {other['name'].rstrip(' .')}"
    elif challenge == "counting":
        what = f"{pick(COUNTS, 'count')} {plural(name)}"
    elif challenge == "colour":
        if set(COLOURS) & set(name.split()):
            return None
        what = f"{pick(COLOURS, 'colour')} {name}"
    elif challenge == "material":
        what = f"{name} made of {pick(MATERIALS, 'material')}"
    elif challenge == "place":
        what = f"{name} {pick(PLACES, 'place')}"
    elif challenge == "action":
        what = f"{name} {pick(ACTIONS, 'action')}"
    elif challenge == "expression":
        what = f"{name} with {pick(FACES, 'face')}"
    else:
        what = f"{name} in the style of {pick([a for a in artists if a != artist], 'artist')}"
    # A folder's captions need not name the artist; its compositions then do not either.
    prefix = thing["caption"].removesuffix(thing["name"])
    return thing, prefix + what


def make(index: list[dict], name: str, count: int, seed: int) -> list[dict]:
    """Prompts of a set from the rows of index.jsonl; depends on rows and seed alone, not on the order of the rows."""
    if count < 1:
        raise ValueError(f"prompts.{name}.count is {count}; it must be 1 or more")
    index = sorted(index, key=lambda row: row["id"])
    return compositions(index, count, seed) if name == "compositions" else pictured(index, name, count, seed)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", required=True, help="index.jsonl of the data")
    parser.add_argument("--set", required=True, choices=SETS)
    parser.add_argument("--count", required=True, type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="jsonl to write")
    args = parser.parse_args(argv)
    try:
        write_jsonl(args.out, make(read_jsonl(args.index), args.set, args.count, args.seed))
        read_prompts(args.out)
    except ValueError as error:
        raise SystemExit(f"prompts: {error}") from None


if __name__ == "__main__":
    main()
