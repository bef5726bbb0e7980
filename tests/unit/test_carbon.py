"""evaluation.carbon: the paper's values to the kilogram, and sums of usage records."""

import json

import pytest

from evaluation import carbon
from evaluation.carbon_tables import run_table
from evaluation.printing import to_markdown

USAGE = {"device": "CPU", "count": 2, "seconds": 1800.0, "kwh": 0.004, "kwh_source": "tdp", "images": 1, "steps": 1}


def test_the_papers_four_values_to_the_kilogram():
    rows = {row["model"]: row for row in carbon.paper()}
    assert {model: row["kg"] for model, row in rows.items()} == {
        "wuerstchen": 2275.68,
        "baseline-ldm": 2312.5,
        "sd-1.4": 11250.0,
        "sd-2.1": 15000.0,
    }
    assert [rows[m]["printed_kg"] for m in ("wuerstchen", "baseline-ldm", "sd-1.4", "sd-2.1")] == [
        2276,
        2300,
        11250,
        15000,
    ]
    assert all(row["holds"] for row in rows.values())
    assert rows["wuerstchen"]["kwh"] == 6150.5 and rows["wuerstchen"]["kg_per_kwh"] == 0.37
    assert rows["sd-2.1"]["kg_per_kwh"] == 0.30


def test_rounding_before_the_product_decides():
    kwh, intensity, kg = carbon.calculator(250, 24602, 367.8)
    assert (kwh, intensity, kg) == (6150.5, 0.37, 2275.68)
    assert carbon.to_fixed(kwh * 0.3678) == 2262.15  # what it would be without


def test_a_value_that_does_not_follow_is_marked(monkeypatch):
    row = {"model": "sd-2.1", "gpu_hours": "200000", "gpu_watts": "250", "grams_per_kwh": "367.8"}
    row |= {"region": "us-east-1", "printed": "15,000 †", "rounded_to_kg": "1"}
    monkeypatch.setattr(carbon.published, "rows", lambda name: [row])
    assert carbon.paper()[0]["kg"] == 18500.0 and carbon.paper()[0]["holds"] is False


@pytest.mark.parametrize("value, rounded", [(0.125, 0.13), (2.675, 2.67), (0.2976, 0.30), (1.0049, 1.00)])
def test_rounds_as_javascripts_to_fixed(value, rounded):
    assert carbon.to_fixed(value) == rounded


def test_run_sums_and_marks():
    gpu = USAGE | {"device": "H100", "count": 1, "kwh": 1.0, "kwh_source": "nvml"}
    run = carbon.run([("sampling", USAGE), ("sampling", USAGE), ("train-c", gpu), ("train-c", USAGE)], 0.37, "a grid")
    assert [(row["step"], row["marked"], row["kwh"]) for row in run["rows"]] == [
        ("sampling", "estimated", 0.008),
        ("train-c", "measured", 1.0),
        ("train-c", "estimated", 0.004),
    ]
    assert run["rows"][0]["seconds"] == 3600.0
    assert run["rows"][0]["kg"] == pytest.approx(0.00296)
    assert run["total_kwh"] == pytest.approx(1.012) and run["total_kg"] == pytest.approx(1.012 * 0.37)
    assert run["source"] == "a grid"


def test_equal_conditions_by_hand():
    rows = {row["model"]: row for row in carbon.consistent(0.37)}
    by_hand = {
        "Würstchen, Stage C": 2275.685,  # 6150.5 x 0.37
        "Würstchen, Stages B and C": 3293.185,  # 35,602 h: 8900.5 x 0.37
        "Baseline LDM": 2312.5,
        "SD 1.4": 13_875.0,
        "SD 2.1": 18_500.0,
    }
    assert {model: row["kg"] for model, row in rows.items()} == pytest.approx(by_hand)
    assert rows["SD 2.1"]["times"] == pytest.approx(200_000 / 35_602)
    hotter = {row["model"]: row for row in carbon.consistent(0.37, gpu_watts=400, pue=1.1)}
    assert hotter["SD 2.1"]["kg"] == pytest.approx(32_560) and hotter["SD 2.1"]["kwh"] == pytest.approx(88_000)
    assert {model: row["times"] for model, row in hotter.items()} == {m: row["times"] for m, row in rows.items()}


def test_sensitivity_by_hand():
    """(Stage C, SD 2.1) in kg for some rows, worked out with a calculator."""
    rows = {row["name"]: row["kg"] for row in carbon.sensitivity()}
    by_hand = {
        "as the paper has it for Würstchen": (2275.685, 18_500.0),
        "grid intensity not rounded": (2262.154, 18_390.0),
        "grid of the printed Stable Diffusion rows": (1845.15, 15_000.0),
        "A100 SXM4 instead of PCIe": (3641.096, 29_600.0),
        "A100 SXM4 in an average data centre": (5752.932, 46_768.0),
        "Google Cloud in Virginia": (1980.461, 16_100.0),
        "average of the United States in 2023": (2272.4437, 18_473.65),
        "a grid mostly of water power": (123.01, 1000.0),
        "a grid mostly of coal": (5658.46, 46_000.0),
    }
    assert set(rows) == set(by_hand)
    for name, (ours, theirs) in by_hand.items():
        found = rows[name]["Würstchen, Stage C"], rows[name]["SD 2.1"]
        assert found == pytest.approx((ours, theirs), rel=1e-5)


