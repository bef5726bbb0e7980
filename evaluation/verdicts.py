"""A verdict for every cell of the paper's Tables 1 to 3 and for every figure: one of WORDS, our value, and why.

Intervals decide: a word follows from the score files of a study, and no word is written by hand for one result.
"""

from dataclasses import dataclass
from typing import Any

from evaluation import published
from evaluation.findings import duration, with_range
from evaluation.printing import count, letters, percent, significant
from evaluation.results import SCORES, STAGES, NotRun, Study, model_name
from evaluation.tables import COUNTERPART, PAPER_SETS, sampling_steps, training_cost

# Each word with its mark (colour is never the only sign) and its meaning.
WORDS = {
    "reproduced": ("✓", "the paper's finding shows here too, at this small scale, with 95 % intervals apart"),
    "not reproduced": ("✗", "the opposite shows here, with 95 % intervals apart"),
    "inconclusive": ("?", "our intervals allow both, or our sets of pictures differ"),
    "small scale": ("≈", "measured or drawn here too, but at this size a comparison would mean nothing"),
    "recomputed": ("=", "follows from the paper's own inputs"),
    "quoted": ("“", "the paper itself took it from others, or it is no measurement; it stands here as printed"),
    "not run": ("○", "the paper measured it and this study did not; the reason is given"),
    "no value": ("–", "the paper prints no number"),
}
MILD = ("brightness-up", "brightness-down", "contrast-up", "contrast-down")
TABLE2 = {
    "params": "Params",
    "steps": "Sampling steps",
    "fid": "FID @256²",
    "is": "IS @299²",
    "open_source": "Open source",
    "gpu_hours": "GPU hours @A100",
    "train_samples": "Train samples",
    "carbon_kg": "Carbon, kg CO₂ eq.",
}
OWN = ("wuerstchen", "baseline-ldm", "baseline-ldm-bc")  # what the paper trained, and so measured, itself
TABLE3 = {"coco30k": "FID @ COCO 30k", "celeba_hq": "FID @ CelebA-HQ"}


@dataclass(frozen=True)
class Verdict:
    """What became of one number or figure of the paper: as printed there, one of WORDS, why, and our value if any."""

    printed: str
    word: str
    why: str
    here: str = ""


@dataclass(frozen=True)
class Grid:
    """One table of the paper, in its own rows and columns, with a verdict in every cell; or the figures, by kind."""

    name: str
    corner: str
    columns: list[str]
    rows: list[tuple[str, list[Verdict]]]

    @property
    def cells(self) -> list[Verdict]:
        return [cell for _, row in self.rows for cell in row]

    @property
    def reasons(self) -> list[str]:
        """Every reason once, in order; a cell without number needs none."""
        return list(dict.fromkeys(cell.why for cell in self.cells if cell.word != "no value"))

    def letter(self, cell: Verdict) -> str:
        """The sign of a cell's reason."""
        return letters(self.reasons.index(cell.why))


def grids(study: Study) -> list[Grid]:
    """The paper's Tables 1 to 3 and its figures."""
    return [table1_grid(study), table2_grid(study), table3_grid(study), figures_grid(study)]


def compared(low: float, high: float, other_low: float, other_high: float) -> str:
    """Whether the paper's order, the first above the second, shows in our two intervals.

    >>> compared(5, 6, 3, 4), compared(1, 2, 3, 4), compared(3, 5, 4, 6)
    ('reproduced', 'not reproduced', 'inconclusive')
    """
    if low > other_high:
        return "reproduced"
    return "not reproduced" if high < other_low else "inconclusive"


def _left_out(model: str) -> str:
    if model in STAGES:
        return f"{model_name(model)} is not among the models of this study's config."
    return "Needs the model's published weights; this study downloads nothing and trains what it compares."


def table1_grid(study: Study) -> Grid:
    """Table 1: one row of win rates per prompt set, under the rivals' training cost."""
    quoted = published.rows("table1")
    rivals = {row["rival"]: row for row in quoted}
    here = {paper_set: prompts for prompts, paper_set in COUNTERPART.items()}
    rows = [("Train cost", [_train_cost(study, row) for row in rivals.values()])]
    for paper_set, title in PAPER_SETS.items():
        cells = [_win(study, here[paper_set], row) for row in quoted if row["prompts"] == paper_set]
        rows.append((f"{title} (here: {here[paper_set]})", cells))
    return Grid(
        "Table 1", "Würstchen (24,602 gpu-h) preferred to", [row["rival_printed"] for row in rivals.values()], rows
    )


