import json
import random
from collections import Counter

import pytest

from evaluation import prompts
from wuerstchen import data, emoji
from wuerstchen.files import write_jsonl


@pytest.fixture(scope="module")
def index():
    rows = emoji.listing()[0]
    split = data.assign_splits(rows, 0)
    return [row | {"split": split[row["id"]], "image": f"{row['id']}.png"} for row in rows]


def kinds(made):
    return Counter({"seen": "seen", "held-out": "held-out"}.get(row["challenge"], "special") for row in made)


@pytest.mark.parametrize(("name", "count"), [("names", 500), ("descriptions", 250), ("names", 12), ("names", 1)])
def test_shares_and_balance(index, name, count, tmp_path):
    made = prompts.make(index, name, count, seed=0)
    found = kinds(made)
    assert len(made) == count == len({row["id"] for row in made})
    assert found["special"] == round(0.1 * count) and found["held-out"] == round(0.45 * count)
    by_id = {row["id"]: row for row in index}
    for row in made:
        source = by_id[row["source_id"]]
        assert row["image"] == source["image"] and row["category"] == source["group"]
        assert row["prompt"] == source["caption" if name == "names" else "description"]
        assert source["split"] == {"seen": "train", "held-out": "test"}.get(row["challenge"], source["split"])
        assert source["split"] != "validation" and source["special"] in (None, row["challenge"])
    for challenge in ("seen", "held-out"):
        artists = Counter(by_id[row["source_id"]]["artist"] for row in made if row["challenge"] == challenge)
        assert abs(artists["openmoji"] - artists["twemoji"]) <= 1
    write_jsonl(tmp_path / "a.jsonl", made)
    assert prompts.read_prompts(tmp_path / "a.jsonl") == made


def test_specials_come_from_every_family_and_both_splits(index):
    by_id = {row["id"]: row for row in index}
    made = [row for row in prompts.make(index, "names", 500, seed=0) if row["challenge"] not in ("seen", "held-out")]
    families = Counter(row["challenge"] for row in made)
    assert set(families) == {"flags", "clocks", "keycaps"} and max(families.values()) - min(families.values()) <= 2
    assert {by_id[row["source_id"]]["split"] for row in made} == {"train", "test"}


@pytest.mark.parametrize("name", prompts.SETS)
def test_seed_decides_and_order_of_the_index_does_not(index, name):
    shuffled = list(index)
    random.Random(1).shuffle(shuffled)
    made = prompts.make(index, name, 40, seed=0)
    assert made == prompts.make(shuffled, name, 40, seed=0)
    assert {row["prompt"] for row in made} != {row["prompt"] for row in prompts.make(index, name, 40, seed=1)}


def own(train, test):
    return [
        {
            "id": f"p{n:03d}", "artist": "pictures", "thing": f"t{n}", "name": f"thing {n}", "caption": f"thing {n}",
            "description": f"a thing {n}", "group": "pictures", "subgroup": "pictures", "special": None,
            "split": "train" if n < train else "test", "image": f"p{n:03d}.png",
        }
        for n in range(train + test)
    ]  # fmt: skip


def test_few_pictures_are_filled_up_and_too_few_are_refused():
    assert kinds(prompts.make(own(80, 5), "names", 60, 0)) == {"held-out": 5, "seen": 55}
    assert kinds(prompts.make(own(4, 20), "names", 20, 0)) == {"held-out": 16, "seen": 4}
    with pytest.raises(ValueError, match="prompts.names.count is 100, but only 85 pictures"):
        prompts.make(own(80, 5), "names", 100, 0)
    with pytest.raises(ValueError, match="must be 1 or more"):
        prompts.make(own(80, 5), "names", 0, 0)


