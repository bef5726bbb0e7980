"""What one server process holds: the store, its studies, and how many have just arrived."""

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from study_app.manifest import Study
from study_app.votes import Store

PAGE = files("study_app") / "page"
WINDOW_SECONDS = 600.0
ARRIVALS = 10  # new identities from one address within the window; more are slowed down and flagged
DELAY_SECONDS = 2.0


class Arrivals:
    """Counts new identities by address. Addresses are kept as keyed digests, in memory, for the window's time only."""

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._times: dict[bytes, deque[float]] = {}
        self._lock = threading.Lock()

    def add(self, address: str | None, at: float | None = None) -> bool:
        """Count an arrival at time `at` (monotonic, s). True when there were many from there."""
        at = time.monotonic() if at is None else at
        key = hashlib.blake2b((address or "").encode(), key=self._key, digest_size=8).digest()
        with self._lock:
            for known in [known for known, times in self._times.items() if times[-1] < at - WINDOW_SECONDS]:
                del self._times[known]
            times = self._times.setdefault(key, deque(maxlen=ARRIVALS + 1))
            times.append(at)
            return len(times) > ARRIVALS and times[0] > at - WINDOW_SECONDS


@dataclass(frozen=True)
class Service:
    """The running server's store and studies; `contact` stands in the consent."""

    store: Store
    studies: Mapping[str, Study]
    contact: str
    arrivals: Arrivals = field(default_factory=Arrivals)

    def consent(self) -> tuple[str, str]:
        """The text that participants agree to, and its version: whoever agreed to another is asked anew."""
        target = max(study.target_votes for study in self.studies.values())
        said = (PAGE / "consent.md").read_text(encoding="utf-8").format(target=target, contact=self.contact)
        return said, hashlib.sha256(said.encode()).hexdigest()[:12]


_running: list[Service] = []


def start(service: Service) -> None:
    """Make this the process's service. The page's script, which Streamlit runs anew for each click, finds it here."""
    _running[:] = [service]


def running() -> Service:
    """The process's service. Raises RuntimeError before `start`."""
    if not _running:
        raise RuntimeError("the page runs inside `python -m study_app` only")
    return _running[0]


def default_store(results: Path) -> Path:
    """Where the votes on a results folder are kept: outside of it, as results are deleted and made again."""
    return Path("study_data") / f"{results.name}.sqlite"