def _train_cost(study: Study, row: dict[str, str]) -> Verdict:
    if row["train_cost"] == "-":
        return no_value()
    if row["rival"] in STAGES:
        return _small(study, row["rival"], "gpu_hours", row["train_cost"])
    return Verdict(row["train_cost"], "quoted", "The paper took it from the model's official model card.")


def no_value() -> Verdict:
    """Of a cell that the paper leaves empty."""
    return Verdict("–", "no value", WORDS["no value"][1])


def _win(study: Study, prompts: str, row: dict[str, str]) -> Verdict:
    """Whether our model wins (or loses) against this rival as in the paper: the interval excludes one half."""
    rival, printed = row["rival"], row["win_rate"]
    measured = study.read(f"scores/win-rate/{prompts}.json")
    if rival not in study.models:
        return Verdict(printed, "not run", _left_out(rival))
    if isinstance(measured, NotRun):
        return Verdict(printed, "not run", f"{measured.reason}.")
    pair = measured["rivals"].get(rival)
    if pair is None:
        return Verdict(printed, "not run", f"{rival} is not in scores/win-rate/{prompts}.json.")
    if not measured["valid"]:
        return Verdict(printed, "inconclusive", "EmojiScore failed its own test, so that it names no winner.")
    bounds = (*pair["interval"], 0.5, 0.5) if published.number(printed) > 50 else (0.5, 0.5, *pair["interval"])
    said = f"{prompts}: {with_range(pair['rate'], pair['interval'], percent)} by EmojiScore; even is 50 %."
    return Verdict(printed, compared(*bounds), said, percent(pair["rate"]))


def table2_grid(study: Study) -> Grid:
    """Table 2: the fourteen models."""
    rows = [(row["printed"], [_table2_cell(study, row, key) for key in TABLE2]) for row in published.rows("table2")]
    return Grid("Table 2", "Model", list(TABLE2.values()), rows)


def _table2_cell(study: Study, row: dict[str, str], key: str) -> Verdict:
    model, printed = row["model"], row[key]
    if key == "open_source":
        return Verdict(printed.replace("-", "–"), "quoted", "A property of the model, not a measurement.")
    if printed in ("", "-"):
        return no_value()
    if key == "carbon_kg":
        return carbon_verdict(study, model, printed)
    if model in OWN:
        return _score(study, model, key, printed) if key in ("fid", "is") else _small(study, model, key, printed)
    if model in STAGES and model in study.models:
        return _stand_in(study, model, key, printed)
    marks = published.marks(printed)
    if "*" in marks:
        return Verdict(printed, "not run", _left_out(model))
    source = "official model card" if "†" in marks else "authors"
    return Verdict(printed, "quoted", f"The paper took it from the model's {source}.")


def _score(study: Study, model: str, key: str, printed: str) -> Verdict:
    """Whether the model under study beats the Baseline LDM with intervals apart, as it does in Table 2."""
    metric, prompts = {"fid": "fd", "is": "is"}[key], study.prompt_sets[0]
    if "baseline-ldm" not in study.models:
        return Verdict(printed, "not run", _left_out("baseline-ldm"))
    ours, theirs = study.ranked(SCORES[metric], (study.model, "baseline-ldm"), prompts).values()
    for score in (ours, theirs):
        if isinstance(score, NotRun):
            return Verdict(printed, "not run", f"{score.reason}.")
    better, worse = (ours, theirs) if key == "is" else (theirs, ours)
    said = f"{with_range(ours['value'], ours['interval'])} against the baseline's "
    said += f"{with_range(theirs['value'], theirs['interval'])}"
    sign = "higher" if key == "is" else "lower"
    why = f"{metric.upper()} with EfficientNet-Lite2 features on {prompts}: {said}; {sign} is better."
    mine = ours if model == study.model else theirs
    here = f"{metric.upper()} {significant(mine['value'])}"
    return Verdict(printed, compared(*better["interval"], *worse["interval"]), why, here)


def _stand_in(study: Study, model: str, key: str, printed: str) -> Verdict:
    """Our own number of a rival that this study trained in small, and of which the paper quotes the authors'."""
    if key == "params":
        value = training_cost(study, study.stages_of(model))["parameters"]
        here = value if isinstance(value, NotRun) else count(value)
    else:
        metric = {"fid": "fd", "is": "is"}[key]
        score = study.score(SCORES[metric], model, study.prompt_sets[0])
        here = score if isinstance(score, NotRun) else f"{metric.upper()} {significant(score['value'])}"
    if isinstance(here, NotRun):
        return Verdict(printed, "not run", f"{here.reason}.")
    why = "The paper took it from the model's authors; ours is a small one, trained on this study's pictures."
    return Verdict(printed, "small scale", why, here)


