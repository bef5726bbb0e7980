"""The verdicts of a study of published models: what it says of the paper's Tables 1 to 3, its figures and its remarks.

As in `evaluation.verdicts` intervals decide, and a number that the study did not measure has its reason. Nothing is
trained here, so that nothing is said of the cost of training.
"""

from collections.abc import Iterable

from evaluation import published
from evaluation.findings import with_range
from evaluation.printing import percent, significant
from evaluation.released_tables import drawn_steps
from evaluation.results import NotRun, Study, model_name
from evaluation.tables import PAPER_SETS
from evaluation.verdicts import (
    TABLE2,
    Grid,
    Verdict,
    carbon_verdict,
    compared,
    figure4_verdict,
    no_value,
    table3_grid,
)
from evaluation.verdicts import WORDS as OF_TRAINED

WORDS = {
    "reproduced": ("✓", "the paper's finding shows here too, with 95 % intervals apart"),
    "not reproduced": OF_TRAINED["not reproduced"],
    "inconclusive": ("?", "our intervals allow both, or comparisons differ"),
    "drawn": ("≈", "drawn here too; it holds no number to compare"),
    **{word: OF_TRAINED[word] for word in ("recomputed", "quoted", "not run", "no value")},
}
SUBJECT = "wuerstchen"  # the paper's own model
QUALITY_SET = "coco-30k"  # of Table 2
NOTHING_TRAINED = "This study trains nothing."
NO_RIVAL = "No rival of the paper is among the models of this study's config."
PEOPLE = "It needs people, and this study asks none."


def grids(study: Study) -> list[Grid]:
    """The paper's Tables 1 to 3, its figures, and what it says of them in words."""
    return [table1_grid(study), table2_grid(study), table3_grid(study), figures_grid(study), text_grid(study)]


def combined(words: Iterable[str]) -> str:
    """One word of several comparisons: theirs where they agree.

    >>> combined(["reproduced", "reproduced"]), combined(["reproduced", "inconclusive"])
    ('reproduced', 'inconclusive')
    """
    found = set(words)
    return found.pop() if len(found) == 1 else "inconclusive"


def _left_out(study: Study, *models: str) -> str | None:
    """Why models cannot be compared, or None where all are in the study and the first is the one under study."""
    if study.model != SUBJECT:
        return f"The model under study is {model_name(study.model)}; the paper's is {model_name(SUBJECT)}."
    for model in models:
        if model not in study.models:
            if model == "baseline-ldm":
                return "The Baseline LDM's weights were never published, and this study's config names no others."
            return f"{model_name(model)} is not among the models of this study's config."
    return None


def _sentence(absent: NotRun) -> str:
    return f"{absent.reason[0].upper()}{absent.reason[1:]}."


def _rivals(study: Study) -> list[str]:
    """The study's rivals that the paper has too."""
    return [name for name in study.rivals if any(row["model"] == name for row in published.rows("table2"))]


def table1_grid(study: Study) -> Grid:
    """Table 1: one row of win rates per prompt set, under the rivals' training cost."""
    quoted = published.rows("table1")
    rivals = {row["rival"]: row for row in quoted}
    rows = [("Train cost", [_train_cost(row) for row in rivals.values()])]
    for prompts, title in PAPER_SETS.items():
        rows.append((title, [_win(study, row) for row in quoted if row["prompts"] == prompts]))
    printed = [row["rival_printed"] for row in rivals.values()]
    return Grid("Table 1", "Würstchen (24,602 gpu-h) preferred to", printed, rows)


def _train_cost(row: dict[str, str]) -> Verdict:
    if row["train_cost"] == "-":
        return no_value()
    if row["rival"] == "baseline-ldm":
        return Verdict(row["train_cost"], "not run", NOTHING_TRAINED)
    return Verdict(row["train_cost"], "quoted", "The paper took it from the model's official model card.")


def _win(study: Study, row: dict[str, str]) -> Verdict:
    """Whether Würstchen wins (or loses) against this rival as in the paper: the interval excludes one half."""
    prompts, rival, printed = row["prompts"], row["rival"], row["win_rate"]
    if reason := _left_out(study, rival):
        return Verdict(printed, "not run", reason)
    measured = study.read(f"scores/win-rate/{prompts}.json")
    if isinstance(measured, NotRun):
        return Verdict(printed, "not run", _sentence(measured))
    pair = measured["rivals"].get(rival)
    if pair is None:
        return Verdict(printed, "not run", f"{rival} is not in scores/win-rate/{prompts}.json.")
    low, high = pair["interval"]
    theirs = published.number(printed) / 100
    bounds = (low, high, 0.5, 0.5) if theirs > 0.5 else (0.5, 0.5, low, high)
    inside = "within" if low <= theirs <= high else "outside"
    why = f"{prompts}: {with_range(pair['rate'], pair['interval'], percent)} by PickScore; even is 50 %. The paper's "
    return Verdict(printed, compared(*bounds), f"{why}value lies {inside} that interval.", percent(pair["rate"]))


