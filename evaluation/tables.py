"""The paper's Tables 1, 2 and 3 with ours beside them, as csv, Markdown and LaTeX (and, through the report, HTML).

A table is built from the score files of a study alone: nothing is measured again here.

    python -m evaluation.tables --study-dir results/emoji --config config/emoji.yaml --table 1 --out-prefix PREFIX
"""

import argparse
from collections.abc import Callable, Sequence

from evaluation import published
from evaluation.columns import (
    LOSSY,
    columns_of,
    lossy_notes,
    marked,
    measured_fields,
    range_fields,
    range_names,
    score_fields,
)
from evaluation.latex import to_latex
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
    to_csv,
    to_markdown,
    with_interval,
)
from evaluation.results import SCORES, NotRun, Study, model_name, run
from evaluation.trainings import coverage, score_value, win_rate
from wuerstchen.files import write_text

# The prompt set of the paper that each of ours stands in for.
COUNTERPART = {"names": "coco-30k", "descriptions": "ln-coco-5k", "compositions": "parti-prompts"}
PAPER_SETS = {"coco-30k": "COCO-30K", "ln-coco-5k": "Localized Narratives-COCO-5K", "parti-prompts": "Parti-prompts"}
PAPER_DASH, PAPER_BLANK = "–", "left blank"
MEASURED_ENERGY = ("nvml", "rapl")


EMOJI_SCORE_NOTES = (
    "The paper scored with PickScore; here the score is EmojiScore, the same formula with a small CLIP trained on "
    "the training split. The paper's numbers stand beside ours for orientation, not as a target.",
    "'not interpretable' is printed where EmojiScore failed its validity test on real pictures.",
)
PICKSCORE_NOTES = ("The score is PickScore, as in the paper, in float32.",)
WIN_RATE_NUMBERS = ("n", "wins", "losses", "ties", "rate", "rate_low", "rate_high")


def table1(study: Study) -> Table:
    """Pairwise win rates of the model under study, one block per prompt set, beside the paper's Table 1."""
    columns = (
        Column("Rival", marked("rival_name"), right=False),
        Column("Pictures", shown(count, "n")),
        Column("Wins", shown(count, "wins")),
        Column("Losses", shown(count, "losses")),
        Column("Ties", shown(count, "ties")),
        *columns_of(study, "Share won", percent, "rate", " (95 % interval)"),
        Column("Paper: rival", text("paper_rival"), right=False),
        Column("Paper: share won", shown(percent, "paper_rate")),
        Column("Ours is", text("status"), right=False),
    )
    numbers = (*WIN_RATE_NUMBERS, *range_names(study, "rate"))
    records, blocks = [], []
    other_rivals: dict[str, Record] = {}
    absent = NotRun("not among the models of this study")
    for prompts in study.prompt_sets:
        paper_set = COUNTERPART.get(prompts, prompts)
        quoted = {row["rival"]: row for row in published.rows("table1") if row["prompts"] == paper_set}
        measured = study.read(f"scores/win-rate/{prompts}.json")
        study.ranked(study.preference[2], study.models, prompts)  # what the rates are made of
        rows = [_win_rate_row(study, prompts, rival, measured, quoted.get(rival)) for rival in study.rivals]
        title = f"{prompts} (in the paper: {PAPER_SETS[paper_set]})" if paper_set in PAPER_SETS else prompts
        blocks.append(Block(title, columns, rows))
        records += rows
        for rival, row in quoted.items():
            if rival not in study.models:
                paper = _paper_win_rate(row)
                ours = {"prompts": prompts, "rival": rival, "status": "not run", "lossy": 0}
                records.append(ours | dict.fromkeys(numbers, absent) | paper)
                named = other_rivals.setdefault(rival, {"rival_name": row["rival_printed"], "ours": absent})
                named[prompts] = paper["paper_rate"]
    if other_rivals:
        quoted_columns = [Column("Paper: rival", text("rival_name"), right=False), Column("Ours", text("ours"))]
        for prompts, paper_set in ((name, COUNTERPART.get(name, name)) for name in study.prompt_sets):
            if paper_set not in PAPER_SETS:
                continue
            title = f"Paper: share won, {PAPER_SETS[paper_set]}"
            quoted_columns.append(Column(title, shown(percent, prompts)))
        title = "Quoted: the paper's other rivals, not run here"
        blocks.append(Block(title, tuple(quoted_columns), list(other_rivals.values())))
    mine = {"name": model_name(study.model), "lossy": sum(study.lossy(study.model, p) for p in study.prompt_sets)}
    lossy = lossy_notes([*records, mine])
    fields = ("prompts", "rival", *numbers, *(["lossy"] if lossy else []))
    fields += ("paper_prompts", "paper_rival", "paper_rate", "status")
    notes = [
        f"{marked('name')(mine)} against each rival on the same prompts. A win is a strictly higher preference "
        "score; a tie is not a win. Intervals are Wilson's, over prompts.",
        coverage(study),
        *(PICKSCORE_NOTES if study.published else EMOJI_SCORE_NOTES),
        *lossy,
    ]
    caption = "Table 1: share of prompts for which the preference score prefers the model under study"
    return Table("table1", caption, fields, records, blocks, notes)


