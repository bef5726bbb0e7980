"""Tables as LaTeX for a paper: booktabs, and never wider than the line.

    \\usepackage{amssymb,array,booktabs,longtable,textcomp} \\usepackage[T1]{fontenc} \\usepackage[utf8]{inputenc}

is what a document needs to \\input them.
"""

import math
import re

from evaluation.printing import Printed, Table, printed

LATEX = {
    **{"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%"},
    **{"^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}"},
    **{"|": r"\textbar{}", '"': r"\textquotedbl{}", "–": "--", "—": "---", "\N{MINUS SIGN}": r"$-$"},
    **{"‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\dots{}", "\N{NO-BREAK SPACE}": "~"},
    **{"†": r"\textdagger{}", "‡": r"\textdaggerdbl{}", "≈": r"$\approx$", "≤": r"$\leq$", "≥": r"$\geq$"},
    **{"×": r"$\times$", "·": r"$\cdot$", "±": r"$\pm$", "→": r"$\to$", "√": r"$\surd$", "α": r"$\alpha$"},
    **{"✓": r"$\checkmark$", "✗": r"$\times$", "²": "$^2$", "₂": "$_2$", "\u0304": r"$\bar{\ }$"},
    **{"\n": " ", "\r": " ", "\t": " "},
}
# Of LaTeX's article, by size of the type: characters side by side on its line of 345 pt, and a line's height in pt.
CHARACTERS = {"footnotesize": 80, "scriptsize": 88, "tiny": 96}
HEIGHTS = {"footnotesize": 9.5, "scriptsize": 8, "tiny": 6}
GAP = 2  # characters between columns: 8 pt
PAGE = 450  # pt that a float may have, with room for its caption: what is higher is a longtable, which breaks


def escape_latex(said: str) -> str:
    """Text that shows as itself in LaTeX. What LaTeX's own fonts lack, such as an emoji, becomes [U+1F32D]."""
    return "".join(map(_letter, said))


def _letter(letter: str) -> str:
    return LATEX.get(letter) or (letter if ord(letter) < 0x180 else f"[U+{ord(letter):04X}]")


def widths(columns: list[list[str]]) -> tuple[str, list[int] | None]:
    """(size of the type, width of each column in characters), or None for columns that fit without a break.

    Each column gets its longest word, and what is left goes to the columns by what they lack for their longest cell.
    """
    longest = [max(map(len, cells)) for cells in columns]
    gaps = GAP * (len(columns) - 1)
    for size in ("footnotesize", "scriptsize"):
        if sum(longest) + gaps <= CHARACTERS[size]:
            return size, None
    words = [max(len(word) for cell in cells for word in re.split(r"[\s-]", cell)) + 1 for cells in columns]
    size = next((size for size, fits in CHARACTERS.items() if sum(words) + gaps <= fits), "tiny")
    spare = max(0, CHARACTERS[size] - gaps - sum(words))
    lacking = [max(0, whole - word) for whole, word in zip(longest, words, strict=True)]
    return size, [word + spare * lack // max(1, sum(lacking)) for word, lack in zip(words, lacking, strict=True)]


def _specification(right: list[bool], wide: list[int] | None) -> str:
    if wide is None:
        return "".join("r" if r else "l" for r in right)
    sides = [r"\raggedleft" if r else r"\raggedright" for r in right]
    gaps = f"{2 * (len(wide) - 1)}\\tabcolsep"
    return "".join(
        rf">{{{side}\arraybackslash}}p{{{width / sum(wide):.4f}\dimexpr\linewidth-{gaps}\relax}}"
        for side, width in zip(sides, wide, strict=True)
    )


def to_latex(table: Table) -> str:
    """A booktabs table environment with the notes below; sections of different columns are separate tabulars.

    A table that no page holds becomes longtables, which do not float.
    """
    printing = printed(table)
    # LaTeX counts the tables itself
    said = re.sub(r"^(Table \d): (.*)$", r"\2 (the paper's \1)", table.caption)
    caption = rf"\caption{{{escape_latex(said[0].upper() + said[1:])}}}\label{{tab:{table.name}}}"
    notes = [rf"\par\raggedright {escape_latex(note)}" for note in printing.notes]
    if _height(printing) <= PAGE:
        lines = [r"\begin{table}", r"\centering", caption, r"\setlength{\tabcolsep}{4pt}"]
        return "\n".join([*lines, *_sections(printing, "tabular", ""), r"\footnotesize", *notes, r"\end{table}"]) + "\n"
    lines = [r"\begingroup\setlength{\tabcolsep}{4pt}", *_sections(printing, "longtable", caption + r" \\")]
    return "\n".join([*lines, r"\footnotesize", *notes, r"\par\endgroup"]) + "\n"


def _columns(titles: list[str], groups: list[tuple[str, list[list[str]]]]) -> list[list[str]]:
    return [list(cells) for cells in zip(titles, *(row for _, rows in groups for row in rows), strict=True)]


def _height(printing: Printed) -> float:
    """About how many pt a table has with its notes; a cell takes a quarter more than its characters, as words break."""
    height = sum(math.ceil(len(note) / CHARACTERS["footnotesize"]) * HEIGHTS["footnotesize"] for note in printing.notes)
    for titles, _, groups in printing.sections:
        columns = _columns(titles, groups)
        size, wide = widths(columns)
        rows = zip(*columns, strict=True)
        if wide:
            filled = [max(math.ceil(1.25 * len(c) / w) for c, w in zip(row, wide, strict=True)) for row in rows]
        else:
            filled = [1 for _ in rows]
        height += HEIGHTS[size] * (sum(filled) + len(groups)) + 20
    return height


def _sections(printing: Printed, environment: str, caption: str) -> list[str]:
    lines = []
    for titles, right, groups in printing.sections:
        size, wide = widths(_columns(titles, groups))
        lines.append(rf"\{size}")
        lines.append(rf"\begin{{{environment}}}{{@{{}}{_specification(right, wide)}@{{}}}}")
        lines += [caption] if caption else []
        caption = ""
        lines += [r"\toprule", " & ".join(map(escape_latex, titles)) + r" \\"]
        lines += [r"\midrule \endhead"] if environment == "longtable" else []
        for number, (heading, rows) in enumerate(groups):
            lines += [r"\midrule"] if number or environment == "tabular" else []
            lines.append(rf"\multicolumn{{{len(titles)}}}{{@{{}}l}}{{\emph{{{escape_latex(heading)}}}}} \\")
            lines += [" & ".join(map(escape_latex, row)) + r" \\" for row in rows]
        lines += [r"\bottomrule", rf"\end{{{environment}}}", *([r"\par\medskip"] if environment == "tabular" else [])]
    return lines
