"""The figures of a study, as pdf and png: collage, side-by-side, speed, figure4, figure5, training, recall-curve,
robustness, probe.

They draw what the study's files hold and compute no statistic of their own. Which pictures are shown is decided by a
hash of seed and prompt id, so nobody picked them.

    python -m evaluation.figures --study-dir results/emoji --config config/emoji.yaml --figure speed --out-prefix PREFIX
"""

import argparse
from collections.abc import Callable, Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from evaluation import published
from evaluation.drawing import (
    GREY,
    LAYOUT,
    MARKERS,
    STYLE,
    WIDTH,
    drawable,
    logarithmic,
    place,
    say,
    sentence,
    smoothed,
    wrap,
)
from evaluation.people import figure5
from evaluation.results import SETS, SHOWN, NotRun, Study, model_name, run
from evaluation.spectrum_figure import power_spectra
from wuerstchen.files import atomic_path


def collage(study: Study) -> Figure:
    """Two rows of unpicked pictures of the model under study for every prompt set, prompts below them (Fig. 1)."""
    columns, gap, size, leading = 6, 0.1, 5.6, 0.098
    side = (WIDTH - (columns - 1) * gap) / columns
    sections = []
    height = 0.0
    for prompts in study.prompt_sets:
        for challenge, rows in study.shown(prompts, 2 * columns):
            if not rows:
                continue
            lines = [wrap(row["prompt"], size, side * 72, 6) for row in rows]
            strips = []
            for start in range(0, len(rows), columns):
                strip = list(zip(rows[start : start + columns], lines[start : start + columns], strict=True))
                strips.append((strip, side + 0.05 + leading * max(len(said) for _, said in strip) + 0.09))
            title = SETS.get(prompts, prompts) + (f", {challenge}" if challenge else "")
            sections.append((title, prompts, strips))
            height += 0.26 + sum(tall for _, tall in strips)
    if not sections:
        return sentence("not run: there are no prompts to show")
    figure = plt.figure(figsize=(WIDTH + 0.02, height))
    y = 0.0
    for title, prompts, strips in sections:
        say(figure, 0.01, y + 0.03, drawable(title), size=7.5, weight="bold")
        y += 0.26
        for strip, tall in strips:
            for column, (row, said) in enumerate(strip):
                x = 0.01 + column * (side + gap)
                place(figure, x, y, side, study.picture(study.model, prompts, row["id"]), "not run")
                say(figure, x, y + side + 0.05, "\n".join(said), size=size)
            y += tall
    return figure


def side_by_side(study: Study) -> Figure:
    """The same unpicked prompts over the real picture, where there is one, and every model."""
    models = ["real", *study.models]
    side, gap, size, margin, top = 1.0, 0.09, 6.5, 1.75, 0.34
    rows = [
        (prompts, row)
        for prompts in study.prompt_sets
        for _, rows_ in study.shown(prompts, 4 if prompts in SHOWN else 2)
        for row in rows_
    ]
    if not rows:
        return sentence("not run: there are no prompts to show")
    width = margin + len(models) * (side + gap) - gap + 0.02
    figure = plt.figure(figsize=(width, top + len(rows) * (side + gap)))
    for column, model in enumerate(models):
        said = "\n".join(wrap(model_name(model), 6.5, side * 72, 2, "bold"))
        say(figure, margin + column * (side + gap), top - 0.07, said, size=6.5, weight="bold", va="bottom")
    for number, (prompts, row) in enumerate(rows):
        y = top + number * (side + gap)
        lines = wrap(row["prompt"], size, (margin - 0.15) * 72, 7)
        say(figure, 0, y + 0.02, "\n".join(lines), size=size)
        about = f"{prompts}: {row['challenge']}" if row["challenge"] else prompts
        say(figure, 0, y + side, drawable(about), size=5.5, color=GREY, va="bottom")
        for column, model in enumerate(models):
            png = study.picture(model, prompts, row["id"])
            absent = "no such\npicture exists" if model == "real" and row["image"] is None else "not run"
            place(figure, margin + column * (side + gap), y, side, png, absent)
    return figure


