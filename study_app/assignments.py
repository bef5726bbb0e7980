"""Which pair a participant sees: the one that waits for their vote, or the next; within the store's transactions."""

import threading
from dataclasses import dataclass

from sqlalchemy import Connection, text

from study_app import tokens
from study_app.database import now
from study_app.manifest import Study
from study_app.pairs import Pool, Trial, draw


@dataclass(frozen=True)
class Shown:
    """The pair that waits for a participant's vote, and how many votes they have given."""

    token: str
    prompt: str
    left: str
    right: str
    votes: int


class Assignments:
    """Draws and finds pairs; `secret` signs their tokens. Safe to use from many threads."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._pools: dict[tuple[str, str, int], Pool] = {}
        self._pools_lock = threading.Lock()

    def pool(self, c: Connection, study: Study) -> tuple[Pool, int]:
        """What may be shown now, and the number of the last screening that it heeds."""
        number = c.execute(
            text("SELECT COALESCE(MAX(id), 0) FROM screening WHERE study = :study"), {"study": study.name}
        ).scalar_one()
        key = (study.name, study.sha256, number)
        with self._pools_lock:
            pool = self._pools.get(key)
        if pool is None:
            pool = study.pool(unfit(c, study.name, number))
            with self._pools_lock:
                self._pools[key] = pool
        return pool, number

    def waiting(self, c: Connection, study: Study, participant: str) -> Shown | None:
        """The participant's newest pair, if it waits for a vote and may still be shown.

        Raises ValueError when the study is not open.
        """
        row = c.execute(
            text(
                "SELECT a.id, a.prompt_id, a.left_image, a.right_image, s.state, "
                "(SELECT COUNT(*) FROM vote v WHERE v.study = :study AND v.participant = :participant) AS votes, "
                "EXISTS (SELECT 1 FROM vote v WHERE v.assignment = a.id) AS voted "
                "FROM assignment a JOIN study s ON s.name = a.study "
                "WHERE a.study = :study AND a.participant = :participant ORDER BY a.seq DESC LIMIT 1"
            ),
            {"study": study.name, "participant": participant},
        ).one_or_none()
        if row is None or row.voted or row.prompt_id not in study.entries:
            return None
        if row.state != "open":
            raise ValueError(f"the study {study.name} is not open")
        marked = c.execute(
            text(
                "SELECT COUNT(*) FROM screening s WHERE s.study = :study AND s.image IN (:left, :right) "
                "AND s.unfit = 1 AND NOT EXISTS (SELECT 1 FROM screening n "
                "WHERE n.study = s.study AND n.image = s.image AND n.id > s.id)"
            ),
            {"study": study.name, "left": row.left_image, "right": row.right_image},
        ).scalar_one()
        if marked:  # became unfit after it was drawn: the next one takes its place
            return None
        token = tokens.seal(self._secret, "pair", row.id, study.name, participant)
        return Shown(token, study.entries[row.prompt_id].prompt, row.left_image, row.right_image, row.votes)

    def issue(self, c: Connection, study: Study, participant: str) -> None:
        """Draw and write the participant's next pair, if one is left."""
        history = c.execute(
            text(
                "SELECT kind, prompt_id, left_model FROM assignment "
                "WHERE study = :study AND participant = :participant ORDER BY seq"
            ),
            {"study": study.name, "participant": participant},
        ).all()
        trials = [Trial(row.kind, row.prompt_id, self._first_left(study, row)) for row in history]
        pool, number = self.pool(c, study)
        position = len(history) + 1
        trial = draw(pool, study.seed, participant, position, trials)
        if trial is None:
            return
        (left_model, left_image), (right_model, right_image) = study.sides(trial)
        c.execute(
            text(
                "INSERT INTO assignment (id, study, participant, seq, kind, prompt_id, left_model, right_model, "
                "left_image, right_image, screening, issued_at) VALUES (:id, :study, :participant, :seq, :kind, "
                ":prompt, :left_model, :right_model, :left_image, :right_image, :screening, :at) ON CONFLICT DO NOTHING"
            ),
            {
                "id": tokens.random_id(),
                "study": study.name,
                "participant": participant,
                "seq": position,
                "kind": trial.kind,
                "prompt": trial.prompt,
                "left_model": left_model,
                "right_model": right_model,
                "left_image": left_image,
                "right_image": right_image,
                "screening": number,
                "at": now(),
            },
        )

    @staticmethod
    def _first_left(study: Study, row) -> bool:
        entry = study.entries.get(row.prompt_id)
        first = entry.control[1] if row.kind == "control" and entry and entry.control else study.models[0]
        return row.left_model == first


def unfit(c: Connection, study: str, last: int = 2**31 - 1) -> set[str]:
    """Pictures marked as unfit, by the newest mark of each up to mark number `last`."""
    rows = c.execute(
        text("SELECT image, unfit FROM screening WHERE study = :study AND id <= :last ORDER BY id"),
        {"study": study, "last": last},
    )
    return {image for image, marked in {row.image: row.unfit for row in rows}.items() if marked}
