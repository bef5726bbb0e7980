import json

import numpy as np
import pytest
from data_folder import photos
from PIL import Image
from random_network import RandomNetwork

from evaluation import extractors, published
from evaluation.extractors import EfficientNetLite2
from evaluation.frechet import distance_of_features
from evaluation.manipulations import NAMES, Choices, fan_out
from evaluation.picture_files import entries
from evaluation.pictures import Reading
from evaluation.robustness_choices import agreement, combinations, distances, main
from evaluation.robustness_features import Plan, manipulated_features


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    small = random.integers(0, 256, size=(3, 12, 12, 3), dtype=np.uint8)
    return [(f"p-{i}", np.asarray(Image.fromarray(p).resize((150, 150)))) for i, p in enumerate(small)]


def test_what_is_shared_between_combinations_is_what_each_alone_gives(pictures):
    assert len(combinations()) == 16 and combinations()[0] == Choices()
    network, plan = RandomNetwork(), Plan(size=128)
    found = distances(pictures, plan, network)
    # 2 orders of 6 qualities and 2 subsamplings, 2 palettes, 2 brightnesses, 2 contrasts and 2 pivots; 2 resamplings
    assert len(found) == 2 * (6 * 2 + 2 + 2 + 2 * 2) + 2
    choices = Choices("manipulate-first", "4:4:4", "adaptive", "mid-grey")
    fanned = [fan_out(picture, NAMES, choices, 128) for _, picture in pictures]
    features = {name: network(np.stack([some[name] for some in fanned]), "none-128")[0] for name in fanned[0]}
    for name, *of in (
        ("jpeg-70", "manipulate-first", "4:4:4"),
        ("palette", "manipulate-first", "adaptive"),
        ("contrast-up", "manipulate-first", "mid-grey"),
        ("nearest",),
    ):
        expected = distance_of_features(features[name], features["reference"])
        assert found[(name, *of)] == pytest.approx(expected, rel=1e-5), name


def test_agreement_by_hand():
    assert agreement([1, 2, 3], [10, 20, 30]) == {"spearman": pytest.approx(1), "log10_spread": pytest.approx(0)}
    assert agreement([3, 2, 1], [1, 2, 3])["spearman"] == pytest.approx(-1)
    assert agreement([1, 1000], [1, 10])["log10_spread"] == pytest.approx(1)


def test_program_prints_a_table_of_all_combinations(tmp_path, monkeypatch, capsys, pictures):
    monkeypatch.setitem(extractors.EXTRACTORS, "random", RandomNetwork)
    (tmp_path / "set").mkdir()
    for name, picture in pictures:
        Image.fromarray(picture).save(tmp_path / "set" / f"{name}.png")
    out = tmp_path / "choices.json"
    flags = ["--pictures", str(tmp_path / "set"), "--size", "128", "--extractor", "random", "--out", str(out)]
    main([*flags, "--column", "celeba_hq"])
    printed = capsys.readouterr().out
    assert printed.count("| reduce-first |") == printed.count("| manipulate-first |") == 8
    assert "| palette | 31.29 |" in printed
    record = json.loads(out.read_text())
    assert record["n"] == 3 and len(record["combinations"]) == 16
    assert all(-1 <= row["spearman"] <= 1 and set(row["values"]) == set(NAMES) for row in record["combinations"])


def test_the_default_choices_order_photographs_as_the_papers_table_does():
    """Forty photographs of COCO and EfficientNet-Lite2 at 128 px, beside the paper's 30,000 and Inception."""
    files = photos(40)
    plan = Plan(crop="centre", size=128)
    pictures = Reading(entries(files))
    _, features, _ = manipulated_features(pictures, plan, EfficientNetLite2(), len(files))
    values = [distance_of_features(features[name], features["reference"]) for name in NAMES]
    paper = [published.number(row["coco30k"]) for row in published.rows("table3")]
    found = agreement(values, paper)
    print(f"Spearman's rank correlation with the paper: {found['spearman']:.3f}")
    assert found["spearman"] > 0.9