def _small(study: Study, model: str, key: str, printed: str) -> Verdict:
    """Our own parameters, steps, hours or samples of a model: there, but too small to compare."""
    if model not in study.models:
        return Verdict(printed, "not run", _left_out(model))
    if key == "steps":
        steps = str(sampling_steps(study.config["sampling"].get(model)))
        return Verdict(printed, "small scale", "A setting of the config; for Würstchen Stage C + Stage B.", steps)
    field = {"params": "parameters", "gpu_hours": "hours", "train_samples": "train_samples"}[key]
    value: Any = training_cost(study, study.stages_of(model))[field]
    if isinstance(value, NotRun):
        return Verdict(printed, "not run", f"{value.reason}.")
    stage_a = ", Stage A included" if "a" in study.stages_of(model) else ""
    if key == "gpu_hours":
        said = f"Both have equal compute by design, here as there; wall time of all stages{stage_a}."
        return Verdict(printed, "small scale", said, duration(3600 * value))
    return Verdict(printed, "small scale", f"All stages together{stage_a}; the paper's is Stage C.", count(value))


def carbon_verdict(study: Study, model: str, printed: str) -> Verdict:
    """Whether Table 2's carbon of a model follows from its GPU hours."""
    carbon = study.read("carbon.json")
    if isinstance(carbon, NotRun):
        return Verdict(printed, "not run", f"{carbon.reason}.")
    row = next((row for row in carbon["paper"] if row["model"] == model), None)
    if row is None:
        return Verdict(printed, "not run", f"{model} is not in carbon.json.")
    word = "recomputed" if row["holds"] else "not reproduced"
    said = f"GPU hours x {row['gpu_watts']:.0f} W x {row['kg_per_kwh']} kg/kWh, the grid factor that the value implies."
    return Verdict(printed, word, said, f"{row['kg']:,.0f}")


def table3_grid(study: Study) -> Grid:
    """Table 3: FID after each manipulation, judged by the finding of Appendix B."""
    rows = []
    for row in published.rows("table3"):
        cells = [_manipulation(study, row["manipulation"], row[column]) for column in TABLE3]
        rows.append((f"{row['group']}: {row['configuration']}", cells))
    return Grid("Table 3", "Manipulation", list(TABLE3.values()), rows)


def _manipulation(study: Study, name: str, printed: str) -> Verdict:
    """Appendix B: brightness and contrast by a tenth move the distance less than anything else does, on every set."""
    words, here = set(), []
    for pictures in study.config["robustness"]["sets"]:
        measured = study.read(f"robustness/{pictures}.json")
        if isinstance(measured, NotRun):
            return Verdict(printed, "not run", f"{measured.reason}.")
        rows = measured["manipulations"]
        others = [row["interval"] for key, row in rows.items() if (key in MILD) != (name in MILD)]
        if name not in rows or not others:
            absent = name if name not in rows else "anything to compare with"
            return Verdict(printed, "not run", f"robustness/{pictures}.json lacks {absent}.")
        mine, lows, highs = rows[name]["interval"], [low for low, _ in others], [high for _, high in others]
        if name in MILD:
            words.add(compared(min(lows), min(highs), *mine))
        else:
            words.add(compared(*mine, max(lows), max(highs)))
        here.append(significant(rows[name]["value"]))
    word = words.pop() if len(words) == 1 else "inconclusive"
    if name in MILD:
        finding = "it moves the distance less than the mildest JPEG, resampling or palette does"
    else:
        finding = "it moves the distance more than any change of brightness or contrast by 10 % does"
    sets = " and ".join(study.config["robustness"]["sets"])
    why = f"Appendix B's finding: {finding}. It counts where it holds (or fails) with intervals apart on {sets} alike."
    return Verdict(printed, word, why, " / ".join(here))


def figures_grid(study: Study) -> Grid:
    """Every figure of the paper, main text and appendices."""
    collage = _collage(study)
    rows = [
        ("Figure 1: pictures in many styles", [collage]),
        ("Figure 2: how a picture is made (a drawing)", [_drawing(study)]),
        ("Figure 3: how the stages are trained (a drawing)", [_drawing(study)]),
        ("Figure 4, left: sampling time", [_speed(study, compiled=False)]),
        ("Figure 4, right: sampling time with torch.compile", [_speed(study, compiled=True)]),
        ("Figure 5: what people prefer", [_people(study)]),
        ("Figures 6 to 15: collages", [collage] * 10),
        ("Figure 16: a page of the study with people", [_page(study)]),
        ("Figures 17 to 21: Stage C alone beside Stages B and C", [_probe(study)] * 5),
    ]
    return Grid("Figures", "Figure", ["Verdict", "Because"], rows)


