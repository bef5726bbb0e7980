"""report.html: the whole study on one self-contained page, to be understood without any other document.

The words about numbers are made here, the page in templates/report.html.j2, which escapes everything that it is given.

    python -m evaluation.report --study-dir results/emoji --config config/emoji.yaml --out results/emoji/report.html
"""

import argparse
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from evaluation.choices import choices_table
from evaluation.findings import duration, energy, headlines, mass, verdicts
from evaluation.printing import Printed, Table, percent, printed, significant
from evaluation.results import SCORES, NotRun, Study, decode, model_name
from evaluation.tables import recall_table, scores_table, table1, table2, table3
from wuerstchen.files import read_json, write_text

LIMIT = 10_000_000  # bytes: what a browser and a mail still take
SCALE = 0.59  # of a figure's pixels on the page: its 8 pt text then reads like the text around it
GALLERY = 8  # prompts of each set to look through
FIGURES = {
    "collage": "Pictures of the model under study with their prompts. Nobody picked them: a hash of the seed and the "
    "prompt's id did (the paper's Figure 1 and Appendix A).",
    "training": "Loss of every stage while it was trained. The losses of different stages are not comparable.",
    "recall-curve": "Recall@10 of the same unpicked seen prompts, drawn with weights kept during each training, "
    "with 95 % intervals over the prompts. Minutes are those of every stage that a model needs, one after the other; "
    "large marks are the finished models. The dashed line is the ceiling while Stage B learns: real pictures through "
    "compressor, Stage B and Stage A.",
    "speed": "Sampling time of a batch against its size (the shape of the paper's Figure 4).",
    "robustness": "Table 3 as a plot. The two panels have different scales; what can be compared is the order.",
}
DIFFERENCES = (
    (
        "Pictures",
        "LAION-5B photographs and art at 1024 px",
        "emoji of two artists at 128 px",
        "fits two processor cores",
    ),
    ("Compression", "1024 px to 24 x 24: 42.67 to 1", "128 px to 3 x 3: 42.67 to 1", "kept"),
    ("Text encoder", "CLIP-H, unpooled", "MiniLM, unpooled", "comes as a pip package, runs without network"),
    (
        "Semantic Compressor",
        "EfficientNetV2-S",
        "EfficientNet-Lite0 without its last two stages",
        "the same reason; at 96 px the last stages have lost where things are and in which colour",
    ),
    (
        "Loss weight",
        "p2 in Stage C, none named for the others",
        "p2 in Stage C; velocity's, 1 / alpha-bar up to 20, in Stage B and the baseline",
        "in a short training it is what makes them heed their conditions",
    ),
    ("Perceptual loss of Stage A", "named, not specified", "EfficientNet-Lite1 features", "the same reason"),
    ("Distances", "Inception: FID, IS", "EfficientNet-Lite2: FD, KID, IS", "the same reason; named for what they are"),
    ("Preference score", "PickScore", "EmojiScore: same formula, small CLIP trained here", "the same reason"),
    (
        "Brightness and contrast (Table 3)",
        "hardly move the FID of photographs",
        "move the distance about as much as mild JPEG",
        "most of an emoji is white, and a tenth less brightness or contrast greys all of it",
    ),
    ("Rivals", "Baseline LDM, GANs, Stable Diffusion", "Baseline LDM with two budgets", "theirs need a GPU"),
    ("Human study", "90 people", "not part of this study", "needs people"),
)


def gallery(study: Study) -> list[dict[str, Any]]:
    """Unpicked prompts of every set with the pictures of the real artist and of each model as data URIs."""
    sections = []
    for prompts in study.prompt_sets:
        items = []
        for _, rows in study.shown(prompts, GALLERY):
            for row in rows:
                pictures = [(model_name(model), study.picture(model, prompts, row["id"])) for model in study.models]
                if row["image"] is not None:
                    pictures.insert(0, ("Real picture", study.picture("real", prompts, row["id"])))
                shown = [(name, None if png is None else data_uri(png)) for name, png in pictures]
                items.append(
                    {"id": row["id"], "prompt": row["prompt"], "challenge": row["challenge"], "pictures": shown}
                )
        sections.append({"prompts": prompts, "rows": items, "of": len(study.prompt_rows(prompts))})
    return sections


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def figures(study: Study) -> dict[str, dict[str, Any]]:
    """The drawn figures by name: data URI (None where there is none), caption, and width on the page in px."""
    found = {}
    for name, caption in FIGURES.items():
        path = study.directory / "figures" / f"{name}.png"
        png = path.read_bytes() if path.is_file() else None
        width = None if png is None else round(decode(png).width * SCALE)
        found[name] = {"uri": png and data_uri(png), "caption": caption, "width": width}
    return found


