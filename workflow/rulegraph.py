"""The picture of the rules in docs/: which step needs which, coloured by chapter.

python -m workflow.rulegraph        writes docs/rulegraph.txt (the graph) and docs/rulegraph.svg (its picture)
"""

import argparse
import re
import subprocess
import sys
import textwrap
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import mean

import networkx as nx

from workflow.done import chapters
from wuerstchen.files import atomic_path, write_text

ROOT = Path(__file__).parent.parent
COLOURS = {
    "data": "#d9d9d9",
    "train": "#fdc9a5",
    "sample": "#fde9a3",
    "score": "#c5e3b5",
    "robustness": "#bfe6e3",
    "speed": "#bcd4ee",
    "carbon": "#cfc8e8",
    "report": "#f3c6da",
}


def parse_dot(text: str) -> nx.DiGraph:
    """The graph that `snakemake --rulegraph` prints in the dot language; an edge leads to a step that needs it."""
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', text))
    edges = re.findall(r"(\d+) -> (\d+)", text)
    graph = nx.DiGraph()
    graph.add_nodes_from(names.values())
    graph.add_edges_from((names[start], names[end]) for start, end in edges)
    return graph


def rulegraph(root: Path = ROOT) -> nx.DiGraph:
    """Today's rule graph of the default study, without edges that follow from others and without the target `all`."""
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", "--rulegraph"]
    text = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    graph = parse_dot(text)
    graph.remove_node("all")
    return nx.transitive_reduction(graph)


def as_text(graph: nx.DiGraph) -> str:
    """One line per rule: its name and the rules that need it."""
    lines = (f"{rule}: {', '.join(sorted(graph.successors(rule)))}".rstrip(": ") for rule in sorted(graph))
    return "# Written by `make rulegraph`: each rule and those that need its products directly.\n" + "".join(
        f"{line}\n" for line in lines
    )


def layers(graph: nx.DiGraph) -> dict[str, int]:
    """Layer of each rule, 0 at the end of the study: as late as those that need it allow."""
    layer: dict[str, int] = {}
    for rule in reversed(list(nx.lexicographical_topological_sort(graph))):
        layer[rule] = max((layer[user] + 1 for user in graph.successors(rule)), default=0)
    return layer


def layout(graph: nx.DiGraph) -> tuple[dict[str, tuple[float, float]], list[list[str]]]:
    """Places of all rules (across, up), and for each edge the places it goes through.

    An edge over several layers gets a place of its own in each, so that it passes beside the rules there. Places are
    ordered by the mean of their neighbours', from layer to layer, which keeps crossings few.
    """
    layer, routes = layers(graph), []
    links = nx.DiGraph()
    links.add_nodes_from(sorted(graph))
    for start, end in sorted(graph.edges):
        route = [start, *(f"{start}>{end}@{i}" for i in range(layer[start] - 1, layer[end], -1)), end]
        layer |= {name: layer[start] - i for i, name in enumerate(route)}
        nx.add_path(links, route)
        routes.append(route)
    rows = [[name for name in links if layer[name] == i] for i in range(max(layer.values()) + 1)]
    across = {name: float(i) for row in rows for i, name in enumerate(row)}
    for sweep in range(60):
        for row in rows if sweep % 2 else rows[::-1]:
            near = links.successors if sweep % 2 else links.predecessors
            wanted = {name: mean([across[other] for other in near(name)] or [across[name]]) for name in row}
            row.sort(key=lambda name: (wanted[name], name))  # noqa: B023 (used at once)
            width = [1.0 if name in graph else 0.25 for name in row]
            ends = list(accumulate(width))
            shift = mean(wanted[name] - end + w / 2 for name, end, w in zip(row, ends, width, strict=True))
            across |= {name: end - w / 2 + shift for name, end, w in zip(row, ends, width, strict=True)}
    return {name: (across[name], float(layer[name])) for name in links}, routes


def draw(graph: nx.DiGraph, path: Path) -> None:
    """Draw the graph, the same bytes of SVG for the same graph."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, PathPatch
    from matplotlib.path import Path as Curve

    (place, routes), chapter = layout(graph), chapters()
    left, right = min(x for x, _ in place.values()) - 0.6, max(x for x, _ in place.values()) + 0.6
    top = max(y for _, y in place.values()) + 0.6
    with rc_context({"svg.hashsalt": "rulegraph", "font.size": 9}):
        figure = Figure(figsize=((right - left) * 1.15, (top + 0.6) * 0.62))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(-0.6, top))
        axes.axis("off")
        for route in routes:
            points, codes = [place[route[0]]], [Curve.MOVETO]
            for start, end in pairwise(route):
                (x0, y0), (x1, y1) = place[start], place[end]
                points += [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2), (x1, y1)]
                codes += [Curve.CURVE4] * 3
            axes.add_patch(PathPatch(Curve(points, codes), fill=False, edgecolor="#999999", linewidth=0.9, zorder=1))
        for rule in graph:
            box = {"boxstyle": "round,pad=0.35", "facecolor": COLOURS[chapter[rule]], "edgecolor": "#666666"}
            axes.text(
                *place[rule], "\n".join(fill(rule)), ha="center", va="center", bbox=box, zorder=2, linespacing=0.95
            )
        patches = [Patch(facecolor=colour, edgecolor="#666666", label=name) for name, colour in COLOURS.items()]
        axes.legend(handles=patches, loc="upper left", frameon=False)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, metadata={"Date": None} if path.suffix == ".svg" else None)


def fill(rule: str) -> list[str]:
    """The words of a rule's name in lines of at most 13 letters."""
    return textwrap.wrap(rule.replace("_", " "), 13, break_long_words=False)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw today's rule graph into docs/.")
    parser.parse_args(argv)
    graph = rulegraph()
    draw(graph, ROOT / "docs" / "rulegraph.svg")
    write_text(ROOT / "docs" / "rulegraph.txt", as_text(graph))


if __name__ == "__main__":
    main()
