"""The report as a reader meets it: no request, no width lost on a phone, and pages that can be printed."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit"))

from synthetic_study import write_study

from evaluation import audit
from evaluation.report import LIMIT, page
from evaluation.results import Study
from evaluation.summary import summarise
from wuerstchen.files import write_json

pytestmark = pytest.mark.browser
# a table scrolls in its own box; what is wider than the page itself is lost
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
    .filter(e => !e.closest(".scroll, .paper, pre") && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    study = Study.open(folder / "made-up", write_study(folder / "made-up"))
    audit.main(["--csv", str(study.directory / "tables" / "audit.csv")])
    write_json(study.directory / "summary.json", summarise(study))
    (folder / "report.html").write_text(page(study), encoding="utf-8")
    return folder / "report.html"


@pytest.mark.parametrize("width", [390, 1400])
def test_no_request_no_error_and_nothing_beyond_the_edge(browser, report: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    requests, errors = [], []

    def refuse(route) -> None:
        requests.append(route.request.url)
        route.continue_() if route.request.url == report.as_uri() else route.abort()

    context.route("**/*", refuse)
    opened = context.new_page()
    opened.on("console", lambda message: errors.append(message.text))
    opened.goto(report.as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") == width and opened.evaluate(TOO_WIDE) == []
    opened.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert opened.evaluate("document.documentElement.scrollWidth") == width and opened.evaluate(TOO_WIDE) == []
    assert all(opened.evaluate("[...document.images].map(image => image.naturalWidth > 0)"))
    targets = opened.evaluate("[...document.querySelectorAll('a')].map(a => document.querySelector(a.hash) !== null)")
    assert targets and all(targets)
    assert set(requests) <= {report.as_uri()} and errors == []
    assert report.stat().st_size < LIMIT
    context.close()


def test_in_print_all_is_open_and_as_wide_as_the_paper(browser, report: Path, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 700, "height": 1000})  # A4 less its margins
    opened = context.new_page()
    opened.goto(report.as_uri())
    opened.emulate_media(media="print")
    wide = opened.evaluate("""() => [...document.querySelectorAll("table, img, figure")]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))""")
    assert wide == []
    closed = opened.evaluate("""() => [...document.querySelectorAll("details > :not(summary)")]
        .filter(e => e.getBoundingClientRect().height === 0).map(e => e.outerHTML.slice(0, 200))""")
    assert closed == []
    opened.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 50_000
    context.close()
