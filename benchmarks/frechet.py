"""The Frechet distance of two Gaussians, from their moments: ours beside the routes of torch-fidelity and clean-fid.

python -m benchmarks.frechet                  2048 features, covariances of 5,000 samples, as for FID-5K
"""

import argparse
import functools
import warnings
from collections.abc import Callable

import numpy as np
import torch
from threadpoolctl import threadpool_info

from benchmarks.measure import medians, show
from evaluation import frechet
from evaluation.features import library_versions
from wuerstchen.usage import cpu_name

OURS = "ours: Cholesky, eigvalsh"
CACHED = "ours, the reference's factor kept"
TORCH_FIDELITY = "torch-fidelity: eigvals"
SQRTM = "clean-fid, pytorch-fid: scipy.linalg.sqrtm"


def features(n: int, width: int, seed: int) -> np.ndarray:
    """Correlated float32 features (n, width) with a power-law spectrum, as a network's are; each seed another set."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(width, width)) * np.arange(1, width + 1) ** -0.5
    shift = random.normal(scale=0.05, size=width)
    return ((1 + 0.1 * seed) * random.normal(size=(n, width)) @ mixing.T / np.sqrt(width) + shift).astype(np.float32)


def routes(n: int, width: int) -> dict[str, Callable[[], float]]:
    """Each route's call on the same two Gaussians. clean-fid's needs a SciPy below 1.18, and is left out elsewhere."""
    from cleanfid.fid import frechet_distance
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    (mean1, cov1), (mean2, cov2) = (frechet.gaussian(features(n, width, seed)) for seed in (1, 2))
    reference = frechet.Reference(mean2, cov2)
    assert reference.factor is not None  # made before anything is timed
    theirs = ({"mu": mean1, "sigma": cov1}, {"mu": mean2, "sigma": cov2})

    def torch_fidelity() -> float:
        return fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]

    def sqrtm() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return float(frechet_distance(mean1, cov1, mean2, cov2))

    return {
        OURS: functools.partial(frechet.distance, mean1, cov1, mean2, cov2),
        CACHED: functools.partial(reference.distance, mean1, cov1),
        TORCH_FIDELITY: torch_fidelity,
        SQRTM: sqrtm,
    }


def main(argv: list[str] | None = None) -> None:
    """Command line: a table and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frechet", description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--width", type=int, default=2048, help="features of a sample (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many (default: %(default)s)")
    options = parser.parse_args(argv)
    calls = routes(options.samples, options.width)
    values: dict[str, float] = {}
    for name in list(calls):
        try:
            values[name] = calls[name]()
        except TypeError as error:  # sqrtm lost an argument that clean-fid passes
            print(f"{name} fails: {error}", end="\n\n")
            del calls[name]
    seconds = medians(calls, options.rounds)
    ratios = {name: seconds[TORCH_FIDELITY] / seconds[name] for name in calls}
    largest = max(abs(value - values[OURS]) / values[OURS] for value in values.values())
    record = {
        "name": "frechet",
        "ratio": ratios[OURS],
        "ratio_of": f"frechet distance of {options.width} features, {options.samples} samples",
        "peer": TORCH_FIDELITY,
        "ratio_scipy_sqrtm": seconds[SQRTM] / seconds[OURS] if SQRTM in seconds else None,
        "ratio_cached": ratios[CACHED],
        "max_difference": largest,
        "device": cpu_name(),
        "threads": max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"),
        "samples": options.samples,
        "width": options.width,
        "rounds": options.rounds,
        "parts": [{"route": name, "seconds": seconds[name], "value": values[name]} for name in calls],
        "versions": {"torch": torch.__version__, **library_versions("numpy", "scipy", "torch-fidelity", "clean-fid")},
    }
    rows = [
        [name, f"{seconds[name]:.2f}", f"{seconds[name] / seconds[OURS]:.2f}", f"{values[name]:.12g}"] for name in calls
    ]
    show(record, ["Route", "s", "times ours", "value"], rows)


if __name__ == "__main__":
    main()
