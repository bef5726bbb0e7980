"""Carbon: the paper's four values recomputed to the kilogram, the same for equal conditions, and what this run used.

energy [kWh] = power [kW] x time [h];  carbon [kg CO2 eq.] = energy x PUE x grid intensity [kg/kWh]

`paper`: its column is the output of the calculator of Lacoste et al. (2019), mlco2.github.io/impact, which rounds
energy, intensity and product to two decimals each, intensity before the product, has no PUE (the energy of a data
centre over that of its devices), and was asked with two grids. `consistent`: one device, grid and PUE for all rows,
nothing rounded, and Würstchen with its Stage B. `sensitivity`: the same for other devices, grids and data centres.
`run`: this run's energy is what each job measured (`nvml`, `rapl`) or estimated (`tdp`, see wuerstchen/usage.py), and
beside it what CodeCarbon made of the same job (wuerstchen/independent.py). All
leave out hosts, networks, the making of hardware, failed runs and the training of pretrained parts.

    python -m evaluation.carbon --usage train-a=train/a/usage.json --kg-per-kwh 0.37 --source "..." --out carbon.json
"""

import argparse
import math
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from evaluation import published
from wuerstchen import independent
from wuerstchen.files import read_json, write_json
from wuerstchen.usage import GPU_WATTS

# What is compared under equal conditions, and the names of its GPU hours in published/inputs.csv.
WHOLE = "Würstchen, Stages B and C"
COMPARED = {
    "Würstchen, Stage C": ("hours_wuerstchen_c",),
    WHOLE: ("hours_wuerstchen_b", "hours_wuerstchen_c"),
    "Baseline LDM": ("hours_baseline_ldm",),
    "SD 1.4": ("hours_sd_1_4",),
    "SD 2.1": ("hours_sd_2_1",),
}
MEASURED = {"nvml": "measured", "rapl": "measured", "tdp": "estimated"}
USAGE_KEYS = {"device": str, "count": int, "seconds": (int, float), "kwh": (int, float), "kwh_source": str}


def to_fixed(value: float, decimals: int = 2) -> float:
    """JavaScript's `Number(value.toFixed(decimals))`: the exact double rounded, an exact half upwards.

    It matters: 6150.5 x 0.37 is the double just below 2275.685, and Würstchen's model card says 2275.68.
    """
    return float(Decimal(value).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP))


def calculator(watts: float, hours: float, grams_per_kwh: float) -> tuple[float, float, float]:
    """(kWh, kg/kWh, kg) as the calculator's js/grayscale.js computes them: each rounded to two decimals."""
    kwh = to_fixed(watts * hours / 1000)
    intensity = to_fixed(grams_per_kwh / 1000)
    return kwh, intensity, to_fixed(kwh * intensity)


def paper() -> list[dict[str, Any]]:
    """Table 2's carbon column recomputed from published/carbon.csv, beside the printed value.

    `holds`: rounded to the unit of the printed value (1 kg, or 100 kg for "≈2,300"), the two are equal.
    """
    rows = []
    for row in published.rows("carbon"):
        watts, hours = float(row["gpu_watts"]), float(row["gpu_hours"])
        kwh, intensity, kg = calculator(watts, hours, float(row["grams_per_kwh"]))
        printed, unit = published.number(row["printed"]), float(row["rounded_to_kg"])
        rows.append(
            {
                "model": row["model"],
                "gpu_hours": hours,
                "gpu_watts": watts,
                "kwh": kwh,
                "kg_per_kwh": intensity,
                "region": row["region"],
                "kg": kg,
                "printed": row["printed"],
                "printed_kg": printed,
                "holds": to_fixed(kg / unit, 0) * unit == printed,
            }
        )
    return rows


def consistent(kg_per_kwh: float, gpu_watts: float = GPU_WATTS, pue: float = 1.0) -> list[dict[str, Any]]:
    """Carbon of COMPARED under one device power, PUE and grid, not rounded.

    kwh: energy of the data centre; times: carbon over that of Würstchen's Stages B and C.
    """
    given = published.inputs()
    hours = {name: sum(given[part] for part in parts) for name, parts in COMPARED.items()}
    rows = []
    for name, some in hours.items():
        kwh = gpu_watts * some / 1000 * pue
        row = {"model": name, "gpu_hours": some, "kwh": kwh, "kg": kwh * kg_per_kwh, "times": some / hours[WHOLE]}
        rows.append(row)
    return rows


def sensitivity() -> list[dict[str, Any]]:
    """`consistent` for each row of published/sensitivity.csv; kg: by name of COMPARED."""
    rows = []
    for row in published.rows("sensitivity"):
        watts, kg_per_kwh, pue = float(row["gpu_watts"]), float(row["grams_per_kwh"]) / 1000, float(row["pue"])
        kg = {made["model"]: made["kg"] for made in consistent(kg_per_kwh, watts, pue)}
        said = {"name": row["name"], "source": row["source"]}
        rows.append(said | {"gpu_watts": watts, "kg_per_kwh": kg_per_kwh, "pue": pue, "kg": kg})
    return rows


