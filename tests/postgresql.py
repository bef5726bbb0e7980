"""A PostgreSQL server of the tests' own, in a folder of theirs, on a port of this machine only."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def missing() -> str | None:
    """What this machine lacks for it, if anything."""
    if program("initdb") is None:
        return "no PostgreSQL server is installed"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed"
    return None


def program(name: str) -> str | None:
    """Where a server program lies; Debian keeps them beside the PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """The server: `url` for SQLAlchemy, `start` and `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"postgresql://study@127.0.0.1:{self.port}/votes"
        self.run("initdb", "-D", str(folder / "data"), "-U", "study", "-A", "trust", "-E", "UTF8", "--locale=C")

    def run(self, name: str, *arguments: str) -> None:
        """Run one of its programs, as an ordinary user where this one is root, whom they refuse."""
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        found = program(name)
        assert found
        log = open(self.folder / "log", "a")  # a pipe would stay open in the server
        with log:
            subprocess.run([found, *arguments], check=True, stdout=log, stderr=log, cwd=self.folder, **user)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-o", options, "start")

    def empty(self) -> None:
        """Drop all tables."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", mode, "stop")


@contextmanager
def server() -> Iterator[Server]:
    """A running server with an empty database `votes`."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path may have 107 characters only
    if os.getuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
    made = Server(folder)
    made.start()
    try:
        made.run("createdb", "-h", "127.0.0.1", "-p", str(made.port), "-U", "study", "votes")
        yield made
    finally:
        made.stop("immediate")
        shutil.rmtree(folder)
