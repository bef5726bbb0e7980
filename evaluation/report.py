"""report.html: the whole study on one self-contained page, to be understood without any other document.

The words about numbers are made here, the page in templates/report.html.j2, which escapes everything that it is given.

    python -m evaluation.report --study-dir results/emoji --config config/emoji.yaml --out results/emoji/report.html
"""

import argparse
import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from PIL import Image

from evaluation import claims, published_verdicts
from evaluation.findings import duration, headlines
from evaluation.more_tables import more_tables
from evaluation.people import people_table
from evaluation.preference import read_scores
from evaluation.printing import Printed, Table, percent, printed
from evaluation.released_tables import drawn_by
from evaluation.results import LONG, SCORES, SETS, NotRun, Study, decode, model_name, run
from evaluation.tables import tables as makers
from evaluation.trainings import coverage
from evaluation.verdicts import WORDS, Grid, grids
from wuerstchen.files import write_text

LIMIT = 10_000_000  # bytes: what a browser and a mail still take
THUMBNAIL = 256  # px of a published model's picture on the page
SCALE = 0.59  # of a figure's pixels on the page: its 8 pt text then reads like the text around it
SHORT = 0.05  # of the longest rule's time: what takes less is summed up
UNPICKED, PICKED = 8, 4  # prompts of each set to look through: chosen by nobody; of the best and of the worst
FIGURES = {
    "training": "Loss of every stage while it was trained. The training loss of B, C and the baseline has its weights, "
    "their validation loss has none and is taken at evenly spaced timesteps; no two stages' losses can be compared.",
    "recall-curve": "Recall@10 of the same unpicked seen prompts, drawn with weights kept during each training, "
    "with 95 % intervals over the prompts. Minutes are those of every stage that a model needs, one after the other; "
    "large marks are the finished models. The dashed line is the ceiling while Stage B learns: real pictures through "
    "compressor, Stage B and Stage A.",
    "speed": "Sampling time of a batch against its size (the shape of the paper's Figure 4).",
    "figure4": "The paper's models at their own size, on the GPU that the figure names (the paper's Figure 4, which "
    "prints no numbers, is of an A100).",
    "figure5": "What people preferred (the paper's Figure 5), one row for each study: shares of all votes "
    "with 95 % intervals over users (their method stands below the table); which model those with the median number of "
    "comparisons or more preferred more often; how many comparisons users made.",
    "probe": "The same Stage C latents (but for rounding) twice: by a small decoder that never saw text, and by Stages "
    "B and A. Nobody picked the prompts: seen ones above, held-out ones below (the paper's Figures 17 to 21).",
    "power-spectrum": "Radial power spectra of every model's pictures beside the real ones of the same prompts: what "
    "the paper calls smoother would lie lower at high frequencies.",
    "robustness": "Table 3 as a plot. The two panels have different scales; what can be compared is the order.",
}


def strip(study: Study) -> list[dict[str, Any]]:
    """What a reader should see first: a few unpicked prompts of every set, drawn by the model under study."""
    rows = [(prompts, row) for prompts in study.prompt_sets for _, some in study.shown(prompts, 4) for row in some[:2]]
    return [_sample(study, prompts, row, [study.model], {}) for prompts, row in rows]


def gallery(study: Study) -> list[dict[str, Any]]:
    """Samples of every prompt set in groups: unpicked, and the best and the worst of the model under study by score.

    A group has a title, rows (see `_sample`) and, where it could not be made, the reason as `absent`.
    """
    models = ["real", *study.models]
    sections = []
    for prompts in study.prompt_sets:
        all_rows = study.prompt_rows(prompts)
        scores = {model: _scores(study, model, prompts) for model in study.models}
        ours = scores[study.model]
        unpicked = [row for _, rows in study.shown(prompts, UNPICKED) for row in rows]
        groups = [(f"Unpicked: {len(unpicked)} of {len(all_rows)}", unpicked, None)]
        for title, sign in (("best", -1), ("worst", 1)):
            absent, rows = str(ours), []
            if not isinstance(ours, NotRun):
                absent = None
                scored = [row for row in all_rows if row["id"] in ours]
                rows = sorted(scored, key=lambda row: (sign * ours[row["id"]], row["id"]))[:PICKED]
            groups.append((f"Picked by score: the {PICKED} {title} of {model_name(study.model)}", rows, absent))
        made = [
            {"title": title, "absent": absent, "rows": [_sample(study, prompts, row, models, scores) for row in rows]}
            for title, rows, absent in groups
        ]
        sections.append({"title": SETS.get(prompts, prompts), "groups": made})
    return sections


