"""summary.json: every headline number of a study in one small file, for scripts, checks and the report.

python -m evaluation.summary --study-dir results/emoji --config config/emoji.yaml --out results/emoji/summary.json
"""

import argparse
import csv
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.results import NotRun, Study, run
from evaluation.trainings import Number, over_trainings, recall_value, score_value, win_rate
from wuerstchen.files import write_json

SAID = ("value", "interval", "interval_method", "n")  # of each score


def summarise(study: Study) -> dict[str, Any]:
    """The contract of the summary. What was not measured is the text `not run: reason` in its place.

    recall[model | "ceilings"][...], win_rates[prompts][rival], scores[prompts][model][metric], robustness[set]
    [manipulation], workload, carbon, wall_seconds, seeds, versions, split_sha256; people where there are votes. With
    several training seeds, recall, win rates and scores of a model also have `over_training_seeds`: mean, min, max and
    values of the number over all trainings.
    """
    if study.published:
        return summarise_published(study)
    split = study.read("data/split.json")
    scores = _scores(study)
    return {
        "schema": 1,
        "study": study.config["study"],
        "model": study.model,
        "recall": _recall(study),
        "win_rates": {prompts: _win_rates(study, prompts) for prompts in study.prompt_sets},
        "validity": _said(study.read("scores/emoji-score/validity.json")),
        "scores": {
            prompts: {
                model: {metric: _score(study, metric, model, prompts, score) for metric, score in by_metric.items()}
                for model, by_metric in by_model.items()
            }
            for prompts, by_model in scores.items()
        },
        "robustness": {name: _robustness(study, name) for name in study.config["robustness"]["sets"]},
        "workload": _said(study.read("workload.json")),
        **_people(study),
        "carbon": _said(study.read("carbon.json")),
        "wall_seconds": wall_seconds(
            study.directory / "benchmarks",
            *(study.directory / f"seeds/{seed}/benchmarks" for seed in study.training_seeds[1:]),
        ),
        "seeds": {"study": study.config["seed"], "training": study.training_seeds, "scores": _score_seeds(scores)},
        "versions": _versions(study, scores),
        "split_sha256": str(split) if isinstance(split, NotRun) else split["sha256"],
    }


def summarise_published(study: Study) -> dict[str, Any]:
    """The same of a study of published models: no recall, split or workload, and beside scores what its sets are.

    prompts[set]: which list it is and how many prompts are cut off; power_spectrum[set][model]; crosscheck.
    """
    scores = _scores(study)
    spectra = {
        prompts: {model: study.score("power-spectrum", model, prompts) for model in (*study.models, "real")}
        for prompts in study.prompt_sets
    }
    return {
        "schema": 1,
        "study": study.config["study"],
        "model": study.model,
        "prompts": {prompts: _said(study.read(f"prompts/{prompts}.json")) for prompts in study.prompt_sets},
        "win_rates": {prompts: _win_rates(study, prompts) for prompts in study.prompt_sets},
        "scores": {
            prompts: {
                model: {
                    metric: str(score)
                    if isinstance(score, NotRun)
                    else {key: score[key] for key in (*SAID, "protocol", "lossy") if key in score}
                    for metric, score in by_metric.items()
                }
                for model, by_metric in by_model.items()
            }
            for prompts, by_model in scores.items()
        },
        "power_spectrum": {
            prompts: {
                model: {key: record[key] for key in ("slope", "high_share", "n")}
                for model, record in by_model.items()
                if not isinstance(record, NotRun)
            }
            for prompts, by_model in spectra.items()
        },
        "robustness": {name: _robustness(study, name) for name in study.config["robustness"]["sets"]},
        "crosscheck": _said(study.read("crosscheck.json")),
        **_people(study),
        "carbon": _said(study.read("carbon.json")),
        "wall_seconds": wall_seconds(study.directory / "benchmarks"),
        "seeds": {"study": study.config["seed"], "scores": _score_seeds(scores)},
        "versions": _versions(study, scores),
    }


