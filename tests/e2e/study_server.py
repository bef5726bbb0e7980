"""The participants' server as a process of its own, and what its store holds."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from postgresql import free_port
from small_study import MODELS
from sqlalchemy import text
from trees import ROOT

from study_app.votes import Store


def environment() -> dict[str, str]:
    """The tests' own, without what would configure Streamlit, and with the programs of this tree."""
    return {k: v for k, v in os.environ.items() if not k.startswith("STREAMLIT")} | {"PYTHONPATH": str(ROOT)}


def answers(process: subprocess.Popen, url: str, seconds: float = 90) -> bool:
    """Wait until a server answers; False: it ended, or the time did."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/_stcore/health", timeout=5).close()
            return True
        except OSError:
            time.sleep(0.1)
    return False


class StudyServer:
    """`python -m study_app` on small pictures of two sets of prompts, "names" and "compositions"."""

    def __init__(self, folder: Path, results: Path, *options: str, prompts: tuple[str, ...] = ("names",)) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.options = [
            *("--study", str(results), "--models", *MODELS, "--prompts", *prompts, "--port", str(self.port), *options)
        ]
        self.store = options[options.index("--store") + 1] if "--store" in options else folder / "votes.sqlite"
        if "--store" not in options:
            self.options += ["--store", str(self.store)]
        self.options += ["--data", str(folder / "data")]
        self.process: subprocess.Popen | None = None

    def start(self, seconds: float = 90) -> None:
        """Start it and wait until it answers."""
        with open(self.folder / "server.log", "a") as log:
            command = [sys.executable, "-m", "study_app", *self.options]
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=log, stderr=log)
        if not answers(self.process, self.url, seconds):
            raise RuntimeError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        """SIGKILL: what a power cut leaves to the process."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Rows of its store."""
        store = Store(self.store)
        try:
            return list(store.read(lambda c: c.execute(text(query), values).all()))
        finally:
            store.engine.dispose()

    def faults(self) -> list[str]:
        """Lines of its log that tell of an error."""
        lines = (self.folder / "server.log").read_text().splitlines()
        return [line for line in lines if "Traceback" in line or "ERROR" in line or "Error:" in line]
