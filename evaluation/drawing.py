"""What the figures share: their style, text that fits its place, pictures and axes."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from evaluation.results import decode

STYLE = Path(__file__).with_name("matplotlibrc")
WIDTH = 7.2  # inches: a page of text
LAYOUT = {"layout": "constrained"}
GREY = "#666666"
MARKERS = "os^Dv"


def text_width(said: str, size: float, weight: str = "normal") -> float:
    """Width of a line in points, in the figures' font at `size` points."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight=weight)))
    # Measured large, because at print size hinting rounds every letter to whole pixels.
    font.set_size(100, 72)
    font.set_text(said, 0.0)
    return font.get_width_height()[0] / 64 * size / 100


def drawable(said: str) -> str:
    """The text with every character that the figures' font lacks, such as an emoji, as a replacement sign."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    said = " ".join(said.split())
    return "".join(letter if font.get_char_index(ord(letter)) else "\ufffd" for letter in said)


def wrap(said: str, size: float, width: float, lines: int, weight: str = "normal") -> list[str]:
    """Break a text into at most `lines` lines of `width` points; what does not fit ends in an ellipsis."""
    broken: list[str] = []
    for word in drawable(said).split():
        while word:
            line = f"{broken[-1]} {word}" if broken else word
            if broken and text_width(line, size, weight) <= width:
                broken[-1], word = line, ""
            else:
                lengths = range(1, len(word) + 1)
                fits = max(1, bisect_right(lengths, width, key=lambda n: text_width(word[:n], size, weight)))
                broken.append(word[:fits])
                word = word[fits:]
    if len(broken) > lines:
        last = broken[lines - 1]
        while last and text_width(f"{last}…", size, weight) > width:
            last = last[:-1]
        broken = [*broken[: lines - 1], f"{last.rstrip()}…"]
    return broken


def say(figure: Figure, x: float, y: float, said: str, **style: object) -> None:
    """Text at inches from the left and from the top. Nothing in it is read as mathematics."""
    width, height = figure.get_size_inches()
    style = {"va": "top", "ha": "left", "linespacing": 1.15} | style
    figure.text(x / width, 1 - y / height, said, parse_math=False, **style)


def place(figure: Figure, x: float, y: float, side: float, png: bytes | None, absent: str) -> None:
    """A square picture with its upper left corner at inches from the left and from the top, or words in its place."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((x / width, 1 - (y + side) / height, side / width, side / height))
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#d0d0d0", linewidth=0.4)
    if png is None:
        axes.text(0.5, 0.5, absent, ha="center", va="center", size=6, color=GREY, transform=axes.transAxes)
    else:
        axes.imshow(decode(png), extent=(0, 1, 0, 1))


def logarithmic(axis: Axes, which: str, subs: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """Make the x or y axis logarithmic, with plain numbers at `subs` times the powers of ten."""
    axis.set(**{f"{which}scale": "log"})
    ticks = axis.xaxis if which == "x" else axis.yaxis
    ticks.set_major_locator(LogLocator(subs=subs))
    ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ticks.set_minor_formatter(NullFormatter())


def smoothed(values: Sequence[float], share: float = 0.05) -> list[float]:
    """Exponential moving average over about `share` of the curve, started at its first value."""
    weight = 2 / (max(1.0, share * len(values)) + 1)
    line = [values[0]]
    for value in values[1:]:
        line.append(line[-1] + weight * (value - line[-1]))
    return line


def sentence(said: str) -> Figure:
    """A figure that only says why it is empty."""
    figure = plt.figure(figsize=(WIDTH, 0.8))
    say(figure, 0.1, 0.3, drawable(said), size=8, color=GREY)
    return figure
