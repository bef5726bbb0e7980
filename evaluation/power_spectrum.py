"""Radial power spectrum of pictures beside the real ones: the paper finds its own "smoother" than others (section 4.1).

Each picture is made grey, freed of its mean and multiplied by a Hann window, so that opposite edges, which do not fit
together, add no power of their own. The power of the discrete Fourier transform is averaged over rings one cycle per
picture wide. Normalised by the window's energy: white noise of variance v has power v at every frequency.

python -m evaluation.power_spectrum --pictures ZIP ... [--reference ZIP ...] --model M --prompts P --seed N --out JSON
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.features import library_versions
from evaluation.intervals import COVERS, paired_bootstrap
from evaluation.picture_files import entries, files_sha256
from evaluation.pictures import Reading
from evaluation.prepare import CROPS, FILTERS, prepare
from wuerstchen.files import write_json
from wuerstchen.progress import progress
from wuerstchen.seeds import derive

# Rounding to whole levels is noise of variance 1/12: below it a uint8 picture says nothing.
FLOOR = 1 / 12
FIT = (1 / 32, 3 / 8)  # cycles per pixel between which the slope is fitted: no window leakage, no last, clipped octave
HIGH = 1 / 4  # cycles per pixel from which a frequency counts as high: the finest octave
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Spectra:
    """Power (n, side // 2) in squared grey levels of n pictures `ids`, at k / side cycles per pixel, k = 1, 2, ..."""

    ids: list[str]
    power: np.ndarray
    side: int

    @property
    def frequencies(self) -> np.ndarray:
        """Cycles per pixel (side // 2,), up to 1/2."""
        return np.arange(1, self.side // 2 + 1) / self.side

    def decibels(self) -> np.ndarray:
        """Power in dB of one squared grey level, not below that of rounding to uint8 (n, side // 2)."""
        return 10 * np.log10(np.maximum(self.power, FLOOR))

    def slopes(self) -> np.ndarray:
        """The exponent a of power ~ 1/f^a for each picture (n,): least squares of dB over log f, octaves equal."""
        chosen = (self.frequencies >= FIT[0]) & (self.frequencies <= FIT[1])
        x, weights = np.log10(self.frequencies[chosen]), 1 / self.frequencies[chosen]
        weights = weights / weights.sum()
        x = x - weights @ x
        return -(self.decibels()[:, chosen] @ (weights * x)) / (weights @ x**2) / 10

    def high_shares(self) -> np.ndarray:
        """Share of each picture's power (n,) at HIGH cycles per pixel and above, over all rings up to 1/2."""
        total = np.maximum(self.power, FLOOR) * _rings(self.side)[1]
        return total[:, self.frequencies >= HIGH].sum(axis=1) / total.sum(axis=1)

    def of(self, ids: Sequence[str]) -> "Spectra":
        """The same in the order of `ids`. Raises ValueError where one is absent."""
        rows = {name: row for row, name in enumerate(self.ids)}
        absent = [name for name in ids if name not in rows]
        if absent:
            raise ValueError(f"the reference lacks {len(absent)} of the pictures, such as {', '.join(absent[:3])}")
        return Spectra(list(ids), self.power[[rows[name] for name in ids]], self.side)


@cache
def _rings(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Ring 1..side//2 of each coefficient of a real transform (side, side // 2 + 1), 0 outside; coefficients in each.

    The real transform leaves out mirrored columns: these count twice.
    """
    across, down = np.fft.rfftfreq(side, 1 / side), np.fft.fftfreq(side, 1 / side)
    ring = np.rint(np.hypot(down[:, None], across[None])).astype(np.int64)
    ring[ring > side // 2] = 0
    return ring, np.bincount(ring.ravel(), weights=_twice(side).ravel())[1:]


@cache
def _twice(side: int) -> np.ndarray:
    columns = np.full(side // 2 + 1, 2.0)
    columns[0] = 1
    if side % 2 == 0:
        columns[-1] = 1
    return np.broadcast_to(columns, (side, side // 2 + 1))


def radial_power(picture: np.ndarray) -> np.ndarray:
    """Power (side // 2,) in squared grey levels of a square uint8 RGB or float grey picture, by ring.

    Grey is Rec. 601 luma, not rounded. Raises ValueError for a picture that is not square or is under 16 px wide.
    """
    grey = picture @ np.array([0.299, 0.587, 0.114]) if picture.ndim == 3 else picture.astype(np.float64)
    side = len(grey)
    if grey.shape != (side, side) or side < 16:
        raise ValueError(f"a square picture of 16 px or more is needed, got {grey.shape[-1]}x{side}")
    line = np.hanning(side + 1)[:-1]  # periodic: its own transform touches two neighbours and no more
    window = np.outer(line, line)
    # The windowed mean, not the plain one: what remains then has no power at zero that could leak.
    grey = (grey - (grey * window).sum() / window.sum()) * window
    power = np.abs(np.fft.rfft2(grey)) ** 2 / (window**2).sum()
    ring, coefficients = _rings(side)
    return np.bincount(ring.ravel(), weights=(power * _twice(side)).ravel())[1:] / coefficients


def spectra(pictures: Iterable[tuple[str, np.ndarray]], total: int | None = None) -> Spectra:
    """Spectra of (id, square picture) pairs of one size. Raises ValueError for none, or for differing sizes."""
    ids, rows, side = [], [], 0
    with progress(what="power spectrum", unit="pictures", total=total) as bar:
        for name, picture in pictures:
            side = side or len(picture)
            if len(picture) != side:
                raise ValueError(f"picture {name} is {len(picture)} px wide, those before it {side}")
            ids.append(name)
            rows.append(radial_power(picture))
            bar.update()
    if not ids:
        raise ValueError("no pictures to take a power spectrum of")
    return Spectra(ids, np.stack(rows), side)


def curve(per_picture: np.ndarray, seed: int) -> dict[str, list[float]]:
    """Mean (bins,) over pictures of (n, bins) and its percentile interval by drawing pictures with replacement."""
    random = np.random.default_rng(derive("bootstrap", seed))
    n = len(per_picture)
    counts = random.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    low, high = np.quantile(counts @ per_picture / n, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
    return {"value": per_picture.mean(axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}


def _mean(per_picture: np.ndarray, seed: int) -> dict[str, Any]:
    low, high = paired_bootstrap(per_picture, seed, RESAMPLES, LEVEL)
    return {"value": float(per_picture.mean()), "interval": [low, high]}


def measured(pictures: Spectra, reference: Spectra | None, seed: int) -> dict[str, Any]:
    """Curve in dB, slope and share of high frequencies; with `reference`, also what they differ by on the same ids.

    Raises ValueError where the reference lacks a picture or has another size.
    """
    record: dict[str, Any] = {
        "frequency": pictures.frequencies.tolist(),
        "power_db": curve(pictures.decibels(), seed),
        "slope": _mean(pictures.slopes(), seed),
        "high_share": _mean(pictures.high_shares(), seed),
        "difference": None,
    }
    if reference is not None:
        if reference.side != pictures.side:
            raise ValueError(f"pictures of {pictures.side} px cannot be set beside ones of {reference.side} px")
        real = reference.of(pictures.ids)
        record["difference"] = {
            "power_db": curve(pictures.decibels() - real.decibels(), seed),
            "slope": _mean(pictures.slopes() - real.slopes(), seed),
            "high_share": _mean(pictures.high_shares() - real.high_shares(), seed),
        }
    return record


def main(argv: list[str] | None = None) -> None:
    """Command line: one model's pictures of one prompt set."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.power_spectrum", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", required=True, nargs="+", type=Path, metavar="ZIP", help="shards, or a folder")
    parser.add_argument("--reference", nargs="+", type=Path, metavar="ZIP", help="real pictures of the same ids")
    parser.add_argument("--model", required=True, help="model id, or real")
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--seed", required=True, type=int, help="of the bootstrap")
    parser.add_argument("--size", type=int, default=256, help="px to which all are reduced (default: %(default)s)")
    parser.add_argument("--crop", default="centre", choices=list(CROPS), help="before that (default: %(default)s)")
    parser.add_argument("--filter", default="bicubic", choices=list(FILTERS), help="default: %(default)s")
    parser.add_argument("--out", required=True, type=Path, metavar="JSON")
    options = parser.parse_args(argv)

    def of(sources: Sequence[Path]) -> tuple[Spectra, str]:
        reading = Reading(entries(sources))
        prepared = ((name, prepare(picture, options.size, options.crop, options.filter)) for name, picture in reading)
        return spectra(prepared, len(reading)), files_sha256(reading.digests)

    try:
        pictures, digest = of(options.pictures)
        reference, reference_digest = of(options.reference) if options.reference else (None, None)
        record = {
            "schema": 1,
            "metric": "power-spectrum",
            "protocol": f"crop {options.crop}, {options.filter} to {options.size} px, Rec. 601 grey, Hann window, "
            f"mean over rings, mean of dB over pictures; slope fitted between {FIT[0]:g} and {FIT[1]:g} cycles per "
            f"pixel, high from {HIGH:g}",
            "model": options.model,
            "prompts": options.prompts,
            **measured(pictures, reference, options.seed),
            "interval_method": f"percentile bootstrap over pictures, {RESAMPLES} resamples",
            "interval_covers": COVERS,
            "n": len(pictures.ids),
            "seed": options.seed,
            "images_sha256": digest,
            "reference_sha256": reference_digest,
            "versions": library_versions("numpy", "pillow"),
        }
    except ValueError as error:
        raise SystemExit(str(error)) from None
    write_json(options.out, record)


if __name__ == "__main__":
    main()
