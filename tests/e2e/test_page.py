"""Voting in a real browser: each pair shown gets one vote, a pair not seen gets none."""

import time

import pytest
from tab import Tab

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("gap", [0, 60, 150, 300])
def test_a_double_click_is_one_vote(tab, gap):
    clicks = 4
    for _ in range(clicks):
        tab.ready()
        before = tab.count()
        box = tab.page.locator("[data-choice=left]").bounding_box()
        x, y = box["x"] + 50, box["y"] + 50
        tab.page.mouse.move(x, y)
        for number in (1, 2):
            tab.page.mouse.down(click_count=number)
            tab.page.mouse.up(click_count=number)
            if number == 1:
                tab.page.wait_for_timeout(gap)
        tab.answered(before)
    tab.settled()
    assert [row.seq for row in tab.votes()] == list(range(1, clicks + 1))
    assert tab.count() == clicks
    assert {row.input for row in tab.votes()} == {"mouse"}
    assert min(row.response_ms for row in tab.votes()) >= 800


@pytest.mark.parametrize("gap", [60, 150, 300])
def test_two_separate_clicks_in_quick_succession_are_one_vote(tab, gap):
    """As from two fingers, or a mouse that does not report double clicks."""
    for _ in range(3):
        tab.ready()
        before = tab.count()
        for _ in range(2):
            tab.page.locator("[data-choice=right]").dispatch_event("click", {"detail": 1, "bubbles": True})
            tab.page.wait_for_timeout(gap)
        tab.answered(before)
    tab.settled()
    assert [row.choice for row in tab.votes()] == ["right"] * 3 and tab.count() == 3


@pytest.mark.parametrize("key", ["ArrowLeft", "ArrowDown", "Enter", " "])
def test_a_held_key_is_one_vote(tab, key):
    if key in ("Enter", " "):
        tab.page.locator("[data-choice=left]").focus()
    before = tab.count()
    tab.page.keyboard.down(key)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:  # a key that is down again without having been up repeats
        tab.page.keyboard.down(key)
        tab.page.wait_for_timeout(33)
    tab.page.keyboard.up(key)
    tab.settled()
    assert tab.count() - before == 1
    [vote] = tab.votes()
    assert vote.choice == {"ArrowDown": "equal"}.get(key, "left") and vote.input == "key"


def test_the_keys_answer_as_their_hints_say(tab):
    for key, choice in [("ArrowLeft", "left"), ("ArrowRight", "right"), ("ArrowDown", "equal")]:
        tab.ready()
        before = tab.count()
        tab.page.keyboard.press(key)
        tab.answered(before)
        assert tab.votes()[-1].choice == choice
    tab.ready()
    for key in ("Control+ArrowLeft", "Alt+ArrowRight", "Shift+ArrowDown", "a", "1"):
        tab.page.keyboard.press(key)
    tab.settled()
    assert tab.count() == 3
    assert tab.page.url.startswith(tab.server.url)


def test_nothing_can_be_answered_before_both_pictures_stood_there(tab):
    """The second picture is held back; clicks and keys meanwhile do nothing."""
    held = []
    tab.page.route("**/pictures/*", lambda route: held.append(route) if len(held) == 0 else route.continue_())
    before = tab.count()
    tab.page.keyboard.press("ArrowLeft")
    deadline = time.monotonic() + 30
    while not held and time.monotonic() < deadline:
        tab.page.wait_for_timeout(50)
    for _ in range(3):
        tab.page.keyboard.press("ArrowRight")
        tab.page.locator("[data-choice=right]").dispatch_event("click", {"detail": 1, "bubbles": True})
        tab.page.wait_for_timeout(500)
    assert len(tab.votes()) == before + 1
    held[0].continue_()
    tab.answered(before)
    tab.settled()
    assert len(tab.votes()) == before + 1


def test_a_picture_that_fails_to_load_is_asked_for_again(tab):
    failed = []

    def once(route) -> None:
        if failed:
            route.continue_()
        else:
            failed.append(route.request.url)
            route.abort()

    tab.page.route("**/pictures/*", once)
    before = tab.count()
    tab.page.keyboard.press("ArrowLeft")
    tab.answered(before)
    tab.ready()
    assert failed
    widths = [
        tab.page.locator(f"[data-choice={side}] img").evaluate("i => i.naturalWidth") for side in ("left", "right")
    ]
    assert min(widths) > 0


def test_a_reload_shows_the_same_pair_to_the_same_participant(tab):
    who, prompt = tab.who(), tab.prompt()
    tab.page.reload()
    tab.ready()
    assert (tab.who(), tab.prompt(), tab.count()) == (who, prompt, 0)
    tab.page.keyboard.press("ArrowLeft")
    tab.page.reload()  # whether the vote got through or not, it counts once at most
    tab.ready()
    assert tab.count() == len(tab.votes()) <= 1
    assert tab.who() == who


def test_back_and_forward_change_nothing(tab):
    who, prompt = tab.who(), tab.prompt()
    tab.page.goto("about:blank")
    tab.page.go_back()
    tab.ready()
    assert (tab.who(), tab.prompt()) == (who, prompt)
    tab.page.keyboard.press("ArrowDown")
    tab.answered(0)
    tab.page.get_by_role("button", name="Leaderboard").click()
    tab.page.get_by_role("table").wait_for()
    tab.page.get_by_role("button", name="Back to the pictures").click()
    tab.ready()
    assert tab.count() == 1 == len(tab.votes())
    tab.page.keyboard.press("ArrowDown")
    tab.answered(1)
    tab.settled()
    assert tab.count() == 2 == len(tab.votes())


def test_two_tabs_are_one_participant_with_one_vote_a_pair(tab, context, server):
    second = Tab(context.new_page(), server)
    second.open()
    assert second.who() == tab.who() and second.prompt() == tab.prompt()
    tab.page.bring_to_front()
    tab.page.keyboard.press("ArrowLeft")
    tab.answered(0)
    second.page.bring_to_front()
    assert second.count() == 0  # it still shows the old pair
    second.ready()
    second.page.keyboard.press("ArrowRight")
    second.answered(0)  # which is not counted again; it catches up instead
    assert second.prompt() == tab.prompt()
    second.settled()
    assert [(row.seq, row.choice) for row in second.votes()] == [(1, "left")]
    second.page.keyboard.press("ArrowRight")
    second.answered(1)
    assert [(row.seq, row.choice) for row in second.votes()] == [(1, "left"), (2, "right")]


def test_a_lost_connection_loses_no_vote(tab):
    tab.page.context.set_offline(True)
    tab.page.keyboard.press("ArrowLeft")
    tab.page.wait_for_timeout(500)
    tab.page.context.set_offline(False)
    tab.answered(0)
    tab.settled()
    assert tab.count() == 1 == len(tab.votes())
