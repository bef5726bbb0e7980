"""What differs from the paper, and why, for each kind of study: emoji.csv, paper.csv and released.csv.

data: the config's data.source for which a row holds, empty for all; part: of what; paper, here, why: in words.
"""

import csv
from pathlib import Path

from evaluation.printing import Block, Column, Table, text
from evaluation.results import Study

FIELDS = ("part", "paper", "here", "why")
KINDS = {"published": "released", "webdataset": "paper"}  # by data.source; all others are trained in small


def differences_table(study: Study) -> Table:
    """The rows that hold for this study."""
    source = study.config["data"]["source"]
    path = Path(__file__).with_name(f"{KINDS.get(source, 'emoji')}.csv")
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["data"] in ("", source)]
    titles = ("Part", "Paper", "Here", "Why")
    columns = tuple(Column(title, text(field), right=False) for title, field in zip(titles, FIELDS, strict=True))
    caption = "What differs from the paper, and why"
    return Table("differences", caption, FIELDS, rows, [Block(study.config["study"], columns, rows)], [])
