"""Tables: numbers arrive in their cells, what is missing says so, and hostile text stays text in every format."""

import csv
import html.parser
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from scipy.stats import spearmanr
from synthetic_study import HOSTILE, MANIPULATIONS, change, without, write_study

from evaluation import published
from evaluation.latex import to_latex
from evaluation.printing import (
    Block,
    Column,
    NotRun,
    Table,
    csv_cell,
    interval,
    percent,
    printed,
    significant,
    text,
    to_csv,
    to_markdown,
)
from evaluation.results import Study
from evaluation.study_tables import recall_table, scores_table
from evaluation.tables import main, table1, table2, table3, training_cost

ALL = (table1, table2, table3, recall_table, scores_table)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.open(tmp_path / "made-up", write_study(tmp_path / "made-up"))


def rows(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(table))))


class Cells(html.parser.HTMLParser):
    """Texts of the cells of all tables of a page, and the tags that occur."""

    def __init__(self, page: str):
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.open = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")
            self.open = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.open = False

    def handle_data(self, data):
        if self.open:
            self.cells[-1] += data


def test_digits_follow_the_value():
    assert [significant(x) for x in (0, 0.012345, 1.2, 12.34, 123.4, 1234.5, -0.5)] == [
        *("0", "0.0123", "1.20", "12.3", "123", "1234", "-0.500")
    ]
    assert interval(12.34, 0.5, 101.23) == "0.5 to 101.2"
    assert interval(0.625, 0.31, 0.83, percent) == "31.0 to 83.0 %"


def test_table1_counts_and_both_rates(study):
    row = next(r for r in rows(table1(study)) if (r["prompts"], r["rival"]) == ("descriptions", "baseline-ldm"))
    assert (row["wins"], row["losses"], row["ties"], row["n"]) == ("10", "5", "1", "16")
    assert (float(row["rate"]), float(row["rate_low"]), float(row["rate_high"])) == (0.625, 0.31, 0.83)
    assert (row["paper_prompts"], float(row["paper_rate"])) == ("ln-coco-5k", 0.966)
    assert "62.5 % (31.0 to 83.0 %)" in to_markdown(table1(study))


def test_table1_has_every_cell_of_the_paper_and_no_counterpart_for_the_second_budget(study):
    found = rows(table1(study))
    quoted = [r for r in found if r["paper_rate"] != "n/a"]
    cells = {(r["prompts"], r["rival"], float(r["win_rate"].rstrip("%"))) for r in published.rows("table1")}
    assert {(r["paper_prompts"], r["rival"], round(100 * float(r["paper_rate"]), 1)) for r in quoted} == cells
    assert {r["paper_rate"] for r in found if r["rival"] == "baseline-ldm-bc"} == {"n/a"}
    assert all(r["wins"].startswith("not run: ") for r in found if r["rival"] == "sd-xl")


def test_win_rates_of_a_failed_score_are_not_printed(study):
    change(study.directory / "scores/win-rate/names.json", valid=False)
    table = table1(study)
    mine = [r for r in rows(table) if r["prompts"] == "names" and r["rival"].startswith("baseline")]
    assert {r[key] for r in mine for key in ("rate", "rate_low", "rate_high", "status")} == {"not interpretable"}
    names = to_markdown(table).split("*descriptions")[0]
    assert names.count("| not interpretable | ") == 2 and "62.5" not in names


def test_table2_quotes_the_paper_as_printed(study):
    quoted = [r for r in rows(table2(study)) if r["block"] == "quoted"]
    source = published.rows("table2")
    assert len(quoted) == len(source) == 14
    for mine, paper in zip(quoted, source, strict=True):
        assert mine["fid_256"] == paper["fid"].replace("-", "–")
        assert mine["carbon_kg_printed"] == {"-": "–", "": "left blank"}.get(paper["carbon_kg"], paper["carbon_kg"])
        assert mine["fd_efficientnet_lite2"] == "n/a"


def test_table2_never_shows_our_distance_as_fid(study):
    table = table2(study)
    assert {r["fid_256"] for r in rows(table) if r["block"] == "measured"} == {"n/a"}
    for block in table.blocks:
        titles = [column.title for column in block.columns]
        assert block.title.startswith("Quoted") == any(title.startswith("FID") for title in titles)