def test_compositions_are_new_and_of_every_challenge(index, tmp_path):
    made = prompts.make(index, "compositions", 250, seed=0)
    assert len(made) == 250 == len({row["prompt"] for row in made})
    challenges = Counter(row["challenge"] for row in made)
    assert len(challenges) == 8 and max(challenges.values()) - min(challenges.values()) <= 1
    artists = Counter(row["prompt"].split()[0] for row in made)
    assert abs(artists["openmoji"] - artists["twemoji"]) <= 8
    assert not {row["prompt"] for row in made} & {row["caption"] for row in index}
    assert all(row["image"] is None and row["source_id"] is None for row in made)
    write_jsonl(tmp_path / "a.jsonl", made)
    assert prompts.read_prompts(tmp_path / "a.jsonl") == made


def test_compositions_use_what_the_artist_was_trained_on(index):
    seen = {a: {r["name"] for r in index if r["artist"] == a and r["split"] == "train"} for a in emoji.ARTISTS}
    for row in prompts.make(index, "compositions", 250, seed=0):
        artist, _, rest = row["prompt"].partition(" of ")
        if row["challenge"] == "two-things":
            assert set(rest.split(" beside ")) <= seen[artist]
        if row["challenge"] == "material":
            assert rest.partition(" made of ")[0] in seen[artist]


def test_compositions_of_a_folder_with_one_artist():
    made = prompts.make(own(30, 5), "compositions", 40, 0)
    assert len({row["prompt"] for row in made}) == 40 and "style-mix" not in {row["challenge"] for row in made}
    assert all(row["prompt"].split(" thing ")[0] != "pictures of" for row in made)  # as in the captions
    with pytest.raises(ValueError, match="prompts.compositions.count is 400, but only"):
        prompts.make(own(1, 1), "compositions", 400, 0)


def test_plural():
    words = {
        "hot dog": "hot dogs",
        "cherry": "cherries",
        "box": "boxes",
        "peach": "peaches",
        "key": "keys",
        "grapes": "grapes",
    }
    assert {word: prompts.plural(word) for word in words} == words


GOOD = {"id": "a-1", "prompt": "a cat", "image": "a.png", "category": None, "challenge": "seen", "source_id": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "A"}, "'id' must match"),
        ({"id": "x" * 65}, "'id' must match"),
        ({"id": None}, "'id' must be a text"),
        ({"id": "first"}, "already used in line 1"),
        ({"prompt": "  "}, "'prompt' must be a text"),
        ({"prompt": 3}, "'prompt' must be a text"),
        ({"image": "/a.png"}, "'image' must be a relative path"),
        ({"image": "x/../../a.png"}, "'image' must be a relative path"),
        ({"category": 1}, "'category' must be a text"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ],
)
def test_bad_prompts_are_named(tmp_path, change, message):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(GOOD | {"id": "first"}) + "\n\n" + json.dumps(GOOD | change) + "\n")
    with pytest.raises(ValueError, match=message) as error:
        prompts.read_prompts(path)
    assert "p.jsonl, line 3" in str(error.value)


def test_missing_key_empty_file_and_missing_file(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({key: value for key, value in GOOD.items() if key != "image"}))
    with pytest.raises(ValueError, match="line 1: key 'image' is missing"):
        prompts.read_prompts(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="no prompts"):
        prompts.read_prompts(path)
    with pytest.raises(ValueError, match="no such prompt file"):
        prompts.read_prompts(tmp_path / "none.jsonl")


def test_line_separators_within_a_prompt_do_not_shift_lines(tmp_path):
    path = tmp_path / "p.jsonl"
    write_jsonl(path, [GOOD | {"prompt": "a\u2028cat"}])
    assert prompts.read_prompts(path)[0]["prompt"] == "a\u2028cat"


def test_main_says_what_is_wrong_in_one_line(tmp_path):
    write_jsonl(tmp_path / "index.jsonl", own(8, 2))
    flags = ["--index", str(tmp_path / "index.jsonl"), "--set", "names", "--out", str(tmp_path / "names.jsonl")]
    prompts.main([*flags, "--count", "10"])
    assert len(prompts.read_prompts(tmp_path / "names.jsonl")) == 10
    with pytest.raises(SystemExit, match="prompts: prompts.names.count is 11"):
        prompts.main([*flags, "--count", "11"])
