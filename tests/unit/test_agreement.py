"""Krippendorff's alpha: his published example, statsmodels' kappa, and five people's ratings."""

import csv
from collections import defaultdict

import numpy as np
import pytest
from data_folder import published
from statsmodels.stats.inter_rater import fleiss_kappa

from study_app.agreement import agreement, alpha, coincidences, nominal, ordinal

# Krippendorff (2011), section C: four observers, twelve units, five values; a dot is no answer.
EXAMPLE = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def test_the_example_that_krippendorff_printed() -> None:
    units = np.zeros((12, 5), dtype=int)
    for row in EXAMPLE:
        for unit, value in enumerate(row):
            if value != ".":
                units[unit, int(value) - 1] += 1
    pairs = coincidences(units)
    assert pairs.sum() == pytest.approx(40)
    assert alpha(pairs.sum(0), nominal) == pytest.approx(0.743, abs=5e-4)
    assert alpha(pairs.sum(0), ordinal) == pytest.approx(0.815, abs=5e-4)


def likert() -> np.ndarray:
    """Answers of 1 to 5 by five people each to pictures of five models: [pictures, 5]."""
    counts: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(5, dtype=int))
    with open(published("dsg/tifa160-likert-anns.csv"), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            counts[row["t2i_model"], row["item_id"]][int(row["answer"]) - 1] += 1
    return np.array(list(counts.values()))


def test_five_peoples_ratings_agree_with_statsmodels() -> None:
    """With as many answers to every unit, (1 - alpha) = (1 - Fleiss' kappa) (1 - 1 / answers)."""
    counts = likert()
    full = counts[counts.sum(-1) == 5]
    assert len(full) > 700
    expected = 1 - (1 - fleiss_kappa(full)) * (1 - 1 / full.sum())
    found = agreement(full, seed=0)
    assert found["nominal"]["value"] == pytest.approx(expected, abs=1e-12)
    low, high = found["nominal"]["interval"]
    assert low < expected < high < low + 0.1
    # people who differ rarely differ by much: an order explains more than equality alone
    assert found["ordinal"]["value"] > found["nominal"]["value"]


def test_perfect_agreement_chance_and_nothing_to_compare() -> None:
    assert agreement(np.array([[3, 0, 0], [0, 0, 4], [0, 2, 0]]), 0)["nominal"]["value"] == 1
    random = np.random.default_rng(0)
    chance = random.multinomial(4, [0.5, 0.2, 0.3], size=3000)
    assert agreement(chance, 0)["ordinal"]["value"] == pytest.approx(0, abs=0.03)
    for nothing in (np.eye(3, dtype=int), np.array([[5, 0, 0], [3, 0, 0]]), np.zeros((0, 3), dtype=int)):
        assert agreement(nothing, 0) is None
