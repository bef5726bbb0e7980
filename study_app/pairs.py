"""Which pair a participant sees at which position: a pure function of seed, participant, position and what was seen.

Choices come from BLAKE2 digests rather than from a library's generator, so that a replay in another year, version or
language draws the same trials.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

BLOCK = 20  # positions; each block holds the numbers of special trials below, at places of its own
ANCHORS = 2  # pairs of a small set that many participants see: agreement between participants
REPEATS = 1  # an earlier pair with its sides swapped: agreement of a participant with themselves
CONTROLS = 1  # a picture beside a scrambled one: attention
FIRST_REPEAT = 11  # places 0 to 10 of a block hold no repeat: there must be something to repeat
GAP = 8  # positions at least between a pair and its repeat


@dataclass(frozen=True)
class Pool:
    """Prompts that may be shown, in any fixed order; `anchors` and `controls` are among them."""

    prompts: Sequence[str]
    anchors: Sequence[str]
    controls: Sequence[str]


@dataclass(frozen=True)
class Trial:
    """What is shown: for a control, "first" is the sound picture, else the first of the study's two models."""

    kind: str
    prompt: str
    first_left: bool


def _number(seed: int, participant: str, *place: object) -> int:
    """64 random bits that belong to this place."""
    key = "\x00".join([str(seed), participant, *map(str, place)]).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def kinds(seed: int, participant: str, block: int) -> list[str]:
    """The kinds of a block's `BLOCK` trials. Places 0 and 1 are plain pairs: nobody starts with a special one."""
    out = ["pair"] * BLOCK
    late = sorted(range(FIRST_REPEAT, BLOCK), key=lambda i: _number(seed, participant, "repeats", block, i))
    for place in late[:REPEATS]:
        out[place] = "repeat"
    free = [i for i in range(2, BLOCK) if out[i] == "pair"]
    free.sort(key=lambda i: _number(seed, participant, "specials", block, i))
    for number, place in enumerate(free[: ANCHORS + CONTROLS]):
        out[place] = "anchor" if number < ANCHORS else "control"
    return out


def _pick(
    candidates: Sequence[str], seen: Collection[str], seed: int, participant: str, position: int, kind: str
) -> str | None:
    """Uniform among the candidates not seen; None when there is none."""
    if not candidates:
        return None
    for attempt in range(32):  # rejection is quick while most are unseen, and needs no pass over 30,000 prompts
        prompt = candidates[_number(seed, participant, position, kind, attempt) % len(candidates)]
        if prompt not in seen:
            return prompt
    left = [prompt for prompt in candidates if prompt not in seen]
    return left[_number(seed, participant, position, kind, "last") % len(left)] if left else None


def draw(pool: Pool, seed: int, participant: str, position: int, history: Sequence[Trial]) -> Trial | None:
    """The trial at `position` (from 1) after `history`, the participant's earlier trials in their order.

    No prompt comes twice but in a repeat. A special trial for which nothing is left becomes a plain pair. None when
    every prompt has been seen.
    """
    kind = kinds(seed, participant, (position - 1) // BLOCK)[(position - 1) % BLOCK]
    left = _number(seed, participant, position, "side") % 2 == 0
    if kind == "repeat":
        repeated = {trial.prompt for trial in history if trial.kind == "repeat"}
        known = set(pool.prompts)
        old = [t for t in history[: max(0, position - GAP)] if t.kind in ("pair", "anchor")]
        old = [t for t in old if t.prompt not in repeated and t.prompt in known][-BLOCK:]
        if old:
            trial = old[_number(seed, participant, position, kind) % len(old)]
            return Trial("repeat", trial.prompt, not trial.first_left)
    seen = {trial.prompt for trial in history}
    if kind in ("anchor", "control"):
        prompt = _pick(pool.anchors if kind == "anchor" else pool.controls, seen, seed, participant, position, kind)
        if prompt is not None:
            return Trial(kind, prompt, left)
    reserved = {*pool.anchors, *pool.controls}  # kept for their own trials until nothing else is left
    prompt = _pick(pool.prompts, seen | reserved, seed, participant, position, "pair")
    if prompt is None:
        prompt = _pick(pool.prompts, seen, seed, participant, position, "rest")
    return None if prompt is None else Trial("pair", prompt, left)


def sequence(pool: Pool, seed: int, participant: str, count: int) -> list[Trial]:
    """The first `count` trials of a participant for an unchanging pool: what a replay compares the store with."""
    trials: list[Trial] = []
    for position in range(1, count + 1):
        trial = draw(pool, seed, participant, position, trials)
        if trial is None:
            break
        trials.append(trial)
    return trials
