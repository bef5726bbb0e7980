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
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STREAMLIT")} | {"PYTHONPATH": str(ROOT)}
        with open(self.folder / "server.log", "a") as log:
            command = [sys.executable, "-m", "study_app", *self.options]
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5):
                    return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "server.log").read_text()) from None
                time.sleep(0.1)

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