def table2_grid(study: Study) -> Grid:
    """Table 2: the fourteen models."""
    rows = [(row["printed"], [_table2_cell(study, row, key) for key in TABLE2]) for row in published.rows("table2")]
    return Grid("Table 2", "Model", list(TABLE2.values()), rows)


def _table2_cell(study: Study, row: dict[str, str], key: str) -> Verdict:
    model, printed = row["model"], row[key]
    if key == "open_source":
        return Verdict(printed.replace("-", "–"), "quoted", "A property of the model, not a measurement.")
    if key in ("fid", "is") and printed not in ("", "-"):
        return _quality(study, model, key, printed)
    if printed in ("", "-"):
        return no_value()
    if key == "carbon_kg":
        return carbon_verdict(study, model, printed)
    if key == "steps":
        steps = drawn_steps(study, model, QUALITY_SET) if model in study.models else None
        here = "" if steps is None or isinstance(steps, NotRun) else str(steps)
        return Verdict(printed, "quoted", "A setting; here as the drawn shards record it.", here)
    if key == "params":
        return Verdict(printed, "quoted", "A property of the model, not a measurement.")
    if model in (SUBJECT, "baseline-ldm"):
        return Verdict(printed, "not run", NOTHING_TRAINED)
    source = "official model card" if "†" in published.marks(printed) else "authors"
    return Verdict(printed, "quoted", f"The paper took it from the model's {source}.")


def _printed(key: str) -> dict[str, float]:
    """One of Table 2's columns of scores, by model, where it is a plain number."""
    cells = {row["model"]: row[key] for row in published.rows("table2")}
    known = {model: published.number(cell) for model, cell in cells.items() if ">" not in published.marks(cell)}
    return {model: value for model, value in known.items() if value is not None}


def _quality(study: Study, model: str, key: str, printed: str) -> Verdict:
    """Whether Würstchen and a rival stand in the paper's order; for Würstchen's own number, it and every rival here."""
    said = _printed(key)
    rivals = [model] if model != SUBJECT else [name for name in said if name != SUBJECT and name in study.models]
    if model not in study.models and "*" not in published.marks(printed):
        return Verdict(printed, "quoted", "The paper took it from the model's authors.")
    if (reason := _left_out(study, *rivals)) or not rivals:
        return Verdict(printed, "not run", reason or NO_RIVAL)
    score = study.score(key, model, QUALITY_SET)
    if isinstance(score, NotRun):
        return Verdict(printed, "not run", _sentence(score))
    here = f"{key.upper()} {significant(score['value'])}"
    if model not in said:
        return Verdict(printed, "quoted", "The paper prints a bound, which no order follows from.", here)
    pairs = [_ordered(study, key, rival, said[SUBJECT] > said[rival]) for rival in rivals]
    if absent := [why for word, why in pairs if word == "not run"]:
        return Verdict(printed, "not run", absent[0])
    word = combined(word for word, _ in pairs)
    if model == SUBJECT:
        others = ", ".join(map(model_name, rivals))
        return Verdict(printed, word, f"Its {key.upper()} beside that of {others}: see their cells.", here)
    return Verdict(printed, word, pairs[0][1], here)


def _ordered(study: Study, key: str, rival: str, higher: bool) -> tuple[str, str]:
    """Whether Würstchen's score is higher (or lower) than a rival's with intervals apart: a word, and why."""
    mine, theirs = study.ranked(key, (SUBJECT, rival), QUALITY_SET).values()
    for score in (mine, theirs):
        if isinstance(score, NotRun):
            return "not run", _sentence(score)
    word = compared(*mine["interval"], *theirs["interval"])
    if not higher:
        word = compared(*theirs["interval"], *mine["interval"])
    said = f"{model_name(SUBJECT)}'s {key.upper()} is {'higher' if higher else 'lower'} in the paper; here "
    said += f"{with_range(mine['value'], mine['interval'])} against {model_name(rival)}'s "
    return word, f"{said}{with_range(theirs['value'], theirs['interval'])}."


