"""The vote store's tables and how an older store becomes today's.

A migration, once released, is never edited: a change of the schema is a further entry of `MIGRATIONS`. Times are ISO
8601 texts in UTC with milliseconds, which sort as times do and mean the same in both databases.
"""

from sqlalchemy import Connection, inspect, text

KINDS = ("pair", "anchor", "repeat", "control")
CHOICES = ("left", "right", "equal")
INPUTS = ("mouse", "touch", "key")

_TABLES = f"""
CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE study (
    name TEXT PRIMARY KEY,
    manifest_sha256 TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('draft', 'open', 'closed')),
    created_at TEXT NOT NULL
);
CREATE TABLE participant (
    id TEXT PRIMARY KEY,
    identity_hash TEXT NOT NULL UNIQUE,
    pseudonym TEXT NOT NULL UNIQUE,
    alias TEXT,
    alias_key TEXT UNIQUE,
    consent TEXT NOT NULL,
    consented_at TEXT NOT NULL,
    recruited INTEGER NOT NULL,
    burst INTEGER NOT NULL
);
CREATE TABLE assignment (
    id TEXT PRIMARY KEY,
    study TEXT NOT NULL REFERENCES study (name),
    participant TEXT NOT NULL REFERENCES participant (id),
    seq INTEGER NOT NULL CHECK (seq >= 1),
    kind TEXT NOT NULL CHECK (kind IN {KINDS}),
    prompt_id TEXT NOT NULL,
    left_model TEXT NOT NULL,
    right_model TEXT NOT NULL,
    left_image TEXT NOT NULL,
    right_image TEXT NOT NULL,
    screening INTEGER NOT NULL,
    issued_at TEXT NOT NULL,
    UNIQUE (study, participant, seq)
);
CREATE TABLE vote (
    assignment TEXT PRIMARY KEY REFERENCES assignment (id),
    study TEXT NOT NULL,
    participant TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN {CHOICES}),
    decided_at TEXT NOT NULL,
    response_ms INTEGER NOT NULL CHECK (response_ms >= 0),
    input TEXT NOT NULL CHECK (input IN {INPUTS}),
    viewport INTEGER NOT NULL,
    app_version TEXT NOT NULL
);
CREATE INDEX vote_by_participant ON vote (study, participant);
CREATE TABLE screening (
    id {{serial}},
    study TEXT NOT NULL REFERENCES study (name),
    image TEXT NOT NULL,
    unfit INTEGER NOT NULL,
    at TEXT NOT NULL
);
CREATE TABLE refusal (
    id {{serial}},
    study TEXT NOT NULL,
    participant TEXT NOT NULL,
    reason TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE TABLE export (
    name TEXT PRIMARY KEY,
    study TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    votes INTEGER NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE export_superseded (
    export TEXT PRIMARY KEY REFERENCES export (name),
    at TEXT NOT NULL
);
CREATE TABLE exported (
    export TEXT NOT NULL REFERENCES export (name),
    participant TEXT NOT NULL,
    PRIMARY KEY (export, participant)
);
CREATE TABLE tombstone (
    id {{serial}},
    assignments INTEGER NOT NULL,
    votes INTEGER NOT NULL,
    at TEXT NOT NULL
);
CREATE TABLE erasing (
    participant TEXT PRIMARY KEY
);
"""

# What is appended stays as it is. Rows go only with the participant whose erasure is under way in this transaction.
APPEND_ONLY = ("assignment", "vote", "screening", "export", "tombstone")
_ERASABLE = ("assignment", "vote")


def _sqlite_triggers() -> list[str]:
    statements = []
    for table in APPEND_ONLY:
        statements.append(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
        when = "WHEN OLD.participant NOT IN (SELECT participant FROM erasing) " if table in _ERASABLE else ""
        statements.append(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {when}"
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
    return statements


def _postgresql_triggers() -> list[str]:
    statements = [
        "CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$",
        "CREATE FUNCTION erasable() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF OLD.participant IN (SELECT participant FROM erasing) THEN RETURN OLD; END IF; "
        "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$",
    ]
    for table in APPEND_ONLY:
        deletes = "erasable" if table in _ERASABLE else "append_only"
        statements += [
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION append_only()",
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {deletes}()",
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} EXECUTE FUNCTION append_only()",
        ]
    return statements


def _first(dialect: str) -> list[str]:
    serial = {
        "sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "postgresql": "INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    }[dialect]
    tables = [statement.strip() for statement in _TABLES.format(serial=serial).split(";") if statement.strip()]
    return tables + {"sqlite": _sqlite_triggers, "postgresql": _postgresql_triggers}[dialect]()


MIGRATIONS = [_first]  # entry n takes a store from version n to n + 1: dialect -> statements


def version(connection: Connection) -> int:
    """The schema version of a store; 0 for an empty database."""
    if not inspect(connection).has_table("schema_version"):
        return 0
    return connection.execute(text("SELECT version FROM schema_version")).scalar_one()


def migrate(connection: Connection) -> None:
    """Bring a store to the newest version within the connection's transaction.

    Raises ValueError for a store that a later program has written.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":  # two servers that start at once: the second waits, and finds the work done
        connection.execute(text("SELECT pg_advisory_xact_lock(7315)"))
    found, known = version(connection), len(MIGRATIONS)
    if found > known:
        raise ValueError(f"the vote store has schema version {found}, this program knows {known}: use a newer program")
    if found == known:
        return
    for step in MIGRATIONS[found:]:
        for statement in step(dialect):
            connection.execute(text(statement))
    if found == 0:
        connection.exec_driver_sql("CREATE TABLE schema_version (version INTEGER NOT NULL)")
        connection.execute(text("INSERT INTO schema_version VALUES (:version)"), {"version": known})
    else:
        connection.execute(text("UPDATE schema_version SET version = :version"), {"version": known})
