"""A detector of the researcher's choice looks through a study's pictures before they do. It flags, and decides nothing.

A detector is any function of one RGB picture (PIL) that returns whether to flag it: True, False, or a text that says
what was seen, an empty one for nothing. It is named on the command line as MODULE:FUNCTION, and by no file.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from study_app.manifest import Study
from wuerstchen.files import read_json, write_json
from wuerstchen.progress import progress

SAVE_EVERY = 500  # pictures that a killed run looks at again at most

Detector = Callable[[Image.Image], object]


def find(name: str) -> Detector:
    """The function MODULE:FUNCTION, of an installed package or a file of the working directory.

    Raises ValueError naming what is missing.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"detector: {name!r}; it should be MODULE:FUNCTION, such as my_detector:looks_unfit")
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"detector: {module} is not installed or lacks something ({error}); MODULE should be a package of this "
            f"environment or a file {module}.py in the working directory"
        ) from None
    found = getattr(loaded, function, None)
    if not callable(found):
        raise ValueError(f"detector: {module} has no function {function!r}")
    return found


def pictures(study: Study) -> list[str]:
    """All pictures of the models, by their random names, so that models are mixed."""
    return sorted(name for entry in study.entries.values() for name in entry.pictures.values())


def flagged(study: Study) -> dict[str, str]:
    """Pictures that were flagged, and what the detector said of each; none where no detector has looked."""
    return {picture: said for picture, said in _read(study)[1].items() if said}


def detect(study: Study, name: str) -> int:
    """Have a detector look at every picture that it has not seen, keep what it says, and return how many it flags.

    Another detector starts anew. Raises ValueError for one that cannot be found, or fails, or answers with something
    else; what it said until then is kept.
    """
    detector = find(name)
    before, said = _read(study)
    said = said if before == name else {}

    def save() -> None:
        write_json(_path(study), {"detector": name, "manifest_sha256": study.sha256, "said": said})

    rest = [picture for picture in pictures(study) if picture not in said]
    try:
        for number, picture in enumerate(progress(rest, what=name, unit="pictures"), 1):
            said[picture] = _ask(detector, name, study.picture_path(picture))
            if number % SAVE_EVERY == 0:
                save()
    finally:
        save()
    return sum(map(bool, said.values()))


def _ask(detector: Detector, name: str, path: Path) -> str:
    with Image.open(path) as picture:
        pixels = picture.convert("RGB")
    try:
        found = detector(pixels)
    except Exception as error:  # whatever somebody else's code raises
        raise ValueError(f"detector: {name} failed on {path}: {type(error).__name__}: {error}") from error
    if not isinstance(found, bool | np.bool_ | str):
        raise ValueError(f"detector: {name} returned {found!r:.80}; it should return True, False or a text")
    return found if isinstance(found, str) else "yes" if found else ""


def _path(study: Study) -> Path:
    return study.folder / "flags.json"


def _read(study: Study) -> tuple[str, dict[str, str]]:
    """The detector that looked and what it said of each picture."""
    if not _path(study).is_file():
        return "", {}
    kept = read_json(_path(study))
    return (kept["detector"], kept["said"]) if kept["manifest_sha256"] == study.sha256 else ("", {})
