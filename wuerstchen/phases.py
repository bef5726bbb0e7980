"""The phases of a stage's training as one: its last weights, one history, and what all of them used."""

import argparse
import csv
import io
import os
import shutil
from pathlib import Path

from wuerstchen.files import atomic_path, read_json, write_json, write_text
from wuerstchen.runs import added_usage

SUMMED = ("step", "seconds", "kwh", "corrupt")  # columns of a history that count from its start


def joined_histories(files: list[Path]) -> str:
    """Histories one after the other, as CSV text: steps, seconds and what else is counted go on.

    Raises ValueError where two have other columns.
    """
    text, columns, before = io.StringIO(), None, dict.fromkeys(SUMMED, 0.0)
    writer = csv.writer(text, lineterminator="\n")
    for path in files:
        with open(path, newline="", encoding="utf-8") as file:
            names, *rows = list(csv.reader(file))
        if columns is None:
            columns = names
            writer.writerow(columns)
        if names != columns:
            raise ValueError(f"{path}: columns {', '.join(names)}; the phase before has {', '.join(columns)}")
        last = dict(before)
        for row in rows:
            values = dict(zip(names, row, strict=True))
            for name in set(SUMMED) & set(names):
                last[name] = before[name] + float(values[name] or 0)
                values[name] = f"{last[name]:.0f}" if name in ("step", "corrupt") else f"{last[name]:.6g}"
            writer.writerow(values.values())
        before = last
    return text.getvalue()


def joined_usage(records: list[dict]) -> dict:
    """What all phases used; what describes a training is that of the last."""
    sums: dict | None = None
    for record in records:
        sums = added_usage(sums, [record])
    return records[-1] | sums | {key: sum(record[key] for record in records) for key in ("samples", "train_flops")}


def join(phases: list[Path], model: Path, out: Path) -> None:
    """Write model.safetensors (a copy of `model`), history.csv and usage.json of a whole training into `out`."""
    write_text(out / "history.csv", joined_histories([phase / "history.csv" for phase in phases]))
    write_json(out / "usage.json", joined_usage([read_json(phase / "usage.json") for phase in phases]))
    with atomic_path(out / "model.safetensors") as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(model, temporary)  # gigabytes need not be there twice
        except OSError:
            shutil.copyfile(model, temporary)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phases", nargs="+", type=Path, metavar="PHASE", help="folders of the phases, in order")
    parser.add_argument("--model", required=True, type=Path, help="the weights at the end")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    try:
        join(args.phases, args.model, args.out)
    except (ValueError, OSError) as error:
        raise SystemExit(f"phases: {error}") from None


if __name__ == "__main__":
    main()