def test_table2_costs_count_every_stage(study):
    mine = next(r for r in rows(table2(study)) if r["model"] == "Würstchen")
    assert int(mine["parameters"]) == 310_000 + 3_400_000 + 2_900_000
    assert float(mine["hours"]) == pytest.approx(3 * 168 / 3600, rel=1e-5)
    assert float(mine["device_hours"]) == pytest.approx(2 * 3 * 168 / 3600, rel=1e-5)
    assert float(mine["carbon_kg"]) == pytest.approx(3 * 0.0004 * 0.37, rel=1e-5)
    assert (mine["sampling_steps"], mine["energy"], mine["train_samples"]) == ("20 + 8", "estimated", "76800")


def test_a_baseline_with_stable_diffusions_first_stage_has_no_cost_of_stage_a(study):
    for first_stage, parameters in (("stage-a", 6_410_000), ("sd-2.1", 6_100_000)):
        change(study.directory / "train/baseline-ldm/usage.json", first_stage=first_stage)
        mine = next(r for r in rows(table2(study)) if r["model"] == "Baseline LDM (compute of C)")
        assert int(mine["parameters"]) == parameters


def test_energy_is_measured_only_if_every_stage_was(study):
    for stage in ("a", "b", "c"):
        assert training_cost(study, ("a", "b", "c"))["energy"] == "estimated"
        change(study.directory / f"train/{stage}/usage.json", kwh_source="rapl")
    assert training_cost(study, ("a", "b", "c"))["energy"] == "measured"


def test_what_a_release_took_is_marked_as_spent_before(study):
    assert "trained before" not in to_markdown(table2(study))
    change(study.directory / "train/baseline-ldm/usage.json", released="long")
    cost = {row["model"]: row["energy"] for row in rows(table2(study)) if row["block"] == "measured"}
    assert cost["Baseline LDM (compute of C)"] == "estimated, trained before" and cost["Würstchen"] == "estimated"
    assert "this run has not spent them" in to_markdown(table2(study))
    shutil.copytree(study.directory / "train/c", study.directory / "train/long/c")
    assert training_cost(study, ("c", "long/c"))["parameters_by_stage"] == "C 2.90M, C 2.90M"


def test_one_missing_stage_makes_the_whole_cost_not_run(study):
    without(study.directory, "train/b/usage.json")
    mine = next(r for r in rows(table2(study)) if r["model"] == "Würstchen")
    assert {mine[key] for key in ("parameters", "hours", "kwh", "carbon_kg")} == {
        "not run: there is no train/b/usage.json"
    }
    page = to_markdown(table2(study))
    assert "not run (a)" in page and "(a) not run: there is no train/b/usage.json." in page


def test_table3_rows_and_rank_correlations(study):
    table = table3(study)
    found = rows(table)
    assert [r["manipulation"] for r in found] == MANIPULATIONS == [r["manipulation"] for r in published.rows("table3")]
    ours = json.loads((study.directory / "robustness/twemoji.json").read_text())["manipulations"]
    paper = [float(r["celeba_hq"]) for r in published.rows("table3")]
    rho = spearmanr([ours[name]["value"] for name in MANIPULATIONS], paper).statistic
    note = next(note for note in table.notes if "twemoji" in note)
    assert f"CelebA-HQ column: {rho:.2f} (n = 13)" in note
    assert [float(r["paper_fid_celeba_hq"]) for r in found] == paper
    assert float(found[0]["fd_twemoji_low"]) == pytest.approx(ours["jpeg-95"]["interval"][0])


def test_unchanged_pictures_have_no_psnr(study):
    path = study.directory / "robustness/openmoji.json"
    record = json.loads(path.read_text())["manipulations"]
    record["nearest"]["psnr_db"] = None
    change(path, manipulations=record)
    assert next(r for r in rows(table3(study)) if r["manipulation"] == "nearest")["psnr_db_openmoji"] == "no change"