def _people(study: Study) -> Verdict:
    """Whether people prefer the model under study in each of the votes' studies, as section 4.2 sums up Figure 5."""
    record = study.read("study/votes.json")
    if isinstance(record, NotRun):
        return Verdict("", "not run", "No votes have been collected.")
    words, said = set(), []
    for name, found in record["studies"].items():
        row, (model, rival) = found["overall"]["preferred"], map(model_name, found["models"])
        if row["interval"] is None:
            return Verdict("", "inconclusive", f"The votes on {name} say nothing of other people: too few users.")
        words.add(compared(*row["interval"], 0.5, 0.5))
        share = with_range(row["share"], row["interval"], percent)
        said.append(f"{name}: {model} has {share} of {row['votes']:,} decisive votes against {rival}")
    word = words.pop() if len(words) == 1 else "inconclusive"
    return Verdict("", word, f"{'; '.join(said)}. The paper's people preferred Würstchen to SD 2.1 on both its sets.")


def _page(study: Study) -> Verdict:
    if isinstance(study.read("study/votes.json"), NotRun):
        return Verdict("", "not run", "No votes have been collected.")
    return Verdict("", "small scale", "Such a page was what the votes were given on (study_app).")


def _collage(study: Study) -> Verdict:
    if not any((study.directory / "images" / study.model).glob("*/*.zip")):
        return Verdict("", "not run", f"There are no pictures in images/{study.model}.")
    return Verdict(
        "", "small scale", "Own pictures for own prompts, unpicked, under Pictures above and in figures/collage.pdf."
    )


def _probe(study: Study) -> Verdict:
    if not any((study.directory / "images" / "wuerstchen-probe").glob("*/*.zip")):
        return Verdict("", "not run", "There are no pictures in images/wuerstchen-probe.")
    said = "Own pictures for own prompts, unpicked, by a small decoder of the paper's kind, in figures/probe.pdf; what "
    return Verdict("", "small scale", f"{said}it shares with Stages B and A is measured under Appendix D.")


def _drawing(study: Study) -> Verdict:
    for stage in STAGES[study.model]:
        usage = study.read(f"train/{stage}/usage.json")
        if isinstance(usage, NotRun):
            return Verdict("", "not run", f"{usage.reason}.")
    return Verdict("", "small scale", "Nothing is measured in it. The same three stages were trained and draw here.")


def _speed(study: Study, *, compiled: bool) -> Verdict:
    if not isinstance(study.figure4, NotRun) and (verdict := figure4_verdict(study.figure4, compiled)):
        return verdict
    records = [study.read(f"speed/{path.name}") for path in sorted((study.directory / "speed").glob("*.json"))]
    said = []
    for record in (record for record in records if record["compiled"] == compiled):
        last = record["batches"][-1]
        seconds = significant(last["seconds_per_image"])
        said.append(f"{model_name(record['model'])} {seconds} s a picture in batches of {last['batch_size']}")
    if not said:
        why = "No sampling was timed with torch.compile." if compiled and records else "There is no speed/*.json."
        return Verdict("", "not run", why)
    return Verdict("", "small scale", f"{'; '.join(said)}. The paper's rivals need published weights and a GPU.")


def figure4_verdict(record: dict, compiled: bool) -> Verdict | None:
    """Whether Würstchen is faster than SD 2.1 and SD XL at every batch size timed, as section 4.3 says of Figure 4."""
    cells = {
        (c["model"], c["batch_size"]): c for c in record["cells"] if c["compiled"] == compiled and "failed" not in c
    }
    words, said = set(), []
    for model, size in cells:
        if model == "wuerstchen":
            continue
        mine, theirs = cells.get(("wuerstchen", size)), cells[model, size]
        if mine is None:
            continue
        ratio = theirs["seconds_per_batch"] / mine["seconds_per_batch"]
        said.append(f"{model_name(model)} takes {significant(ratio)} times as long in batches of {size}")
        if model in ("sd-2.1", "sd-xl"):
            bounds = (theirs["fastest"], theirs["slowest"], mine["fastest"], mine["slowest"])
            words.add(compared(*bounds))
    if not words:
        return None
    word = words.pop() if len(words) == 1 else "inconclusive"
    where = f"At the paper's size on one {record['device']}, not the paper's A100, with random weights"
    return Verdict(
        "", word, f"{where}: {'; '.join(said)}. It counts where the slowest and fastest runs do not overlap."
    )
