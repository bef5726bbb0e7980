import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import top_k_accuracy_score

from evaluation.features import FeatureSet, write_features
from evaluation.recall import Trial, distractors, main, rank_of_truth, recall_of, trials
from wuerstchen.files import write_jsonl

KEY = {
    "images_sha256": "1" * 64, "extractor": {"name": "efficientnet-lite2", "sha256": "9" * 64},
    "preprocessing": "none-128", "versions": {},
}  # fmt: skip


def study(things=150, d=12):
    """Two artists who drew each thing, and "dog" in two variants; prompts for the first 30 things of each artist."""
    index, prompts = [], []
    for artist in ("openmoji", "twemoji"):
        for i in range(things):
            thing = "thing-0" if i == 1 else f"thing-{i}"
            index.append({"id": f"{artist}-{i:03d}", "artist": artist, "thing": thing, "special": None})
    challenges = ["seen", "held-out", "flags"]
    for row in index[:30] + index[things : things + 30]:
        number = len(prompts)
        prompts.append({"id": f"names-{number:03d}", "challenge": challenges[number % 3], "source_id": row["id"]})
    features = np.random.default_rng(0).normal(size=(len(index), d)).astype(np.float32)
    gallery = FeatureSet([row["id"] for row in index], features, features[:, :2], {**KEY, "images_sha256": "2" * 64})
    return index, prompts, gallery


def drawn(prompts, gallery, noise=0.0, seed=1):
    truth = gallery.of(prompt["source_id"] for prompt in prompts)
    features = (truth + noise * np.random.default_rng(seed).normal(size=truth.shape)).astype(np.float32)
    return FeatureSet([prompt["id"] for prompt in prompts], features, features[:, :2], KEY)


def test_distractors_are_seeded_others_of_the_artist():
    index, prompts, _ = study()
    by_id = {row["id"]: row for row in index}
    truth = by_id["openmoji-000"]
    others = distractors("names-000", truth, index, seed=0)
    assert len(others) == len(set(others)) == 99
    assert all(by_id[name]["artist"] == "openmoji" and by_id[name]["thing"] != "thing-0" for name in others)
    assert others == distractors("names-000", truth, index[::-1], seed=0)
    assert others != distractors("names-000", truth, index, seed=1)
    assert others != distractors("names-001", truth, index, seed=0)


def test_perfect_images_are_always_first_and_noise_is_at_chance():
    index, prompts, gallery = study()
    perfect = trials(drawn(prompts, gallery), gallery, index, prompts, seed=0)
    assert all(trial.rank == 1 and trial.candidates == 100 for trial in perfect)
    ranks = [
        trial.rank for seed in range(100, 108)
        for trial in trials(drawn(prompts, gallery, noise=1e4, seed=seed), gallery, index, prompts, seed=0)
    ]  # fmt: skip
    assert np.mean(np.array(ranks) <= 10) == pytest.approx(0.1, abs=0.045)
    assert np.mean(ranks) == pytest.approx(50.5, abs=5)


def test_ranks_agree_with_scipy_and_sklearn():
    index, prompts, gallery = study()
    images = drawn(prompts, gallery, noise=1.5)
    results = trials(images, gallery, index, prompts, seed=4)
    by_id = {row["id"]: row for row in index}
    similarity, expected = [], []
    for prompt, image in zip(prompts, images.features, strict=True):
        truth = by_id[prompt["source_id"]]
        names = [truth["id"], *distractors(prompt["id"], truth, index, seed=4)]
        distances = cdist(image[None], gallery.of(names), metric="cosine")[0]
        expected.append(1 + int((distances[1:] < distances[0]).sum()))
        similarity.append(-distances)
    assert [trial.rank for trial in results] == expected
    recall = recall_of(results)
    for k in (1, 10):
        target = np.zeros(len(prompts), int)
        assert recall[f"at_{k}"] == top_k_accuracy_score(target, np.array(similarity), k=k, labels=np.arange(100))
    assert 0.1 < recall["at_1"] < recall["at_10"] < 1


