"""What cannot be ranked together is put in no table, verdict or summary, and pictures saved with loss are marked."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import change, write_study

from evaluation.features import FeatureSet, write_features
from evaluation.figures import FIGURES
from evaluation.findings import headlines
from evaluation.latex import to_latex
from evaluation.printing import Table, to_csv, to_markdown
from evaluation.results import Study
from evaluation.scores import main as scores
from evaluation.study_tables import recall_table, scores_table
from evaluation.summary import summarise
from evaluation.tables import table1, table2, table3
from evaluation.verdicts import table2_grid


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.open(tmp_path / "made-up", write_study(tmp_path / "made-up"))


RANKED_BY = {
    "fd-efficientnet-lite2": (table2, scores_table, summarise, headlines, table2_grid),
    "is-efficientnet-lite2": (table2, scores_table, summarise, table2_grid),
    "kid-efficientnet-lite2": (table2, scores_table, summarise),
    "emoji-score": (table1, scores_table, summarise),
    "recall": (recall_table,),
}


@pytest.mark.parametrize(("metric", "use"), [(metric, use) for metric, uses in RANKED_BY.items() for use in uses])
@pytest.mark.parametrize(("field", "value"), [("protocol", "another"), ("n", 7), ("preprocessing", "bicubic-128")])
def test_a_mixed_set_is_refused_by_name(study: Study, metric: str, use: Callable, field: str, value: object) -> None:
    use(study)
    change(study.directory / f"scores/{metric}/baseline-ldm/names.json", **{field: value})
    with pytest.raises(ValueError, match=f"of wuerstchen and baseline-ldm cannot be ranked together: {field} .* and "):
        use(study)


def test_ceilings_are_ranked_beside_the_models(study: Study) -> None:
    path = study.directory / "scores/fd-efficientnet-lite2/ceiling-stage-a/names.json"
    change(path, extractor={"name": "inception", "sha256": "02" * 32})
    for use in (table2, summarise):
        with pytest.raises(ValueError, match="of wuerstchen and ceiling-stage-a cannot be ranked together: extractor"):
            use(study)


def features(path: Path, images: str, lossy: int | None) -> None:
    ids = [f"p-{i}" for i in range(40)]
    values = np.random.default_rng(len(path.stem)).normal(size=(40, 6)).astype(np.float32)
    key = {"images_sha256": images, "extractor": {"name": "x", "sha256": "0"}, "preprocessing": "none-128"}
    key |= {"versions": {}} | ({} if lossy is None else {"pictures": {"n": 40, "lossy": lossy}})
    write_features(path, FeatureSet(ids, values, values, key))


@pytest.mark.parametrize(
    ("mine", "real", "said"),
    [(3, None, {"images": 3, "reference": 0}), (0, 40, {"images": 0, "reference": 40}), (None, 0, None)],
)
def test_scores_say_how_many_pictures_were_saved_with_loss(tmp_path, mine, real, said) -> None:
    for name, lossy in (("images", mine), ("reference", real)):
        features(tmp_path / f"{name}.npz", name, lossy)
    files = {flag: tmp_path / f"{flag}.json" for flag in ("fd", "kid", "is")}
    flags = [text for flag, path in files.items() for text in (f"--{flag}", str(path))]
    scores(
        ["--features", str(tmp_path / "images.npz"), "--reference", str(tmp_path / "reference.npz"), "--model", "m",
         "--prompts", "p", "--seed", "0", *flags]
    )  # fmt: skip
    found = {flag: json.loads(path.read_text()).get("lossy") for flag, path in files.items()}
    assert found["fd"] == found["kid"] == said
    assert found["is"] == ({"images": mine} if mine else None)  # which has no reference


def everywhere(table: Table) -> list[str]:
    return [form(table) for form in (to_csv, to_markdown, to_latex)]


def test_pictures_saved_with_loss_are_marked_in_table_1(study: Study) -> None:
    assert not any("loss, in JPEG" in text or "lossy" in text for text in everywhere(table1(study)))
    change(study.directory / "scores/emoji-score/baseline-ldm-bc/names.json", lossy={"images": 5})
    csv_, markdown, latex = everywhere(table1(study))
    rows = [line.split(",") for line in csv_.splitlines()]
    column = rows[0].index("lossy")
    assert [row[column] for row in rows[1:] if row[0] == "names" and row[1] in study.rivals] == ["0", "5"]
    for text, sign in ((markdown, "‡"), (latex, r"\textdaggerdbl{}")):
        assert text.count(f"Baseline LDM (compute of B + C) {sign}") == 1, text
        assert "Baseline LDM (compute of C) " + sign not in text
        assert f"{sign}: pictures that were saved with loss" in text


def test_table_3_and_its_plot_are_named_after_the_network_that_measured(study: Study) -> None:
    record = study.directory / "robustness/openmoji.json"
    assert "FD-EfficientNet-Lite2 @ openmoji" in to_markdown(table3(study))
    change(record, metric="fd-inception", pictures={"n": 12, "lossy": 9})
    markdown = to_markdown(table3(study))
    assert "FID @ openmoji ‡" in markdown and "FD-EfficientNet-Lite2 @ twemoji |" in markdown
    assert "‡: 9 of the pictures of openmoji had been saved with loss before" in markdown
    assert FIGURES["robustness"](study).axes[0].get_xlabel().startswith("FID, FD-EfficientNet-Lite2 (95")
    change(record, metric="fd-dinov2")
    change(study.directory / "robustness/twemoji.json", metric="fd-my-network")
    assert FIGURES["robustness"](study).axes[0].get_xlabel().startswith("FD-DINOv2, FD-my-network (95")
    assert "FD-DINOv2, FD-my-network and FID have different scales" in to_markdown(table3(study))
