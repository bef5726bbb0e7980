"""Table 2 of a study of published models: its own metrics, each FID under its protocol, and other packages' values."""

from evaluation import published
from evaluation.columns import lossy_notes, marked, score_fields
from evaluation.printing import (
    INTERVAL,
    NOT_APPLICABLE,
    Block,
    Column,
    Record,
    Table,
    all_records,
    count,
    shown,
    significant,
    text,
    with_interval,
)
from evaluation.results import UNDER_PROTOCOL, NotRun, Study, model_name
from evaluation.tables import QUOTED_COLUMNS, QUOTED_FIELDS, QUOTED_NOTE, quoted_row, sampling_steps

LOWER = ("fid", "kid", "fd-dinov2", "cmmd")  # is better
CHECKED = ("fid", "kid", "is")


def table2(study: Study) -> Table:
    """What was measured of each model on each prompt set, in blocks of what may be compared; then the paper's rows.

    Raises ValueError where FIDs of one block are of different protocols, references or numbers of pictures.
    """
    blocks = [block for prompts in study.prompt_sets for block in _blocks(study, prompts)]
    records = all_records(blocks)
    keys = tuple(f"{_key(metric)}{end}" for metric in study.scores for end in INTERVAL)
    quoted = [quoted_row(row) for row in published.rows("table2")]
    blocks += _crosscheck(study)
    blocks.append(Block("Quoted: the paper's rows as printed", QUOTED_COLUMNS, quoted))
    fields = (
        "block",
        "prompts",
        "protocol",
        "model",
        "sampling_steps",
        "n",
        "lossy",
        *keys,
        "parameters",
        *QUOTED_FIELDS,
    )
    everything = [dict.fromkeys(fields, NOT_APPLICABLE) | record for record in (*records, *quoted)]
    better = ", ".join(title for metric, title in study.scores.items() if metric in LOWER)
    notes = [
        *([f"Lower is better for {better}; higher for the others."] if better else []),
        "FID, KID, IS, precision, recall, density and coverage are under the protocol that the block names: caption "
        "list, reference, crop, filter and resize. Values of different protocols are never ranked together, nor are "
        "they with the quoted rows: the paper names no protocol.",
        *_truncated(study),
        *lossy_notes(records),
        QUOTED_NOTE,
    ]
    return Table("table2", "Table 2: quality of the pictures", fields, everything, blocks, notes)


def _key(metric: str) -> str:
    return metric.replace("-", "_").replace(".", "_")


def _blocks(study: Study, prompts: str) -> list[Block]:
    """A prompt set's scores under its protocol, then its others; a set without protocol has no first block."""
    protocol = study.config["prompts"][prompts].get("protocol")
    pictured = "reference" in study.config["prompts"][prompts]
    under = [metric for metric in study.scores if metric in UNDER_PROTOCOL]
    others = [metric for metric in study.scores if metric not in UNDER_PROTOCOL]
    if not pictured:
        others = [metric for metric in others if metric not in LOWER]
    found = []
    if protocol and under:
        found.append(_block(study, prompts, f"{prompts}, protocol {protocol}", under, protocol))
    if others:
        found.append(_block(study, prompts, f"{prompts}, other measures", others, NOT_APPLICABLE))
    return found


def _block(study: Study, prompts: str, title: str, metrics: list[str], protocol: str) -> Block:
    scores = {metric: study.ranked(metric, study.models, prompts) for metric in metrics}
    columns = (
        Column("Model", marked("model"), right=False),
        Column("Sampling steps", text("sampling_steps")),
        Column("Pictures", shown(count, "n")),
        *(Column(study.scores[metric], with_interval(significant, _key(metric))) for metric in metrics),
    )
    records = []
    for model in study.models:
        record: Record = {"block": "measured", "prompts": prompts, "protocol": protocol, "model": model_name(model)}
        record |= {"sampling_steps": drawn_steps(study, model, prompts), "lossy": study.lossy(model, prompts)}
        sizes = [NotRun("no score") if isinstance(s, NotRun) else s["n"] for s in (by[model] for by in scores.values())]
        record["n"] = next((size for size in sizes if not isinstance(size, NotRun)), scores[metrics[0]][model])
        for metric, by_model in scores.items():
            record |= score_fields(_key(metric), by_model[model])
        records.append(record)
    return Block(title, columns, records)


