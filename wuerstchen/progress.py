"""Progress of long loops: a bar on a terminal, a line now and then in a log."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

EVERY = 10.0  # seconds between two lines of a log; what ends earlier leaves none


class _Log:
    """Standard error for tqdm: what it would draw over its last state becomes a line of its own."""

    last = ""

    def write(self, text: str) -> None:
        words = text.strip()
        if words and words != self.last:  # tqdm draws the end twice
            sys.stderr.write(f"{words}\n")
            self.last = words

    def flush(self) -> None:
        sys.stderr.flush()


def progress(items: Iterable[Any] | None = None, *, what: str, unit: str = "it", total: int | None = None) -> tqdm:
    """A tqdm over `items`, or one to `update` by hand where there are none. What is one step needs no bar."""
    if items is not None and hasattr(items, "__len__") and len(items) <= 1:
        return tqdm(items, disable=True)
    if sys.stderr.isatty():
        return tqdm(items, desc=what, unit=unit, total=total, miniters=1, mininterval=0.2)
    if total is None and not hasattr(items, "__len__"):  # nobody knows what is left
        form = "{desc}: {n_fmt} {unit}, {elapsed} gone"
    else:
        form = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed} gone, {remaining} left"
    return tqdm(
        items,
        desc=what,
        unit=unit,
        total=total,
        miniters=1,
        mininterval=EVERY,
        delay=EVERY,
        file=_Log(),
        bar_format=form,
    )