def test_recall_of_an_empty_group_is_not_run(study):
    path = study.directory / "scores/recall/baseline-ldm/names.json"
    record = json.loads(path.read_text())["recall"]
    record["special"] = {"n": 0} | dict.fromkeys(("at_1", "at_10", "chance_at_1", "chance_at_10", "interval_at_10"))
    change(path, recall=record)
    found = {r["model"]: r for r in rows(recall_table(study))}
    assert found["Baseline LDM (compute of C)"]["special_at_10"] == "not run: there are no special prompts"
    assert found["Chance"]["seen_at_10"] == "0.1" and found["Würstchen"]["held_out_at_10"] == "0.23"


def test_compositions_say_why_they_have_no_distance(study):
    mine = next(r for r in rows(scores_table(study)) if r["prompts"] == "compositions")
    assert mine["fd"] == "not run: needs real pictures of the prompts, and this set has none"
    assert mine["preference"] == "20.5"


@pytest.mark.parametrize("build", ALL)
def test_an_empty_study_is_all_not_run(build, tmp_path):
    config = write_study(tmp_path / "made-up")
    (tmp_path / "empty").mkdir()
    table = build(Study.open(tmp_path / "empty", config))
    mine = [r for r in table.records if r.get("block") != "quoted"]
    assert mine and all(any(isinstance(value, NotRun) for value in r.values()) for r in mine)
    assert "not run (a)" in to_markdown(table) and "" not in {cell for r in rows(table) for cell in r.values()}


def test_every_format_keeps_hostile_text_as_text():
    hostile = [*HOSTILE, "+1", "-x", "@y", "a\\|b", "50% & #1 $x_1$ ~ ^ {}\\", "![i](http://x)", "&lt;b&gt;"]
    column = (Column("text", text("t"), right=False), Column("again", text("t")))
    records = [{"t": value} for value in hostile]
    table = Table("x", hostile[0], ("t",), records, [Block(hostile[1], column, records)], [hostile[2]])

    cells = [r["t"] for r in rows(table)]
    assert [cell.removeprefix("'") for cell in cells] == hostile
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert csv_cell("=1") == "'=1" and csv_cell(-1.5) == -1.5 and csv_cell("\t=1") == "'\t=1"

    page = Cells(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(to_markdown(table)))
    assert page.cells == ["text", "again", *(" ".join(value.split()) for value in hostile for _ in range(2))]
    assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td", "p", "strong", "em", "ul", "li"}

    body = to_latex(table)
    body = re.sub(r"\\(text\w+|\w+)\{\}|\\[{}$&#_%]", "", body[body.index(r"\midrule") : body.index(r"\bottomrule")])
    for line in body.splitlines()[2:]:
        assert line.count("&") == 1 and line.endswith(r" \\")
        assert not re.search(r"[#$%_^~{}<>|\\]", line.removesuffix(r" \\"))


def test_sections_of_equal_columns_are_one_latex_tabular(study):
    assert to_latex(table3(study)).count(r"\begin{tabular}") == 1
    assert to_latex(table2(study)).count(r"\begin{longtable}") == 3
    assert len(printed(table1(study)).sections[0][2]) == 3


def test_program_writes_three_formats(study, tmp_path):
    flags = ["--study-dir", str(study.directory), "--config", str(tmp_path / "made-up.yaml")]
    main([*flags, "--table", "3", "--out-prefix", str(tmp_path / "t/table3")])
    assert {path.name for path in (tmp_path / "t").iterdir()} == {"table3.csv", "table3.md", "table3.tex"}
    assert (tmp_path / "t/table3.csv").read_text() == to_csv(table3(study))


def test_program_names_a_broken_file(study, tmp_path):
    (study.directory / "robustness/openmoji.json").write_text("{")
    flags = ["--study-dir", str(study.directory), "--config", str(tmp_path / "made-up.yaml")]
    with pytest.raises(SystemExit, match="openmoji.json: not JSON"):
        main([*flags, "--table", "3", "--out-prefix", str(tmp_path / "t/table3")])
    with pytest.raises(SystemExit, match="no such folder"):
        main(["--study-dir", str(tmp_path / "nowhere"), *flags[2:], "--table", "1", "--out-prefix", "x"])


def test_none_of_the_programs_needs_torch():
    programs = ("tables", "figures", "summary", "report")
    code = f"import sys, {', '.join(f'evaluation.{p}' for p in programs)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
