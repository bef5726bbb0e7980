"""The vote store as the researcher uses it: studies, screening, export, erasure. The page never calls any of this."""

import csv
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Connection, text

from study_app import tokens
from study_app.assignments import unfit
from study_app.database import now
from study_app.manifest import Study
from study_app.votes import Store
from wuerstchen.files import atomic_path, sha256_file, write_json, write_text

COLUMNS = (
    "study participant seq kind prompt_id left_model right_model choice issued_at decided_at response_ms app_version"
).split()
STATES = ("draft", "open", "closed")


def add_study(store: Store, study: Study) -> None:
    """Enter a study as a draft. Raises ValueError when one of this name with another manifest is there."""

    def work(c: Connection) -> str:
        c.execute(
            text(
                "INSERT INTO study (name, manifest_sha256, state, created_at) VALUES (:name, :sha256, 'draft', :at) "
                "ON CONFLICT DO NOTHING"
            ),
            {"name": study.name, "sha256": study.sha256, "at": now()},
        )
        return c.execute(
            text("SELECT manifest_sha256 FROM study WHERE name = :name"), {"name": study.name}
        ).scalar_one()

    if store.write(work) != study.sha256:
        raise ValueError(
            f"{study.folder / 'manifest.json'} is not the manifest with which {study.name} was created in this store"
        )


def studies(store: Store) -> dict[str, str]:
    """State of every study by name."""
    rows = store.read(lambda c: c.execute(text("SELECT name, state FROM study ORDER BY name")).all())
    return {row.name: row.state for row in rows}


def set_state(store: Store, study: str, state: str) -> None:
    """Open or close a study. Raises ValueError for an unknown study or state."""
    if state not in STATES:
        raise ValueError(f"state: {state!r}; it should be one of {', '.join(STATES)}")
    changed = store.write(
        lambda c: (
            c.execute(
                text("UPDATE study SET state = :state WHERE name = :name"), {"state": state, "name": study}
            ).rowcount
        )
    )
    if not changed:
        raise ValueError(f"study: {study!r}; this store has {', '.join(studies(store)) or 'none'}")


def mark(store: Store, study: Study, picture: str, is_unfit: bool) -> None:
    """Mark a picture as unfit to be shown, or as fit again. Its prompt is then drawn for nobody; marks are kept."""
    if picture not in study.owners:
        raise ValueError(f"picture: {picture!r} is none of {study.name}")
    store.write(
        lambda c: c.execute(
            text("INSERT INTO screening (study, image, unfit, at) VALUES (:study, :image, :unfit, :at)"),
            {"study": study.name, "image": picture, "unfit": int(is_unfit), "at": now()},
        )
    )


def unfit_pictures(store: Store, study: str) -> set[str]:
    """Pictures of a study that are marked as unfit."""
    return store.read(lambda c: unfit(c, study))


def overlap(store: Store) -> dict[tuple[str, ...], int]:
    """How many participants voted in exactly these studies, for each set of studies that has any."""
    rows = store.read(lambda c: c.execute(text("SELECT DISTINCT participant, study FROM vote")).all())
    taken: dict[str, list[str]] = {}
    for row in rows:
        taken.setdefault(row.participant, []).append(row.study)
    counts: dict[tuple[str, ...], int] = {}
    for names in taken.values():
        key = tuple(sorted(names))
        counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (len(item[0]), item[0])))


def overlap_lines(counts: dict[tuple[str, ...], int]) -> list[str]:
    """The overlap in words, with the pairwise totals that appendix C gives for its two studies."""
    lines = [f"{number} participants in {' and '.join(names)} only" for names, number in counts.items()]
    everyone = sorted({name for names in counts for name in names})
    for one, other in combinations(everyone, 2):
        both = sum(number for names, number in counts.items() if {one, other} <= set(names))
        lines.append(f"{both} participants in both {one} and {other}")
    return [f"{sum(counts.values())} participants have voted", *lines]


def totals(store: Store) -> dict[str, dict[str, int]]:
    """Participants, votes and refused votes by reason, for each study."""

    def work(c: Connection) -> dict[str, dict[str, int]]:
        out: dict[str, dict[str, int]] = {}
        for row in c.execute(
            text("SELECT study, COUNT(*) AS votes, COUNT(DISTINCT participant) AS people FROM vote GROUP BY study")
        ):
            out[row.study] = {"participants": row.people, "votes": row.votes}
        for row in c.execute(text("SELECT study, reason, COUNT(*) AS number FROM refusal GROUP BY study, reason")):
            out.setdefault(row.study, {"participants": 0, "votes": 0})[f"refused: {row.reason}"] = row.number
        return out

    return store.read(work)


def completion_codes(store: Store, study: Study) -> list[str]:
    """Completion codes of recruited participants who have reached the target."""
    rows = store.read(
        lambda c: (
            c.execute(
                text(
                    "SELECT v.participant FROM vote v JOIN participant p ON p.id = v.participant "
                    "WHERE v.study = :study AND p.recruited = 1 GROUP BY v.participant HAVING COUNT(*) >= :target"
                ),
                {"study": study.name, "target": study.target_votes},
            )
            .scalars()
            .all()
        )
    )
    return sorted(tokens.completion_code(store.secret, study.name, participant) for participant in rows)


# -- export ---------------------------------------------------------------------------------------------------------


