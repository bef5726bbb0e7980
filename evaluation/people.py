"""What people preferred (section 4.2 and Figure 5): the record of study_app.analysis as a figure and as a table.

python -m evaluation.people --study-dir results/emoji --config config/emoji.yaml --out-prefix PREFIX
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.drawing import LAYOUT, WIDTH, drawable, sentence, wrap
from evaluation.printing import (
    NOT_APPLICABLE,
    Block,
    Column,
    Record,
    Table,
    all_records,
    percent,
    significant,
    text,
    with_interval,
)
from evaluation.results import NotRun, Study, model_name, run
from evaluation.tables import write_table

RECORD = "study/votes.json"
OUTCOMES = ("a", "equal", "b")
COLOURS = ("C0", "#999999", "C1")
NOTES = (
    "Users are the sample: an interval says what other people might have answered, not what other prompts or another "
    "training would give. A user has a majority for the model that they preferred more often.",
    "Davidson's model with ties and an effect of the side: strength is the logit of the share of decisive votes where "
    "no side is favoured, side the logit by which the left picture is. The mixed model gives each user a preference of "
    "their own; spread is its standard deviation.",
    "Krippendorff's alpha is of the anchors, the pairs that many people saw: 1 is agreement, 0 what chance gives.",
    "Flags judge people by rules that stood before the votes. Nobody is left out of the other rows.",
)


def names(record: dict[str, Any]) -> tuple[str, str, str]:
    """How the three outcomes of a study are called: model A, equal, model B."""
    first, second = (model_name(model) for model in record["models"])
    return first, "Equal", second


def figure5(study: Study) -> Figure:
    """One row for each study of the export: all votes, users' majorities, and how many comparisons users made."""
    record = study.read(RECORD)
    if isinstance(record, NotRun):
        return sentence(str(record))
    rows = list(record["studies"].items())
    figure, axes = plt.subplots(len(rows), 3, figsize=(WIDTH, 2.25 * len(rows)), squeeze=False, **LAYOUT)
    for (name, found), (shares, majorities, histogram) in zip(rows, axes, strict=True):
        _shares(shares, found)
        _majorities(majorities, found)
        _histogram(histogram, found)
        shares.set_title(drawable(f"{name}: {found['overall']['votes']:,} votes"))
    return figure


def _label(axis: Axes, found: dict[str, Any]) -> None:
    labels = ["\n".join(wrap(name, 7, 52, 3)) for name in names(found)]
    axis.set_xticks(range(3), labels)
    axis.grid(axis="x", visible=False)
    axis.margins(y=0.16)


def _shares(axis: Axes, found: dict[str, Any]) -> None:
    for place, outcome in enumerate(OUTCOMES):
        row = found["overall"]["shares"][outcome]
        share, bounds = 100 * row["share"], row["interval"] or [row["share"]] * 2
        errors = [[share - 100 * bounds[0]], [100 * bounds[1] - share]]
        axis.bar(place, share, color=COLOURS[place], width=0.7)
        if row["interval"]:
            axis.errorbar(place, share, errors, color="black", elinewidth=0.8, capsize=2.5)
        axis.annotate(f"{share:.1f}", (place, 100 * bounds[1]), (0, 3), textcoords="offset points", ha="center", size=7)
    _label(axis, found)
    axis.set(ylim=(0, None), ylabel="share of all votes, %")


def _majorities(axis: Axes, found: dict[str, Any]) -> None:
    view = found["by_users"]["from_median"]
    for place, outcome in enumerate(OUTCOMES):
        users = view["majorities"][outcome]
        axis.bar(place, users, color=COLOURS[place], width=0.7)
        axis.annotate(str(users), (place, users), (0, 2), textcoords="offset points", ha="center", size=7)
    _label(axis, found)
    axis.set(ylim=(0, None), ylabel="users", title=f"Users with {view['threshold']:g} or more")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))


