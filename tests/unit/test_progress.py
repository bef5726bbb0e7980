"""Long loops leave lines in a log, short ones nothing; on a terminal both have a bar."""

import sys
import time

import wuerstchen.progress
from wuerstchen.progress import progress


def test_a_long_loop_leaves_lines(monkeypatch, capsys):
    monkeypatch.setattr(wuerstchen.progress, "EVERY", 0.05)
    for _ in progress(range(6), what="pictures", unit="batches of 25"):
        time.sleep(0.04)
    log = capsys.readouterr().err
    lines = log.splitlines()
    assert 2 <= len(lines) <= 6 and len(set(lines)) == len(lines) and "\r" not in log
    assert lines[-1] == "pictures: 6 of 6 batches of 25, 00:00 gone, 00:00 left"


def test_a_loop_of_unknown_length_says_how_many_are_done(monkeypatch, capsys):
    monkeypatch.setattr(wuerstchen.progress, "EVERY", 0.05)
    for _ in progress(iter(range(6)), what="pictures", unit="files"):
        time.sleep(0.04)
    assert capsys.readouterr().err.splitlines()[-1] == "pictures: 6 files, 00:00 gone"


def test_a_short_loop_leaves_none(capsys):
    with progress(what="texts", total=3) as bar:
        for _ in range(3):
            bar.update(1)
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(2), what="texts")) == [0, 1]
    assert "\rtexts: 100%|" in capsys.readouterr().err