def _scores(study: Study, model: str, prompts: str) -> dict[str, Any] | NotRun:
    path = study.preferences(model, prompts)
    return read_scores(path) if path.is_file() else NotRun(f"there is no {path.relative_to(study.directory)}")


def _sample(study: Study, prompts: str, row: dict, models: Sequence[str], scores: dict) -> dict[str, Any]:
    """One prompt with its pictures: (name, data URI or None, score in words or None) of each model."""
    pictures = []
    for model in models:
        if model == "real" and row["image"] is None:
            continue
        png, by_id = study.picture(model, prompts, row["id"]), scores.get(model, {})
        score = (
            None
            if isinstance(by_id, NotRun) or row["id"] not in by_id
            else f"{by_id[row['id']]:.2f}".replace("-", "\N{MINUS SIGN}")
        )
        name = "Real picture" if model == "real" else model_name(model)
        pictures.append((name, None if png is None else picture_uri(study, png), score))
    return {key: row[key] for key in ("id", "prompt", "challenge")} | {"pictures": pictures}


@cache
def data_uri(png: bytes) -> str:
    """A picture for the page: the same pixels as lossless WebP where that is smaller than the PNG."""
    file = io.BytesIO()
    decode(png).save(file, "WEBP", lossless=True, quality=80)
    kind, data = min(("webp", file.getvalue()), ("png", png), key=lambda pair: len(pair[1]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def picture_uri(study: Study, png: bytes) -> str:
    """A drawn picture for the page; published models' are too large for it as they are."""
    return thumbnail(png) if study.published else data_uri(png)


@cache
def thumbnail(png: bytes) -> str:
    """A picture reduced to THUMBNAIL px, as WebP with loss."""
    picture, file = decode(png), io.BytesIO()
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    picture.save(file, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def judged(study: Study, of: Sequence[Grid], words: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """The verdicts as both pages show them, the first headline among them; `words`: each with its mark and meaning."""
    return {
        "headlines": [answer(of), *headlines(study)],
        "grids": {grid.name: grid for grid in of},
        "tally": tally(of, words),
        "marks": {word: mark for word, (mark, _) in words.items()},
    }


def answer(of: Sequence[Grid]) -> dict[str, str]:
    """How many of the paper's findings show here, of those that could be judged."""
    words = Counter(cell.word for grid in of for cell in grid.cells)
    yes, no, unsure = (words[word] for word in ("reproduced", "not reproduced", "inconclusive"))
    said = (
        f"Of the paper's numbers, {yes + no + unsure} could be put to the test: {yes} of its findings show here too, "
        f"{no} times the opposite does, and {unsure} times our intervals allow both."
    )
    number = f"{yes} of {yes + no + unsure}" if yes + no + unsure else "not run"
    return {"title": "Do the paper's findings hold here?", "number": number, "words": said}


def tally(of: Sequence[Grid], words: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    """How often each word is the verdict, in each table and among the figures."""
    counts = [Counter(cell.word for cell in grid.cells) for grid in of]
    return [
        {"word": word, "mark": mark, "meaning": meaning, "counts": [count[word] for count in counts]}
        for word, (mark, meaning) in words.items()
    ]


def figures(study: Study) -> dict[str, dict[str, Any]]:
    """The drawn figures by name: data URI (None where there is none), caption, and width on the page in px."""
    found = {}
    captions = FIGURES | ({"robustness": "Table 3 as a plot."} if study.published else {})
    for name, caption in captions.items():
        path = study.directory / "figures" / f"{name}.png"
        png = path.read_bytes() if path.is_file() else None
        width = None if png is None else round(decode(png).width * SCALE)
        found[name] = {"uri": png and data_uri(png), "caption": caption, "width": width}
    return found


def provenance(study: Study) -> list[tuple[str, str]]:
    """Digests, seeds and devices, each with its name."""
    trainings = ", ".join(map(str, study.training_seeds))
    rows = [
        ("Seed of the study", str(study.config["seed"])),
        ("Training seeds", trainings),
        ("Preset", str(study.config.get("preset", "none"))),
    ]
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
    """Time of each rule, longest first: name, words and share of the longest in percent; short ones together."""
    summary = study.read("summary.json")
    rules = {} if isinstance(summary, NotRun) else summary["wall_seconds"]["rules"]
    longest = max(rules.values(), default=0.0) or 1.0
    short = {rule: seconds for rule, seconds in rules.items() if seconds < SHORT * longest}
    ordered = sorted(
        ((rule, rules[rule]) for rule in rules.keys() - short.keys()), key=lambda item: (-item[1], item[0])
    )
    if short:
        ordered.append((f"{len(short)} shorter ones together", sum(short.values())))
    return [{"rule": rule, "time": duration(s), "share": round(100 * s / longest, 1)} for rule, s in ordered]


def seconds_of(study: Study, *rules: str) -> float | None:
    """Time of all jobs of some rules together; None where one of them has not run."""
    summary = study.read("summary.json")
    known = {} if isinstance(summary, NotRun) else summary["wall_seconds"]["rules"]
    return sum(known[rule] for rule in rules) if known.keys() >= set(rules) else None


def tables(study: Study, sweep: Path | None) -> dict[str, tuple[Table, Printed]]:
    """Our measurements of every table, with their printed form."""
    made = [*(make(study) for make in makers(study).values()), people_table(study), *more_tables(study, sweep)]
    # The quoted rows stand in the verdicts already.
    ours = [replace(table, blocks=[b for b in table.blocks if not b.title.startswith("Quoted")]) for table in made]
    return {table.name: (table, printed(table)) for table in ours}


def arithmetic(study: Study) -> dict[str, Any] | None:
    """What evaluation.audit wrote of the paper's claims: `topics` of rows, and how often each verdict was given."""
    path = study.directory / "tables" / "audit.csv"
    if not path.is_file():
        return None
    topics = claims.read(path)
    counts = Counter(row["verdict"] for rows in topics.values() for row in rows)
    words = [{"word": word, "meaning": said[1], "count": counts[word]} for word, said in claims.VERDICTS.items()]
    return {"topics": topics, "verdicts": words, "marks": {word: said[0] for word, said in claims.VERDICTS.items()}}


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
    environment.filters |= {"percent": percent, "duration": duration}
    summary = study.read("summary.json")
    template = environment.get_template("published.html.j2" if study.published else "report.html.j2")
    html = template.render(
        study=study,
        model=model_name(study.model),
        rivals=[model_name(rival) for rival in study.rivals if rival != LONG],
        long=model_name(LONG) if LONG in study.models else None,
        strip=strip(study),
        figures=figures(study),
        gallery=gallery(study),
        tables=tables(study, sweep),
        audit=arithmetic(study),
        wall=None if isinstance(summary, NotRun) else summary["wall_seconds"]["total"],
        rules=seconds_by_rule(study),
        workload_seconds=seconds_of(study, "train_probe", "workload"),
        versions={} if isinstance(summary, NotRun) else summary["versions"],
        coverage=coverage(study),
        assumptions=study.config.get("assumptions", []),
        config=yaml.safe_dump(study.config, sort_keys=False, allow_unicode=True),
        **(of_published_models(study) if study.published else of_trained_models(study)),
    )
    if len(html.encode()) > LIMIT:
        size = len(html.encode())
        raise ValueError(f"the report has {size:,} bytes, above {LIMIT:,}: are the pictures larger than 128 px?")
    return html


def of_trained_models(study: Study) -> dict[str, Any]:
    """What only the page of a study that trains its models shows."""
    return judged(study, grids(study), WORDS) | {
        "split": _or_none(study.read("data/split.json")),
        "validity": _or_none(study.read("scores/emoji-score/validity.json")),
        "provenance": provenance(study),
    }


def of_published_models(study: Study) -> dict[str, Any]:
    """What only the page of a study of published models shows."""
    lists = {prompts: study.read(f"prompts/{prompts}.json") for prompts in study.prompt_sets}
    scores = [study.score(metric, study.model, prompts) for prompts in study.prompt_sets for metric in study.scores]
    return judged(study, published_verdicts.grids(study), published_verdicts.WORDS) | {
        "lists": {prompts: _or_none(record) for prompts, record in lists.items()},
        "extractors": {s["extractor"]["name"]: s["extractor"]["sha256"] for s in scores if not isinstance(s, NotRun)},
        "drawn": [drawn_by(study, model) for model in study.models],
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The whole study on one self-contained page.")
    parser.add_argument("--sweep", type=Path, help="record of what was chosen on the validation split, if there is one")
    parser.add_argument("--out", type=Path, required=True)
    run(lambda study, options: write_text(options.out, page(study, options.sweep)), parser, argv)


if __name__ == "__main__":
    main()
