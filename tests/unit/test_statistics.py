import json

import cleanfid.fid
import numpy as np
import pytest

from evaluation import statistics
from evaluation.features import FeatureSet, write_features
from evaluation.frechet import distance_of_features, gaussian
from evaluation.protocols import CLEAN, find
from evaluation.statistics import imported, is_statistics, main, of_features, read, write


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Inception with 12 features."""
    monkeypatch.setattr(statistics, "WIDTHS", {"inception": 12})


def a_set(n=60, seed=0, preprocessing=CLEAN.features_preprocessing, name="inception"):
    key = {
        "images_sha256": "1" * 64,
        "extractor": {"name": name, "sha256": "9" * 64},
        "preprocessing": preprocessing,
        "versions": {},
    }
    features = np.random.default_rng(seed).normal(size=(n, 12)).astype(np.float32)
    return FeatureSet([f"p-{i}" for i in range(n)], features, features, key)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # clean-fid's, not ours
def test_export_reads_as_other_tools_write(tmp_path):
    write_features(tmp_path / "f.npz", a_set())
    main(
        [
            "export",
            "--features",
            str(tmp_path / "f.npz"),
            "--protocol",
            "coco30k-clean",
            "--out",
            str(tmp_path / "s.npz"),
        ]
    )
    with np.load(tmp_path / "s.npz") as arrays:  # as pytorch-fid and clean-fid do: without pickle, two arrays
        mu, sigma = arrays["mu"], arrays["sigma"]
    other = a_set(seed=1)
    theirs = cleanfid.fid.frechet_distance(mu, sigma, *gaussian(other.features))
    ours = read(tmp_path / "s.npz").reference().distance_of_features(other.features)
    assert ours == pytest.approx(theirs, rel=1e-8)
    assert ours == pytest.approx(distance_of_features(other.features, a_set().features), rel=1e-9)
    declared = read(tmp_path / "s.npz").declared
    assert declared["protocol_sha256"] == CLEAN.digest() and declared["n"] == 60 and declared["sha256"] == "1" * 64


def test_import_carries_who_declared_what(tmp_path):
    mean, covariance = gaussian(a_set().features)
    np.savez(tmp_path / "theirs.npz", mu=mean.astype(np.float32), sigma=covariance, extra=np.zeros(3))
    arguments = [
        "--file",
        str(tmp_path / "theirs.npz"),
        "--protocol",
        "coco30k-pytorch-fid",
        "--declared-by",
        "its README",
    ]
    main(["import", *arguments, "--n", "40504", "--out", str(tmp_path / "ours.npz")])
    ours = read(tmp_path / "ours.npz")
    assert ours.mu.dtype == ours.sigma.dtype == np.float64 and np.array_equal(ours.sigma, covariance)
    assert ours.declared["declared_by"] == "its README" and ours.declared["n"] == 40504
    assert ours.declared["source"] == "theirs.npz" and ours.declared["protocol"] == "coco30k-pytorch-fid"
    assert is_statistics(tmp_path / "theirs.npz") and is_statistics(tmp_path / "ours.npz")
    with pytest.raises(ValueError, match="says no protocol; run: python -m evaluation.statistics import"):
        read(tmp_path / "theirs.npz")
    assert imported(tmp_path / "theirs.npz", CLEAN, "me").declared["n"] is None


def test_features_of_another_protocol_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has preprocessing centre-square-bicubic-256/tf1-299, but the features"):
        of_features(a_set(), find("coco30k-torch-fidelity"))
    with pytest.raises(ValueError, match="has extractor inception, but the features are of inception-bf16"):
        of_features(a_set(name="inception-bf16"), CLEAN)
    write_features(tmp_path / "f.npz", a_set())
    assert not is_statistics(tmp_path / "f.npz")
    with pytest.raises(SystemExit, match="unknown protocol 'coco'"):
        main(["export", "--features", str(tmp_path / "f.npz"), "--protocol", "coco", "--out", str(tmp_path / "s.npz")])


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "s.npz"

    def refused(message, **arrays):
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=f"s.npz: {message}"):
            imported(path, CLEAN, "me")

    mu, sigma = np.zeros(12), np.eye(12)
    refused(r"mu \(D,\) and sigma \(D, D\) needed, found \(12,\) and \(3, 3\)", mu=mu, sigma=np.eye(3))
    refused("3 features, but inception of coco30k-clean has 12", mu=mu[:3], sigma=sigma[:3, :3])
    refused("NaN or infinity", mu=mu * np.nan, sigma=sigma)
    refused("sigma is not a covariance", mu=mu, sigma=sigma + np.triu(np.ones((12, 12)), 1))
    refused("sigma is not a covariance", mu=mu, sigma=-sigma)
    refused("not an npz with mu and sigma", mu=mu)
    refused("not an npz with mu and sigma", mu=mu, sigma=np.array([None]))
    np.savez(path, mu=mu, sigma=sigma)
    with pytest.raises(ValueError, match="say who declares"):
        imported(path, CLEAN, " ")
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="not an npz"):
        is_statistics(path)


def test_written_files_are_whole(tmp_path):
    write(tmp_path / "s.npz", of_features(a_set(), CLEAN))
    with np.load(tmp_path / "s.npz") as arrays:
        assert json.loads(str(arrays["declared"]))["declared_by"] == "computed from features"