def speed(study: Study) -> Figure:
    """Sampling time of a batch against its size (Fig. 4): plain on the left, compiled on the right where measured."""
    records = [study.read(f"speed/{path.name}") for path in sorted((study.directory / "speed").glob("*.json"))]
    if not records:
        return sentence("not run: there is no speed/*.json")
    order = {model: place for place, model in enumerate(study.models)}
    records.sort(key=lambda record: order.get(record["model"], len(order)))
    panels = sorted({record["compiled"] for record in records})
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH if len(panels) > 1 else 4.4, 3.1), sharey=True, **LAYOUT)
    names = list(dict.fromkeys(record["model"] for record in records))
    for axis, compiled in zip([axes] if len(panels) == 1 else axes, panels, strict=True):
        for record in (record for record in records if record["compiled"] == compiled):
            sizes = [batch["batch_size"] for batch in record["batches"]]
            seconds = [batch["seconds_per_batch"] for batch in record["batches"]]
            place_ = names.index(record["model"])
            style = {"color": f"C{place_}", "marker": MARKERS[place_ % len(MARKERS)]}
            axis.plot(sizes, seconds, label=model_name(record["model"]), **style)
            axis.set_xscale("log", base=2)
            axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set(xlabel="batch size", title="with torch.compile" if compiled else "without compilation")
        logarithmic(axis, "y")
        axis.legend(loc="upper left")
    first = figure.axes[0]
    first.set_ylabel("seconds per batch")
    about = sorted({f"{r['device']}, {_threads(r)}, {r['precision']}, {r['image_size']} px" for r in records})
    figure.supxlabel(drawable("; ".join(about)), size=6.5, color=GREY, parse_math=False)
    return figure


def figure4(study: Study) -> Figure:
    """The paper's models at their own size on one GPU (Fig. 4): plain on the left, with torch.compile on the right.

    Only what the file holds is drawn: the paper prints no number of its figure, and a GPU is never laid over another.
    """
    record = study.figure4
    if isinstance(record, NotRun):
        return sentence(str(record))
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.3), sharey=True, **LAYOUT)
    sizes = sorted({cell["batch_size"] for cell in record["cells"]})
    for axis, compiled in zip(axes, (False, True), strict=True):
        for number, model in enumerate(record["models"]):
            cells = [c for c in record["cells"] if c["model"] == model and c["compiled"] == compiled]
            points = sorted((c["batch_size"], c["seconds_per_batch"]) for c in cells if "failed" not in c)
            if points:
                style = {"color": f"C{number}", "marker": MARKERS[number], "label": model_name(model)}
                axis.plot(*zip(*points, strict=True), **style)
        failed = [f"{model_name(c['model'])}, batch {c['batch_size']}: {c['failed']}" for c in record["cells"]
                  if "failed" in c and c["compiled"] == compiled]  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set(xlabel="batch size", title="with torch.compile" if compiled else "without compilation")
        if axis.lines:
            logarithmic(axis, "y")
            axis.legend(loc="upper left")
        else:
            _absent(axis, "not run: no cell was timed")
        if failed:
            said = "\n".join(drawable(line) for line in failed)
            axis.text(0.98, 0.02, said, transform=axis.transAxes, ha="right", va="bottom", size=6, color=GREY)
    axes[0].set_ylabel("seconds per batch")
    about = f"{record['device']}, {record['precision']}, {record['image_size']} px, random weights"
    figure.supxlabel(drawable(about), size=6.5, color=GREY, parse_math=False)
    return figure


def spectra(study: Study) -> Figure:
    """Power spectra of every model's pictures beside the real ones, of the first prompt set that has real ones."""
    for prompts in study.prompt_sets:
        found = [study.score("power-spectrum", model, prompts) for model in ("real", *study.models)]
        if records := [record for record in found if not isinstance(record, NotRun)]:
            return power_spectra(records)
    return power_spectra([])