def wall_seconds(*folders: Path) -> dict[str, Any]:
    """{"total", "rules": {rule: seconds}} from Snakemake's benchmark files {rule}/*.tsv in some folders.

    A rule's seconds are the sum over its jobs. The total is the time during which at least one job ran: the union of
    the intervals [end - seconds, end], a job's end being its file's time of change. So jobs side by side count once,
    and the pause between an interrupted run and its continuation does not count.
    """
    rules: dict[str, float] = {}
    intervals = []
    for path, folder in ((path, root) for root in folders for path in sorted(root.rglob("*.tsv"))):
        parts = path.relative_to(folder).parts
        rule = parts[0] if len(parts) > 1 else path.stem
        with open(path, encoding="utf-8", newline="") as file:
            seconds = sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
        end = path.stat().st_mtime
        intervals.append((end - seconds, end))
        rules[rule] = rules.get(rule, 0.0) + seconds
    if not intervals:
        return {"total": str(NotRun("there are no benchmark files")), "rules": {}}
    return {"total": round(covered(intervals), 3), "rules": {rule: round(rules[rule], 3) for rule in sorted(rules)}}


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals.

    >>> covered([(0, 2), (1, 3), (10, 11)])
    4.0
    """
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _said(value: Any) -> Any:
    return str(value) if isinstance(value, NotRun) else value


def _people(study: Study) -> dict[str, Any]:
    """The key `people` with the shares of each study of the votes; none where no votes have been collected."""
    record = study.read("study/votes.json")
    if isinstance(record, NotRun):
        return {}
    shares = {name: {"models": found["models"], **found["overall"]} for name, found in record["studies"].items()}
    return {"people": {"votes_sha256": record["votes"]["sha256"], "studies": shares}}


def _over_trainings(study: Study, number: Number) -> dict[str, Any]:
    """The key `over_training_seeds`; none with one training seed, since one value has no range."""
    if len(study.training_seeds) == 1:
        return {}
    return {"over_training_seeds": _said(over_trainings(study, number))}


def _recall(study: Study) -> dict[str, Any]:
    prompts = study.prompt_sets[0]

    def one(model: str) -> Any:
        score = study.score("recall", model, prompts)
        if isinstance(score, NotRun) or model not in study.models:
            return _said(score) if isinstance(score, NotRun) else score["recall"]
        return {
            part: row | (_over_trainings(study, recall_value(model, prompts, part, "at_10")) if row["n"] else {})
            for part, row in score["recall"].items()
        }

    ceilings = {model.removeprefix("ceiling-"): one(model) for model in study.ceilings}
    return {model: one(model) for model in study.models} | {"ceilings": ceilings}


def _win_rates(study: Study, prompts: str) -> dict[str, Any]:
    measured = study.read(f"scores/win-rate/{prompts}.json")
    if isinstance(measured, NotRun):
        return dict.fromkeys(study.rivals, str(measured))
    return {
        rival: pair | {"valid": measured["valid"]} | _over_trainings(study, win_rate(prompts, rival))
        for rival, pair in measured["rivals"].items()
    }


def _scores(study: Study) -> dict[str, dict[str, dict[str, dict | NotRun]]]:
    """Every score file of FD, KID, IS and preference by prompt set, model and metric; real and ceilings if scored.

    Raises ValueError where models' scores cannot be ranked together.
    """
    scores: dict[str, dict[str, dict[str, dict | NotRun]]] = {}
    for prompts in study.prompt_sets:
        scores[prompts] = {}
        everyone = (*study.models, "real", *study.ceilings)
        ranked = {metric: study.ranked(metric, everyone, prompts) for metric in study.scores}
        for model in everyone:
            found = {metric: by_model[model] for metric, by_model in ranked.items()}
            if model in study.models or not all(isinstance(score, NotRun) for score in found.values()):
                scores[prompts][model] = found
    return scores


def _score(study: Study, metric: str, model: str, prompts: str, score: dict | NotRun) -> Any:
    if isinstance(score, NotRun):
        return str(score)
    said = {key: score[key] for key in SAID}
    return said | (_over_trainings(study, score_value(metric, model, prompts)) if model in study.models else {})


def _robustness(study: Study, name: str) -> Any:
    measured = study.read(f"robustness/{name}.json")
    return str(measured) if isinstance(measured, NotRun) else measured["manipulations"]


def _flat(scores: dict) -> list[dict]:
    found = (score for models in scores.values() for metrics in models.values() for score in metrics.values())
    return [score for score in found if not isinstance(score, NotRun)]


def _score_seeds(scores: dict) -> list[int]:
    return sorted({score["seed"] for score in _flat(scores) if score["seed"] is not None})


def _versions(study: Study, scores: dict) -> dict[str, str]:
    """Library versions as the score files recorded them; where files disagree, all of them."""
    records = [score["versions"] for score in _flat(scores)]
    for name in study.config["robustness"]["sets"]:
        measured = study.read(f"robustness/{name}.json")
        if not isinstance(measured, NotRun):
            records.append(measured["versions"])
    seen: dict[str, set[str]] = {"python": {platform.python_version()}}
    for record in records:
        for library, version in record.items():
            seen.setdefault(library, set()).add(str(version))
    return {library: ", ".join(sorted(versions)) for library, versions in sorted(seen.items())}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Every headline number of a study in one JSON file.")
    parser.add_argument("--out", type=Path, required=True)
    run(lambda study, options: write_json(options.out, summarise(study)), parser, argv)


if __name__ == "__main__":
    main()
