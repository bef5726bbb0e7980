"""Connections to the vote store: SQLite on a local disk, or PostgreSQL by URL; whole transactions, retried."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from study_app.schema import migrate

T = TypeVar("T")

# where SQLite's write-ahead log, which needs shared memory and exact locks, loses votes
NETWORK_FILE_SYSTEMS = frozenset(
    "nfs nfs3 nfs4 cifs smb2 smb3 smbfs lustre beegfs gpfs ceph glusterfs orangefs pvfs2 panfs wekafs afs 9p virtiofs "
    "fuse.sshfs fuse.glusterfs fuse.ceph fuse.juicefs fuse.s3fs fuse.rclone davfs".split()
)
RETRY_SECONDS = 40.0  # how long a transaction waits for a database that restarts


def now() -> str:
    """The time as the store writes it: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`, which need not exist yet."""
    path = path.resolve()
    mounts = {Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)}
    return next((mounts[folder] for folder in [path, *path.parents] if folder in mounts), "")


def open_engine(store: str | Path) -> Engine:
    """An engine for a file (SQLite) or a URL postgresql://…, its schema brought to the newest version.

    Raises ValueError for another kind of URL, for a network file system, and for a store of a newer program.
    """
    address = str(store)
    if "://" not in address:
        path = Path(address)
        kind = file_system(path)
        if kind.lower() in NETWORK_FILE_SYSTEMS:
            raise ValueError(
                f"store: {path} is on a network file system ({kind}), where SQLite can lose votes; "
                "it should be a file on a local disk or a PostgreSQL URL"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=0, pool_timeout=60)
        event.listen(engine, "connect", _sqlite_connected)
        event.listen(engine, "begin", _sqlite_begin)
    else:
        url = make_url(address)
        if url.get_backend_name() != "postgresql":
            raise ValueError(f"store: {url.get_backend_name()!r}; it should be a file or a URL postgresql://…")
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"), pool_size=8, max_overflow=0, pool_timeout=60, pool_pre_ping=True
        )
    transaction(engine, migrate, write=True)
    return engine


def _sqlite_connected(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is said below; the driver's own comes too late for a consistent read
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: Connection) -> None:
    # a writer takes its lock before it reads: what it read is still so when it writes
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def transaction(engine: Engine, work: Callable[[Connection], T], *, write: bool = False) -> T:
    """What `work` returns, run in one transaction. It is run again while the database is away, so it must bear that:
    a commit whose answer was lost has happened, and `work` then meets its own rows.
    """
    deadline = time.monotonic() + RETRY_SECONDS
    pause = 0.05
    while True:
        try:
            with engine.connect().execution_options(write=write) as connection, connection.begin():
                return work(connection)
        except DBAPIError as error:
            away = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
            if not away or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
