"""The thirteen manipulations of Table 3 and their reference, beside clean-fid and torch-fidelity on the same pictures.

Both peers read a folder once for each of the fourteen sets, and get the manipulation as a function of the picture they
have read. All three compute the same crop, reduction and manipulations, and the network of one file of random weights.

python -m benchmarks.robustness --pictures FOLDER --count 64
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch

from benchmarks.inception_peers import CleanFID, TorchFidelity, write_weights
from benchmarks.measure import show
from evaluation import frechet
from evaluation.inception import Inception
from evaluation.manipulations import NAMES, fan_out
from evaluation.picture_files import entries
from evaluation.prepare import centre_square
from evaluation.robustness_features import Plan, Reading, manipulated_features
from wuerstchen.usage import cpu_name

SIZE = 256
SETS = ("reference", *NAMES)
OWN = ("jpeg-50", "palette")  # whose distances a peer's own formula computes too
PEERS = (TorchFidelity, CleanFID)
T = TypeVar("T")
Features = dict[str, np.ndarray]


def changed(name: str, picture: np.ndarray) -> np.ndarray:
    """One of SETS as a peer has to make it: alone, from the picture that it has read."""
    return fan_out(centre_square(picture), [name] if name != "reference" else [], size=SIZE)[name]


def ours(folder: Path, extractor: Inception, protocol: str) -> Features:
    """Features of all sets in one pass."""
    plan = Plan(NAMES, crop="centre", size=SIZE, preprocessing=protocol)
    return manipulated_features(Reading(entries(folder)), plan, extractor)[1]


def theirs(folder: Path, peer: TorchFidelity | CleanFID) -> Features:
    """Features of all sets in fourteen passes; the reference's are computed once."""
    return {name: peer.features(folder, partial(changed, name)) for name in SETS}


def timed(call: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """What a call gives, with its seconds by the clock and of all processors, its child processes' included."""
    before, start = os.times(), time.perf_counter()
    got = call()
    after = os.times()
    return got, {"wall": time.perf_counter() - start, "cpu": sum(after[:4]) - sum(before[:4])}


def measure(peer: TorchFidelity | CleanFID, extractor: Inception, folder: Path, rounds: int) -> dict:
    """One peer beside ours under the peer's protocol. Of some rounds, the fastest counts."""
    laps: dict[str, list[dict[str, float]]] = {"theirs": [], "ours": []}
    for _ in range(rounds):
        their_features, lap = timed(lambda: theirs(folder, peer))
        laps["theirs"].append(lap)
        our_features, lap = timed(lambda: ours(folder, extractor, peer.protocol))
        laps["ours"].append(lap)
    fastest = {side: min(some, key=lambda lap: lap["wall"]) for side, some in laps.items()}

    # A peer's own formula takes tens of seconds for each distance: two show what it takes and gives.
    own, peer_lap = timed(lambda: [peer.distance(their_features[name], their_features["reference"]) for name in OWN])
    values, our_lap = timed(lambda: _distances(our_features))
    by_one_formula = _distances(their_features)
    return {
        "peer": f"{peer.name} {version(peer.name)}",
        "protocol": peer.protocol,
        "seconds": {side: lap["wall"] for side, lap in fastest.items()},
        "cpu_seconds": {side: lap["cpu"] for side, lap in fastest.items()},
        "seconds_per_distance": {"theirs": peer_lap["wall"] / len(OWN), "ours": our_lap["wall"] / len(NAMES)},
        "ratio": fastest["theirs"]["wall"] / fastest["ours"]["wall"],
        "cpu_ratio": fastest["theirs"]["cpu"] / fastest["ours"]["cpu"],
        "max_difference": {
            "of_features": max(_relative(our_features[name], their_features[name]) for name in SETS),
            "of_values": _relative([values[name] for name in OWN], own),
            "of_values_by_one_formula": _relative(list(values.values()), list(by_one_formula.values())),
        },
        "values": {"ours": values, "theirs by our formula": by_one_formula, "theirs": dict(zip(OWN, own, strict=True))},
    }


def _distances(features: Features) -> dict[str, float]:
    return {name: frechet.distance_of_features(features[name], features["reference"]) for name in NAMES}


def _relative(ours: np.ndarray | list[float], theirs: np.ndarray | list[float]) -> float:
    """Largest difference: of features beside the largest feature, of distances each beside itself."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    scale = np.abs(b).max() if b.ndim > 1 else np.abs(b)
    return float((np.abs(a - b) / scale).max())


def run(folder: Path, weights: Path, rounds: int) -> dict:
    """The benchmark's JSON object for all pictures of a folder."""
    extractor = Inception(weights)
    parts = [measure(peer(weights), extractor, folder, rounds) for peer in PEERS]
    faster = min(parts, key=lambda part: part["seconds"]["theirs"])
    return {
        "name": "robustness",
        "ratio": faster["ratio"],
        "ratio_of": f"{len(SETS)} sets of {len(list(folder.iterdir()))} pictures, from their files to their features",
        "peer": faster["peer"],
        "cpu_ratio": faster["cpu_ratio"],
        "max_difference": max(part["max_difference"]["of_values_by_one_formula"] for part in parts),
        "max_difference_of": "Frechet distances by one formula, relative",
        "device": cpu_name(),
        "threads": torch.get_num_threads(),
        "parts": parts,
        "versions": {name: version(name) for name in ("torch", "pillow", "scipy", "numpy")},
    }


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", required=True, type=Path, metavar="FOLDER", help="of picture files")
    parser.add_argument("--count", type=int, default=64, help="of pictures, the first by name (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of which the fastest counts (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.count < 2 or args.rounds < 1:
        parser.error(f"--count {args.count}, --rounds {args.rounds}: use at least 2 and 1")
    try:
        chosen = [entry.path for entry in entries(args.pictures)[: args.count]]
    except ValueError as error:
        raise SystemExit(f"benchmark of robustness: {error}") from None
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        folder.mkdir()
        for path in chosen:
            (folder / path.name).symlink_to(path.resolve())
        record = run(folder, write_weights(Path(temporary) / "weights.pth"), args.rounds)
    titles = ["Peer", "protocol", "its seconds", "ours", "times faster", "of CPU time", "s per distance: its", "ours"]
    titles += ["features differ by", "distances by", "by one formula"]
    rows = [
        [
            part["peer"],
            part["protocol"],
            *(f"{part['seconds'][side]:.1f}" for side in ("theirs", "ours")),
            f"{part['ratio']:.2f}",
            f"{part['cpu_ratio']:.2f}",
            *(f"{part['seconds_per_distance'][side]:.2f}" for side in ("theirs", "ours")),
            *(f"{value:.1e}" for value in part["max_difference"].values()),
        ]
        for part in record["parts"]
    ]
    show(record, titles, rows)


if __name__ == "__main__":
    main()
