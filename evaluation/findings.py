"""Findings in words: the results to read first.

Every sentence is made from the score files of a study; none is written by hand for one result.
"""

from collections.abc import Sequence
from typing import Any

from evaluation import published
from evaluation.printing import interval, percent, significant
from evaluation.results import DISTANCES, METRICS, SCORES, NotRun, Study, model_name
from evaluation.tables import COUNTERPART, PAPER_SETS


def duration(seconds: float) -> str:
    """Wall time as people say it.

    >>> duration(4.04), duration(75), duration(4000)
    ('4.0 s', '1 min 15 s', '1 h 7 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{round(whole / 60) // 60} h {round(whole / 60) % 60} min"


def with_range(value: float, bounds: Sequence[float] | None, form: Any = significant) -> str:
    """A number with its 95 % interval in words."""
    return form(value) if bounds is None else f"{form(value)} (95 % interval {interval(value, *bounds, form)})"


def headlines(study: Study) -> list[dict[str, str]]:
    """The results to read first: title, number and meaning, or `not run` and the reason."""
    first = [] if study.published else [_recall_headline(study)]
    return [*first, _win_headline(study), _distance_headline(study), _cost_headline(study)]


def _headline(title: str, number: str, words: str) -> dict[str, str]:
    return {"title": title, "number": number, "words": words}


def _recall_headline(study: Study) -> dict[str, str]:
    title, score = "Does it draw what was asked?", study.score("recall", study.model, study.prompt_sets[0])
    if isinstance(score, NotRun):
        return _headline(title, "not run", score.reason)
    parts = {key: score["recall"][key] for key in ("seen", "held_out") if score["recall"][key]["n"]}
    if not parts:
        return _headline(title, "not run", "there are neither seen nor held-out prompts")
    words = {"seen": "pairs of artist and thing seen in training", "held_out": "held-out pairs"}
    said = [
        f"{with_range(row['at_10'], row['interval_at_10'], percent)} of {row['n']} {words[key]}"
        for key, row in parts.items()
    ]
    number = " / ".join(percent(row["at_10"]) for row in parts.values())
    chance = percent(next(iter(parts.values()))["chance_at_10"])
    return _headline(
        title,
        number,
        f"The true picture is among the ten nearest of 100 real ones for {' and for '.join(said)}. "
        f"Guessing gives {chance}.",
    )


def _win_headline(study: Study) -> dict[str, str]:
    prompts, score = study.prompt_sets[0], study.preference[0]
    title = "Is it preferred to its rivals?" if study.published else "Is it better than its baseline?"
    measured = study.read(f"scores/win-rate/{prompts}.json")
    if isinstance(measured, NotRun):
        return _headline(title, "not run", measured.reason)
    if not measured["valid"]:
        return _headline(title, "not interpretable", "EmojiScore failed its own validity test, so no winner is named.")
    said = []
    for rival, pair in measured["rivals"].items():
        said.append(f"against {model_name(rival)}: {with_range(pair['rate'], pair['interval'], percent)}")
    first = next(iter(measured["rivals"].values()))
    quoted = _paper_rate(prompts, next(iter(measured["rivals"])))
    paper = f" The paper's printed value is {quoted}." if quoted else ""
    words = f"Share of {first['n']} {prompts} prompts whose picture {score} prefers, {'; '.join(said)}.{paper}"
    return _headline(title, percent(first["rate"]), words)


def _paper_rate(prompts: str, rival: str) -> str | None:
    paper_set = COUNTERPART.get(prompts, prompts)
    for row in published.rows("table1"):
        if (row["prompts"], row["rival"]) == (paper_set, rival):
            name = row["rival_printed"]
            name = f"its {name.removesuffix(' (ours)')}" if name.endswith(" (ours)") else name
            return f"{row['win_rate']} against {name} (PickScore, {PAPER_SETS[paper_set]})"
    return None


def _distance_headline(study: Study) -> dict[str, str]:
    prompts, metric = study.prompt_sets[0], "fid" if study.published else SCORES["fd"]
    name = METRICS[metric] if study.published else DISTANCES[metric]
    scores = study.ranked(metric, study.models, prompts)
    title, score = "How far from real pictures?", scores[study.model]
    if isinstance(score, NotRun):
        return _headline(title, "not run", score.reason)
    others = []
    for rival in study.rivals:
        theirs = scores[rival]
        said = "not run" if isinstance(theirs, NotRun) else significant(theirs["value"])
        others.append(f"{model_name(rival)} {said}")
    words = f"{name} on {score['n']} {prompts} prompts: {with_range(score['value'], score['interval'])}"
    if others:
        words += f"; {', '.join(others)}"
    scale = f"Under the protocol {score['protocol']}." if study.published else "It is not FID: the scales differ."
    return _headline(title, significant(score["value"]), f"{words}. Lower is better. {scale}")


def _cost_headline(study: Study) -> dict[str, str]:
    summary, carbon = study.read("summary.json"), study.read("carbon.json")
    title = "What did it cost?"
    if isinstance(summary, NotRun) or not isinstance(summary["wall_seconds"]["total"], int | float):
        said = summary.reason if isinstance(summary, NotRun) else summary["wall_seconds"]["total"]
        return _headline(title, "not run", said)
    number = duration(summary["wall_seconds"]["total"])
    words = f"Wall time of the whole chain up to the summary: {number}."
    if not isinstance(carbon, NotRun):
        run = carbon["run"]
        marks = " and ".join(sorted({row["marked"] for row in run["rows"]})) or "nothing"
        did = (
            "Sampling, with weights that were trained before," if "weights" in study.config else "Training and sampling"
        )
        words += f" {did} used {energy(run['total_kwh'])}, {mass(run['total_kg'])} CO₂ eq. ({marks})."
        if "absent" not in run["codecarbon"]:
            other = run["codecarbon"]
            devices, memory = energy(other["cpu_kwh"] + other["gpu_kwh"]), energy(other["ram_kwh"])
            words += f" CodeCarbon's account of the same: {devices}, and {memory} of memory."
    return _headline(title, number, words)


def energy(kwh: float) -> str:
    """Energy in Wh below 1 kWh, else in kWh."""
    return f"{significant(kwh * 1000)} Wh" if kwh < 1 else f"{significant(kwh)} kWh"


def mass(kg: float) -> str:
    """Mass in g below 1 kg, else in kg."""
    return f"{significant(kg * 1000)} g" if kg < 1 else f"{significant(kg)} kg"