def _paper_win_rate(row: dict[str, str] | None) -> Record:
    if row is None:
        return dict.fromkeys(("paper_prompts", "paper_rival", "paper_rate"), NOT_APPLICABLE)
    rate = published.number(row["win_rate"])
    return {"paper_prompts": row["prompts"], "paper_rival": row["rival_printed"], "paper_rate": rate / 100}


def _win_rate_row(
    study: Study, prompts: str, rival: str, measured: dict | NotRun, quoted: dict[str, str] | None
) -> Record:
    row = {"prompts": prompts, "rival": rival, "rival_name": model_name(rival)} | _paper_win_rate(quoted)
    row["lossy"] = study.lossy(rival, prompts)
    if not isinstance(measured, NotRun) and rival not in measured["rivals"]:
        measured = NotRun(f"{rival} is not in scores/win-rate/{prompts}.json")
    if isinstance(measured, NotRun):
        numbers = (*WIN_RATE_NUMBERS, *range_names(study, "rate"))
        return row | dict.fromkeys(numbers, measured) | {"status": "not run"}
    pair = measured["rivals"][rival]
    row |= {key: pair[key] for key in ("n", "wins", "losses", "ties")}
    if not measured["valid"]:
        rate = ("rate", "rate_low", "rate_high", *range_names(study, "rate"))
        return row | dict.fromkeys((*rate, "status"), "not interpretable")
    row |= range_fields(study, "rate", win_rate(prompts, rival))
    low, high = pair["interval"]
    return row | {"rate": pair["rate"], "rate_low": low, "rate_high": high, "status": "measured"}


DISTANCES = {
    "fd_efficientnet_lite2": "FD-EfficientNet-Lite2",
    "kid_efficientnet_lite2": "KID-EfficientNet-Lite2",
    "is_efficientnet_lite2": "IS-EfficientNet-Lite2",
}
QUOTED_FIELDS = ("fid_256", "is_299", "open_source", "gpu_hours_a100", "train_samples_printed", "carbon_kg_printed")
MEASURED_FIELDS = (
    *("parameters_by_stage", "fd_efficientnet_lite2", "fd_efficientnet_lite2_low", "fd_efficientnet_lite2_high"),
    *("kid_efficientnet_lite2", "kid_efficientnet_lite2_low", "kid_efficientnet_lite2_high"),
    *("is_efficientnet_lite2", "is_efficientnet_lite2_low", "is_efficientnet_lite2_high"),
    *("n", "device", "hours", "device_hours", "train_samples", "kwh", "carbon_kg", "energy"),
)


QUOTED_COLUMNS = (
    Column("Model", text("model"), right=False),
    Column("Params", text("parameters")),
    Column("Sampling steps", text("sampling_steps")),
    Column("FID @256²", text("fid_256")),
    Column("IS @299²", text("is_299")),
    Column("Open source", text("open_source")),
    Column("GPU hours @A100", text("gpu_hours_a100")),
    Column("Train samples", text("train_samples_printed")),
    Column("Carbon, kg CO₂ eq.", text("carbon_kg_printed")),
)
BEFORE = "trained before"
RELEASED_NOTE = (
    f"'{BEFORE}': released weights. Their hours, samples, energy and carbon are those of the training that made them; "
    "this run has not spent them, and its own account leaves them out."
)
QUOTED_NOTE = (
    f"* and † as printed: from the authors' own evaluation; from the official model cards. {PAPER_DASH}: the paper "
    f"prints a dash; {PAPER_BLANK}: it prints nothing."
)


