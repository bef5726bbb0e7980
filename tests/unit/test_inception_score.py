import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from evaluation.inception_score import split_scores, splits_for


@pytest.mark.parametrize("n", [100, 507])
def test_agrees_with_torch_fidelity(n):
    logits = np.random.default_rng(1).normal(scale=3, size=(n, 40)).astype(np.float32)
    scores = split_scores(logits, 10, seed=2020)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=True, rng_seed=2020)
    assert scores.mean() == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert scores.std() == pytest.approx(theirs["inception_score_std"], rel=1e-9)


def test_its_two_ends():
    assert split_scores(np.zeros((20, 8)), 2, seed=0) == pytest.approx([1, 1], rel=1e-12)
    sure_of_all_classes = np.tile(1000 * np.eye(8), (3, 1))
    assert split_scores(sure_of_all_classes, 1, seed=0) == pytest.approx([8], rel=1e-9)


def test_the_seed_shuffles_between_splits():
    logits = np.random.default_rng(2).normal(scale=3, size=(60, 10))
    assert np.array_equal(split_scores(logits, 6, seed=1), split_scores(logits, 6, seed=1))
    assert not np.array_equal(split_scores(logits, 6, seed=1), split_scores(logits, 6, seed=2))
    assert split_scores(logits, 1, seed=1) == pytest.approx(split_scores(logits, 1, seed=2), rel=1e-12)


def test_few_pictures_get_fewer_splits():
    assert [splits_for(n) for n in (500, 20, 19, 4)] == [10, 10, 9, 2]
    with pytest.raises(ValueError, match="four pictures"):
        splits_for(3)


def test_bad_logits_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        split_scores(np.full((20, 3), np.nan), 2, seed=0)
    with pytest.raises(ValueError, match="n >= splits"):
        split_scores(np.zeros((3, 3)), 10, seed=0)
