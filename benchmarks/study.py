"""Answers of the preference page under load, beside a plain Streamlit page: votes/s and waiting times.

    python -m benchmarks.study [--study results/emoji] [--voters 10 30 60] [--runs 5]

Voters speak Streamlit's websocket and send what the real page's component, or the plain page's button, would send; an
answer has come when the run that shows the next pair has ended. Both pages have the same pictures, the same store
(SQLite, each run a new file) and the same thinking time, and take turns. Pictures are not fetched: they are files here
and re-encoded in the plain page's runs, but a browser's requests would cost both the same.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.voters import PlainVoter, Voter
from study_app.manifest import build
from wuerstchen.usage import cpu_name

ROOT = Path(__file__).parents[1]
THINK_SECONDS = 1.5  # above the page's minimum exposure


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(command: list[str], port: int, folder: Path) -> subprocess.Popen:
    """Start a server and wait until it answers."""
    with open(folder / "server.log", "a") as log:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5):
                return process
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError((folder / "server.log").read_text())


async def load(voters: list[Voter], votes: int) -> float:
    """Every voter gives `votes` votes, thinking in between; returns the seconds from the first to the last."""
    for voter in voters:  # one after the other: arriving is not what is measured
        await voter.connect()
        await voter.agree()

    async def one(voter: Voter, number: int) -> None:
        await asyncio.sleep(THINK_SECONDS * number / len(voters))  # people do not click in step
        for _ in range(votes):
            if not await voter.vote("left", wait=THINK_SECONDS):
                raise RuntimeError("a vote did not bring the next pair")

    start = time.perf_counter()
    await asyncio.gather(*(one(voter, number) for number, voter in enumerate(voters)))
    taken = time.perf_counter() - start
    for voter in voters:
        await voter.close()
    return taken


def measured(kind: str, options: argparse.Namespace, data: Path, number: int, people: int) -> dict[str, float]:
    """One server with `people` voters: votes/s, p50 and p95 of the time to the next pair, in s."""
    folder = Path(tempfile.mkdtemp(prefix="run-"))
    port = free_port()
    store = folder / "votes.sqlite"
    if kind == "ours":
        command = [sys.executable, "-m", "study_app", "--study", str(options.study.resolve()), "--models"]
        command += [*options.models, "--prompts", options.prompts, "--store", str(store), "--data", str(data)]
        command += ["--port", str(port), "--target", "1000"]
    else:
        page = Path(__file__).with_name("plain_page.py")
        flags = {"server.port": port, "server.headless": "true", "browser.gatherUsageStats": "false"}
        command = [sys.executable, "-m", "streamlit", "run", str(page)]
        command += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        command += ["--", str(store), str(data / options.prompts)]
    process = serve(command, port, folder)
    try:
        voters = [(Voter if kind == "ours" else PlainVoter)(f"http://127.0.0.1:{port}") for _ in range(people)]
        taken = asyncio.run(load(voters, options.votes))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    seconds = sorted(s for voter in voters for s in voter.seconds)
    return {
        "votes_per_second": len(seconds) / taken,
        "p50": statistics.median(seconds),
        "p95": seconds[int(0.95 * len(seconds))],
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description="The preference page under load.")
    parser.add_argument("--study", type=Path, default=Path("results/emoji"))
    parser.add_argument("--models", nargs=2, default=["wuerstchen", "baseline-ldm"])
    parser.add_argument("--prompts", default="names")
    parser.add_argument("--voters", type=int, nargs="+", default=[10, 30, 60])
    parser.add_argument("--votes", type=int, default=6, help="of each voter")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(argv)
    data = Path(tempfile.mkdtemp(prefix="study-"))
    build(options.study, tuple(options.models), options.prompts, data / options.prompts)
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for number in range(options.runs):
        for people in options.voters:
            for kind in ("ours", "plain") if number % 2 == 0 else ("plain", "ours"):
                found.setdefault((kind, people), []).append(measured(kind, options, data, number, people))
    print("| voters | page | votes/s | p50 | p95 |\n|---:|:---|---:|---:|---:|")
    parts = {}
    for (kind, people), runs in sorted(found.items(), key=lambda item: (item[0][1], item[0][0])):
        middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        parts[f"{kind} {people}"] = middle
        print(
            f"| {people} | {kind} | {middle['votes_per_second']:.1f} | {1000 * middle['p50']:.0f} ms "
            f"| {1000 * middle['p95']:.0f} ms |"
        )
    most = max(options.voters)
    pairs = zip(found["ours", most], found["plain", most], strict=True)
    ratios = [plain["p95"] / ours["p95"] for ours, plain in pairs]
    record = {
        "name": "study",
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "max_difference": 0.0,  # every vote that was sent brought the next pair, or this was not reached
        "device": cpu_name(),
        "voters": most,
        "parts": parts,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