def table2(study: Study) -> Table:
    """The paper's Table 2 as printed, and in a block of its own what this study measured of its models.

    Raises ValueError where scores of one column cannot be ranked together.
    """
    quality_columns = (
        Column("Model", text("model"), right=False),
        Column("Params", shown(count, "parameters")),
        Column("Sampling steps", text("sampling_steps")),
        *(column for key, title in DISTANCES.items() for column in columns_of(study, title, significant, key)),
    )
    cost_columns = (
        Column("Model", text("model"), right=False),
        Column("Params", shown(count, "parameters")),
        Column("Params by stage", text("parameters_by_stage"), right=False),
        Column("Train hours", shown(significant, "hours")),
        Column("Train samples", shown(count, "train_samples")),
        Column("kWh", shown(significant, "kwh")),
        Column("Carbon, kg CO₂ eq.", shown(significant, "carbon_kg")),
        Column("Energy is", text("energy"), right=False),
    )
    prompts = study.prompt_sets[0]
    everyone = (*study.models, "real", *study.ceilings)
    scores = {key: study.ranked(SCORES[key], everyone, prompts) for key in ("fd", "kid", "is")}
    measured = [_measured_row(study, model, prompts, scores) for model in study.models]
    for model in ("real", *study.ceilings):
        row = _measured_row(study, model, prompts, scores)
        if not all(isinstance(row[f"{key}_efficientnet_lite2"], NotRun) for key in ("fd", "kid", "is")):
            measured.append(row)
    ranges = tuple(name for key in DISTANCES for name in range_names(study, key))
    quoted = [quoted_row(row) | dict.fromkeys(ranges, NOT_APPLICABLE) for row in published.rows("table2")]
    blocks = [
        Block(f"Measured here, quality on {prompts}", quality_columns, measured),
        Block("Measured here, cost of training", cost_columns, measured[: len(study.models)]),
        Block("Quoted: the paper's rows as printed", QUOTED_COLUMNS, quoted),
    ]
    fields = ("block", "model", "parameters", "sampling_steps", *MEASURED_FIELDS, *ranges, *QUOTED_FIELDS)
    devices = sorted({row["device"] for row in measured if isinstance(row["device"], str)} - {NOT_APPLICABLE})
    notes = [
        "FD, KID and IS here use EfficientNet-Lite2 features and must not be compared with the FID and IS of the "
        "quoted rows, which use Inception features and other pictures.",
        coverage(study),
        "Parameters, hours, samples, energy and carbon count every stage that a model needs, Stage A included; "
        "the paper's 24,602 hours and 1.42B samples are Stage C alone.",
        "Sampling steps of Würstchen: Stage C + Stage B. Carbon = kWh times the factor of the config; energy is "
        "'measured' from the processor's or card's own meter and 'estimated' from rated power otherwise.",
        QUOTED_NOTE,
    ]
    if any(BEFORE in str(row["energy"]) for row in measured):
        notes.insert(3, RELEASED_NOTE)
    if devices:
        wall = f"Hours are wall time on {'; '.join(devices)}."
        notes.insert(3, wall + " The paper's GPU hours are hours times the number of cards.")
    caption = "Table 2: quality and cost of training"
    return Table("table2", caption, fields, measured + quoted, blocks, notes)


def quoted_row(row: dict) -> Record:
    said = {key: {"-": PAPER_DASH, "": PAPER_BLANK}.get(cell, cell) for key, cell in row.items()}
    fields = ("model", "parameters", "sampling_steps", *QUOTED_FIELDS)
    keys = ("printed", "params", "steps", "fid", "is", "open_source", "gpu_hours", "train_samples", "carbon_kg")
    quoted = {field: said[key] for field, key in zip(fields, keys, strict=True)}
    return dict.fromkeys(MEASURED_FIELDS, NOT_APPLICABLE) | {"block": "quoted"} | quoted


