"""The page in a real browser: each pair shown gets one vote, a pair not seen gets none, and everyone can use it."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from study_server import StudyServer

pytestmark = pytest.mark.browser
SIZES = {"wide": (1400, 900), "narrow": (390, 844)}
FORBIDDEN = ("wuerstchen", "baseline", "ldm", "manifest.json")


class Tab:
    """A participant's tab on the page."""

    def __init__(self, page, server: StudyServer) -> None:
        self.page = page
        self.server = server

    def open(self, query: str = "") -> None:
        """Go to the page, consent where asked, and wait for a pair that can be answered."""
        self.page.goto(f"{self.server.url}/{query}")
        agree = self.page.get_by_role("button", name="I agree")
        agree.or_(self.page.locator(".study")).first.wait_for(timeout=60_000)
        if agree.count():
            agree.click()
        self.ready()

    def ready(self) -> None:
        self.page.locator(".study.ready").wait_for(timeout=60_000)

    def count(self) -> int:
        """Votes that the page shows as given."""
        return int(self.page.locator(".track").get_attribute("aria-valuenow") or "0")

    def answered(self, before: int) -> None:
        """Wait until the page shows one vote more."""
        wanted = f".track[aria-valuenow='{before + 1}']"
        self.page.locator(wanted).wait_for(timeout=60_000, state="attached")

    def prompt(self) -> str:
        return self.page.locator("#prompt").inner_text()

    def who(self) -> str:
        return self.page.locator(".who").inner_text().removeprefix("You are ")

    def votes(self) -> list:
        """This participant's votes in the store, in order, with how long their pair had been there."""
        return self.server.rows(
            "SELECT a.seq, v.choice, v.input, v.response_ms, v.viewport FROM vote v "
            "JOIN assignment a ON a.id = v.assignment JOIN participant p ON p.id = v.participant "
            "WHERE p.pseudonym = :who ORDER BY a.seq",
            who=self.who(),
        )


@pytest.fixture
def context(browser):
    made = browser.new_context(viewport={"width": 1400, "height": 900})
    yield made
    made.close()


@pytest.fixture
def tab(context, server) -> Tab:
    opened = Tab(context.new_page(), server)
    opened.open()
    return opened


def settled(tab: Tab) -> None:
    """Long enough for a stray vote to have arrived."""
    tab.ready()
    tab.page.wait_for_timeout(700)


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
    settled(tab)
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
    settled(tab)
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
    settled(tab)
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
    settled(tab)
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
    settled(tab)
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
    settled(tab)
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
    settled(second)
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
    settled(tab)
    assert tab.count() == 1 == len(tab.votes())


def test_the_way_to_the_end(browser, results, tmp_path):
    """Recruited, to the target, with alias, leaderboard and completion code; the same code after a reload."""
    server = StudyServer(tmp_path, results, "--target", "4", prompts=("names", "compositions"))
    server.start()
    context = browser.new_context(viewport={"width": 390, "height": 844})
    try:
        page = context.new_page()
        page.goto(f"{server.url}/?PROLIFIC_PID=5f00ba4&STUDY_ID=1&SESSION_ID=2")
        page.get_by_role("button", name="I agree").click()
        page.get_by_role("button", name="Names (0 of 4 pairs)").click()
        tab = Tab(page, server)
        tab.ready()
        assert "5f00ba4" not in page.url and "SESSION_ID" not in page.url and "study=names" in page.url
        for number in range(4):
            tab.ready()
            page.keyboard.press("ArrowLeft")
            if number < 3:
                tab.answered(number)
        page.get_by_role("heading", name="Thank you!").wait_for()
        code = page.locator(".code").inner_text()
        page.reload()
        page.locator(".code").wait_for()
        assert page.locator(".code").inner_text() == code
        page.get_by_role("button", name="Compare more pairs").click()
        tab.ready()
        assert page.locator(".count").inner_text() == "4 votes"
        page.keyboard.press("ArrowLeft")
        page.locator(".count", has_text="5 votes").wait_for()
        page.get_by_role("button", name="Other sets").click()
        page.get_by_role("button", name="Compositions (0 of 4 pairs)").click()
        tab.ready()
        page.go_back()
        assert server.rows("SELECT recruited FROM participant")[0][0] == 1
        assert "5f00ba4" not in str(server.rows("SELECT * FROM participant"))
        assert len(server.rows("SELECT * FROM participant")) == 1
    finally:
        context.close()
        server.stop()


def seen(page) -> list[str]:
    """Collects whatever the browser receives on a page: responses, frames of the websocket, what it shows."""
    received: list[str] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(text_of(frame))))

    def response(found) -> None:
        received.append(str(found.headers) + found.url)
        kind = found.headers.get("content-type", "")
        if "javascript" not in kind and "css" not in kind and "font" not in kind:
            received.append(text_of(found.body()))

    page.on("requestfinished", lambda request: response(request.response()))
    return received


