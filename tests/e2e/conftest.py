import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_study
from study_server import StudyServer
from tab import Tab

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """Pictures of two sets of prompts."""
    return small_study.results(tmp_path_factory.mktemp("results"), ("names", "compositions"), count=240)


@pytest.fixture(scope="session")
def server(tmp_path_factory, results) -> Iterator[StudyServer]:
    """A server with one study of 240 pairs."""
    running = StudyServer(tmp_path_factory.mktemp("server"), results)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, without a window."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


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
