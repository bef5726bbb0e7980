"""Votes that nobody gave: made up from known parameters, for tests alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from study_app.ballots import COLUMNS
from study_app.davidson import probabilities
from wuerstchen.files import sha256_file

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
MODELS = ("wuerstchen", "sd-2.1")


def row(**given: object) -> dict[str, object]:
    """One row of an export; A on the left, preferred, after four seconds, unless given otherwise."""
    base = {
        "study": "parti",
        "participant": "ann",
        "seq": 1,
        "kind": "pair",
        "prompt_id": "p1",
        "left_model": MODELS[0],
        "right_model": MODELS[1],
        "choice": "left",
        "response_ms": 4000,
        "app_version": "test",
    }
    values = base | given
    issued = START + timedelta(seconds=10 * int(values["seq"]))
    values.setdefault("issued_at", issued.isoformat())
    values.setdefault("decided_at", (issued + timedelta(milliseconds=int(values["response_ms"]))).isoformat())
    return values


def write_export(path: Path, rows: list[dict]) -> Path:
    """An export as study_app.admin writes it: the csv and its digest."""
    lines = [",".join(COLUMNS), *(",".join(str(row[name]) for name in COLUMNS) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.with_name(f"{path.name}.sha256").write_text(f"{sha256_file(path)}  {path.name}\n", encoding="utf-8")
    return path


def simulated_counts(
    users: int, mean_votes: float, parameters: tuple[float, float, float], spread: float, seed: int
) -> np.ndarray:
    """Votes [users, side, outcome] by Davidson's model; each user's strength is normal around the first parameter."""
    random = np.random.default_rng(seed)
    strength, side, log_ties = parameters
    votes = 2 + random.poisson(mean_votes * random.lognormal(-0.18, 0.6, users))
    found = np.zeros((users, 2, 3), dtype=np.int64)
    for user in range(users):
        own = strength + spread * random.standard_normal()
        left = random.binomial(votes[user], 0.5)
        for place, (number, chances) in enumerate(
            zip((left, votes[user] - left), probabilities(np.array([own, side, log_ties])), strict=True)
        ):
            found[user, place] = random.multinomial(number, chances)
    return found


def rows_of(counts: np.ndarray, study: str = "parti", prefix: str = "user", models: tuple = MODELS) -> list[dict]:
    """Such votes as rows of an export, one prompt each."""
    rows = []
    for user, sides in enumerate(counts):
        seq = 0
        for side, outcomes in enumerate(sides):
            left, right = models if side == 0 else models[::-1]
            choices = ("left", "equal", "right") if side == 0 else ("right", "equal", "left")
            for choice, number in zip(choices, outcomes, strict=True):
                for _ in range(number):
                    seq += 1
                    about = {"study": study, "participant": f"{prefix}-{user}", "seq": seq, "prompt_id": f"q{seq}"}
                    rows.append(row(**about, left_model=left, right_model=right, choice=choice))
    return rows