def neutral(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: texts that start like one get an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _rows(c: Connection, study: str) -> Sequence[Any]:
    return c.execute(
        text(
            "SELECT a.study, a.participant, a.seq, a.kind, a.prompt_id, a.left_model, a.right_model, v.choice, "
            "a.issued_at, v.decided_at, v.response_ms, v.app_version "
            "FROM vote v JOIN assignment a ON a.id = v.assignment WHERE v.study = :study"
        ),
        {"study": study},
    ).all()


def export(store: Store, study: Study, folder: Path) -> Path:
    """Write a study's votes to a new file NAME-NNNN.csv in `folder`, with .csv.sha256, .parquet and .json beside it.

    Columns as in `COLUMNS`; participants under names that lead back to nobody. `prompt_id` and the models' names are
    the only texts that come from elsewhere, and are neutralised. The files are read-only and never written again.
    """

    def look(c: Connection) -> tuple[Sequence[Any], int, set[str], set[str]]:
        number = c.execute(text("SELECT COUNT(*) FROM export WHERE study = :s"), {"s": study.name}).scalar_one()
        burst = c.execute(text("SELECT id FROM participant WHERE burst = 1")).scalars()
        return _rows(c, study.name), number + 1, set(burst), unfit(c, study.name)

    found, number, burst, marked = store.read(look)
    people = {row.participant for row in found}
    labels = {person: tokens.export_name(store.secret, person) for person in people}
    rows = sorted(
        ([row.study, labels[row.participant], *row[2:]] for row in found), key=lambda row: (str(row[1]), row[2])
    )
    frame = pd.DataFrame([[neutral(value) for value in row] for row in rows], columns=COLUMNS)
    path = folder / f"{study.name}-{number:04d}.csv"
    if path.exists():
        raise ValueError(f"{path} exists, though this store never wrote it; exports are never written over")
    with atomic_path(path.with_suffix(".parquet")) as temporary:
        frame.to_parquet(temporary, index=False)
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    digest = sha256_file(path)
    write_text(path.with_suffix(".csv.sha256"), f"{digest}  {path.name}\n")
    facts = {
        "study": study.name,
        "models": list(study.models),
        "manifest_sha256": study.sha256,
        "seed": study.seed,
        "votes": len(frame),
        "participants": len(people),
        "joined_in_a_burst": sorted(labels[person] for person in people & burst),
        "prompts_marked_unfit": sorted({study.owners[picture] for picture in marked}),
        "overlap": [{"studies": list(names), "participants": n} for names, n in overlap(store).items()],
        "sha256": {p.name: sha256_file(p) for p in (path, path.with_suffix(".parquet"))},
        "created_at": now(),
    }
    write_json(path.with_suffix(".json"), facts)

    def enter(c: Connection) -> None:
        values = {"name": path.name, "study": study.name, "sha256": digest, "votes": len(frame), "at": now()}
        c.execute(
            text(
                "INSERT INTO export (name, study, sha256, votes, created_at) "
                "VALUES (:name, :study, :sha256, :votes, :at) ON CONFLICT DO NOTHING"
            ),
            values,
        )
        for person in sorted(people):
            c.execute(
                text("INSERT INTO exported (export, participant) VALUES (:name, :person) ON CONFLICT DO NOTHING"),
                {"name": path.name, "person": person},
            )

    store.write(enter)
    for suffix in (".csv", ".csv.sha256", ".parquet", ".json"):
        path.with_suffix(suffix).chmod(0o444)
    return path


# -- erasure --------------------------------------------------------------------------------------------------------


def find(store: Store, name: str) -> str:
    """The id of the participant with this pseudonym or alias. Raises ValueError when there is none."""
    found = store.read(
        lambda c: c.execute(
            text("SELECT id FROM participant WHERE pseudonym = :name OR alias = :name"), {"name": name}
        ).scalar()
    )
    if found is None:
        raise ValueError(f"participant: nobody is called {name!r}; it should be a pseudonym or an alias")
    return found


def erase(store: Store, participant: str) -> tuple[int, list[str]]:
    """Delete everything of a participant. What stays is a tombstone that counts what went.

    Returns the number of votes deleted and the names of exports that held some of them, now superseded.
    """

    def work(c: Connection) -> tuple[int, list[str]]:
        who = {"participant": participant, "at": now()}
        exports = c.execute(
            text("SELECT export FROM exported WHERE participant = :participant ORDER BY export"), who
        ).scalars()
        names = list(exports)
        c.execute(text("INSERT INTO erasing (participant) VALUES (:participant)"), who)
        gone = {
            table: c.execute(text(f"DELETE FROM {table} WHERE participant = :participant"), who).rowcount
            for table in ("vote", "assignment", "refusal", "exported")
        }
        c.execute(text("DELETE FROM participant WHERE id = :participant"), who)
        c.execute(text("DELETE FROM erasing WHERE participant = :participant"), who)
        c.execute(
            text("INSERT INTO tombstone (assignments, votes, at) VALUES (:assignments, :votes, :at)"),
            {"assignments": gone["assignment"], "votes": gone["vote"], "at": who["at"]},
        )
        for name in names:
            c.execute(
                text("INSERT INTO export_superseded (export, at) VALUES (:name, :at) ON CONFLICT DO NOTHING"),
                {"name": name, "at": who["at"]},
            )
        return gone["vote"], names

    return store.write(work)


def superseded(store: Store) -> list[str]:
    """Exports that hold votes of participants who have since been erased: to be exported anew and deleted."""
    return list(store.read(lambda c: c.execute(text("SELECT export FROM export_superseded ORDER BY export")).scalars()))


def tombstones(store: Store) -> tuple[int, int]:
    """How many participants were erased, and how many votes with them."""
    row = store.read(lambda c: c.execute(text("SELECT COUNT(*), COALESCE(SUM(votes), 0) FROM tombstone")).one())
    return int(row[0]), int(row[1])