def test_constant_features_earn_nothing():
    assert rank_of_truth(np.ones(3), np.ones(3), np.ones((99, 3))) == 100
    assert rank_of_truth(np.zeros(3), np.ones(3), np.eye(3)) == 4


def test_groups_chance_and_empty_groups():
    group = [Trial("seen", 1, 100), Trial("seen", 5, 20), Trial("seen", 11, 100), Trial("seen", 3, 5)]
    recall = recall_of(group)
    assert recall["n"] == 4 and recall["at_1"] == 0.25 and recall["at_10"] == 0.75
    assert recall["chance_at_1"] == pytest.approx((0.01 + 0.05 + 0.01 + 0.2) / 4)
    assert recall["chance_at_10"] == pytest.approx((0.1 + 0.5 + 0.1 + 1) / 4)
    assert recall["interval_at_10"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert recall_of([])["n"] == 0 and recall_of([])["at_10"] is None and recall_of([])["interval_at_10"] is None


def run(tmp_path, index, prompts, gallery, images):
    write_jsonl(tmp_path / "index.jsonl", index)
    write_jsonl(tmp_path / "names.jsonl", prompts)
    write_features(tmp_path / "gallery.npz", gallery)
    write_features(tmp_path / "images.npz", images)
    flags = {"features": "images.npz", "gallery": "gallery.npz", "index": "index.jsonl", "prompts-file": "names.jsonl"}
    paths = [part for flag, name in flags.items() for part in (f"--{flag}", str(tmp_path / name))]
    main([*paths, "--model", "wuerstchen", "--prompts", "names", "--seed", "0", "--out", str(tmp_path / "out.json")])
    return json.loads((tmp_path / "out.json").read_text())


def test_program_writes_the_contract(tmp_path):
    index, prompts, gallery = study()
    record = run(tmp_path, index, prompts, gallery, drawn(prompts, gallery, noise=1.5))
    assert record["metric"] == "recall" and record["schema"] == 1
    assert set(record["recall"]) == {"seen", "held_out", "special"}
    assert all(group["n"] == 20 for group in record["recall"].values())
    held_out = record["recall"]["held_out"]
    assert {"at_1", "at_10", "n", "chance_at_1", "chance_at_10", "interval_at_10"} <= set(held_out)
    assert record["value"] == held_out["at_10"] and record["interval"] == held_out["interval_at_10"]
    assert record["n"] == 20 and record["images_sha256"] == "1" * 64 and record["reference_sha256"] == "2" * 64


def test_a_small_gallery_adapts_its_chance(tmp_path):
    index, prompts, gallery = study(things=30)
    record = run(tmp_path, index, prompts, gallery, drawn(prompts, gallery))
    # Thirty candidates, but twenty-nine for the thing that was drawn twice.
    chances = [group["chance_at_10"] for group in record["recall"].values()]
    assert all(0.333 < chance < 10 / 29 for chance in chances) and max(chances) > 10 / 30


def test_missing_pictures_are_named(tmp_path):
    index, prompts, gallery = study()
    images = drawn(prompts, gallery)
    with pytest.raises(SystemExit, match="no features of 1 images, such as names-999"):
        run(tmp_path, index, [{**prompts[0], "id": "names-999"}], gallery, images)
    with pytest.raises(SystemExit, match="names-000: its picture 'gone' is not in the index"):
        run(tmp_path, index, [{**prompts[0], "source_id": "gone"}], gallery, images)
    with pytest.raises(SystemExit, match="names-000: challenge 'hard' is none of seen, held-out"):
        run(tmp_path, index, [{**prompts[0], "challenge": "hard"}], gallery, images)
    with pytest.raises(SystemExit, match="artist openmoji has no picture of another thing"):
        run(tmp_path, index[:2], prompts[:1], gallery, images)
