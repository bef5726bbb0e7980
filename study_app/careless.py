"""Signs of careless voting. They flag people and never delete a vote: every result stands with and without them.

The rules are fixed here, before there are votes; each judges one person in one study.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from study_app.agreement import repeats
from study_app.ballots import Ballot, Study


@dataclass(frozen=True)
class Rule:
    """A rule: its name, what it says, and which participants it flags."""

    name: str
    says: str
    flagged: Callable[[Study], set[str]]


FAST_MS, FAST_VOTES = 1000, 10
SIDE_SHARE, SIDE_VOTES = 0.9, 20
EQUAL_SHARE, EQUAL_VOTES = 0.9, 20
BURST_VOTES, BURST_SECONDS = 10, 10.0
TURNED_SHARE, TURNED_REPEATS = 0.5, 4
FAILED_SHARE, FAILED_CONTROLS = 0.5, 2


def by_participant(study: Study) -> dict[str, list[Ballot]]:
    """Everyone's ballots of all kinds, in order."""
    found: dict[str, list[Ballot]] = {}
    for ballot in study.ballots:
        found.setdefault(ballot.participant, []).append(ballot)
    return found


def fast(study: Study) -> set[str]:
    """Median response below FAST_MS, with FAST_VOTES votes or more."""
    return {
        name
        for name, ballots in by_participant(study).items()
        if len(ballots) >= FAST_VOTES and np.median([ballot.response_ms for ballot in ballots]) < FAST_MS
    }


def burst(study: Study) -> set[str]:
    """BURST_VOTES decisions one after the other within BURST_SECONDS."""
    found = set()
    for name, ballots in by_participant(study).items():
        times = sorted(ballot.decided_at for ballot in ballots)
        pairs = zip(times, times[BURST_VOTES - 1 :], strict=False)
        if any((last - first).total_seconds() < BURST_SECONDS for first, last in pairs):
            found.add(name)
    return found


def one_side(study: Study) -> set[str]:
    """The same side in SIDE_SHARE of the decisive votes, with SIDE_VOTES of them or more."""
    found = set()
    for name, ballots in by_participant(study).items():
        sides = Counter(ballot.choice for ballot in ballots if ballot.choice != "equal")
        if sides.total() >= SIDE_VOTES and max(sides.values()) >= SIDE_SHARE * sides.total():
            found.add(name)
    return found


def always_equal(study: Study) -> set[str]:
    """Equal in EQUAL_SHARE of the votes, with EQUAL_VOTES or more."""
    found = set()
    for name, ballots in by_participant(study).items():
        equal = sum(ballot.choice == "equal" for ballot in ballots)
        if len(ballots) >= EQUAL_VOTES and equal >= EQUAL_SHARE * len(ballots):
            found.add(name)
    return found


def turned(study: Study) -> set[str]:
    """The other model preferred in more than TURNED_SHARE of the repeats, with TURNED_REPEATS or more."""
    return {
        name
        for name, counts in repeats(study).items()
        if counts.sum() >= TURNED_REPEATS and counts[2] > TURNED_SHARE * counts.sum()
    }


def failed(study: Study) -> set[str]:
    """Controls not answered with the picture that belongs to the prompt, in more than FAILED_SHARE of them."""
    found = set()
    for name, ballots in by_participant(study).items():
        right = [ballot.chosen in study.models for ballot in ballots if ballot.kind == "control"]
        if len(right) >= FAILED_CONTROLS and right.count(False) > FAILED_SHARE * len(right):
            found.add(name)
    return found


RULES = (
    Rule("fast", f"median response below {FAST_MS / 1000:g} s over {FAST_VOTES} votes or more", fast),
    Rule("burst", f"{BURST_VOTES} decisions within {BURST_SECONDS:g} s", burst),
    Rule("one-side", f"the same side in {100 * SIDE_SHARE:g} % of {SIDE_VOTES} decisive votes or more", one_side),
    Rule("always-equal", f"equal in {100 * EQUAL_SHARE:g} % of {EQUAL_VOTES} votes or more", always_equal),
    Rule("turned", f"the other model in more than half of {TURNED_REPEATS} repeats or more", turned),
    Rule("failed-controls", f"more than half of {FAILED_CONTROLS} controls or more failed", failed),
)


def flags(study: Study) -> dict[str, set[str]]:
    """Flagged participants by rule."""
    return {rule.name: rule.flagged(study) for rule in RULES}
