"""Every table of the report beside the paper's three and that of the votes, as csv, Markdown and LaTeX.

python -m evaluation.more_tables --study-dir results/emoji --config config/emoji.yaml --out results/emoji/tables
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from evaluation import published_verdicts, verdicts
from evaluation.carbon_tables import carbon_tables
from evaluation.choices import choices_table
from evaluation.differences import differences_table
from evaluation.intervals import COVERS
from evaluation.printing import Block, Column, Table, text
from evaluation.results import SCORES, NotRun, Study, run
from evaluation.study_tables import recall_table, scores_table
from evaluation.tables import write_table
from evaluation.workload_table import workload_table
from wuerstchen.files import read_json

# What a record says where it does not name the method of its interval or what that covers.
UNSAID = {"method": "not said", "covers": COVERS}


def more_tables(study: Study, sweep: Path | None = None) -> list[Table]:
    """The tables of a study of this kind; `sweep`: see `read_sweep`. Those of carbon only where there is an account."""
    made = [*carbon_tables(study), differences_table(study), intervals_table(study), verdicts_table(study)]
    if not study.published:
        made += [recall_table(study), scores_table(study), workload_table(study), choices_table(read_sweep(sweep))]
    return made


def read_sweep(path: Path | None) -> dict | NotRun:
    """What evaluation.sweep wrote; it is run once and kept, not by every run of the study."""
    if path is None or not path.is_file():
        command = "snakemake sweep --cores all --configfile config/emoji.yaml config/emoji-sweep.yaml"
        return NotRun(f"there is no {path or 'record of a sweep'}; to try the values: {command}")
    return read_json(path)


def intervals_table(study: Study) -> Table:
    """Which uncertainty each interval covers: rows of what, method and covers."""
    prompts = study.prompt_sets[0]
    metrics = study.scores if study.published else (*SCORES.values(), "recall")
    records = [study.score(metric, study.model, prompts) for metric in metrics]
    measured = study.read(f"scores/win-rate/{prompts}.json")
    if not isinstance(measured, NotRun):
        records += [{"metric": "share won", **pair} for pair in list(measured["rivals"].values())[:1]]
    records += [study.read(f"robustness/{name}.json") for name in list(study.config["robustness"]["sets"])[:1]]
    rows = []
    for record in records:
        if not isinstance(record, NotRun):
            name = f"Table 3: {record['metric']}" if "manipulations" in record else record["metric"]
            method, covers = (record.get(f"interval_{key}", said) for key, said in UNSAID.items())
            rows.append({"what": name, "method": method, "covers": covers})
    if len(study.training_seeds) > 1:
        method = f"smallest and largest of {len(study.training_seeds)} trainings; not a 95 % interval"
        covers = "another training seed; not which prompts are in the set or another sampling seed"
        rows.append({"what": "mean and range over trainings", "method": method, "covers": covers})
    titles = {"what": "Score", "method": "Interval by", "covers": "It covers"}
    columns = tuple(Column(title, text(field), right=False) for field, title in titles.items())
    blocks = [Block("95 % intervals", columns, rows)] if rows else []
    return Table("intervals", "What the intervals cover", tuple(titles), rows, blocks, [])


def verdicts_table(study: Study) -> Table:
    """The verdict on every cell of the paper's tables and on every figure, one a row."""
    made, words = (published_verdicts, published_verdicts.WORDS) if study.published else (verdicts, verdicts.WORDS)
    titles = ("Row", "Column", "Paper", "Verdict", "Here")
    fields = ("row", "column", "paper", "verdict", "here", "why")
    columns = tuple(Column(title, text(field), right=False) for title, field in zip(titles, fields, strict=False))
    blocks = []
    for grid in made.grids(study):
        rows = []
        for title, cells in grid.rows:
            worded = grid.name in ("Figures", "Text")  # one verdict, however many figures it is about
            for column, cell in [("–", cells[0])] if worded else zip(grid.columns, cells, strict=True):
                said = {"grid": grid.name, "row": title, "column": column, "paper": cell.printed or "–"}
                rows.append(said | {"verdict": cell.word, "here": cell.here or "–", "why": cell.why})
        blocks.append(Block(grid.name, columns, rows))
    notes = [f"{word}: {meaning}." for word, (_, meaning) in words.items()]
    records = [row for block in blocks for row in block.records]
    return Table("verdicts", "The paper, cell by cell", ("grid", *fields), records, blocks, notes)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The report's further tables, as csv, md and tex.")
    parser.add_argument("--sweep", type=Path, help="record of what was chosen on the validation split, if there is one")
    parser.add_argument("--out", required=True, type=Path, help="folder of the tables")

    def work(study: Study, options: argparse.Namespace) -> None:
        for table in more_tables(study, options.sweep):
            write_table(table, str(options.out / table.name))

    run(work, parser, argv)


if __name__ == "__main__":
    main()
