"""The figures that the paper prints, as printed: `rows(name)` reads one of the tables, `number` and `marks` a cell.

table1.csv  win rates by PickScore. prompts: coco-30k | ln-coco-5k | parti-prompts; rival: model id; rival_printed,
            train_cost: as in the table's head ("150.000" is the paper's spelling); win_rate: share of prompts for
            which PickScore preferred Würstchen, in percent.
table2.csv  the fourteen models. model: id; params, steps; fid at 256 px and is at 299 px on COCO-30K; open_source:
            ✓, ~ (partly) or -; gpu_hours on A100; train_samples; carbon_kg in kg CO2 eq. "-" is the paper's own dash,
            an empty cell is one it left empty. Marks: * own evaluation of the authors, † from official model cards,
            ≈ and > as printed.
table3.csv  FID after thirteen manipulations. manipulation: id; group, configuration: the paper's words; coco30k,
            celeba_hq: the two columns.
carbon.csv  what Table 2's carbon column follows from. gpu_hours; gpu_watts: thermal design power of the A100 PCIe in
            the calculator of Lacoste et al.; grams_per_kwh: its grid intensity for the region that gives the printed
            value (the paper names none, and the model cards of both SD rows say us-east); printed: Table 2's value;
            rounded_to_kg: the unit to which that was rounded.

What evaluation.audit recomputes the paper's claims from; `source` is a place in the paper or elsewhere, `printed` the
paper's words in which the number stands, empty where it is from elsewhere:

claims.csv       claim, where and printed of each claim by name; said: the printed number where `printed` is not one by
                 itself; unit: its precision where that is not its last digit.
trainings.csv    each phase of each training: model, phase, steps, batch_size.
inputs.csv       single numbers by name (`inputs`): hours on A100 GPUs, people, votes, prompts, sides in pixels, steps.
statements.csv   what the paper says in two ways. claim: of what; where, printed: what one place says; where_else,
                 elsewhere: what another does; how: what else is known.
sensitivity.csv  grids, devices and data centres to compute carbon for: gpu_watts of one GPU, grams_per_kwh of CO2 eq.,
                 pue: energy of the data centre over that of its devices.
"""

import csv
from pathlib import Path

TABLES = ("table1", "table2", "table3", "carbon", "claims", "trainings", "inputs", "statements", "sensitivity")
MARKS = "*†≈>"


def rows(name: str) -> list[dict[str, str]]:
    """All rows of one table, in the paper's order, every cell as text. Raises ValueError for an unknown name."""
    if name not in TABLES:
        raise ValueError(f"table: {name!r}, but the paper's tables are {', '.join(TABLES)}")
    with open(Path(__file__).with_name(f"{name}.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def inputs() -> dict[str, float]:
    """The numbers of inputs.csv by name."""
    return {row["name"]: float(row["value"]) for row in rows("inputs")}


def samples(model: str) -> float:
    """Steps times batch size over all phases of a model's training in trainings.csv."""
    return sum(float(row["steps"]) * float(row["batch_size"]) for row in rows("trainings") if row["model"] == model)


def marks(cell: str) -> str:
    """The marks of a cell: `marks("150,000 †")` is "†", `marks("> 18")` is ">"."""
    return "".join(letter for letter in cell if letter in MARKS)


def number(cell: str) -> float | None:
    """The number in a cell without marks, thousands commas, % and the units k, M, B; None for "-" and an empty cell.

    >>> number("≈25,000"), number("1.42B"), number("96.5%"), number("-")
    (25000.0, 1420000000.0, 96.5, None)
    """
    text = "".join(letter for letter in cell if letter not in MARKS + ",%").strip()
    if text in {"", "-"}:
        return None
    scale = {"k": 1e3, "M": 1e6, "B": 1e9}.get(text[-1])
    return round(float(text[:-1]) * scale) * 1.0 if scale else float(text)
