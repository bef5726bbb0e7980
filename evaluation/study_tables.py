"""The tables that the paper does not have: prompt fidelity, and every score on every prompt set."""

from evaluation.columns import columns_of, measured_fields, range_fields, range_names
from evaluation.printing import (
    NOT_APPLICABLE,
    Block,
    Column,
    Record,
    Table,
    all_records,
    count,
    percent,
    shown,
    significant,
    text,
)
from evaluation.results import SCORES, NotRun, Study, model_name
from evaluation.trainings import coverage, recall_value, score_value

RECALL_PARTS = (("seen", "Seen"), ("held_out", "Held out"), ("special", "Special"))


def recall_table(study: Study) -> Table:
    """Recall of the true picture among 100 real ones, for models, ceilings and chance."""
    prompts = study.prompt_sets[0]
    parts = study.ranked("recall", (*study.models, *study.ceilings), prompts)
    known = next((score["recall"] for score in parts.values() if not isinstance(score, NotRun)), {})
    known = {part: row for part, row in known.items() if row["n"] > 0}
    sizes = ", ".join(f"{known[part]['n']} {title.lower()}" for part, title in RECALL_PARTS if part in known)
    columns = [Column("Pictures by", text("model"), right=False)]
    fields: tuple[str, ...] = ("model",)
    for part, title in RECALL_PARTS:
        columns.append(Column(f"{title}: @1", shown(percent, f"{part}_at_1")))
        columns += columns_of(study, f"{title}: @10", percent, f"{part}_at_10", " (95 % interval)")
        fields += (f"{part}_n", f"{part}_at_1", f"{part}_at_10", f"{part}_at_10_low", f"{part}_at_10_high")
        fields += range_names(study, f"{part}_at_10")
    shared = tuple(columns)
    chance: Record = {"model": "Chance"}
    for part, _ in RECALL_PARTS:
        row = known.get(part)
        missing = NotRun(f"there are no {part.replace('_', '-')} prompts")
        chance |= {f"{part}_n": row["n"] if row else missing}
        chance |= {f"{part}_at_{k}": row[f"chance_at_{k}"] if row else missing for k in (1, 10)}
        chance |= {f"{part}_at_10_low": NOT_APPLICABLE, f"{part}_at_10_high": NOT_APPLICABLE}
        chance |= range_fields(study, f"{part}_at_10", None)
    records = {model: _recall_record(study, model, score) for model, score in parts.items()}
    blocks = [
        Block("Models", shared, [records[model] for model in study.models]),
        Block("For comparison", shared, [chance, *(records[model] for model in study.ceilings)]),
    ]
    notes = [
        f"For each picture of a {prompts} prompt, the true one is ranked among 100 real pictures of the same artist "
        "(none of the same thing) by cosine distance of EfficientNet-Lite2 features. "
        "@1: it comes first; @10: it is among the first ten.",
        "Seen: this artist's picture of the thing was trained on. Held out: it was not. Special: flags, keycaps and "
        f"clocks. Numbers of prompts: {sizes or 'not run'}.",
        "The ceilings show what the measure itself allows: real pictures through Stage A, through compressor, Stage B "
        "and Stage A, and the same thing drawn by the other artist.",
        coverage(study),
    ]
    caption = "Prompt fidelity: is the right picture found?"
    return Table("recall", caption, fields, all_records(blocks), blocks, notes)


def _recall_record(study: Study, model: str, score: dict | NotRun) -> Record:
    record: Record = {"model": model_name(model)}
    for part, _ in RECALL_PARTS:
        keys = (f"{part}_n", f"{part}_at_1", f"{part}_at_10", f"{part}_at_10_low", f"{part}_at_10_high")
        if isinstance(score, NotRun) or score["recall"][part]["n"] == 0:
            absent = score if isinstance(score, NotRun) else NotRun(f"there are no {part.replace('_', '-')} prompts")
            record |= dict.fromkeys((*keys, *range_names(study, f"{part}_at_10")), absent)
        else:
            row = score["recall"][part]
            number = recall_value(model, score["prompts"], part, "at_10") if model in study.models else None
            record |= range_fields(study, f"{part}_at_10", number)
            record |= dict(zip(keys, (row["n"], row["at_1"], row["at_10"], *row["interval_at_10"]), strict=True))
    return record


def scores_table(study: Study) -> Table:
    """FD, KID, IS and the mean preference score of every model on every prompt set."""
    metrics = (("fd", "FD-EfficientNet-Lite2"), ("kid", "KID-EfficientNet-Lite2"), ("is", "IS-EfficientNet-Lite2"))
    metrics += (("preference", "EmojiScore, mean"),)
    shared = (
        Column("Model", text("model"), right=False),
        Column("Pictures", shown(count, "n")),
        *(column for key, title in metrics for column in columns_of(study, title, significant, key)),
    )
    blocks = []
    for prompts in study.prompt_sets:
        pictured = any(row["image"] for row in study.prompt_rows(prompts))
        scores = {key: study.ranked(SCORES[key], study.models, prompts) for key, _ in metrics}
        records = []
        for model in study.models:
            record: Record = {"prompts": prompts, "model": model_name(model)}
            sizes = []
            for key, _ in metrics:
                score = scores[key][model]
                if isinstance(score, NotRun) and key in ("fd", "kid") and not pictured:
                    score = NotRun("needs real pictures of the prompts, and this set has none")
                sizes.append(score if isinstance(score, NotRun) else score["n"])
                record |= measured_fields(study, key, score, score_value(SCORES[key], model, prompts))
            record["n"] = next((size for size in sizes if not isinstance(size, NotRun)), sizes[-1])
            records.append(record)
        blocks.append(Block(prompts, shared, records))
    fields = ("prompts", "model", "n")
    for key, _ in metrics:
        fields += (key, f"{key}_low", f"{key}_high", *range_names(study, key))
    notes = ["Lower is better for FD and KID; higher for IS and EmojiScore.", coverage(study)]
    return Table("scores", "Scores on every prompt set", fields, all_records(blocks), blocks, notes)
