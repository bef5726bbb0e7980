"""Appendix D as a table: the record of evaluation.workload in print."""

from typing import Any

from evaluation.printing import Block, Column, Record, Table, all_records, percent, significant, text, with_interval
from evaluation.results import NotRun, Study, model_name

MEASURES = ("at_10", "psnr_db", "distance")
FIELDS = ("comparison", "pictures", "prompts", "n")
FIELDS += tuple(f"{measure}{end}" for measure in MEASURES for end in ("", "_low", "_high"))
GROUPS = {"seen": "seen", "held_out": "held out"}
TITLES = {
    "probe": "Stage C alone, by a small decoder, against Stages B and C",
    "text": "Real pictures through compressor, Stage B and Stage A: Stage B with and without text",
}


def _signed(value: float, like: float | None = None) -> str:
    return significant(value, like).replace("-", "\N{MINUS SIGN}")


def _percent(value: float, like: float | None = None) -> str:
    return percent(value).replace("-", "\N{MINUS SIGN}")


COLUMNS = (
    Column("Pictures", text("pictures"), right=False),
    Column("Prompts", lambda row: f"{row['n']} {row['prompts']}", right=False),
    Column("Recall@10 (95 % interval)", with_interval(_percent, "at_10")),
    Column("PSNR to the true picture, dB", with_interval(_signed, "psnr_db")),
    Column("Feature distance to it", with_interval(_signed, "distance")),
)


def workload_table(study: Study) -> Table:
    """One block per comparison; in each, both sides and their difference for seen and for held-out prompts."""
    record = study.read("workload.json")
    caption = "Appendix D: how Stages B and C share the work"
    if isinstance(record, NotRun):
        return Table("workload", caption, FIELDS, [], [], [f"{record}."])
    made = [Block(TITLES[name], COLUMNS, _rows(name, comparison)) for name, comparison in record["comparisons"].items()]
    notes = [
        "Higher recall and PSNR and a lower feature distance (1 minus the cosine similarity of EfficientNet-Lite2 "
        "features) are better. Differences are taken prompt by prompt, the upper row minus the lower; an interval "
        "that holds 0 shows none.",
        *(text_finding(comparison) for name, comparison in record["comparisons"].items() if name == "text"),
        "The paper says from short experiments, without numbers, that Stage B could do without text. Here it was "
        "trained with text and only drew without: a Stage B trained without might do better than these rows.",
        "The probe decoder gives 16 x 16 pixels to each latent, so that its pictures have fewer than the others; they "
        "are resized for all three measures.",
    ]
    return Table("workload", caption, FIELDS, all_records(made), made, notes)


def _rows(name: str, comparison: dict[str, Any]) -> list[Record]:
    first, second = (model_name(model) for model in comparison["models"])
    rows = []
    for group, sides in comparison["groups"].items():
        for side, pictures in (("first", first), ("second", second), ("difference", "Difference")):
            row: Record = {"comparison": name, "pictures": pictures, "prompts": GROUPS[group], "n": sides["n"]}
            for measure in MEASURES:
                low, high = sides[side][measure]["interval"]
                row |= {measure: sides[side][measure]["value"], f"{measure}_low": low, f"{measure}_high": high}
            rows.append(row)
    return rows


def text_finding(comparison: dict[str, Any]) -> str:
    """What the intervals say of text in Stage B: in which measures, and for which prompts, it helps or harms."""
    words = {"at_10": "recall@10", "psnr_db": "PSNR", "distance": "feature distance"}
    found: dict[str, list[str]] = {"helps": [], "harms": []}
    for group, sides in comparison["groups"].items():
        for measure in MEASURES:
            low, high = sides["difference"][measure]["interval"]
            if low > 0 or high < 0:
                better = (low > 0) != (measure == "distance")
                found["helps" if better else "harms"].append(f"{words[measure]} of {GROUPS[group]} prompts")
    said = [f"it {verb} the {', the '.join(where)}" for verb, where in found.items() if where]
    return f"Text in Stage B: {'; '.join(said) or 'no measure tells drawing with it from drawing without'}."
