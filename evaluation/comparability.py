"""Which scores may stand side by side: what orders scores, marks the best or puts them in one table asks here first.

"FID on COCO-30K" names no one number (see `evaluation.protocols`), and what holds for it holds for every other score.
"""

from collections.abc import Iterable, Mapping
from typing import Any

# What must be equal in two scores' JSON for one of them to be the better; a Frechet distance falls with n as well.
COMPARED = ("metric", "protocol", "protocol_sha256", "extractor", "preprocessing", "reference_sha256", "n")


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Fields in which two scores' JSON differ that must be equal to compare them."""
    return [field for field in COMPARED if a.get(field) != b.get(field)]


def comparable(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether one of two scores can be said to be the better."""
    return not differences(a, b)


def require_comparable(scores: Iterable[Mapping[str, Any]]) -> None:
    """Raise ValueError naming what differs unless all scores can be ranked together."""
    first: Mapping[str, Any] | None = None
    for score in scores:
        first = first or score
        if fields := differences(first, score):
            both = "; ".join(f"{field} {first.get(field)!r} and {score.get(field)!r}" for field in fields)
            raise ValueError(
                f"scores of {first.get('model')} and {score.get('model')} cannot be ranked together: {both}"
            )