def text_of(content) -> str:
    return content.decode("latin-1") if isinstance(content, bytes) else str(content)


def test_nothing_that_reaches_the_browser_unblinds(context, server):
    page = context.new_page()
    received = seen(page)
    tab = Tab(page, server)
    tab.open()
    for number in range(3):
        page.keyboard.press("ArrowLeft")
        tab.answered(number)
        tab.ready()
    page.get_by_role("button", name="Leaderboard").click()
    page.get_by_role("table").wait_for()
    received.append(page.content())
    everything = "\n".join(received).lower()
    assert len(received) > 30 and "a picture of names-" in everything
    assert [word for word in FORBIDDEN if word in everything] == []
    cookies = {cookie["name"]: cookie for cookie in context.cookies()}
    assert cookies["participant"]["httpOnly"] and cookies["participant"]["sameSite"] == "Lax"
    assert set(cookies) <= {"participant", "_streamlit_xsrf", "_streamlit_session"}, cookies.keys()


def axe(page) -> list[str]:
    """Violations of WCAG 2.0 to 2.2, A and AA, that axe-core finds, each with its elements."""
    import axe_core_python

    page.evaluate((Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = page.evaluate(f"() => axe.run(document, {{runOnly: {{type: 'tag', values: {tags}}}}})")
    assert len(found["passes"]) > 5
    return [f"{v['id']}: {[node['html'][:200] for node in v['nodes']]}" for v in found["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_view_is_accessible_and_fits_its_window(browser, server, size, scheme, tmp_path_factory):
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    shots = tmp_path_factory.mktemp("screenshots")
    try:
        page = context.new_page()
        page.goto(server.url)
        page.get_by_role("button", name="I agree").wait_for()
        look: Callable[[str], list[str]] = lambda name: page.screenshot(path=shots / f"{name}.png") and axe(page)  # noqa: E731
        assert look("consent") == []
        page.get_by_role("button", name="I agree").click()
        tab = Tab(page, server)
        tab.ready()
        assert look("pair") == []
        background = page.locator(".stApp").evaluate("e => getComputedStyle(e).backgroundColor")
        assert (sum(map(int, background[4:-1].split(",")[:3])) < 200) == (scheme == "dark")
        left, right, equal = (page.locator(f"[data-choice={c}]").bounding_box() for c in ("left", "right", "equal"))
        assert left["y"] == right["y"] and left["width"] == right["width"] and left["x"] < right["x"]
        assert equal["y"] + equal["height"] < height and right["x"] + right["width"] <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("button", name="Leaderboard").click()
        page.get_by_role("table").wait_for()
        assert look("leaderboard") == []
        page.get_by_role("button", name="About this study").click()
        page.get_by_role("heading", name="About this study").wait_for()
        assert look("about") == []
    finally:
        context.close()


def test_with_the_keyboard_alone(tab):
    """Tab reaches each answer, in order, and the focus stays where it was after an answer."""
    for _ in range(20):
        tab.page.keyboard.press("Tab")
        focused = tab.page.evaluate("document.activeElement.shadowRoot?.activeElement?.dataset.choice")
        if focused:
            break
    assert focused == "left"
    order = [focused]
    for _ in range(2):
        tab.page.keyboard.press("Tab")
        order.append(tab.page.evaluate("document.activeElement.shadowRoot?.activeElement?.dataset.choice"))
    assert order == ["left", "right", "equal"]
    tab.page.keyboard.press("Enter")
    tab.answered(0)
    assert tab.page.evaluate("document.activeElement.shadowRoot?.activeElement?.dataset.choice") == "equal"
    assert tab.votes()[0].choice == "equal" and tab.votes()[0].input == "key"
    names = [tab.page.locator(f"[data-choice={c}]").get_attribute("aria-keyshortcuts") for c in ("left", "right")]
    assert names == ["ArrowLeft", "ArrowRight"]
    assert tab.page.get_by_role("button", name="Left picture").count() == 1
    assert tab.page.get_by_role("progressbar", name="Votes given").count() == 1


@pytest.mark.parametrize(
    "query", ["?study=../../etc/passwd", "?study=<script>", "?view=x", "?study=names';--", "?%00=%ff"]
)
def test_hostile_addresses_show_the_page(context, server, query):
    alerts = []
    page = context.new_page()
    page.on("dialog", lambda dialog: alerts.append(dialog.message) or dialog.dismiss())
    tab = Tab(page, server)
    tab.open(query)
    assert tab.count() == 0 and alerts == []


def test_no_fault_in_the_servers_log(server):
    """Runs last: after everything above."""
    assert server.faults() == []
