"""The last words of a run: where the report is, and how long each part took."""

import argparse
import re
from pathlib import Path

import yaml

from wuerstchen.files import read_json

FILES = ("data", "train", "shards", "weights", "long", "sample", "pictures", "score", "scorer", "measures", "curve")
FILES += ("robustness", "parts", "speed", "paper_size", "carbon", "study", "report")
RULES = Path(__file__).parent / "rules"
# files that not every study includes, and the chapters they are part of
PARTS = {"shards": "train", "weights": "train", "long": "train", "published": "sample", "scorer": "score"}
PARTS |= {"curve": "score", "measures": "score", "parts": "robustness", "paper_size": "speed", "study": "report"}


def chapters() -> dict[str, str]:
    """The chapter (file of workflow/rules/) of each rule, in the order in which they are written."""
    found = {}
    for name in FILES:
        text = (RULES / f"{name}.smk").read_text(encoding="utf-8")
        for rule, derived in re.findall(r"^(?:use )?rule (\w+)(?: as (\w+))?", text, re.MULTILINE):
            found[derived or rule] = PARTS.get(name, name)
    return found


def clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> clock(61.4)
    '1:01'
    """
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def message(study: Path) -> str:
    """What to tell whoever waited. Raises ValueError when the study has no summary yet."""
    if not (study / "summary.json").is_file():
        raise ValueError(f"{study}/summary.json is not there; `make` makes it")
    seconds = read_json(study / "summary.json")["wall_seconds"]
    chapter = chapters()
    parts = dict.fromkeys(chapter.values(), 0.0)
    for rule, value in seconds["rules"].items():
        parts[chapter[rule]] += value
    lines = [f"  {part:<12}{clock(value):>7}" for part, value in parts.items()]
    return "\n".join(
        [
            f"The report: {study}/report.html",
            "Minutes that the jobs of each part took (jobs may run side by side):",
            *lines,
            f"  {'all':<12}{clock(seconds['total']):>7} by the clock",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Say where the report is and how long each part took.")
    parser.add_argument("--configfile", type=Path, default=Path("config/emoji.yaml"))
    arguments = parser.parse_args(argv)
    study = yaml.safe_load(arguments.configfile.read_text(encoding="utf-8"))["study"]
    try:
        print(message(Path("results") / study))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
