"""Which pairs a participant sees."""

from collections import Counter

import pytest
from scipy import stats

from study_app.pairs import BLOCK, GAP, Pool, draw, kinds, sequence

NAMES = [f"p{i:03d}" for i in range(400)]
POOL = Pool(NAMES, NAMES[:60], NAMES[60:80])
GOLDEN = [
    ("pair", "p136", True),
    ("pair", "p215", True),
    ("pair", "p319", False),
    ("pair", "p302", True),
    ("pair", "p146", True),
    ("pair", "p221", False),
    ("pair", "p231", True),
    ("pair", "p344", False),
    ("pair", "p112", True),
    ("pair", "p155", True),
    ("anchor", "p000", True),
    ("repeat", "p215", False),
    ("anchor", "p044", True),
    ("pair", "p270", False),
]


def test_a_participants_trials_follow_from_seed_participant_and_position():
    first = sequence(POOL, 7, "anna", 120)
    assert first == sequence(POOL, 7, "anna", 120)
    assert first[:50] == sequence(POOL, 7, "anna", 50)
    assert draw(POOL, 7, "anna", 51, first[:50]) == first[50]
    assert first != sequence(POOL, 8, "anna", 120)
    assert first != sequence(POOL, 7, "bert", 120)


def test_the_draw_is_the_same_in_every_year_and_version():
    """Were these to change, no study could be replayed any more."""
    trials = sequence(POOL, 0, "0" * 32, 14)
    assert [(t.kind, t.prompt, t.first_left) for t in trials] == GOLDEN


def test_no_prompt_comes_twice_but_in_a_repeat():
    trials = sequence(POOL, 1, "anna", 380)
    shown = [t.prompt for t in trials if t.kind != "repeat"]
    assert len(shown) == len(set(shown))
    repeats = [i for i, t in enumerate(trials) if t.kind == "repeat"]
    assert len(repeats) == 380 // BLOCK
    for i in repeats:
        [original] = [j for j, t in enumerate(trials[:i]) if t.prompt == trials[i].prompt and t.kind != "repeat"]
        assert i - original >= GAP
        assert trials[original].first_left is not trials[i].first_left
        assert trials[original].kind in ("pair", "anchor")
    assert len({trials[i].prompt for i in repeats}) == len(repeats)


def test_kinds_stand_in_their_numbers_and_never_first():
    for person in map(str, range(50)):
        for block in range(3):
            counts = Counter(kinds(3, person, block))
            assert counts == {"pair": 16, "anchor": 2, "repeat": 1, "control": 1}
            assert kinds(3, person, block)[:2] == ["pair", "pair"]
    trials = sequence(POOL, 3, "anna", 60)
    assert all(t.prompt in POOL.anchors for t in trials if t.kind == "anchor")
    assert all(t.prompt in POOL.controls for t in trials if t.kind == "control")


def test_pairs_and_sides_are_uniform():
    """Two chi-squared tests at a thousandth; the draw is fixed, so they pass or fail for good."""
    trials = [t for person in range(400) for t in sequence(POOL, 11, str(person), 20)]
    pairs = Counter(t.prompt for t in trials if t.kind == "pair")
    counts = [pairs[name] for name in NAMES[80:]]
    assert sum(counts) == sum(pairs.values())
    assert stats.chisquare(counts).pvalue > 1e-3
    lefts = sum(t.first_left for t in trials)
    assert stats.binomtest(lefts, len(trials)).pvalue > 1e-3
    places = Counter(i for person in range(400) for i, k in enumerate(kinds(5, str(person), 0)) if k == "control")
    assert len(places) == BLOCK - 2


@pytest.mark.parametrize("count", [1, 5, 30])
def test_a_small_pool_is_shown_whole_and_then_ends(count):
    pool = Pool(NAMES[:count], NAMES[: count // 5], NAMES[count // 5 : count // 5 + count // 10])
    trials = sequence(pool, 0, "anna", 1000)
    assert {t.prompt for t in trials} == set(pool.prompts)
    assert len([t for t in trials if t.kind != "repeat"]) == count
    position = len(trials) + 1
    assert draw(pool, 0, "anna", position, trials) is None


def test_what_was_marked_unfit_is_not_drawn():
    trials = sequence(POOL, 0, "anna", 30)
    gone = {t.prompt for t in trials[:10]} | set(NAMES[:30])
    left = Pool(*([n for n in part if n not in gone] for part in (POOL.prompts, POOL.anchors, POOL.controls)))
    history = trials
    for position in range(31, 200):
        trial = draw(left, 0, "anna", position, history)
        assert trial is not None and trial.prompt not in gone
        history = [*history, trial]
