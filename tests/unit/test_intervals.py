import numpy as np
import pytest
from scipy.stats import binomtest, t

from evaluation.intervals import BLOCKS, block_jackknife, blocks_of, paired_bootstrap, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (1, 3), (96, 100), (644, 1000), (15000, 30000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_agrees_with_scipy(successes, n, level):
    expected = binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_by_hand():
    # 8 of 10, z = 1.959964: centre (0.8 + 0.19207) / 1.38415, half 1.959964/1.38415 sqrt(0.016 + 0.0096036)
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 4), (5, 4)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


def test_blocks_depend_on_the_id_alone_and_are_about_even():
    ids = [f"names-{i:04d}" for i in range(2000)]
    blocks = blocks_of(ids)
    assert np.array_equal(blocks[::-1], blocks_of(ids[::-1]))
    counts = np.bincount(blocks, minlength=BLOCKS)
    assert len(counts) == BLOCKS and counts.min() > 60 and counts.max() < 145


def test_jackknife_of_a_mean_with_single_element_blocks_is_the_t_interval():
    values = np.random.default_rng(1).normal(size=15)
    low, high = block_jackknife(values.mean(), [np.delete(values, i).mean() for i in range(15)], [1] * 15)
    expected = t.interval(0.95, 14, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(15))
    assert (low, high) == pytest.approx(expected, rel=1e-12)


def test_jackknife_covers_the_mean_with_uneven_blocks():
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(400):
        values = random.normal(loc=3, size=200)
        blocks = random.integers(0, 20, size=200)
        labels, sizes = np.unique(blocks, return_counts=True)
        low, high = block_jackknife(values.mean(), [values[blocks != b].mean() for b in labels], sizes)
        hits += low <= 3 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_jackknife_refuses_a_single_block_and_nan():
    with pytest.raises(ValueError, match="two blocks"):
        block_jackknife(1.0, [1.0], [5])
    with pytest.raises(ValueError, match="finite"):
        block_jackknife(1.0, [1.0, float("nan")], [5, 5])


def test_bootstrap_agrees_with_the_normal_interval_and_is_seeded():
    values = np.random.default_rng(3).normal(loc=0.5, size=400)
    low, high = paired_bootstrap(values, seed=7)
    half = 1.959964 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert (low, high) == paired_bootstrap(values, seed=7) != paired_bootstrap(values, seed=8)
    with pytest.raises(ValueError, match="one number per prompt"):
        paired_bootstrap([], seed=7)