def check_usage(record: Any, name: str, path: str) -> None:
    """Raise ValueError naming file and key where a usage record breaks the contract."""
    if not isinstance(record, dict):
        raise ValueError(f"{path} ({name}): expected an object with {', '.join(USAGE_KEYS)}")
    for key, kind in USAGE_KEYS.items():
        if key not in record:
            raise ValueError(f"{path} ({name}): no key {key!r}")
        if not isinstance(record[key], kind) or isinstance(record[key], bool):
            raise ValueError(f"{path} ({name}): {key} is {record[key]!r}")
    for key in ("seconds", "kwh"):
        if not math.isfinite(record[key]) or record[key] < 0:
            raise ValueError(f"{path} ({name}): {key} is {record[key]!r}, but it is a number of at least 0")
    if record["kwh_source"] not in MEASURED:
        raise ValueError(f"{path} ({name}): kwh_source is {record['kwh_source']!r}, not one of {', '.join(MEASURED)}")


def run(usages: list[tuple[str, dict]], kg_per_kwh: float, source: str, pue: float = 1.0) -> dict[str, Any]:
    """This run's rows and totals. `usages` are (step, usage record) in order; `source` says where kg_per_kwh is from.

    kwh is the devices' own energy; kg has the data centre's in it, kwh x pue.

    Records of one step on the same device with the same source (the shards of a set, say) become one row. What a
    training inherited from the one it continues is that one's, and is not counted twice.
    """
    rows: dict[tuple, dict[str, Any]] = {}
    others: dict[tuple, list[dict | None]] = {}
    for step, record in usages:
        key = (step, record["device"], record["count"], record["kwh_source"])
        row = rows.setdefault(
            key,
            {
                "step": step,
                "device": record["device"],
                "count": record["count"],
                "seconds": 0.0,
                "kwh": 0.0,
                "kwh_source": record["kwh_source"],
                "kg": 0.0,
                "marked": MEASURED[record["kwh_source"]],
            },
        )
        others.setdefault(key, []).append(own_codecarbon(record))
        inherited = record.get("inherited") or {"seconds": 0.0, "kwh": 0.0}
        row["seconds"] += record["seconds"] - inherited["seconds"]
        row["kwh"] += record["kwh"] - inherited["kwh"]
        row["kg"] = row["kwh"] * pue * kg_per_kwh
    for key, row in rows.items():
        row["codecarbon"] = independent.added(others[key])
    total = math.fsum(row["kwh"] for row in rows.values())
    return {
        "rows": list(rows.values()),
        "total_seconds": math.fsum(row["seconds"] for row in rows.values()),
        "total_kwh": total,
        "total_kg": total * pue * kg_per_kwh,
        "codecarbon": independent.added([row["codecarbon"] for row in rows.values()]) if rows else {"absent": "no job"},
        "kg_per_kwh": kg_per_kwh,
        "pue": pue,
        "source": source,
    }


def own_codecarbon(record: dict[str, Any]) -> dict[str, Any] | None:
    """CodeCarbon's part of a usage record, without what the training inherited; None where there is none."""
    found = record.get("codecarbon")
    if "inherited" not in record or not record["inherited"] or found is None or "absent" in found:
        return found
    inherited = record["inherited"].get("codecarbon")
    if inherited is None or "absent" in inherited:
        return inherited
    return found | {key: found[key] - inherited[key] for key in ("seconds", *independent.PARTS)}


def read_usages(arguments: list[str]) -> list[tuple[str, dict]]:
    """Read NAME=PATH arguments. Raises ValueError for a wrong argument or record, OSError for a missing file."""
    usages = []
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not (name and equals and path):
            raise ValueError(f"--usage: {argument!r}, but it is NAME=PATH, such as train-a=train/a/usage.json")
        record = read_json(path)
        check_usage(record, name, path)
        usages.append((name, record))
    return usages


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Carbon of the paper's models, recomputed, and of this run.")
    parser.add_argument("--usage", nargs="*", default=[], metavar="NAME=PATH", help="a usage.json and its step's name")
    parser.add_argument("--kg-per-kwh", type=float, required=True, help="grid intensity for this run")
    parser.add_argument("--source", required=True, help="where that intensity is from")
    parser.add_argument("--pue", type=float, default=1.0, help="energy of the data centre over that of its devices")
    parser.add_argument("--gpu-watts", type=float, default=GPU_WATTS, help="of one GPU, for the paper's models")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    if not (math.isfinite(arguments.kg_per_kwh) and arguments.kg_per_kwh >= 0):
        raise SystemExit(f"--kg-per-kwh: {arguments.kg_per_kwh}, but it is a number of at least 0")
    if not (math.isfinite(arguments.pue) and arguments.pue >= 1):
        raise SystemExit(f"--pue: {arguments.pue}, but it is a number of at least 1")
    if not (math.isfinite(arguments.gpu_watts) and arguments.gpu_watts >= 1):
        raise SystemExit(f"--gpu-watts: {arguments.gpu_watts}, but it is a number of at least 1")
    try:
        usages = read_usages(arguments.usage)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    kg_per_kwh, gpu_watts, pue = arguments.kg_per_kwh, arguments.gpu_watts, arguments.pue
    equal = {"kg_per_kwh": kg_per_kwh, "gpu_watts": gpu_watts, "pue": pue}
    account = {
        "paper": paper(),
        "consistent": equal | {"rows": consistent(kg_per_kwh, gpu_watts, pue)},
        "sensitivity": sensitivity(),
        "run": run(usages, kg_per_kwh, arguments.source, pue),
    }
    write_json(arguments.out, account)


if __name__ == "__main__":
    main()
