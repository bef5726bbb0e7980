"""A detector named on the command line flags pictures for the review page, and decides nothing."""

from pathlib import Path

import numpy as np
import pytest
import small_study
from PIL import Image
from streamlit.testing.v1 import AppTest

from study_app import admin, detector, records, review
from study_app.manifest import Study
from study_app.votes import Store
from wuerstchen.files import read_json

# the mean of a noise picture's red channel: about half of them are above
OWN = """
import pathlib
import numpy as np

def red(picture):
    with open("asked.txt", "a") as file:
        file.write(".")
    return np.asarray(picture)[..., 0].mean() > 127.5

def words(picture):
    return f"<b>{picture.mode}</b> {picture.width}"

def number(picture):
    return 0.9

def breaks(picture):
    raise RuntimeError("no weights")

def breaks_late(picture):
    if len(pathlib.Path("asked.txt").read_text()) >= 10:
        raise KeyboardInterrupt
    return red(picture)

constant = 3
"""


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    """A study of 60 pictures, and modules with detectors in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_detector.py").write_text(OWN)
    (tmp_path / "asked.txt").touch()
    monkeypatch.setattr(detector, "SAVE_EVERY", 4)
    return small_study.study(tmp_path, count=30)


def reddish(study: Study) -> set[str]:
    """The same pictures by other means."""
    names = [name for entry in study.entries.values() for name in entry.pictures.values()]
    red = {name: np.asarray(Image.open(study.picture_path(name)).convert("RGB"))[..., 0].mean() for name in names}
    return {name for name, mean in red.items() if mean > 127.5}


def asked() -> int:
    return len(Path("asked.txt").read_text())


def test_what_it_flags_comes_first_and_is_still_shown(study):
    assert detector.flagged(study) == {}
    number = detector.detect(study, "own_detector:red")
    flagged = detector.flagged(study)
    assert set(flagged) == reddish(study) and number == len(flagged) and 0 < number < 60
    assert asked() == 60
    names = [name for page in review.pages(study, flagged) for name in page]
    assert set(names[:number]) == set(flagged) and len(set(names)) == 60
    assert set(study.pool(set()).prompts) == set(study.entries)


def test_a_stopped_look_goes_on_where_it_was_and_another_detector_starts_anew(study):
    with pytest.raises(KeyboardInterrupt):
        detector.detect(study, "own_detector:breaks_late")
    assert asked() == 10 and len(read_json(study.folder / "flags.json")["said"]) == 10
    Path("asked.txt").write_text("")
    with pytest.raises(KeyboardInterrupt):
        detector.detect(study, "own_detector:breaks_late")
    assert asked() == 10 and len(read_json(study.folder / "flags.json")["said"]) == 20
    Path("asked.txt").write_text("")
    detector.detect(study, "own_detector:red")
    assert asked() == 60
    detector.detect(study, "own_detector:red")
    assert asked() == 60


@pytest.mark.parametrize(
    "name, said",
    [
        ("own_detector", "should be MODULE:FUNCTION"),
        (":red", "should be MODULE:FUNCTION"),
        ("not_installed_here:check", "not_installed_here is not installed"),
        ("own_detector:green", "own_detector has no function 'green'"),
        ("own_detector:constant", "has no function 'constant'"),
        ("own_detector:number", "returned 0.9; it should return True, False or a text"),
        ("own_detector:breaks", "failed on .*webp: RuntimeError: no weights"),
    ],
)
def test_what_is_no_detector_is_said_before_the_page_opens(study, name, said):
    Store("study_data/results.sqlite").engine.dispose()
    with pytest.raises(SystemExit, match=said):
        admin.main(["review", "--study", "results", "--data", "study_data", "--prompts", "names", "--detector", name])


def test_the_review_page_says_what_was_flagged_and_ticks_nothing(study, monkeypatch):
    detector.detect(study, "own_detector:words")
    store = Store("study_data/results.sqlite")
    records.add_study(store, study)
    monkeypatch.setattr(review, "_running", [review.Review(store, study, "key")])
    page = AppTest.from_string("from study_app.review import main\n\nmain()\n", default_timeout=60)
    page.query_params["key"] = "key"
    page.run()
    assert not page.exception
    texts = [shown.value for shown in page.text]
    assert texts.count("Flagged: <b>RGB</b> 48") == review.PER_PAGE
    assert any("flagged 60" in text for text in texts)
    assert [box.value for box in page.checkbox] == [False] * review.PER_PAGE
    page.button[0].click().run()
    assert records.unfit_pictures(store, "names") == set()
    store.engine.dispose()
