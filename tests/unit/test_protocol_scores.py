import hashlib
import json

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from evaluation import frechet
from evaluation.comparability import comparable, require_comparable
from evaluation.features import FeatureSet, write_features
from evaluation.kid import kid_of_subsets, mmd2
from evaluation.precision_recall import precision_recall_density_coverage
from evaluation.protocol_scores import PRDC, fid, kid_score, main
from evaluation.protocols import CLEAN, find
from evaluation.statistics import of_features, write

CONTRACT = {
    "schema", "metric", "protocol", "model", "prompts", "value", "interval", "interval_method", "n", "seed",
    "images_sha256", "reference_sha256", "extractor", "preprocessing", "versions",
}  # fmt: skip
CAPTIONS = "c" * 64


def a_set(n=60, d=16, shift=0.0, seed=0, images="1", preprocessing=CLEAN.features_preprocessing, prefix="coco"):
    random = np.random.default_rng(seed)
    key = {
        "images_sha256": images * 64,
        "extractor": {"name": "inception", "sha256": "9" * 64},
        "preprocessing": preprocessing,
        "versions": {"torch": "1"},
    }
    features = (random.normal(size=(n, d)) + shift).astype(np.float32)
    logits = random.normal(scale=2, size=(n, 7)).astype(np.float32)
    return FeatureSet([f"{prefix}-{i:03d}" for i in range(n)], features, logits, key)


def run(tmp_path, reference, *flags, protocol="coco30k-clean", model="wuerstchen", images=None):
    write_features(tmp_path / "f.npz", images or a_set(shift=0.4))
    if isinstance(reference, FeatureSet):
        write_features(tmp_path / "r.npz", reference)
    elif reference is not None:
        write(tmp_path / "r.npz", reference)
    more = ["--reference", str(tmp_path / "r.npz")] if reference is not None else []
    main(
        ["--protocol", protocol, "--features", str(tmp_path / "f.npz"), *more, "--model", model, "--prompts",
         "coco-30k", "--captions-sha256", CAPTIONS, "--seed", "2020", *flags]
    )  # fmt: skip


def read(path):
    return json.loads(path.read_text())


def test_all_metrics_follow_the_contract(tmp_path):
    images, reference = a_set(shift=0.4), a_set(n=90, seed=1, images="2", prefix="val")
    outputs = [tmp_path / f"{name}.json" for name in ("fid", "kid", "is")]
    flags = [f"--{path.stem}={path}" for path in outputs]
    run(tmp_path, reference, *flags, "--prdc", *(str(tmp_path / f"{name}.json") for name in PRDC))
    outputs += [tmp_path / f"{name}.json" for name in ("precision", "recall", "density", "coverage")]
    records = {path.stem: read(path) for path in outputs}
    for name, record in records.items():
        assert CONTRACT <= set(record) and record["metric"] == name and record["n"] == 60
        assert record["protocol"] == "coco30k-clean"
        assert record["protocol_sha256"] == CLEAN.of_captions(CAPTIONS).digest() != CLEAN.digest()
        assert record["protocol_choices"]["captions_sha256"] == CAPTIONS
        assert record["interval"][0] <= record["value"] <= record["interval"][1]
        assert record["reference_sha256"] == (None if name == "is" else "2" * 64)
    assert records["fid"]["value"] == pytest.approx(frechet.distance_of_features(images.features, reference.features))
    assert records["fid"]["interval_method"].endswith("the reference stays whole")
    estimates = kid_of_subsets(images.features, reference.features, 2020, 60)
    assert records["kid"]["value"] == pytest.approx(estimates.mean()) and records["kid"]["subset_size"] == 60
    theirs = isc_features_to_metric(torch.from_numpy(images.logits))
    assert records["is"]["value"] == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    parts = precision_recall_density_coverage(images.features, reference.features)
    assert {name: records[name]["value"] for name in parts} == {name: part.mean() for name, part in parts.items()}
    assert records["precision"]["k"] == 3 and records["coverage"]["k"] == 5


