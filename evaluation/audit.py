"""The paper's arithmetic: every claim that can be recomputed, from inputs kept as data (evaluation/published).

    python -m evaluation.audit --csv results/emoji/tables/audit.csv

prints the same as a Markdown table. Nothing of it depends on a study.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.claims import FIELDS, VERDICTS, Claim, cost, measurements, networks, people, text
from evaluation.latex import to_latex
from evaluation.printing import Block, Column, Table, to_csv, to_markdown
from evaluation.printing import text as cell
from wuerstchen.files import write_text

TOPICS: dict[str, Callable[[], list[Claim]]] = {
    "Cost of training": cost.claims,
    "Sizes": networks.claims,
    "Tables 1 to 3": measurements.claims,
    "The study with people": people.claims,
    "Formulas, and the text against itself": text.claims,
}
COLUMNS = tuple(
    Column(title, cell(field), right=False)
    for title, field in zip(("Claim", "Where", "Paper", "Recomputed", "Verdict", "How"), FIELDS[2:], strict=True)
)


def audit() -> dict[str, list[Claim]]:
    """All claims by topic."""
    return {topic: claims() for topic, claims in TOPICS.items()}


def table(by_topic: dict[str, list[Claim]]) -> Table:
    """The claims in print, one block a topic."""
    blocks, words = [], Counter(claim.verdict for claims in by_topic.values() for claim in claims)
    for topic, claims in by_topic.items():
        records = [{"topic": topic} | {field: getattr(claim, field) for field in FIELDS[1:]} for claim in claims]
        blocks.append(Block(topic, COLUMNS, records))
    notes = [f"{verdict} ({words[verdict]}): {meaning}." for verdict, (_, meaning) in VERDICTS.items()]
    records = [record for block in blocks for record in block.records]
    return Table("audit", "The paper's arithmetic", FIELDS, records, blocks, notes)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The paper's checkable claims, recomputed.")
    parser.add_argument("--csv", type=Path, help="where to write them, one a row")
    parser.add_argument("--tex", type=Path, help="where to write them as LaTeX")
    options = parser.parse_args(argv)
    made = table(audit())
    if options.csv:
        write_text(options.csv, to_csv(made))
    if options.tex:
        write_text(options.tex, to_latex(made))
    print(to_markdown(made), end="")


if __name__ == "__main__":
    main()
