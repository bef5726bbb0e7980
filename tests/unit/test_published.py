"""evaluation.published: the CSV files against the paper's own text, where that text is at hand."""

import os
import re
from pathlib import Path

import pytest

from evaluation import published

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def paper() -> str:
    path = Path(os.environ.get("WUERSTCHEN_TEST_PAPER") or REPOSITORY.parent / "shared" / "paper.md")
    if not path.exists():
        pytest.skip(f"the paper's text is not at {path} (WUERSTCHEN_TEST_PAPER)")
    return path.read_text(encoding="utf-8")


def cells(line: str) -> list[str]:
    return [cell.strip().replace("√", "✓") for cell in line.split("\t")]


def test_table1_is_the_papers(paper):
    lines = [cells(line) for line in paper.splitlines() if line.startswith("Würstchen (24,602 gpu-h)")]
    rivals = next(cells(line) for line in paper.splitlines() if line.startswith("Model\tBaseline LDM (ours)\tDF-GAN"))
    costs = next(cells(line) for line in paper.splitlines() if line.startswith("(train cost)"))
    expected = [
        (prompts, rival, cost.strip("()"), rate)
        for prompts, line in zip(["coco-30k", "ln-coco-5k", "parti-prompts"], lines, strict=True)
        for rival, cost, rate in zip(rivals[1:7], costs[1:7], line[1:7], strict=True)
    ]
    rows = published.rows("table1")
    assert [(r["prompts"], r["rival_printed"], r["train_cost"], r["win_rate"]) for r in rows] == expected


def test_table2_is_the_papers(paper):
    lines = paper.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("GLIDE (Nichol"))
    last = next(i for i, line in enumerate(lines) if line.startswith("SD XL (Podell"))
    expected = [cells(line) for line in lines[first : last + 1]]
    rows = [list(row.values())[1:] for row in published.rows("table2")]
    assert len(rows) == 14 and rows == expected


def test_table3_is_the_papers(paper):
    lines = paper.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("Manipulation\tConfiguration"))
    expected = [cells(line)[1:] for line in lines[head + 1 : head + 14]]
    rows = published.rows("table3")
    assert [[row["configuration"], row["coco30k"], row["celeba_hq"]] for row in rows] == expected
    ids = "jpeg-95 jpeg-90 jpeg-80 jpeg-70 jpeg-60 jpeg-50 nearest bilinear palette brightness-up brightness-down"
    assert [row["manipulation"] for row in rows] == [*ids.split(), "contrast-up", "contrast-down"]


def test_carbon_inputs_are_table_2s():
    table = {row["model"]: row for row in published.rows("table2")}
    for row in published.rows("carbon"):
        assert row["printed"] == table[row["model"]]["carbon_kg"]
        assert float(row["gpu_hours"]) == published.number(table[row["model"]]["gpu_hours"])


@pytest.mark.parametrize(
    "cell, number, marks",
    [
        ("≈25,000", 25000, "≈"),
        ("1.42B", 1.42e9, ""),
        ("3.9B †", 3.9e9, "†"),
        ("240M", 2.4e8, ""),
        ("> 18", 18, ">"),
        ("26.3*", 26.3, "*"),
        ("96.5%", 96.5, ""),
        ("0.268", 0.268, ""),
        ("-", None, ""),
        ("", None, ""),
    ],
)
def test_cells(cell, number, marks):
    assert published.number(cell) == number and published.marks(cell) == marks


def test_every_number_can_be_read():
    words = {"model", "printed", "open_source"}
    for row in published.rows("table2"):
        for key in set(row) - words:
            assert published.number(row[key]) is None or published.number(row[key]) > 0, (row["model"], key)
    for name, keys in (("table1", ["win_rate"]), ("table3", ["coco30k", "celeba_hq"])):
        assert all(re.fullmatch(r"\d+\.\d+", row[key].rstrip("%")) for row in published.rows(name) for key in keys)


def test_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="'table9'"):
        published.rows("table9")


def test_what_is_recomputed_from_stands_in_the_paper(paper):
    flat = " ".join(paper.split())
    for table in ("trainings", "inputs"):
        for row in published.rows(table):
            assert bool(row["printed"]) == row["source"].startswith("paper"), row
            assert " ".join(row["printed"].split()) in flat, row


@pytest.mark.parametrize("table", ["inputs", "trainings"])
def test_inputs_are_the_numbers_of_their_own_words(table):
    for row in published.rows(table):
        words = row["printed"].replace(",", "").replace("1.5 million", "1500000")
        number = row["value" if table == "inputs" else "steps"]
        if words and not row["printed"].startswith("f4"):
            assert number in re.findall(r"\d+", words), row


def test_samples_are_steps_times_batch_size():
    assert published.samples("wuerstchen-b") == 457_000 * 512 + 300_000 * 128
    assert published.inputs()["users"] == 90