def _histogram(axis: Axes, found: dict[str, Any]) -> None:
    """Users from the median on, who count in the panel beside it, stand out."""
    comparisons, median = found["by_users"]["comparisons"], found["by_users"]["median"]
    parts = [[n for n in comparisons if n < median], [n for n in comparisons if n >= median]]
    edges = np.histogram_bin_edges(comparisons, bins=min(24, max(5, max(comparisons) // 5)))
    axis.hist(parts, bins=edges, stacked=True, color=["#bbbbbb", "C2"], label=["fewer", f"{median:g} or more"])
    axis.set(xlabel="comparisons", ylabel="users", xlim=(0, None), title="Comparisons of each user")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="upper right")


FIELDS = ("study", "statistic", "value", "value_low", "value_high", "interval_method", "n", "unit")


def _form(record: Record) -> str | NotRun:
    form = {"share": percent, "p": _p_value}.get(str(record["form"]), _signed)
    return with_interval(form, "value")(record)


def _signed(value: float, like: float | None = None) -> str:
    return significant(value, like).replace("-", "\N{MINUS SIGN}")


def _p_value(value: float, like: float | None = None) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


COLUMNS = (
    Column("Statistic", text("statistic"), right=False),
    Column("Value (95 % interval)", _form),
    Column("Of", lambda row: f"{row['n']:,} {row['unit']}"),
)
THRESHOLDS = (
    Column("Comparisons, at least", text("threshold"), right=False),
    Column("Users", text("users")),
    Column("Their votes", text("votes")),
)
RULES = (
    Column("Flagged where", text("says"), right=False),
    *(
        Column(title, text(key))
        for title, key in (("Users flagged", "flagged"), ("Users after", "users_after"), ("Votes after", "votes_after"))
    ),
)


def people_table(study: Study) -> Table:
    """For each study of the export its statistics, the sweep of thresholds, and the flags of careless voting."""
    record = study.read(RECORD)
    caption = "Figure 5 and more: what people preferred"
    if isinstance(record, NotRun):
        return Table("preferences", caption, FIELDS, [], [], ["No votes have been collected."])
    statistics, more = [], []
    for name, found in record["studies"].items():
        a, equal, b = names(found)
        statistics.append(Block(f"{name}: {a} and {b}", COLUMNS, _statistics(name, found, record["interval_method"])))
        columns = (*THRESHOLDS, *(Column(title, text(key)) for title, key in ((a, "a"), (equal, "equal"), (b, "b"))))
        columns += (Column("Sign test", text("sign_test")),)
        more.append(
            Block(f"{name}: users' majorities by threshold", columns, [_threshold(row) for row in found["sweep"]])
        )
        more.append(Block(f"{name}: careless voting", RULES, _flags(found["careless"])))
    rows = all_records(statistics)
    notes = [*NOTES, _methods(rows), _overlap(record), _exports(record)]
    return Table("preferences", caption, FIELDS, rows, [*statistics, *more], notes)


def _methods(rows: Sequence[Record]) -> str:
    """Every interval's method, with the statistics that have it."""
    having: dict[str, list[str]] = {}
    for row in rows:
        if row["interval_method"] != NOT_APPLICABLE:
            having.setdefault(str(row["interval_method"]), []).append(str(row["about"]))
    said = [f"{' and '.join(dict.fromkeys(names))}: {method}" for method, names in having.items()]
    return f"95 % intervals, by what they are of. {'. '.join(said)}."


def _exports(record: dict[str, Any]) -> str:
    said = [f"{name} (SHA-256 {digest})" for name, digest in record["votes"]["sha256"].items()]
    return f"{record['votes']['rows']:,} votes of {' and '.join(said)}, repeats and controls included."


def _overlap(record: dict[str, Any]) -> str:
    said = [f"{row['participants']} in {' and '.join(row['studies'])}" for row in record["overlap"]]
    return f"Participants by the studies that they took part in: {'; '.join(said)}."


def _threshold(row: dict[str, Any]) -> Record:
    p = row["sign_test_p"]
    shown = {"threshold": f"{row['threshold']:g}", "users": row["users"], "votes": f"{row['votes']:,}"}
    return shown | row["majorities"] | {"sign_test": NOT_APPLICABLE if p is None else _p_value(p)}


def _flags(careless: dict[str, Any]) -> list[Record]:
    """Users and votes before, after each rule alone, and after all rules together."""
    before = {"says": "no rule", "flagged": 0, "users_after": careless["users_before"]}
    together = {key: careless[key] for key in ("flagged", "users_after", "votes_after")}
    rows = [
        before | {"votes_after": careless["votes_before"]},
        *careless["rules"],
        {"says": "any of these", **together},
    ]
    return [row | {"votes_after": f"{row['votes_after']:,}"} for row in rows]


def _statistics(name: str, found: dict[str, Any], shares: str) -> list[Record]:
    """The rows of one study; what its votes do not allow is left out. `shares`: the method of shares' intervals."""
    a, _, b = names(found)
    rows: list[Record] = []

    def add(
        statistic: str,
        value: Any,
        bounds: Any,
        n: int,
        unit: str,
        form: str = "share",
        method: tuple[str, str] = ("Shares", shares),
    ) -> None:
        if value is not None:
            low, high = bounds or (NOT_APPLICABLE, NOT_APPLICABLE)
            given = {"value": value, "value_low": low, "value_high": high, "n": n, "unit": unit, "form": form}
            named = {"about": method[0], "interval_method": method[1] if bounds else NOT_APPLICABLE}
            rows.append({"study": name, "statistic": statistic} | given | named)

    overall, users, position = found["overall"], found["by_users"], found["position"]
    titles = {"a": f"{a} preferred", "equal": "Both called equal", "b": f"{b} preferred"}
    for outcome, title in titles.items():
        row = overall["shares"][outcome]
        add(title, row["share"], row["interval"], overall["votes"], "votes")
    preferred = overall["preferred"]
    add(f"{a} among decisive votes", preferred["share"], preferred["interval"], preferred["votes"], "decisive votes")
    kept = found["careless"]["overall"]
    if kept is not None and found["careless"]["flagged"]:
        preferred = kept["preferred"]
        said = f"{a} among decisive votes, without {found['careless']['flagged']} flagged users"
        add(said, preferred["share"], preferred["interval"], preferred["votes"], "decisive votes")
    for key, who in (("from_median", f"users with {users['median']:g} comparisons or more"), ("everyone", "all users")):
        view = users[key]
        sides = ", ".join(
            f"{view['majorities'][outcome]} {word}" for outcome, word in zip(OUTCOMES, names(found), strict=True)
        )
        add(f"Sign test over {who} ({sides})", view["sign_test_p"], None, view["users"], "users", "p")
    for key, title in (("strength", f"Davidson: strength of {a}, logit"), ("side", "Davidson: side, logit"),
                       ("log_ties", "Davidson: ties, log")):  # fmt: skip
        if found["davidson"]:
            row, method = found["davidson"][key], ("Davidson's model", found["davidson"]["interval_method"])
            add(title, row["value"], row["interval"], overall["votes"], "votes", "number", method)
    if position:
        number = position["left"] + position["right"]
        add(
            "Left picture among decisive votes",
            position["left"] / number,
            position["left_interval"],
            number,
            "decisive votes",
        )
        add("Exact test of left against right", position["p"], None, number, "decisive votes", "p")
    mixed = found["mixed_model"]
    if mixed:
        method = ("Mixed model", mixed["interval_method"])
        for key, title in (
            ("strength", f"Mixed model: strength of {a}, logit"),
            ("spread", "Mixed model: spread, logit"),
        ):
            add(title, mixed[key]["value"], mixed[key]["interval"], mixed["users"], "users", "number", method)
        add(
            f"Mixed model: {a} among decisive votes of all possible users",
            mixed["population"],
            None,
            mixed["users"],
            "users",
        )
    if found["agreement"]:
        for key in ("nominal", "ordinal"):
            row = found["agreement"][key]
            add(
                f"Krippendorff's alpha, {key}",
                row["value"],
                row["interval"],
                found["agreement"]["units"],
                "anchors",
                "number",
                ("Krippendorff's alpha", found["agreement"]["interval_method"]),
            )
    repeats = found["repeats"]
    if repeats:
        share = repeats["same"] / repeats["repeats"]
        add("Same answer with the sides swapped", share, repeats["same_interval"], repeats["repeats"], "repeats")
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What people preferred, as csv, md and tex.")
    parser.add_argument("--out-prefix", required=True, help="path without suffix; .csv, .md and .tex are written")
    run(lambda study, options: write_table(people_table(study), options.out_prefix), parser, argv)


if __name__ == "__main__":
    main()
