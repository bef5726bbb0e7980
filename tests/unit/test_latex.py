"""LaTeX tables: well formed by a strict reading, within the line, and compiled by a real LaTeX where there is one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from synthetic_study import HOSTILE, write_study

from evaluation import audit
from evaluation.latex import CHARACTERS, GAP, escape_latex, to_latex, widths
from evaluation.more_tables import more_tables
from evaluation.printing import Block, Column, Table, text
from evaluation.results import Study
from evaluation.tables import tables

PREAMBLE = r"""\documentclass[a4paper]{article}\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}
\usepackage{amssymb,array,booktabs,longtable,textcomp}\begin{document}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every table of a made-up study that trains its models, and the audit of the paper, by name."""
    folder = tmp_path_factory.mktemp("latex")
    study = Study.open(folder / "made-up", write_study(folder / "made-up"))
    columns = (Column("Text, as hostile as it gets & <odd>", text("t"), right=False), Column("again", text("t")))
    rows = [{"t": said} for said in (*HOSTILE, "50% & #1 $x_1$ ~ ^ {}\\ “a” – b ≈ 2² CO₂ 1 × 2 ≥ −3 α …")]
    hostile = Table("hostile", HOSTILE[0], ("t",), rows, [Block(HOSTILE[1], columns, rows)], [HOSTILE[2]])
    every = [
        *(make(study) for make in tables(study).values()),
        *more_tables(study),
        audit.table(audit.audit()),
        hostile,
    ]
    return {table.name: to_latex(table) for table in every}


def test_every_table_of_the_report_is_there(made):
    carbon = {f"carbon-{part}" for part in ("paper", "equal", "sensitivity", "run")}
    assert carbon | {"table1", "table2", "table3", "recall", "scores", "workload", "choices", "audit"} <= set(made)
    assert {"differences", "intervals", "verdicts"} <= set(made)


def test_a_strict_reading_finds_nothing_wrong(made):
    """Environments nest, rows have the columns that their tabular states, and no character is left that LaTeX lacks."""
    for name, tex in made.items():
        assert not re.search(r"[^\x20-\x7e\n\u00a0-\u017f]", tex), name
        open_environments, columns = [], 0
        for line in tex.splitlines():
            for word, environment in re.findall(r"\\(begin|end){(\w+)}", line):
                if word == "begin":
                    open_environments.append(environment)
                else:
                    assert open_environments.pop() == environment, (name, line)
            if specification := re.match(r"\\begin{(?:tabular|longtable)}{@{}(.*)@{}}$", line):
                shares = [float(share) for share in re.findall(r"p{([\d.]+)\\dimexpr", specification[1])]
                columns = len(shares) or len(specification[1])
                assert not shares or sum(shares) == pytest.approx(1, abs=1e-3), (name, line)
                assert shares or set(specification[1]) <= {"l", "r"}, (name, line)
            elif line.endswith(r" \\") and not line.startswith((r"\caption", r"\multicolumn")):
                cells = re.sub(r"\\&", "", line).count("&") + 1
                assert open_environments[-1] in ("tabular", "longtable") and cells == columns, (name, line)
            plain = re.sub(r"\\(?:[a-zA-Z]+|.)|\$[^$]*\$|{|}", "", line)
            assert "#" not in plain and "%" not in plain and "_" not in plain and "$" not in plain, (name, line)
        assert not open_environments, name


def test_columns_fill_the_line_and_no_more():
    size, wide = widths([["name", "a short cell"], ["1", "2"]])
    assert (size, wide) == ("footnotesize", None)
    for cells in (["word " * 50, "x"], ["a-very-long-name-of-many-parts " * 3] * 2):
        size, wide = widths([cells, ["Longest", "42"], ["said", "yes " * 30]])
        assert sum(wide) + 2 * GAP <= CHARACTERS[size] and wide[1] >= len("Longest")


def test_what_fonts_lack_is_named_by_its_number():
    assert escape_latex("a 🌭 & ü") == r"a [U+1F32D] \& ü"


def test_a_real_latex_compiles_them_within_the_line(made, tmp_path: Path):
    latex = shutil.which("pdflatex")
    if latex is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended)")
    body = "\n\\clearpage\n".join(made.values())
    (tmp_path / "all.tex").write_text(f"{PREAMBLE}{body}\n\\end{{document}}\n", encoding="utf-8")
    command = [latex, "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "all.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    log = (tmp_path / "all.log").read_text(encoding="utf-8", errors="replace")
    assert run.returncode == 0, run.stdout[-2000:]
    wide = [float(pt) for pt in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert max(wide, default=0) < 3, log
    assert "Float too large" not in log and "Missing character" not in log
