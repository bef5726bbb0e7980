"""The page in a real browser: to its end, for everyone, saying nothing that it should not."""

import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import small_study
from sqlalchemy import text
from study_server import StudyServer
from tab import Tab

from study_app.votes import Store
from wuerstchen.files import write_jsonl

pytestmark = pytest.mark.browser
SIZES = {"wide": (1400, 900), "narrow": (390, 844)}
FORBIDDEN = ("wuerstchen", "baseline", "ldm", "manifest.json")


def test_the_way_to_the_end(browser, results, tmp_path):
    """Recruited, to the target, with alias, leaderboard and completion code; the same code after a reload."""
    server = StudyServer(tmp_path, results, "--target", "4", "--alias-from", "4", prompts=("names", "compositions"))
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
        name = page.get_by_label("Your name on the leaderboard")
        for wish, answer in [("<b>Ada</b>", "letters, digits"), ("wuerstchen", "another alias")]:
            name.fill(wish)
            page.get_by_role("button", name="Use this name").click()
            page.get_by_text(answer).wait_for()
        name.fill("Ada Byron")
        page.get_by_role("button", name="Use this name").click()
        page.get_by_role("cell", name="Ada Byron (you)").wait_for()
        page.screenshot(path=tmp_path / "thanks.png")
        assert axe(page) == []
        page.get_by_role("button", name="Compare more pairs").click()
        tab.ready()
        assert page.locator(".count").inner_text() == "4 votes"
        page.keyboard.press("ArrowLeft")
        page.locator(".count", has_text="5 votes").wait_for()
        page.get_by_role("button", name="Other sets").click()
        page.get_by_role("button", name="Compositions (0 of 4 pairs)").click()
        tab.ready()
        assert tab.who() == "Ada Byron"
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
    [own] = [name for name in cookies if name.startswith("participant_")]
    assert cookies[own]["httpOnly"] and cookies[own]["sameSite"] == "Lax"
    assert set(cookies) <= {own, "_streamlit_xsrf", "_streamlit_session"}, cookies.keys()


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


def test_hostile_prompts_and_aliases_are_shown_as_text(browser, tmp_path):
    prompts = [
        "<img src=x onerror=alert(1)><script>alert(2)</script>",
        "**bold** [link](javascript:alert(3)) :red[red] $x^2$",
        "abc\u202egnp.exe\u200b",
        "x" * 2000,
        "' OR 1=1; DROP TABLE vote; --",
    ]
    shown = {prompt.replace("\u202e", "").replace("\u200b", "") for prompt in prompts}
    results = small_study.results(tmp_path / "results", count=10)
    rows = [{"id": f"names-{i:03d}", "prompt": prompts[i % len(prompts)]} for i in range(10)]
    write_jsonl(results / "prompts" / "names.jsonl", rows)
    server = StudyServer(tmp_path, results)
    server.start()
    context = browser.new_context(viewport={"width": 390, "height": 844})
    alerts = []
    try:
        page = context.new_page()
        page.on("dialog", lambda dialog: alerts.append(dialog.message) or dialog.dismiss())
        tab = Tab(page, server)
        tab.open()
        found = set()
        for number in range(9):
            found.add(page.locator("#prompt").evaluate("e => e.textContent"))
            assert page.locator("#prompt").evaluate("e => e.childElementCount") == 0
            bar = page.locator("[data-choice=equal]").bounding_box()
            assert bar["y"] + bar["height"] < 844  # a long prompt scrolls, and moves nothing
            page.keyboard.press("ArrowLeft")
            tab.answered(number)
            tab.ready()
        assert found == shown and alerts == []
        # an alias that could only have come into the store by another way
        store = Store(server.store)
        hostile = "<img src=x onerror=alert(4)>"
        store.write(lambda c: c.execute(text("UPDATE participant SET alias = :alias"), {"alias": hostile}))
        store.engine.dispose()
        page.reload()
        tab.ready()
        assert tab.who() == hostile
        page.get_by_role("button", name="Leaderboard").click()
        page.get_by_role("cell", name=f"{hostile} (you)").wait_for()
        assert alerts == []
    finally:
        context.close()
        server.stop()


def test_behind_a_proxy_with_https_the_cookie_is_sent_over_https_only(server):
    for headers, secure in [({}, False), ({"X-Forwarded-Proto": "https"}, True)]:
        request = urllib.request.Request(server.url, headers={"Accept": "text/html"} | headers)
        with urllib.request.urlopen(request) as response:
            assert ("Secure" in response.headers["Set-Cookie"]) == secure
            assert response.headers["X-Frame-Options"] == "DENY"


def test_no_fault_in_the_servers_log(server):
    """Runs last: after everything above."""
    assert server.faults() == []