def uncertainty(study: Study) -> list[dict[str, str]]:
    """Which uncertainty each interval covers, as the score files say."""
    found = {}
    for key in ("fd", "kid", "is", "preference"):
        score = study.score(SCORES[key], study.model, study.prompt_sets[0])
        if not isinstance(score, NotRun):
            covers = score.get("interval_covers", "which prompts are in the set")
            found[score["metric"]] = {"what": score["metric"], "method": score["interval_method"], "covers": covers}
    return list(found.values())


def provenance(study: Study) -> list[tuple[str, str]]:
    """Digests, seeds and devices, each with its name."""
    rows = [("Seed of the study", str(study.config["seed"])), ("Preset", str(study.config.get("preset", "none")))]
    split = study.read("data/split.json")
    rows.append(("Digest of the split", str(split) if isinstance(split, NotRun) else split["sha256"]))
    extractors: dict[str, str] = {}
    for prompts in study.prompt_sets:
        for model in study.models:
            score = study.score(SCORES["is"], model, prompts)
            if not isinstance(score, NotRun):
                extractors[score["extractor"]["name"]] = score["extractor"]["sha256"]
                rows.append((f"Digest of the pictures, {model}, {prompts}", score["images_sha256"]))
    rows += [(f"Digest of the weights of {name}", digest) for name, digest in extractors.items()]
    devices = set()
    for stage in study.stages:
        usage = study.read(f"train/{stage}/usage.json")
        if not isinstance(usage, NotRun):
            devices.add(f"{usage['count']} x {usage['device']}")
    rows.append(("Trained on", "; ".join(sorted(devices)) or "not run"))
    return rows


def seconds_by_rule(study: Study) -> list[dict[str, Any]]:
    """Time of each rule, longest first: name, words and share of the longest in percent."""
    summary = study.read("summary.json")
    rules = {} if isinstance(summary, NotRun) else summary["wall_seconds"]["rules"]
    longest = max(rules.values(), default=0.0) or 1.0
    ordered = sorted(rules.items(), key=lambda item: -item[1])
    return [{"rule": rule, "time": duration(s), "share": round(100 * s / longest, 1)} for rule, s in ordered]


def read_sweep(path: Path | None) -> dict | NotRun:
    """What evaluation.sweep wrote; it is run once and kept, not by every run of the study."""
    if path is None or not path.is_file():
        command = "snakemake sweep --cores all --configfile config/emoji.yaml config/emoji-sweep.yaml"
        return NotRun(f"there is no {path or 'record of a sweep'}; to try the values: {command}")
    return read_json(path)


def tables(study: Study, sweep: Path | None) -> dict[str, tuple[Table, Printed]]:
    """Every table of the page with its printed form."""
    made = [table1(study), table2(study), table3(study), recall_table(study), scores_table(study)]
    made.append(choices_table(read_sweep(sweep)))
    return {table.name: (table, printed(table)) for table in made}


def _or_none(value: Any) -> Any:
    return None if isinstance(value, NotRun) else value


def page(study: Study, sweep: Path | None = None) -> str:
    """The report as HTML; `sweep` is the record of what was chosen on the validation split. Raises ValueError above
    10 MB.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"significant": significant, "percent": percent, "duration": duration}
    environment.filters |= {"energy": energy, "mass": mass}
    summary = study.read("summary.json")
    html = environment.get_template("report.html.j2").render(
        study=study,
        model=model_name(study.model),
        rivals=[model_name(rival) for rival in study.rivals],
        split=_or_none(study.read("data/split.json")),
        headlines=headlines(study),
        verdicts=verdicts(study),
        figures=figures(study),
        gallery=gallery(study),
        tables=tables(study, sweep),
        validity=_or_none(study.read("scores/emoji-score/validity.json")),
        carbon=_or_none(study.read("carbon.json")),
        wall=None if isinstance(summary, NotRun) else summary["wall_seconds"]["total"],
        rules=seconds_by_rule(study),
        versions={} if isinstance(summary, NotRun) else summary["versions"],
        uncertainty=uncertainty(study),
        provenance=provenance(study),
        differences=DIFFERENCES,
        config=yaml.safe_dump(study.config, sort_keys=False, allow_unicode=True),
    )
    if len(html.encode()) > LIMIT:
        size = len(html.encode())
        raise ValueError(f"the report has {size:,} bytes, above {LIMIT:,}: are the pictures larger than 128 px?")
    return html


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The whole study on one self-contained page.")
    parser.add_argument("--study-dir", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--sweep", type=Path, help="record of what was chosen on the validation split, if there is one")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    try:
        write_text(options.out, page(Study.open(options.study_dir, options.config), options.sweep))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