def _measured_row(study: Study, model: str, prompts: str, ranked: dict[str, dict[str, dict | NotRun]]) -> Record:
    row: Record = {"block": "measured", "model": model_name(model), **dict.fromkeys(QUOTED_FIELDS, NOT_APPLICABLE)}
    scores = {key: by_model[model] for key, by_model in ranked.items()}
    for key, score in scores.items():
        number = score_value(SCORES[key], model, prompts) if model in study.models else None
        row |= measured_fields(study, f"{key}_efficientnet_lite2", score, number)
    row["n"] = next((score["n"] for score in scores.values() if not isinstance(score, NotRun)), scores["fd"])
    row["sampling_steps"] = sampling_steps(study.config["sampling"].get(model))
    return row | training_cost(study, study.stages_of(model))


def sampling_steps(sampling: dict | None) -> str | int:
    """Steps of one model's `sampling` in the config, for Würstchen as `Stage C + Stage B`; n/a without any."""
    if sampling is None:
        return NOT_APPLICABLE
    if "steps_c" in sampling:
        return f"{sampling['steps_c']} + {sampling['steps_b']}"
    return sampling["steps"]


def training_cost(study: Study, stages: Sequence[str]) -> Record:
    """Parameters, hours, samples, kWh and kg of CO2 eq. of some stages together, from their usage files.

    One missing stage makes the whole sum NotRun: a partial sum would look like a cheaper model.
    """
    fields = ("parameters", "parameters_by_stage", "device", "hours", "device_hours", "train_samples", "kwh")
    fields += ("carbon_kg", "energy")
    if not stages:
        return dict.fromkeys(fields, NOT_APPLICABLE)
    usages = {stage: study.read(f"train/{stage}/usage.json") for stage in stages}
    for usage in usages.values():
        if isinstance(usage, NotRun):
            return dict.fromkeys(fields, usage)
    kwh = sum(usage["kwh"] for usage in usages.values())
    carbon = study.read("carbon.json")
    measured = all(usage["kwh_source"] in MEASURED_ENERGY for usage in usages.values())
    before = f", {BEFORE}" * any("released" in usage for usage in usages.values())
    return {
        "parameters": sum(usage["parameters"] for usage in usages.values()),
        "parameters_by_stage": ", ".join(f"{stage_name(s)} {count(u['parameters'])}" for s, u in usages.items()),
        "device": ", ".join(dict.fromkeys(f"{usage['count']} x {usage['device']}" for usage in usages.values())),
        "hours": sum(usage["seconds"] for usage in usages.values()) / 3600,
        "device_hours": sum(usage["seconds"] * usage["count"] for usage in usages.values()) / 3600,
        "train_samples": sum(usage["samples"] for usage in usages.values()),
        "kwh": kwh,
        "carbon_kg": carbon if isinstance(carbon, NotRun) else kwh * carbon["run"]["pue"] * carbon["run"]["kg_per_kwh"],
        "energy": ("measured" if measured else "estimated") + before,
    }


def stage_name(stage: str) -> str:
    """`a` is printed as A; a baseline keeps its short name LDM."""
    stage = stage.removeprefix("long/")
    return stage.upper() if len(stage) == 1 else "LDM" if "ldm" in stage else model_name(stage)


TABLE3_SCALES = "{} and FID have different scales: compare the order of the rows, not the numbers."
TABLE3_CHOICES = "What the paper leaves open, such as the order of reduction and manipulation, is in each set's file."


