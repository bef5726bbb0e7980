import json

import numpy as np
import pytest

from evaluation.features import FeatureSet, write_features
from evaluation.frechet import distance_of_features
from evaluation.inception_score import split_scores
from evaluation.kid import mmd2
from evaluation.scores import frechet_score, inception_score_score, kid_score, main, matched

CONTRACT = {
    "schema", "metric", "protocol", "model", "prompts", "value", "interval", "interval_method", "n", "seed",
    "images_sha256", "reference_sha256", "extractor", "preprocessing", "versions",
}  # fmt: skip


def a_set(n=60, d=16, shift=0.0, seed=0, images="1", preprocessing="none-128", order=1):
    random = np.random.default_rng(seed)
    key = {
        "images_sha256": images * 64,
        "extractor": {"name": "efficientnet-lite2", "sha256": "9" * 64},
        "preprocessing": preprocessing,
        "versions": {"torch": "1"},
    }
    features = (random.normal(size=(n, d)) + shift).astype(np.float32)
    logits = random.normal(scale=2, size=(n, 7)).astype(np.float32)
    return FeatureSet([f"names-{i:03d}" for i in range(n)][::order], features, logits, key)


def write(tmp_path, name, feature_set):
    write_features(tmp_path / name, feature_set)
    return str(tmp_path / name)


def arguments(tmp_path, *more):
    return ["--features", str(tmp_path / "f.npz"), "--model", "wuerstchen", "--prompts", "names", "--seed", "3", *more]


def test_all_three_follow_the_contract(tmp_path):
    images, reference = a_set(shift=0.4), a_set(seed=1, images="2")
    write(tmp_path, "f.npz", images)
    outputs = [tmp_path / f"{name}.json" for name in ("fd", "kid", "is")]
    flags = ["--fd", str(outputs[0]), "--kid", str(outputs[1]), "--is", str(outputs[2])]
    main(arguments(tmp_path, "--reference", write(tmp_path, "r.npz", reference), *flags))
    records = [json.loads(path.read_text()) for path in outputs]
    metrics = ["fd-efficientnet-lite2", "kid-efficientnet-lite2", "is-efficientnet-lite2"]
    assert [record["metric"] for record in records] == metrics
    for record in records:
        assert CONTRACT <= set(record) and record["schema"] == 1 and record["n"] == 60 and record["seed"] == 3
        assert record["model"] == "wuerstchen" and record["prompts"] == "names"
        assert record["interval"][0] < record["value"] < record["interval"][1]
        assert record["images_sha256"] == "1" * 64 and record["preprocessing"] == "none-128"
        assert record["extractor"]["sha256"] == "9" * 64 and {"torch", "numpy"} <= set(record["versions"])
    assert [record["reference_sha256"] for record in records] == ["2" * 64, "2" * 64, None]
    assert records[0]["value"] == pytest.approx(distance_of_features(images.features, reference.features), rel=1e-9)
    assert records[1]["value"] == pytest.approx(mmd2(images.features, reference.features), rel=1e-9)
    assert records[1]["subset_size"] == 60
    assert records[2]["value"] == pytest.approx(split_scores(images.logits, 10, 3).mean(), rel=1e-12)


def test_a_set_without_pictures_has_an_inception_score_alone(tmp_path):
    write(tmp_path, "f.npz", a_set())
    main(arguments(tmp_path, "--is", str(tmp_path / "is.json")))
    assert json.loads((tmp_path / "is.json").read_text())["value"] >= 1
    with pytest.raises(SystemExit):
        main(arguments(tmp_path, "--fd", str(tmp_path / "fd.json")))
    with pytest.raises(SystemExit):
        main(arguments(tmp_path))


def test_real_pictures_are_at_zero_from_themselves_in_any_order():
    images = a_set()
    shuffled = FeatureSet(images.ids[::-1], images.features[::-1], images.logits[::-1], images.key)
    assert np.array_equal(matched(images, shuffled), images.features)
    score = frechet_score(images, shuffled)
    assert score["value"] == pytest.approx(0, abs=1e-6) and score["interval"][0] == 0


def test_intervals_bracket_the_truth_of_a_shifted_gaussian():
    score = kid_score(a_set(n=400, shift=0.5), a_set(n=400, seed=1), seed=0)
    assert score["interval"][0] > 0
    null = kid_score(a_set(n=400), a_set(n=400, seed=1), seed=0)
    assert null["interval"][0] < 0 < null["interval"][1]


def test_tiny_sets_are_scored_with_fewer_splits():
    assert inception_score_score(a_set(n=8), seed=0)["splits"] == 4


def test_other_ids_and_other_keys_are_refused(tmp_path):
    write(tmp_path, "f.npz", a_set())
    out = ["--fd", str(tmp_path / "fd.json")]
    with pytest.raises(SystemExit, match="same ids.*0 are in the images alone, 1 in the reference alone.*names-060"):
        main(arguments(tmp_path, "--reference", write(tmp_path, "r.npz", a_set(n=61)), *out))
    with pytest.raises(SystemExit, match='preprocessing is "bicubic-128"'):
        reference = write(tmp_path, "r.npz", a_set(preprocessing="bicubic-128"))
        main(arguments(tmp_path, "--reference", reference, *out))
    assert not (tmp_path / "fd.json").exists()