def probe(study: Study) -> Figure:
    """The same Stage C latents of unpicked prompts, by the probe decoder and by Stages B and A (Figs. 17 to 21)."""
    model, prompts = "wuerstchen-probe", "names"
    rows = [row for _, some in study.shown(prompts, 8) for row in some]
    rows = [row for row in rows if study.picture(model, prompts, row["id"])]
    if not rows:
        return sentence(f"not run: there are no pictures in images/{model}/{prompts}")
    columns, gap, between, size, leading = 4, 0.04, 0.2, 5.6, 0.098
    side = (WIDTH - (columns - 1) * between - columns * gap) / (2 * columns)
    width = 2 * side + gap
    lines = [wrap(row["prompt"], size, width * 72, 3) for row in rows]
    tall = side + 0.05 + leading * max(map(len, lines)) + 0.12
    figure = plt.figure(figsize=(WIDTH + 0.02, 0.28 + tall * -(-len(rows) // columns)))
    for number, (row, said) in enumerate(zip(rows, lines, strict=True)):
        x, y = 0.01 + number % columns * (width + between), 0.28 + number // columns * tall
        if number < columns:
            for place_, title in ((x, "Stage C, probe"), (x + side + gap, "Stages B + C")):
                say(figure, place_, y - 0.05, title, size=6.2, weight="bold", va="bottom")
        place(figure, x, y, side, study.picture(model, prompts, row["id"]), "not run")
        place(figure, x + side + gap, y, side, study.picture("wuerstchen", prompts, row["id"]), "not run")
        say(figure, x, y + side + 0.05, "\n".join(said), size=size)
    return figure


def _threads(record: dict) -> str:
    return "1 thread" if record["threads"] == 1 else f"{record['threads']} threads"


def training(study: Study) -> Figure:
    """Training loss of every stage against its steps, raw and smoothed, with the validation loss where there is one."""
    stages = study.stages
    columns = 3
    rows = -(-len(stages) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 2.15 * rows), squeeze=False, **LAYOUT)
    spare = list(axes.flat[len(stages) :])
    for axis, stage in zip(axes.flat, stages, strict=False):
        history = study.history(stage)
        name = f"Stage {stage.upper()}" if len(stage) == 1 else model_name(stage)
        axis.set_title(name, size=7.5)
        if isinstance(history, NotRun):
            _absent(axis, str(history))
            continue
        draw_losses(axis, history)
        minutes = history["seconds"][-1] / 60
        axis.set_xlabel(f"step (all: {minutes:.1f} min)", size=7)
    for axis in axes[:, 0]:
        axis.set_ylabel("loss")
    handles = {}
    for axis in axes.flat:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    for axis in spare:
        axis.axis("off")
    if spare:
        spare[0].legend(handles.values(), handles.keys(), loc="center left")
    elif handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure


def draw_losses(axis: Axes, history: dict[str, list[float]]) -> None:
    """One stage's curves; a logarithmic axis where every loss is above zero."""
    steps, losses = history["step"], history["loss"]
    axis.plot(steps, losses, color="C0", alpha=0.3, linewidth=0.6, label="training, each record")
    axis.plot(steps, smoothed(losses), color="C0", label="training, moving average")
    held_out = history.get("validation_loss", [])
    points = [(step, loss) for step, loss in zip(steps, held_out, strict=False) if loss == loss]
    if points:
        axis.plot(*zip(*points, strict=True), color="C1", marker="o", markersize=3, label="validation")
    if min([*losses, *(loss for _, loss in points)]) > 0:
        logarithmic(axis, "y")


def recall_curve(study: Study) -> Figure:
    """Recall@10 of seen prompts against the training time of all the stages that a model needs."""
    record = study.read("curve.json")
    if isinstance(record, NotRun):
        return sentence(str(record))
    figure, axis = plt.subplots(figsize=(WIDTH, 3.6), **LAYOUT)
    models = [model for model in (*study.models, "ceiling-compressor") if model in record["models"]]
    for number, model in enumerate(models):
        points = record["models"][model]
        points = sorted(points, key=lambda point: point["seconds"])
        minutes, shares = ([point["seconds"] / 60 for point in points], [100 * point["at_10"] for point in points])
        ends = [[100 * point["interval_at_10"][end] for point in points] for end in (0, 1)]
        errors = [
            [share - low for share, low in zip(shares, ends[0], strict=True)],
            [high - share for share, high in zip(shares, ends[1], strict=True)],
        ]
        style = {"color": f"C{number}", "marker": MARKERS[number]}
        if model.startswith("ceiling"):
            style |= {"color": GREY, "linestyle": "--"}
        axis.errorbar(minutes, shares, errors, label=model_name(model), elinewidth=0.7, capsize=2, **style)
        axis.plot(minutes[-1:], shares[-1:], markersize=8, **style)
        if model == "baseline-ldm-bc" and "baseline-ldm" in record["models"]:  # it goes on from where that one ended
            start = max(record["models"]["baseline-ldm"], key=lambda point: point["seconds"])
            line = ([start["seconds"] / 60, minutes[0]], [100 * start["at_10"], shares[0]])
            axis.plot(*line, color=style["color"], linestyle=":")
    axis.axhline(100 * record["chance_at_10"], color="#999999", linewidth=0.8, linestyle=":", label="guessing")
    axis.set(xlabel="minutes of training, all needed stages together", xlim=(0, None), ylim=(0, None))
    axis.set_ylabel(f"recall@10 of {record['n']} seen prompts, %")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def robustness(study: Study) -> Figure:
    """Table 3 as a plot: our distances with intervals on the left, the paper's two columns of FID on the right."""
    manipulations = list(study.config["robustness"]["manipulations"])
    quoted = {row["manipulation"]: row for row in published.rows("table3")}
    places = list(range(len(manipulations)))
    figure, (ours, paper) = plt.subplots(1, 2, figsize=(WIDTH, 0.24 * len(places) + 1.25), sharey=True, **LAYOUT)
    sets = list(study.config["robustness"]["sets"])
    for number, name in enumerate(sets):
        record = study.read(f"robustness/{name}.json")
        style = {"color": f"C{number}", "marker": MARKERS[number], "linestyle": "none"}
        if isinstance(record, NotRun):
            ours.plot([], [], label=f"{name}: not run", **style)
            continue
        offset = 0.24 * (number - (len(sets) - 1) / 2)
        rows = [(place, record["manipulations"].get(key)) for place, key in zip(places, manipulations, strict=True)]
        rows = [(place + offset, row) for place, row in rows if row is not None and row["value"] > 0]
        x, y = [row["value"] for _, row in rows], [place for place, _ in rows]
        low = [max(0.0, row["value"] - row["interval"][0]) for _, row in rows]
        high = [max(0.0, row["interval"][1] - row["value"]) for _, row in rows]
        ours.errorbar(x, y, xerr=[low, high], label=name, elinewidth=0.8, **style)
    for number, (column, title) in enumerate((("coco30k", "COCO 30k"), ("celeba_hq", "CelebA-HQ"))):
        rows = [(place, quoted[key]) for place, key in zip(places, manipulations, strict=True) if key in quoted]
        x = [published.number(row[column]) for _, row in rows]
        y = [place + 0.24 * (number - 0.5) for place, _ in rows]
        paper.plot(x, y, MARKERS[2 + number], color=f"C{2 + number}", label=title)
    labels = [_label(quoted.get(key), key) for key in manipulations]
    ours.set_yticks(places, labels)
    ours.invert_yaxis()
    paper.tick_params(axis="y", left=False)
    distances = dict.fromkeys(study.distance(name) for name in sets)
    ours.set(xlabel=f"{', '.join(distances)} (95 % interval)", title="Measured here")
    paper.set(xlabel="FID", title="The paper's Table 3")
    for axis in (ours, paper):
        logarithmic(axis, "x", (1.0,))
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
        for row in places[1:]:
            if _group(quoted, manipulations[row]) != _group(quoted, manipulations[row - 1]):
                axis.axhline(row - 0.5, color="#999999", linewidth=0.5)
    return figure


def _label(row: dict | None, manipulation: str) -> str:
    if row is None:
        return manipulation
    label = f"JPEG {row['configuration']}" if row["group"].startswith("JPEG") else row["configuration"]
    return label.replace("-10", "\N{MINUS SIGN}10")


def _group(quoted: dict[str, dict], manipulation: str) -> str:
    return quoted[manipulation]["group"] if manipulation in quoted else ""


def _absent(axis: Axes, said: str) -> None:
    axis.set(xticks=[], yticks=[])
    style = {"ha": "center", "va": "center", "size": 6.5, "color": GREY}
    axis.text(0.5, 0.5, "\n".join(wrap(said, 6.5, 120, 4)), transform=axis.transAxes, parse_math=False, **style)


FIGURES: dict[str, Callable[[Study], Figure]] = {
    "collage": collage,
    "side-by-side": side_by_side,
    "speed": speed,
    "figure4": figure4,
    "figure5": figure5,
    "training": training,
    "recall-curve": recall_curve,
    "robustness": robustness,
    "probe": probe,
    "power-spectrum": spectra,
}


def draw(study: Study, name: str, prefix: str) -> None:
    """Write one of FIGURES as `prefix`.pdf and .png, without dates, so that equal figures are equal bytes."""
    plt.switch_backend("agg")
    with plt.rc_context(fname=STYLE):
        figure = FIGURES[name](study)
        for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
            with atomic_path(f"{prefix}.{suffix}") as path:
                figure.savefig(path, format=suffix, metadata=metadata)
        plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="One figure of a study, as pdf and png.")
    parser.add_argument("--figure", choices=list(FIGURES), required=True)
    parser.add_argument("--out-prefix", required=True, help="path without suffix; .pdf and .png are written")
    run(lambda study, options: draw(study, options.figure, options.out_prefix), parser, argv)


if __name__ == "__main__":
    main()
