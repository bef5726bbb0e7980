"""Energy and carbon in print: the paper's four values, equal conditions, other conditions, and this run's own jobs."""

from typing import Any

from evaluation import published
from evaluation.findings import duration, energy, mass
from evaluation.printing import Block, Column, Record, Table, shown, text
from evaluation.results import NotRun, Study
from wuerstchen import independent

ENERGY_NOTE = (
    "Energy: of the processor or card alone, from the machine's own counter (“measured”) or from rated power times "
    "time (“estimated”: 4 W for each core that the job may use, or the card's power limit)."
)
CODECARBON_NOTE = (
    "CodeCarbon {version}, in the same jobs, without network: the card's counter; the processor's counter where it may "
    "be read, otherwise its rated power (4 W a core where it does not know the model) times the processor time that "
    "the job itself spent, so that waiting counts nothing; and the memory, of which it knows no counter: a model gives "
    "each job 10 W or more, so that jobs side by side count the same memory twice."
)


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _one(value: float) -> str:
    return f"{value:,.1f}"


def _plain(value: float) -> str:
    return f"{value:.4g}"


def paper_table(account: dict[str, Any]) -> Table:
    """The paper's four values, as the calculator that it used makes them."""
    columns = (
        Column("Model", text("name"), right=False),
        Column("GPU hours", shown(_whole, "gpu_hours")),
        Column("kWh", shown(_one, "kwh")),
        Column("kg/kWh", shown(lambda kg: f"{kg:.2f}", "kg_per_kwh")),
        Column("Recomputed, kg", shown(lambda kg: f"{kg:,.2f}", "kg")),
        Column("Printed, kg", text("printed")),
        Column("Holds", text("holds"), right=False),
    )
    fields = ("model", "gpu_hours", "gpu_watts", "kwh", "kg_per_kwh", "region", "kg", "printed", "holds")
    names = {row["model"]: row["printed"].partition(" (")[0] for row in published.rows("table2")}
    rows = [row | {"name": names[row["model"]], "holds": "yes" if row["holds"] else "no"} for row in account["paper"]]
    notes = [
        "Hours times 250 W (A100 PCIe) times the grid factor that the printed value implies, rounded as the calculator "
        "of Lacoste et al. rounds. Two factors occur: the rows of the paper's own models and those of Stable Diffusion "
        "are not computed alike.",
    ]
    caption = "Carbon as the paper has it, recomputed"
    return Table("carbon-paper", caption, fields, rows, [Block("Table 2's column", columns, rows)], notes)


def equal_table(account: dict[str, Any]) -> Table:
    """One device, grid and data centre for all, and Würstchen with its Stage B."""
    equal, run = account["consistent"], account["run"]
    columns = (
        Column("Training", text("model"), right=False),
        Column("GPU hours", shown(_whole, "gpu_hours")),
        Column("kWh", shown(_one, "kwh")),
        Column("CO₂ eq., kg", shown(_whole, "kg")),
        Column("Times Würstchen's", shown(lambda times: f"{times:.2f}", "times")),
    )
    mine = {"model": "This run: its own jobs", "gpu_hours": duration(run["total_seconds"]), "times": "–"}
    mine |= {"kwh": energy(run["total_kwh"]), "kg": mass(run["total_kg"])}
    title = f"{equal['gpu_watts']:,.0f} W, {equal['kg_per_kwh']} kg/kWh, PUE {equal['pue']:g}"
    notes = [
        "All rows with the conditions that the heading names, nothing rounded on the way, and Würstchen with the Stage "
        "B that it cannot draw without. Carbon then goes as hours. Stage A's hours are not published.",
        "This run: time of all its jobs on its own device, at the same kg/kWh and PUE.",
    ]
    blocks = [Block(title, columns, [*equal["rows"], mine])]
    fields = ("model", "gpu_hours", "kwh", "kg", "times")
    return Table("carbon-equal", "Carbon under equal conditions", fields, equal["rows"], blocks, notes)


def sensitivity_table(account: dict[str, Any]) -> Table:
    """Other devices, grids and data centres."""
    rows = [row | row["kg"] for row in account["sensitivity"]]
    models = tuple(account["sensitivity"][0]["kg"])
    columns = (
        Column("Conditions", text("name"), right=False),
        Column("W", shown(_plain, "gpu_watts")),
        Column("kg/kWh", shown(_plain, "kg_per_kwh")),
        Column("PUE", shown(_plain, "pue")),
        *(Column(model, shown(_whole, model)) for model in models),
        Column("Source", text("source"), right=False),
    )
    fields = ("name", "gpu_watts", "kg_per_kwh", "pue", *models, "source")
    notes = ["In each row all trainings have the same conditions, so that their ratios stay those above."]
    caption = "Carbon for other devices, grids and data centres, kg CO₂ eq."
    return Table("carbon-sensitivity", caption, fields, rows, [Block("A100 hours as published", columns, rows)], notes)


PARTS = tuple(f"codecarbon_{part}" for part in independent.PARTS)


def run_table(account: dict[str, Any]) -> Table:
    """What each step of this run used, by our own account and by CodeCarbon's."""
    run = account["run"]
    rows = [row | _codecarbon(row["codecarbon"]) for row in run["rows"]]
    columns = (
        Column("Step", text("step"), right=False),
        Column("Device", lambda row: f"{row['count']} x {row['device']}" if row["count"] else "–", right=False),
        Column("Time", shown(duration, "seconds")),
        Column("Energy", shown(energy, "kwh")),
        Column("CO₂ eq.", shown(mass, "kg")),
        Column("Energy is", text("marked"), right=False),
        Column("CodeCarbon: processor and card", _devices),
        Column("CodeCarbon: memory", shown(energy, "codecarbon_ram_kwh")),
    )
    total: Record = {"step": "All", "device": "", "count": 0, "marked": "–"}
    total |= {"seconds": run["total_seconds"], "kwh": run["total_kwh"], "kg": run["total_kg"]}
    total |= _codecarbon(run["codecarbon"])
    source = f"{run['kg_per_kwh']} kg/kWh ({run['source']}), PUE {run['pue']:g}"
    blocks = [Block(source, columns, rows), Block("Together", columns, [total])]
    fields = ("step", "device", "count", "seconds", "kwh", "kwh_source", "kg", "marked", *PARTS)
    notes = [ENERGY_NOTE]
    versions = dict.fromkeys(row["codecarbon"]["version"] for row in run["rows"] if "version" in row["codecarbon"])
    if versions:
        notes.append(CODECARBON_NOTE.format(version=" and ".join(versions)))
    return Table("carbon-run", "Energy and carbon of this run", fields, rows, blocks, notes)


def _devices(row: Record) -> str | NotRun:
    cpu, gpu = row["codecarbon_cpu_kwh"], row["codecarbon_gpu_kwh"]
    return energy(cpu + gpu) if isinstance(cpu, int | float) else cpu


def _codecarbon(record: dict[str, Any]) -> Record:
    if "absent" in record:
        return dict.fromkeys(PARTS, NotRun(record["absent"]))
    return {f"codecarbon_{part}": record[part] for part in independent.PARTS}


TABLES = (paper_table, equal_table, sensitivity_table, run_table)


def carbon_tables(study: Study) -> list[Table]:
    """All four, or none where there is no carbon.json."""
    account = study.read("carbon.json")
    return [] if isinstance(account, NotRun) else [make(account) for make in TABLES]
