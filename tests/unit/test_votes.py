"""The paper's two views, by hand-computed values, and what stands beside them."""

from datetime import timedelta

import numpy as np
import pytest
from simulated_votes import MODELS, START, row

from study_app.agreement import repeats, units
from study_app.ballots import Study, _ballot
from study_app.careless import flags
from study_app.views import by_users, overall, sign_test, sweep

VOTES = np.array([[3, 1, 0], [1, 0, 2], [0, 2, 0], [5, 5, 5]])


def study(rows: list[dict]) -> Study:
    ballots = [_ballot({name: str(value) for name, value in given.items()}, "here") for given in rows]
    return Study("parti", MODELS, sorted(ballots, key=lambda ballot: (ballot.participant, ballot.seq)))


def test_all_votes_count_whoever_gave_them() -> None:
    found = overall(VOTES)
    assert found["votes"] == 24
    assert [found["shares"][name]["votes"] for name in ("a", "equal", "b")] == [9, 8, 7]
    assert found["shares"]["a"]["share"] == 9 / 24
    assert found["preferred"] == found["preferred"] | {"votes": 16, "share": 9 / 16}
    low, high = found["preferred"]["interval"]
    assert 0 < low < 9 / 16 < high < 1


def test_users_count_from_the_median_number_of_comparisons_on() -> None:
    """Comparisons are 2, 3, 4 and 15, their median 3.5: two users remain, one for A and one for neither."""
    found = by_users(VOTES)
    assert found["median"] == 3.5 and found["comparisons"] == [2, 3, 4, 15]
    assert found["from_median"]["users"] == 2 and found["from_median"]["votes"] == 19
    assert found["from_median"]["majorities"] == {"a": 1, "equal": 1, "b": 0}
    assert found["from_median"]["mean_share"] == pytest.approx((1 + 0.5) / 2)
    assert found["everyone"]["majorities"] == {"a": 1, "equal": 2, "b": 1}
    # whoever has exactly the median number is in, as the paper's "at least 30" has it
    assert by_users(np.array([[1, 0, 0], [0, 0, 2], [3, 0, 0]]))["from_median"]["users"] == 2


def test_sign_test_over_users() -> None:
    assert sign_test(8, 1) == pytest.approx(2 * (1 + 9) / 2**9)
    assert sign_test(5, 5) == 1 and sign_test(0, 0) is None


def test_sweep_leaves_out_a_tenth_of_the_users_more_each_time() -> None:
    votes = np.zeros((20, 3), dtype=int)
    votes[:, 0] = np.arange(1, 21)
    rows = sweep(votes)
    assert [found["users"] for found in rows] == [20, 18, 16, 14, 12, 10, 8, 6, 4, 2]
    assert [found["threshold"] for found in rows[:2]] == [1, 3]
    assert rows[-1]["sign_test_p"] == 0.5 and len(sweep(np.ones((7, 3), dtype=int))) == 1


def test_one_user_and_one_answer_have_no_interval_or_a_wide_one() -> None:
    assert overall(VOTES[:1])["preferred"]["interval"] is None
    low, high = overall(np.array([[9, 0, 0]] * 10))["preferred"]["interval"]
    assert high == 1 and low == pytest.approx(0.722, abs=1e-3)  # Wilson of 10 of 10
    only_equal = overall(np.array([[0, 3, 0], [0, 2, 0]]))
    assert only_equal["preferred"] == {"votes": 0, "share": None, "interval": None}


def many(name: str, count: int, **given: object) -> list[dict]:
    return [row(participant=name, seq=seq, prompt_id=f"q{seq}", **given) for seq in range(1, count + 1)]


def test_careless_people_are_flagged_by_the_rule_that_fits() -> None:
    sides = [{"choice": choice} for choice in ("left", "right")]
    steady = [given | sides[number % 2] for number, given in enumerate(many("steady", 30))]
    fast = [given | sides[number % 2] for number, given in enumerate(many("fast", 12, response_ms=600))]
    close = [
        given
        | sides[number % 2]
        | {name: (START + timedelta(milliseconds=900 * number)).isoformat() for name in ("issued_at", "decided_at")}
        for number, given in enumerate(many("burst", 10))
    ]
    left = many("left", 25)
    equal = many("equal", 20, choice="equal")
    few = many("few", 9, response_ms=100)
    turned = [given | sides[number % 2] for number, given in enumerate(many("turned", 10))]
    again = [given | {"kind": "repeat", "seq": 20 + given["seq"]} for given in turned[:4]]
    for number, given in enumerate(again):  # the same side of the swapped pair is the other model
        given |= {"left_model": MODELS[1], "right_model": MODELS[0], **sides[number % 2]}
        given |= {"issued_at": given["decided_at"]}
    control = [
        given | {"kind": "control", "right_model": "scrambled", "choice": choice}
        for given, choice in zip(many("blind", 3), ("right", "equal", "left"), strict=True)
    ]
    found = flags(study([*steady, *fast, *close, *left, *equal, *few, *turned, *again, *control]))
    assert found == {
        "fast": {"fast"},
        "burst": {"burst"},
        "one-side": {"left"},
        "always-equal": {"equal"},
        "turned": {"turned"},
        "failed-controls": {"blind"},
    }


def test_repeats_compare_models_not_sides_and_anchors_are_units() -> None:
    swapped = {"kind": "repeat", "left_model": MODELS[1], "right_model": MODELS[0]}
    made = study(
        [
            row(seq=1, kind="anchor", prompt_id="x", choice="left"),
            row(seq=2, prompt_id="y", choice="equal"),
            row(seq=3, prompt_id="z", choice="right"),
            row(seq=4, prompt_id="x", choice="right", **swapped),
            row(seq=5, prompt_id="y", choice="right", **swapped),
            row(seq=6, prompt_id="z", choice="right", **swapped),
            row(seq=7, prompt_id="never shown", choice="right", **swapped),
            row(participant="bob", kind="anchor", prompt_id="x", choice="right"),
            row(participant="bob", seq=2, kind="anchor", prompt_id="w", choice="equal"),
        ]
    )
    assert {name: counts.tolist() for name, counts in repeats(made).items()} == {"ann": [1, 1, 1]}
    assert units(made).tolist() == [[0, 1, 0], [1, 0, 1]]
