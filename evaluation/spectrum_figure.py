"""The power spectra of the models' pictures beside the real ones, from the JSONs of evaluation.power_spectrum."""

from collections.abc import Sequence
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.drawing import GREY, LAYOUT, WIDTH, drawable, logarithmic, sentence


def power_spectra(records: Sequence[dict[str, Any]]) -> Figure:
    """Power in dB on the left, what it differs by from the real pictures of the same ids on the right, with 95 % bands.

    The legend gives each set's slope and share of high frequencies.
    """
    if not records:
        return sentence("not run: there are no power spectra")
    figure, (power, difference) = plt.subplots(1, 2, figsize=(WIDTH, 3.3), **LAYOUT)
    for number, record in enumerate(records):
        color = GREY if record["model"] == "real" else f"C{number}"
        label = f"{record['model']}: slope {record['slope']['value']:.2f}, high {record['high_share']['value']:.2%}"
        _band(power, record["frequency"], record["power_db"], color, drawable(label))
        if record["difference"] is not None:
            _band(difference, record["frequency"], record["difference"]["power_db"], color)
    difference.axhline(0, color=GREY, linewidth=0.8)
    power.set(ylabel="power, dB of one squared grey level", title="Power")
    difference.set(ylabel="dB", title="Beside the real pictures")
    for axis in (power, difference):
        axis.set_xlabel("cycles per pixel")
        logarithmic(axis, "x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _band(axis: Axes, frequency: list[float], curve: dict[str, list[float]], color: str, label: str = "") -> None:
    axis.plot(frequency, curve["value"], color=color, label=label or None)
    axis.fill_between(frequency, curve["low"], curve["high"], color=color, alpha=0.25, linewidth=0)
