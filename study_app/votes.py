"""The vote store as the page uses it: who takes part, which pair is theirs, and their vote, each in one transaction.

The page keeps nothing itself. Progress is a count of rows; the pair shown is a row; a vote and the next pair are
written together or not at all.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from study_app import APP_VERSION, names, tokens
from study_app.assignments import Assignments, Shown
from study_app.database import now, open_engine, transaction
from study_app.manifest import Study
from study_app.schema import CHOICES, INPUTS

T = TypeVar("T")

MAX_RESPONSE_MS = 3_600_000
MAX_REFUSALS = 100  # rows kept per participant: a flood of false tokens must not fill the disk


@dataclass(frozen=True)
class Participant:
    """A participant as the page knows them; `burst`: joined while very many did."""

    id: str
    pseudonym: str
    alias: str | None
    consent: str
    recruited: bool
    burst: bool


@dataclass(frozen=True)
class Standing:
    """A line of the leaderboard."""

    rank: int
    name: str
    votes: int
    own: bool


class Store:
    """The vote store in a SQLite file or a PostgreSQL database. Safe to use from many threads."""

    def __init__(self, address: str | Path) -> None:
        self.engine = open_engine(address)
        fresh = {"name": "secret", "value": secrets.token_hex(32)}

        def ensure_secret(c: Connection) -> str:
            c.execute(text("INSERT INTO setting (name, value) VALUES (:name, :value) ON CONFLICT DO NOTHING"), fresh)
            return c.execute(text("SELECT value FROM setting WHERE name = 'secret'")).scalar_one()

        self.secret = self.write(ensure_secret)
        self._assignments = Assignments(self.secret)

    def read(self, work: Callable[[Connection], T]) -> T:
        """`work` in one reading transaction."""
        return transaction(self.engine, work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """`work` in one writing transaction."""
        return transaction(self.engine, work, write=True)

    def participant(self, identity: str) -> Participant | None:
        """The participant of a cookie's identity, if they have joined."""
        return self.read(lambda c: _participant(c, identity))

    def join(self, identity: str, consent: str, *, recruited: bool = False, burst: bool = False) -> Participant:
        """The participant of this identity, created if new; `consent` is the version of the text they agreed to."""

        def work(c: Connection) -> Participant:
            values = {
                "identity": tokens.identity_hash(identity),
                "consent": consent,
                "at": now(),
                "recruited": int(recruited),
                "burst": int(burst),
            }
            known = _participant(c, identity)
            while known is None:  # once, unless the pseudonym is another's
                c.execute(
                    text(
                        "INSERT INTO participant (id, identity_hash, pseudonym, consent, consented_at, recruited, "
                        "burst) VALUES (:id, :identity, :pseudonym, :consent, :at, :recruited, :burst) "
                        "ON CONFLICT DO NOTHING"
                    ),
                    values | {"id": tokens.random_id(), "pseudonym": names.pseudonym()},
                )
                known = _participant(c, identity)
            renewed = "UPDATE participant SET consent = :consent, consented_at = :at WHERE identity_hash = :identity"
            c.execute(text(f"{renewed} AND consent <> :consent"), values)
            if recruited:
                c.execute(text("UPDATE participant SET recruited = 1 WHERE identity_hash = :identity"), values)
            return _participant(c, identity) or known

        return self.write(work)

    def set_alias(self, study: Study, participant: str, wish: str) -> str:
        """Give a participant an alias and return it as shown.

        Raises ValueError for one that is malformed, taken, or not earned: it takes `alias_min_votes` in this study.
        """
        shown, key = names.alias(wish)
        if any(model.replace("-", "") in key for model in study.models):
            raise ValueError("Please choose another alias.")

        def work(c: Connection) -> None:
            if _votes(c, study.name, participant) < study.alias_min_votes:
                raise ValueError(f"An alias takes {study.alias_min_votes} votes.")
            c.execute(
                text("UPDATE participant SET alias = :alias, alias_key = :key WHERE id = :id"),
                {"alias": shown, "key": key, "id": participant},
            )

        try:
            self.write(work)
        except IntegrityError:
            raise ValueError("This alias is taken.") from None
        return shown

    def leaderboard(self, study: str, participant: str, length: int = 10) -> list[Standing]:
        """The most diligent participants of a study, and the participant's own line wherever it stands."""
        rows = self.read(
            lambda c: c.execute(
                text(
                    "SELECT p.id, COALESCE(p.alias, p.pseudonym) AS name, v.votes FROM participant p JOIN "
                    "(SELECT participant, COUNT(*) AS votes FROM vote WHERE study = :study GROUP BY participant) v "
                    "ON v.participant = p.id ORDER BY v.votes DESC, p.pseudonym"
                ),
                {"study": study},
            ).all()
        )
        return [
            Standing(1 + sum(other.votes > row.votes for other in rows), row.name, row.votes, row.id == participant)
            for number, row in enumerate(rows)
            if number < length or row.id == participant
        ]

    def state(self, study: str) -> str | None:
        """draft, open or closed; None for a study that the store does not know."""
        return self.read(
            lambda c: c.execute(text("SELECT state FROM study WHERE name = :name"), {"name": study}).scalar()
        )

    def votes(self, study: str, participant: str) -> int:
        """How many votes a participant has given."""
        return self.read(lambda c: _votes(c, study, participant))

    def current(self, study: Study, participant: str) -> Shown | None:
        """The pair that waits for this participant's vote, drawn if there is none. None when no pair is left.

        The same until they vote, in every tab and after reloads. Raises ValueError when the study is not open, or the
        participant was erased.
        """

        def look(c: Connection) -> Shown | None:
            return self._assignments.waiting(c, study, participant)

        def issue(c: Connection) -> Shown | None:
            _lock(c, participant)
            found = self._assignments.waiting(c, study, participant)
            if found is None:
                _require_open(c, study.name)
                self._assignments.issue(c, study, participant)
                found = self._assignments.waiting(c, study, participant)
            return found

        return self.read(look) or self.write(issue)

    def record_vote(
        self,
        study: Study,
        participant: str,
        token: object,
        choice: object,
        *,
        response_ms: object = None,
        input_: object = "mouse",
        viewport: object = 0,
    ) -> str:
        """Count a vote and draw the next pair, in one transaction. What comes from the browser may be anything.

        Returns "counted", or why not: "forged" (no token of this participant's), "malformed", "stale" (voted before,
        or no longer the pair shown), "early" (before the minimum exposure), "closed".
        """
        assignment = tokens.unseal(self.secret, "pair", token, study.name, participant)
        if assignment is None:
            outcome = "forged"
        elif choice not in CHOICES or not isinstance(choice, str):
            outcome = "malformed"
        else:
            vote = {
                "assignment": assignment,
                "study": study.name,
                "participant": participant,
                "choice": choice,
                "input": input_ if isinstance(input_, str) and input_ in INPUTS else "mouse",
                "viewport": _whole(viewport, 100_000),
                "app": APP_VERSION,
            }
            outcome = self.write(lambda c: self._vote(c, study, vote, response_ms))
        if outcome not in ("counted", "stale"):  # a stale one is a second click or tab, nothing to look into
            self._refused(study.name, participant, outcome)
        return outcome

    def _vote(self, c: Connection, study: Study, vote: dict, response_ms: object) -> str:
        _lock(c, vote["participant"])
        row = c.execute(
            text(
                "SELECT a.issued_at, s.state, EXISTS (SELECT 1 FROM vote v WHERE v.assignment = a.id) AS voted, "
                "EXISTS (SELECT 1 FROM assignment n WHERE n.study = a.study AND n.participant = a.participant "
                "AND n.seq > a.seq) AS passed FROM assignment a JOIN study s ON s.name = a.study "
                "WHERE a.id = :assignment AND a.study = :study AND a.participant = :participant"
            ),
            vote,
        ).one_or_none()
        if row is None:
            return "forged"
        if row.voted or row.passed:
            return "stale"
        if row.state != "open":
            return "closed"
        at = now()
        elapsed = _milliseconds(row.issued_at, at)
        if elapsed < study.min_exposure_ms:
            return "early"
        # the browser's time starts when both pictures stood there; it cannot exceed the server's
        measured = _whole(response_ms, MAX_RESPONSE_MS)
        inserted = c.execute(
            text(
                "INSERT INTO vote (assignment, study, participant, choice, decided_at, response_ms, input, viewport, "
                "app_version) VALUES (:assignment, :study, :participant, :choice, :at, :ms, :input, :viewport, :app) "
                "ON CONFLICT DO NOTHING"
            ),
            vote | {"at": at, "ms": measured if 0 < measured <= elapsed else min(elapsed, MAX_RESPONSE_MS)},
        )
        if inserted.rowcount == 0:  # another tab's vote came in between
            return "stale"
        self._assignments.issue(c, study, vote["participant"])
        return "counted"

    def _refused(self, study: str, participant: str, reason: str) -> None:
        self.write(
            lambda c: c.execute(
                text(
                    "INSERT INTO refusal (study, participant, reason, at) SELECT :study, :participant, :reason, :at "
                    "WHERE (SELECT COUNT(*) FROM refusal WHERE participant = :participant) < :most"
                ),
                {"study": study, "participant": participant, "reason": reason, "at": now(), "most": MAX_REFUSALS},
            )
        )


