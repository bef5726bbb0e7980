"""Copy what people look at of a finished study to a folder that git keeps: tables, small figures, numbers, config.

    python -m workflow.publish --study results/emoji --out docs/published/emoji

`published.json` beside them says which commit made it, on what. Nothing is computed here but the size of pictures.
"""

import argparse
import subprocess
from pathlib import Path
from typing import Any

from PIL import Image

from wuerstchen.files import atomic_path, read_json, write_json, write_text

WIDTH = 1000  # px of a figure at most
COLOURS = 256  # of a figure: a palette makes less than half of its file
LIMIT = 1_500_000  # bytes of all files: git keeps every version for good
KEPT = ("summary.json", "config.yaml")


def commit(folder: Path) -> str:
    """The commit of the checkout that a folder lies in. Raises ValueError where there is none, or changes beside it."""

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
        if run.returncode:
            raise ValueError(f"{folder}: git cannot say which commit made it ({run.stderr.strip()})")
        return run.stdout.strip()

    if changed := git("status", "--porcelain", "--untracked-files=no"):
        raise ValueError(f"{folder}: its checkout has changes that no commit has; commit them first:\n{changed}")
    return git("rev-parse", "HEAD")


def small(source: Path, target: Path) -> None:
    """A figure at most WIDTH wide, in a palette of COLOURS."""
    with Image.open(source) as picture:
        figure = picture.convert("RGB")
    if figure.width > WIDTH:
        figure = figure.resize((WIDTH, round(figure.height * WIDTH / figure.width)), Image.Resampling.LANCZOS)
    with atomic_path(target) as path:
        figure.quantize(COLOURS, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)


def index(name: str, record: dict[str, Any], tables: list[str], figures: list[str]) -> str:
    """The page that GitHub shows of the folder."""
    lines = [
        f"# One run of the study {name}",
        "",
        f"Commit {record['commit'][:7]} on {record['device']}; its jobs took {record['minutes']} minutes by the clock.",
        "The config is in `config.yaml`, all headline numbers are in `summary.json`; figures are reduced copies.",
        "",
        *(f"- [{table}]({table})" for table in tables),
        *(text for figure in figures for text in ("", f"![{Path(figure).stem}]({figure})")),
    ]
    return "\n".join([*lines, ""])


def publish(study: Path, out: Path) -> int:
    """Write the folder anew; returns its bytes.

    Raises ValueError for a study that is not finished or is of no commit, for a folder that holds other things than a
    published run, and where the copies are larger than LIMIT.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / "published.json").is_file():
        raise ValueError(f"{out}: holds other files, and no published.json; give a folder of its own")
    if missing := [name for name in (*KEPT, "report.html") if not (study / name).is_file()]:
        raise ValueError(f"{study}: no {', '.join(missing)}; give a finished study's folder, such as results/emoji")
    summary = read_json(study / "summary.json")
    jobs = summary["carbon"]["run"]["rows"]
    record = {
        "study": summary["study"],
        "commit": commit(study),
        "device": ", ".join(sorted({row["device"] for row in jobs})),
        "minutes": round(summary["wall_seconds"]["total"] / 60, 1),
    }
    made = {out / name: (study / name).read_text(encoding="utf-8") for name in KEPT}
    tables = sorted([*study.glob("tables/*.md"), *study.glob("tables/*.csv")])
    made |= {out / "tables" / path.name: path.read_text(encoding="utf-8") for path in tables}
    figures = sorted(study.glob("figures/*.png"))
    kept = {*made, *(out / "figures" / path.name for path in figures), out / "README.md", out / "published.json"}
    for path, text in made.items():
        write_text(path, text)
    for path in figures:
        small(path, out / "figures" / path.name)
    names = [f"tables/{path.name}" for path in tables], [f"figures/{path.name}" for path in figures]
    write_text(out / "README.md", index(record["study"], record, *names))
    write_json(out / "published.json", record)
    for path in {path for path in out.rglob("*") if path.is_file()} - kept:
        path.unlink()  # of the run that was published before
    size = sum(path.stat().st_size for path in kept)
    if size > LIMIT:
        raise ValueError(f"{out}: {size:,} bytes, more than the {LIMIT:,} that git should keep of a run")
    return size


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Copy a finished study's tables, figures and numbers to be kept.")
    parser.add_argument("--study", type=Path, required=True, help="folder of a finished study, such as results/emoji")
    parser.add_argument("--out", type=Path, required=True, help="such as docs/published/emoji; it is written anew")
    options = parser.parse_args(argv)
    try:
        size = publish(options.study, options.out)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    print(f"{options.out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