def test_a_data_centre_takes_more_than_its_devices():
    run = carbon.run([("train-a", USAGE)], 0.5, "a grid", pue=1.5)
    assert run["total_kwh"] == 0.004 and run["total_kg"] == pytest.approx(0.003) and run["pue"] == 1.5
    assert run["rows"][0]["kg"] == pytest.approx(0.003)


def test_program(tmp_path):
    (tmp_path / "usage.json").write_text(json.dumps(USAGE))
    out = tmp_path / "carbon.json"
    usages = [f"a={tmp_path}/usage.json", f"b={tmp_path}/usage.json"]
    flags = ["--kg-per-kwh", "0.37", "--source", "grid", "--out", str(out)]
    carbon.main(["--usage", *usages, *flags])
    result = json.loads(out.read_text())
    assert [row["step"] for row in result["run"]["rows"]] == ["a", "b"] and len(result["paper"]) == 4
    assert result["consistent"] | {"rows": []} == {"kg_per_kwh": 0.37, "gpu_watts": 250.0, "pue": 1.0, "rows": []}
    carbon.main(["--usage", *usages, *flags, "--pue", "1.2", "--gpu-watts", "400"])
    assert json.loads(out.read_text())["consistent"]["rows"][-1]["kg"] == pytest.approx(200_000 * 0.4 * 1.2 * 0.37)
    for flag, value in (("--pue", "0.9"), ("--gpu-watts", "0"), ("--pue", "nan")):
        with pytest.raises(SystemExit, match=f"{flag}: .* at least 1"):
            carbon.main([*flags, flag, value])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kwh": -1.0}, "kwh is -1.0"),
        ({"seconds": "long"}, "seconds is 'long'"),
        ({"kwh_source": "guess"}, "kwh_source is 'guess', not one of nvml, rapl, tdp"),
        ({"device": None}, "device is None"),
    ],
)
def test_a_broken_record_is_refused_by_name(tmp_path, change, message):
    path = tmp_path / "usage.json"
    path.write_text(json.dumps(USAGE | change))
    arguments = ["--usage", f"train-a={path}", "--kg-per-kwh", "0.37", "--source", "x", "--out", str(tmp_path / "o")]
    with pytest.raises(SystemExit, match="train-a") as error:
        carbon.main(arguments)
    assert message in str(error.value) and str(path) in str(error.value)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("argument", ["usage.json", "=usage.json", "name="])
def test_a_wrong_argument_is_refused(argument):
    with pytest.raises(ValueError, match="NAME=PATH"):
        carbon.read_usages([argument])


def test_what_a_training_inherited_is_counted_once():
    first = {"device": "cpu", "count": 2, "seconds": 10.0, "kwh": 1.0, "kwh_source": "tdp", "images": 0, "steps": 1}
    second = {**first, "seconds": 25.0, "kwh": 3.0, "inherited": {"seconds": 10.0, "kwh": 1.0}}
    account = carbon.run([("train-a", first), ("train-b", second)], 0.5, "test")
    assert [row["kwh"] for row in account["rows"]] == [1.0, 2.0]
    assert account["total_kwh"] == 3.0 and account["total_seconds"] == 25.0


CODECARBON = {"version": "3", "seconds": 1800.0, "kwh": 0.006, "cpu_kwh": 0.004, "gpu_kwh": 0.0, "ram_kwh": 0.002}


def test_codecarbons_account_stands_beside_ours():
    with_it = USAGE | {"codecarbon": CODECARBON}
    run = carbon.run([("sample", with_it), ("sample", with_it), ("train-a", with_it)], 0.37, "a grid")
    assert [row["codecarbon"]["kwh"] for row in run["rows"]] == pytest.approx([0.012, 0.006])
    assert run["codecarbon"]["ram_kwh"] == pytest.approx(0.006) and run["total_kwh"] == pytest.approx(0.012)
    text = to_markdown(run_table({"run": run}))
    assert "| train-a | 2 x CPU | 30 min 0 s | 4.00 Wh | 1.48 g | estimated | 4.00 Wh | 2.00 Wh |" in text
    assert "| All | – | 1 h 30 min | 12.0 Wh | 4.44 g | – | 12.0 Wh | 6.00 Wh |" in text and "CodeCarbon 3, in" in text


def test_a_step_without_codecarbon_is_said_and_makes_the_sum_absent():
    run = carbon.run([("train-a", USAGE | {"codecarbon": CODECARBON}), ("train-b", USAGE)], 0.37, "a grid")
    assert run["rows"][1]["codecarbon"] == {"absent": "CodeCarbon did not run"}
    text = to_markdown(run_table({"run": run}))
    assert text.count("not run (a)") == 2 and "(a) not run: CodeCarbon did not run." in text
    assert "(b) not run: CodeCarbon did not run in a part of it." in text


def test_what_codecarbon_counted_of_an_inherited_training_is_counted_once():
    inherited = {"seconds": 10.0, "kwh": 0.001, "codecarbon": CODECARBON | {"kwh": 0.001, "ram_kwh": 0.0005}}
    record = USAGE | {"codecarbon": CODECARBON, "inherited": inherited}
    assert carbon.own_codecarbon(record)["kwh"] == pytest.approx(0.005)
    assert carbon.own_codecarbon(record)["ram_kwh"] == pytest.approx(0.0015)
    del inherited["codecarbon"]
    assert carbon.own_codecarbon(record) is None