def drawn_steps(study: Study, model: str, prompts: str) -> str | int | NotRun:
    """Sampling steps that a model's pictures were drawn with, for Würstchen as `Stage C + Stage B`; n/a without any."""
    record = study.drawn(model, prompts)
    if isinstance(record, NotRun):
        return record
    # timesteps where these are no even division
    steps = {key: len(n) - 1 if isinstance(n, list) else n for key, n in (record.get("settings") or {}).items()}
    return sampling_steps(steps if {"steps", "steps_c"} & set(steps) else None)


def drawn_by(study: Study, model: str) -> dict[str, str]:
    """How a model drew, as its first shard records it; or the reason why that is not known, as `absent`."""
    record = study.drawn(model, study.prompt_sets[0])
    if isinstance(record, NotRun):
        return {"model": model_name(model), "absent": str(record)}
    settings = {"sampling": record.get("sampling"), **(record.get("settings") or {})}
    # timesteps that no even division gives, by their number
    said = [
        f"{key} {f'{len(value) - 1} uneven' if isinstance(value, list) else value}"
        for key, value in settings.items()
        if value is not None
    ]
    found = {"sampler": record.get("sampler"), "settings": ", ".join(said), "precision": record.get("precision")}
    found["weights"] = record.get("weights_sha256")
    return {"model": model_name(model), "absent": "", **{key: value or "not known" for key, value in found.items()}}


def _crosscheck(study: Study) -> list[Block]:
    """What other packages make of the first model's shards, beside ours under the same resize."""
    if "crosscheck" not in study.config["metrics"]:
        return []
    found = study.read("crosscheck.json")
    if isinstance(found, NotRun):
        rows: list[Record] = [dict.fromkeys(("tool", "resize", "metric", "theirs", "ours", "difference"), found)]
        return [Block("Other packages on the same pictures", CROSSCHECK_COLUMNS, rows)]
    rows = []
    for tool, record in found["tools"].items():
        for metric in CHECKED if record["values"] is None else [name for name in CHECKED if name in record["values"]]:
            absent = NotRun(record.get("error", ""))
            values = record["values"]
            rows.append(
                {
                    "tool": tool,
                    "resize": record["preprocessing"],
                    "metric": metric.upper(),
                    "theirs": absent if values is None else values[metric],
                    "ours": found["ours"][record["preprocessing"]][metric],
                    "difference": absent if values is None else record["relative_difference"][metric],
                }
            )
            if values is None:
                break
    title = f"Other packages on the same {count(found['n'])} pictures of {model_name(study.model)}"
    return [Block(f"{title} and {count(found['reference_n'])} real ones", CROSSCHECK_COLUMNS, rows)]


CROSSCHECK_COLUMNS = (
    Column("Package", text("tool"), right=False),
    Column("Resize", text("resize"), right=False),
    Column("Score", text("metric"), right=False),
    Column("Its value", shown(lambda value: f"{value:.6g}", "theirs")),
    Column("Ours", shown(lambda value: f"{value:.6g}", "ours")),
    Column("Relative difference", shown(lambda value: f"{value:.1e}", "difference")),
)


def _truncated(study: Study) -> list[str]:
    """How many prompts are longer than a CLIP text encoder reads."""
    said = []
    for prompts in study.prompt_sets:
        record = study.read(f"prompts/{prompts}.json")
        if not isinstance(record, NotRun):
            tokens = record["tokens"]
            said.append(f"{tokens['truncated']} of {record['n']} of {prompts}")
    return [f"Prompts longer than the 77 tokens that CLIP reads: {', '.join(said)}."] if said else []
