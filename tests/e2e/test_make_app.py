"""`make app` as it stands in the Makefile: the page opens on the emoji study, a vote lands, Ctrl-C ends it."""

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import small_study
from postgresql import free_port
from study_server import answers, environment
from tab import Tab
from trees import ROOT

pytestmark = pytest.mark.browser


def command() -> list[str]:
    """The words of the Makefile's recipe of `app`."""
    [recipe] = re.findall(r"^app:.*\n\t@?(.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return shlex.split(recipe)


class App:
    """What `make app` starts, in a process group of its own as from a terminal; on a free port."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "study_data" / "emoji.sqlite"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        program, *words = command()
        assert program == "python"
        self.process = subprocess.Popen(
            [sys.executable, *words, "--port", str(port)],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if not answers(self.process, self.url):
            raise RuntimeError(self.end(signal.SIGKILL)[1])

    def end(self, kind: signal.Signals) -> tuple[int, str]:
        """Send a signal to the group; exit status and all that was said."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, kind)
        said, _ = self.process.communicate(timeout=20)
        return self.process.returncode, said


@pytest.fixture
def emoji(tmp_path) -> Path:
    """A working directory with the results that `make` leaves, in small."""
    small_study.results(tmp_path / "results" / "emoji", ("names", "compositions"), count=40)
    return tmp_path


def test_make_app_opens_the_emoji_study_takes_votes_and_ends_with_ctrl_c(context, emoji):
    app = App(emoji)
    try:
        page = context.new_page()
        tab = Tab(page, app)
        page.goto(app.url)
        page.get_by_role("button", name="I agree").click()
        for name in ("Names", "Compositions"):
            page.get_by_role("button", name=f"{name} (0 of 50 pairs)").click()
            tab.ready()
            page.keyboard.press("ArrowLeft")
            tab.answered(0)
            page.get_by_role("button", name="Other sets").click()
        page.get_by_role("button", name="Names (1 of 50 pairs)").wait_for()
    finally:
        status, said = app.end(signal.SIGINT)
    assert status == 0, said
    assert f"{app.url}" in said and "Traceback" not in said and "ERROR" not in said
    with sqlite3.connect(app.store) as store:
        votes = store.execute("SELECT study, choice FROM vote ORDER BY study").fetchall()
    assert votes == [("compositions", "left"), ("names", "left")]
    assert not list((emoji / "results" / "emoji").rglob("*.sqlite"))


def test_without_results_make_app_says_what_is_missing(tmp_path):
    program, *words = command()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == "study: results/emoji has no pictures; it should be the results that `make` leaves\n"
