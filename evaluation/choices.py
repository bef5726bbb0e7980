"""The table of what was chosen on the validation split, from the record that evaluation.sweep writes."""

from typing import Any

from evaluation.printing import (
    NOT_APPLICABLE,
    Block,
    Column,
    Record,
    Table,
    all_records,
    percent,
    shown,
    significant,
    text,
    with_interval,
)
from evaluation.results import NotRun, model_name

FIELDS = ("of", "setting", "value", "base", "recall_at_10", "recall_at_10_low", "recall_at_10_high")
FIELDS += ("validation_loss", "verdict")
STAGES = {"b": "Stage B (drawn: real pictures through compressor + B + A)", "c": "Stage C (drawn: Würstchen)"}
COLUMNS = (
    Column("Setting", text("setting"), right=False),
    Column("Value", lambda row: f"{row['value']} (base)" if row["base"] == "yes" else str(row["value"])),
    Column("Recall@10 (95 % interval)", with_interval(percent, "recall_at_10")),
    Column("Validation loss", shown(significant, "validation_loss")),
    Column("By recall", text("verdict"), right=False),
)


def choices_table(record: dict[str, Any] | NotRun) -> Table:
    """One block per stage or model and one row per value, with its recall on captions of the validation split."""
    if isinstance(record, NotRun):
        return Table("choices", "Chosen on the validation split", FIELDS, [], [], [f"{record}."])
    blocks: dict[str, list[Record]] = {}
    for setting in record["settings"]:
        title = f"{setting['kind'].capitalize()}: {STAGES.get(setting['of']) or model_name(setting['of'])}"
        blocks.setdefault(title, []).extend(_rows(title, setting))
    made = [Block(title, COLUMNS, rows) for title, rows in blocks.items()]
    notes = [
        f"{record['n']} captions of the validation split, on whose pictures nothing was trained; guessing gives "
        f"{percent(record['chance_at_10'])}. One value was varied at a time, all else stayed at (base).",
        "Kept: the base, unless the interval of the largest recall lies above its own; then that value is chosen."
        " Intervals cover which captions were drawn, not another training; what overlaps is not told apart.",
        "Validation loss: unweighted error of the predicted noise; comparable between the values of one stage.",
        f"Run once, {record['date']}, on {record['device']}, at commit {record['commit']}; to run it again: "
        f"{record['command']}",
    ]
    return Table("choices", "Chosen on the validation split", FIELDS, all_records(made), made, notes)


def _rows(title: str, setting: dict[str, Any]) -> list[Record]:
    base = next(row for row in setting["values"] if row["own"])
    largest = max(setting["values"], key=lambda row: row["at_10"])
    chosen = base if base["interval_at_10"][1] >= largest["interval_at_10"][0] else largest
    rows = []
    for row in setting["values"]:
        low, high = row["interval_at_10"]
        if row is chosen:
            verdict = "kept" if row is base else "chosen"
        else:
            verdict = "overlaps" if high >= chosen["interval_at_10"][0] else "below"
        rows.append(
            {"of": title, "setting": setting["key"], "value": row["value"], "base": "yes" if row["own"] else "no"}
            | {"recall_at_10": row["at_10"], "recall_at_10_low": low, "recall_at_10_high": high}
            | {"validation_loss": row.get("validation_loss", NOT_APPLICABLE), "verdict": verdict}
        )
    return rows