def figures_grid(study: Study) -> Grid:
    """Every figure of the paper, main text and appendices."""
    people = Verdict("", "not run", PEOPLE)
    drawing = Verdict("", "no value", "A drawing: nothing is measured in it.")
    probe = Verdict("", "not run", f"{NOTHING_TRAINED} It needs a small decoder trained on Stage C's latents.")
    collage = _collage(study)
    rows = [
        ("Figure 1: pictures in many styles", [collage]),
        ("Figure 2: how a picture is made", [drawing]),
        ("Figure 3: how the stages are trained", [drawing]),
        ("Figure 4, left: sampling time", [_speed(study, compiled=False)]),
        ("Figure 4, right: sampling time with torch.compile", [_speed(study, compiled=True)]),
        ("Figure 5: what people prefer", [people]),
        ("Figures 6 to 15: collages", [collage] * 10),
        ("Figure 16: a page of the study with people", [people]),
        ("Figures 17 to 21: Stage C alone beside Stages B and C", [probe] * 5),
    ]
    return Grid("Figures", "Figure", ["Verdict", "Because"], rows)


def _collage(study: Study) -> Verdict:
    if reason := _left_out(study):
        return Verdict("", "not run", reason)
    if not any((study.directory / "images" / study.model).glob("*/*.zip")):
        return Verdict("", "not run", f"There are no pictures in images/{study.model}.")
    return Verdict("", "drawn", "This study's prompts, unpicked, under Pictures above and in figures/collage.pdf.")


def _speed(study: Study, *, compiled: bool) -> Verdict:
    if isinstance(study.figure4, NotRun):
        asked = "" if "speed" in study.config["metrics"] else " The metric speed is not asked for."
        return Verdict("", "not run", f"{_sentence(study.figure4)}{asked}")
    how = "with" if compiled else "without"
    absent = Verdict("", "not run", f"No sampling was timed {how} torch.compile.")
    return figure4_verdict(study.figure4, compiled) or absent


def text_grid(study: Study) -> Grid:
    """What the paper says of its results in words (section 4)."""
    rows = [
        ("4.1: the highest Inception Score of all on COCO-30K", [_remark(study, "is", None, higher=True)]),
        ("4.1: a better FID than the Baseline LDM's", [_remark(study, "fid", ["baseline-ldm"], higher=False)]),
        ("4.1: smoother pictures than those of other models", [_smoother(study)]),
        ("4.1: PickScore prefers it to all but SD XL", [_preferred(study)]),
    ]
    return Grid("Text", "Remark", ["Verdict", "Because"], rows)


def _remark(study: Study, key: str, rivals: list[str] | None, higher: bool) -> Verdict:
    rivals = _rivals(study) if rivals is None else rivals
    if (reason := _left_out(study, *rivals)) or not rivals:
        return Verdict("", "not run", reason or NO_RIVAL)
    pairs = {rival: _ordered(study, key, rival, higher) for rival in rivals}
    if absent := [why for word, why in pairs.values() if word == "not run"]:
        return Verdict("", "not run", absent[0])
    return Verdict("", combined(word for word, _ in pairs.values()), _tally({r: w for r, (w, _) in pairs.items()}))


def _smoother(study: Study) -> Verdict:
    """By the share of each picture's power in the finest octave."""
    rivals = _rivals(study)
    if (reason := _left_out(study)) or not rivals:
        return Verdict("", "not run", reason or NO_RIVAL)
    records = {model: study.score("power-spectrum", model, QUALITY_SET) for model in (SUBJECT, *rivals)}
    for record in records.values():
        if isinstance(record, NotRun):
            return Verdict("", "not run", _sentence(record))
    shares = {model: record["high_share"]["interval"] for model, record in records.items()}
    words = {rival: compared(*shares[rival], *shares[SUBJECT]) for rival in rivals}
    why = f"A smaller share of power at the highest frequencies, both reduced to 256 px on {QUALITY_SET}. "
    return Verdict("", combined(words.values()), why + _tally(words))


def _preferred(study: Study) -> Verdict:
    """Table 1 as a whole."""
    words = {}
    for row in published.rows("table1"):
        cell = _win(study, row)
        if cell.word != "not run":
            words[f"{model_name(row['rival'])} on {row['prompts']}"] = cell.word
    if not words:
        return Verdict("", "not run", "No cell of Table 1 was measured.")
    return Verdict("", combined(words.values()), _tally(words))


def _tally(words: dict[str, str]) -> str:
    """Which comparisons came out how: `reproduced against SD 1.4, SD 2.1; inconclusive against SD XL.`"""
    by_word: dict[str, list[str]] = {}
    for name, word in words.items():
        by_word.setdefault(word, []).append(model_name(name))
    said = "; ".join(f"{word} against {', '.join(names)}" for word, names in by_word.items())
    return f"{said[0].upper()}{said[1:]}."
