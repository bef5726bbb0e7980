"""Mean and covariance of features as files: .npz with `mu` and `sigma`, as pytorch-fid, clean-fid and ADM have them.

    python -m evaluation.statistics export --features NPZ --protocol ID --out NPZ
    python -m evaluation.statistics import --file NPZ --protocol ID --declared-by WHO [--n N] --out NPZ

Such a file says nothing of the pictures, the crop or the resize that it comes from, so whoever imports one declares its
protocol, and every score computed with it carries who declared what. Our own files have the same two arrays, and a
third, `declared`, which the other tools ignore. (ADM's evaluator also wants `mu_s`, `sigma_s` of its spatial features.)
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import frechet
from evaluation.features import FeatureSet, read_features
from evaluation.protocols import PROTOCOLS, Protocol, find
from wuerstchen.files import atomic_path, sha256_file

WIDTHS = {"inception": 2048, "inception-bf16": 2048}


@dataclass(frozen=True)
class Statistics:
    """Mean (D,) and covariance (D, D), float64, and what is known of their origin.

    `declared` is {"protocol", "protocol_sha256", "declared_by", "n", "sha256", "source"}: sha256 that of the image list
    or, where that is not known, of the imported file; n None where it is not known.
    """

    mu: np.ndarray
    sigma: np.ndarray
    declared: dict[str, Any]

    def reference(self) -> frechet.Reference:
        """What `frechet` compares with; its factor is computed once."""
        return frechet.Reference(self.mu, self.sigma)


def require_features_of(features: FeatureSet, protocol: Protocol) -> None:
    """Raise ValueError unless the features were extracted as the protocol says."""
    key = features.key
    for field, found, wanted in (
        ("extractor", key["extractor"]["name"], protocol.extractor),
        ("preprocessing", key["preprocessing"], protocol.features_preprocessing),
    ):
        if found != wanted:
            raise ValueError(f"protocol {protocol.id} has {field} {wanted}, but the features are of {found}")


def of_features(features: FeatureSet, protocol: Protocol) -> Statistics:
    """Statistics of features. Raises ValueError where they are not of the protocol."""
    require_features_of(features, protocol)
    declared = {
        "protocol": protocol.id,
        "protocol_sha256": protocol.digest(),
        "declared_by": "computed from features",
        "n": len(features.ids),
        "sha256": features.key["images_sha256"],
        "extractor": features.key["extractor"],
        "source": None,
    }
    return Statistics(*frechet.gaussian(features.features), declared)


def imported(path: Path, protocol: Protocol, declared_by: str, n: int | None = None) -> Statistics:
    """Statistics of another tool's file, of which `declared_by` says that they are of the protocol.

    Raises ValueError naming the file and what is wrong with its arrays.
    """
    mu, sigma, _ = _arrays(path)
    if mu.shape[0] != (width := WIDTHS.get(protocol.extractor, mu.shape[0])):
        raise ValueError(f"{path}: {mu.shape[0]} features, but {protocol.extractor} of {protocol.id} has {width}")
    if not declared_by.strip():
        raise ValueError("say who declares the statistics to be of that protocol")
    declared = {
        "protocol": protocol.id,
        "protocol_sha256": protocol.digest(),
        "declared_by": declared_by,
        "n": n,
        "sha256": sha256_file(path),
        "extractor": {"name": protocol.extractor, "sha256": None},
        "source": path.name,
    }
    return Statistics(mu, sigma, declared)


def write(path: str | Path, statistics: Statistics) -> None:
    """Write an npz atomically: mu, sigma, declared (JSON text)."""
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            mu=statistics.mu,
            sigma=statistics.sigma,
            declared=np.array(json.dumps(statistics.declared, sort_keys=True)),
        )


def read(path: Path) -> Statistics:
    """Read an npz of `write`. Raises ValueError where it is none, such as another tool's that nobody declared."""
    mu, sigma, declared = _arrays(path)
    if declared is None:
        raise ValueError(f"{path}: says no protocol; run: python -m evaluation.statistics import --file {path} ...")
    return Statistics(mu, sigma, declared)


def is_statistics(path: Path) -> bool:
    """Whether an npz holds mu and sigma rather than features. Raises ValueError where it is no npz."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {"mu", "sigma"} <= set(arrays.files)
    except Exception as error:  # a damaged npz fails in a dozen ways
        raise ValueError(f"{path}: not an npz ({error})") from None


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any] | None]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mu, sigma = arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64)
            declared = json.loads(str(arrays["declared"])) if "declared" in arrays.files else None
    except Exception as error:  # as above
        raise ValueError(f"{path}: not an npz with mu and sigma ({error})") from None
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise ValueError(f"{path}: mu (D,) and sigma (D, D) needed, found {mu.shape} and {sigma.shape}")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ValueError(f"{path}: NaN or infinity in mu or sigma")
    scale = np.trace(sigma) / len(mu)
    if np.abs(sigma - sigma.T).max() > 1e-6 * scale or (np.diag(sigma) < 0).any():
        raise ValueError(f"{path}: sigma is not a covariance: not symmetric, or a negative variance")
    return mu, sigma, declared


def main(argv: list[str] | None = None) -> None:
    """Command line: import and export."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.statistics", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export", help="write mu and sigma of a feature file")
    exporting.add_argument("--features", required=True, type=Path, metavar="NPZ")
    importing = commands.add_parser("import", help="declare the protocol of another tool's file")
    importing.add_argument("--file", required=True, type=Path, metavar="NPZ")
    importing.add_argument("--declared-by", required=True, metavar="WHO", help="a name, and where it is written")
    importing.add_argument("--n", type=int, help="number of pictures, where it is known")
    for command in (exporting, importing):
        command.add_argument("--protocol", required=True, help=f"one of {', '.join(PROTOCOLS)}")
        command.add_argument("--out", required=True, type=Path, metavar="NPZ")
    options = parser.parse_args(argv)
    try:
        protocol = find(options.protocol)
        if options.command == "export":
            write(options.out, of_features(read_features(options.features), protocol))
        else:
            write(options.out, imported(options.file, protocol, options.declared_by, options.n))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