def test_the_pictures_of_the_same_prompts_leave_together():
    images, reference = a_set(shift=0.4), a_set(seed=1, images="2")
    paired, whole = fid(images, reference), fid(images, a_set(seed=1, images="2", prefix="val"))
    assert paired["value"] == pytest.approx(whole["value"]) and paired["interval"] != whole["interval"]
    assert not paired["interval_method"].endswith("whole")
    assert kid_score(images, reference, 2020)["value"] > 0 < mmd2(images.features, reference.features)


def test_statistics_as_a_reference(tmp_path):
    reference = a_set(n=90, seed=1, images="2", prefix="val")
    run(tmp_path, of_features(reference, CLEAN), "--fid", str(tmp_path / "a.json"))
    run(tmp_path, reference, "--fid", str(tmp_path / "b.json"))
    a, b = read(tmp_path / "a.json"), read(tmp_path / "b.json")
    assert a["value"] == pytest.approx(b["value"]) and a["interval"] == pytest.approx(b["interval"])
    assert a["reference_declared"]["declared_by"] == "computed from features"
    assert a["reference_n"] == b["reference_n"] == 90 and comparable(a, b)
    with pytest.raises(SystemExit, match="need features, not their mean"):
        run(tmp_path, of_features(reference, CLEAN), "--kid", str(tmp_path / "k.json"))


def test_few_pictures_are_said_to_be_few():
    few = fid(a_set(n=14, shift=0.4), a_set(n=90, seed=1, prefix="val"))
    assert few["fewer_pictures_than_features"] and few["value"] > 0
    assert not fid(a_set(), a_set(n=90, seed=1, prefix="val"))["fewer_pictures_than_features"]
    with pytest.raises(ValueError, match="more than 16 are needed"):
        fid(a_set(), a_set(n=16, seed=1, prefix="val"))


def test_what_is_not_of_the_protocol_is_refused(tmp_path):
    out = ["--fid", str(tmp_path / "fid.json")]
    with pytest.raises(
        SystemExit, match="coco30k-torch-fidelity has preprocessing centre-square-bicubic-256/tf1-299, but the features"
    ):
        run(tmp_path, a_set(), *out, protocol="coco30k-torch-fidelity")
    tf1 = a_set(n=90, images="2", preprocessing="centre-square-bicubic-256/tf1-299")
    with pytest.raises(SystemExit, match="compute both with the same"):
        run(tmp_path, tf1, *out)
    declared = of_features(a_set(n=90), CLEAN)
    declared.declared["protocol_sha256"] = "0"
    with pytest.raises(SystemExit, match="which is not coco30k-clean as it is here"):
        run(tmp_path, declared, *out)
    assert not (tmp_path / "fid.json").exists()
    with pytest.raises(SystemExit):
        run(tmp_path, None, *out)
    with pytest.raises(SystemExit, match="but the features are of pil-float-299"):  # neither cropped nor reduced
        bare = a_set(n=90, preprocessing="pil-float-299")
        run(tmp_path, bare, *out, images=bare)


def test_the_caption_list_counts_by_its_content(tmp_path):
    (tmp_path / "c.jsonl").write_text("one\n")
    write_features(tmp_path / "f.npz", a_set())
    flags = ["--features", str(tmp_path / "f.npz"), "--model", "m", "--prompts", "p", "--seed", "0"]
    out = ["--is", str(tmp_path / "is.json"), "--captions", str(tmp_path / "c.jsonl")]
    main(["--protocol", "coco30k-clean", *flags, *out])
    digest = hashlib.sha256(b"one\n").hexdigest()
    assert read(tmp_path / "is.json")["protocol_choices"]["captions_sha256"] == digest


def test_scores_of_two_protocols_are_not_ranked(tmp_path):
    run(tmp_path, a_set(n=90, images="2", prefix="val"), "--fid", str(tmp_path / "a.json"))
    other = find("coco30k-pytorch-fid")
    run(
        tmp_path,
        a_set(n=90, images="2", prefix="val", preprocessing=other.features_preprocessing),
        "--fid", str(tmp_path / "b.json"),
        protocol=other.id, model="sd-1.4", images=a_set(preprocessing=other.features_preprocessing),
    )  # fmt: skip
    with pytest.raises(
        ValueError, match="of wuerstchen and sd-1.4 cannot be ranked together: protocol 'coco30k-clean'"
    ):
        require_comparable([read(tmp_path / "a.json"), read(tmp_path / "b.json")])