def _participant(c: Connection, identity: str) -> Participant | None:
    row = c.execute(
        text("SELECT id, pseudonym, alias, consent, recruited, burst FROM participant WHERE identity_hash = :identity"),
        {"identity": tokens.identity_hash(identity)},
    ).one_or_none()
    if row is None:
        return None
    return Participant(row.id, row.pseudonym, row.alias, row.consent, bool(row.recruited), bool(row.burst))


def _votes(c: Connection, study: str, participant: str) -> int:
    return c.execute(
        text("SELECT COUNT(*) FROM vote WHERE study = :study AND participant = :participant"),
        {"study": study, "participant": participant},
    ).scalar_one()


def _lock(c: Connection, participant: str) -> None:
    """Let a participant's tabs write one after the other. SQLite has one writer at a time as it is.

    Raises ValueError when there is no such participant (any more).
    """
    lock = " FOR UPDATE" if c.dialect.name == "postgresql" else ""
    found = c.execute(text(f"SELECT id FROM participant WHERE id = :participant{lock}"), {"participant": participant})
    if found.one_or_none() is None:
        raise ValueError("no such participant")


def _require_open(c: Connection, study: str) -> None:
    if c.execute(text("SELECT state FROM study WHERE name = :name"), {"name": study}).scalar() != "open":
        raise ValueError(f"the study {study} is not open")


def _whole(value: object, most: int) -> int:
    """A whole number from 0 to `most` of whatever a browser sent; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else 0


def _milliseconds(start: str, end: str) -> int:
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000)