def table3(study: Study) -> Table:
    """Fréchet distance of manipulated from untouched pictures, beside the paper's two columns of FID."""
    sets = list(study.config["robustness"]["sets"])
    quoted = {row["manipulation"]: row for row in published.rows("table3")}
    measured = {name: study.read(f"robustness/{name}.json") for name in sets}
    families: dict[str, list[Record]] = {}
    for manipulation in study.config["robustness"]["manipulations"]:
        paper = quoted.get(manipulation)
        record: Record = {"manipulation": manipulation}
        record["configuration"] = paper["configuration"] if paper else NOT_APPLICABLE
        for name in sets:
            record |= _robustness_fields(name, manipulation, measured[name])
        for key, column in (("paper_fid_coco_30k", "coco30k"), ("paper_fid_celeba_hq", "celeba_hq")):
            record[key] = published.number(paper[column]) if paper else NOT_APPLICABLE
        families.setdefault(paper["group"] if paper else "Not in the paper", []).append(record)
    lossy = {n: 0 if isinstance(r, NotRun) else r.get("pictures", {}).get("lossy", 0) for n, r in measured.items()}
    columns = [Column("Manipulation", text("manipulation"), right=False)]
    columns += [Column("In the paper", text("configuration"), right=False)]
    for name in sets:
        mark = f" {LOSSY}" if lossy[name] else ""
        columns.append(Column(f"{study.distance(name)} @ {name}{mark}", with_interval(significant, f"fd_{name}")))
        columns.append(Column(f"PSNR @ {name}, dB", shown(lambda value: f"{value:.1f}", f"psnr_db_{name}")))
    columns.append(Column("Paper: FID @ COCO 30k", shown(lambda value: f"{value:.3f}", "paper_fid_coco_30k")))
    columns.append(Column("Paper: FID @ CelebA-HQ", shown(lambda value: f"{value:.3f}", "paper_fid_celeba_hq")))
    shared = tuple(columns)
    blocks = [Block(title, shared, records) for title, records in families.items()]
    scales = sorted({study.distance(name) for name in sets} - {"FID", "Distance"})
    notes = [
        "Each row: distance between the features of the manipulated pictures and of the same pictures untouched. "
        + (TABLE3_SCALES.format(", ".join(scales)) if scales else TABLE3_CHOICES),
    ]
    notes += [
        f"{LOSSY}: {number} of the pictures of {name} had been saved with loss before, in JPEG and its like."
        for name, number in lossy.items()
        if number
    ]
    everything = all_records(blocks)
    for name in sets:
        notes.append(f"Spearman rank correlation of {name} {_correlations(everything, name)}.")
    fields = ("manipulation", "configuration")
    for name in sets:
        fields += (f"fd_{name}", f"fd_{name}_low", f"fd_{name}_high", f"psnr_db_{name}")
    fields += ("paper_fid_coco_30k", "paper_fid_celeba_hq")
    caption = "Table 3: the distance after image manipulations that hardly change a picture"
    return Table("table3", caption, fields, everything, blocks, notes)


def _robustness_fields(name: str, manipulation: str, measured: dict | NotRun) -> Record:
    if not isinstance(measured, NotRun) and manipulation not in measured["manipulations"]:
        measured = NotRun(f"{manipulation} is not in robustness/{name}.json")
    row = measured if isinstance(measured, NotRun) else measured["manipulations"][manipulation]
    if isinstance(row, NotRun):
        return score_fields(f"fd_{name}", row) | {f"psnr_db_{name}": row}
    psnr = row["psnr_db"]
    return score_fields(f"fd_{name}", row) | {f"psnr_db_{name}": "no change" if psnr is None else psnr}


def _correlations(records: list[Record], name: str) -> str:
    from scipy.stats import spearmanr

    said = []
    for key, title in (("paper_fid_coco_30k", "COCO 30k"), ("paper_fid_celeba_hq", "CelebA-HQ")):
        pairs = [(record[f"fd_{name}"], record[key]) for record in records]
        pairs = [pair for pair in pairs if all(isinstance(value, int | float) for value in pair)]
        if len(pairs) < 3:
            said.append(f"with the paper's {title} column: not run (fewer than three manipulations in common)")
        else:
            rho = spearmanr(*zip(*pairs, strict=True)).statistic
            said.append(f"with the paper's {title} column: {rho:.2f} (n = {len(pairs)})")
    return "; ".join(said)


def tables(study: Study) -> dict[str, Callable[[Study], Table]]:
    """What makes each of the three tables for this kind of study."""
    if study.published:
        from evaluation.released_tables import table2 as of_published_models

        return {"1": table1, "2": of_published_models, "3": table3}
    return {"1": table1, "2": table2, "3": table3}


def write_table(table: Table, prefix: str) -> None:
    """Write `prefix`.csv, .md and .tex."""
    for suffix, form in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex)):
        write_text(f"{prefix}.{suffix}", form(table))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="One of the paper's tables with ours beside it, as csv, md and tex.")
    parser.add_argument("--table", choices=("1", "2", "3"), required=True)
    parser.add_argument("--out-prefix", required=True, help="path without suffix; .csv, .md and .tex are written")

    def work(study: Study, options: argparse.Namespace) -> None:
        write_table(tables(study)[options.table](study), options.out_prefix)

    run(work, parser, argv)


if __name__ == "__main__":
    main()
