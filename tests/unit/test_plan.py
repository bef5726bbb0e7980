"""What a study will need: FLOPs beside counts of others, hours beside the paper's, and no number that is not known."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from trees import ROOT

from benchmarks import training
from evaluation import published
from workflow import plan, work
from workflow.costs import ESTIMATED, GPUS, MEASURED, MFU, SPREAD, UNKNOWN, Costs
from workflow.dryrun import PlannedJob
from workflow.timing import TABLE
from wuerstchen.files import write_json
from wuerstchen.presets import preset

A100 = GPUS["a100"]


def config_of(name: str) -> dict:
    return yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8"))


def phase(stage: str, number: int) -> PlannedJob:
    wildcards = {"study": "paper", "stage": stage, "phase": str(number)}
    return PlannedJob("train_phase", wildcards, threads=64, gpus=8, minutes=600.0)


def draw(model: str) -> PlannedJob:
    return PlannedJob("draw", {"study": "released", "model": model, "shard": "0000"}, threads=2, gpus=1, minutes=360.0)


def test_flops_and_parameters_of_networks_are_those_that_others_count():
    paper = preset("paper")
    stage_c = work.stage_c(paper.stage_c, paper.text, (768, 768))
    assert stage_c.parameters == 993_243_680  # Table 2: 0.99B
    assert 3 * stage_c.flops == training.flops(paper.stage_c, (768, 768), paper.text.length)
    # multiply-accumulates of SD 1.4 at 512 px: BK-SDM (Kim et al., 2023) has 339G for the U-Net's layers without the
    # products in attention, MLPerf Mobile 428G with all that its runtime does, and 1274G for the decoder
    unet = work.stable_diffusion("sd-1.4", (512, 512))
    assert 339e9 < unet.flops / 2 < 428e9 and unet.parameters == pytest.approx(860e6, rel=0.01)
    assert work.autoencoder("sd-1.4", (512, 512), "decoder").flops / 2 == pytest.approx(1274e9, rel=0.05)
    # VGG16 at 224 px: 15.3G multiply-accumulates in its convolutions (torchvision lists 15.47 with the classifier)
    assert work.vgg16((224, 224)).flops / 2 == pytest.approx(15.35e9, rel=0.01)


def test_hours_of_the_paper_lie_within_the_estimates():
    """Its hours on A100, of which the count of FLOPs knows nothing; those of Stage B stand in its section 4.3."""
    printed = {row["model"]: float(row["gpu_hours"]) for row in published.rows("carbon")}
    costs = Costs(config_of("paper"), A100)
    for stage, numbers, theirs, share in (
        ("c", (1, 2, 3, 4), printed["wuerstchen"], 0.10),
        ("b", (1, 2), 11_000, 0.07),
        ("baseline-ldm", (1,), printed["baseline-ldm"], 0.12),
    ):
        each = [costs.cost(phase(stage, number)).gpu_hours for number in numbers]
        low, high = (sum(ends) for ends in zip(*each, strict=True))
        assert low < theirs < high and high / low == pytest.approx(MFU[1] / MFU[0])
        assert MFU[1] * low / theirs == pytest.approx(share, abs=0.005)  # as the comment beside MFU says


def test_a_phase_costs_what_its_steps_pictures_and_sizes_say():
    paper = preset("paper")
    first, second, _, fourth = (work.phase_flops(paper, "c", number) for number in (1, 2, 3, 4))
    assert fourth / second == pytest.approx(50_000 * 384 / (364_000 * 1536))  # one size, fewer steps, smaller batches
    assert 3 < second / 364_000 / (first / 500_000) < 4.5  # four times the positions, and text for both
    late = work.sample_of_stage_a(paper, 20_000, 1000).flops
    assert work.sample_of_stage_a(paper, 0, 1000).flops < work.sample_of_stage_a(paper, 0, 20_000).flops < late


def test_measured_rates_of_the_same_gpu_are_taken_before_estimates(tmp_path):
    write_json(
        tmp_path / "h100" / "training.json",
        {"name": "training", "size": "paper", "device": GPUS["h100"].name, "ours": {"mfu": 0.4}},
    )
    cells = [
        {"model": "sd-xl", "batch_size": size, "compiled": False, "seconds_per_batch": seconds}
        for size, seconds in ((1, 5.0), (8, 24.0))
    ]
    cells.append({"model": "sd-xl", "batch_size": 16, "compiled": False, "failed": "out of memory"})
    record = {"figure": 4, "device": GPUS["h100"].name, "image_size": 1024, "cells": cells}
    write_json(tmp_path / "h100" / "figure4.json", record | {"models": {"sd-xl": {"steps": {"steps": 50}}}})
    paper, released = config_of("paper"), config_of("released")
    measured = Costs(paper, GPUS["h100"], tmp_path).cost(phase("c", 2))
    assert measured.kind == MEASURED and measured.gpu_hours[0] == measured.gpu_hours[1]
    estimated = Costs(paper, GPUS["h100"], ROOT / "nothing").cost(phase("c", 2))
    assert estimated.kind == ESTIMATED
    assert measured.gpu_hours[0] == pytest.approx(estimated.gpu_hours[0] * MFU[1] / 0.4)
    assert Costs(paper, A100, tmp_path).cost(phase("c", 2)).kind == ESTIMATED  # another GPU
    assert Costs(paper, GPUS["h100"], tmp_path).cost(phase("b", 1)).kind == ESTIMATED  # another network
    drawn = Costs(released, GPUS["h100"], tmp_path).cost(draw("sd-xl"))
    assert drawn.kind == MEASURED and drawn.gpu_hours[0] == pytest.approx(36_632 / 37 * 3.0 / 3600)
    released["sampling"]["sd-xl"] = {"steps": 25}
    assert Costs(released, GPUS["h100"], tmp_path).cost(draw("sd-xl")).kind == ESTIMATED


def test_the_published_models_steps_may_be_named():
    """60 and 12 steps, both guided, or 30 guided and 12 that are not; or left to the model, which draws as released."""
    config, times = config_of("released"), {}
    for given in ({"sampling": "paper"}, {"sampling": "released"}, {}):
        config["sampling"]["wuerstchen"] = given
        times[given.get("sampling")] = Costs(config, A100).cost(draw("wuerstchen")).gpu_hours[0]
    net = preset("released-v2")
    c = work.stage_c(net.stage_c, net.text, (768, 768)).flops
    b = work.unet(net.stage_b, net.text_b, (256, 256), (24, 24)).flops
    extra = 36_632 / 37 * (60 * c + 12 * b) / (312e12 * MFU[1]) / 3600
    assert times["paper"] - times["released"] == pytest.approx(extra, rel=0.01) and times[None] == times["released"]
    config["models"][0] = {"id": "wuerstchen", "weights": "a/folder"}
    assert Costs(config, A100).cost(draw("wuerstchen")).kind == UNKNOWN


def test_what_is_not_known_is_no_zero():
    config = config_of("released")
    jobs = [draw("galip"), PlannedJob("crosscheck", {"study": "released"}, threads=4, gpus=1, minutes=720.0)]
    found = plan.rows(jobs, config, A100)
    assert [row.kind for row in found] == [UNKNOWN, UNKNOWN]
    assert all(row.gpu_hours is row.kwh is row.kg is None for row in found)
    assert found[0].gigabytes > 0 and found[1].gigabytes is None
    sums = plan.totals(found)
    assert sums["gpu_hours"] is None and sums["not_known"] == {
        "jobs": 2, "limit_gpu_hours": 18.0, "limit_core_hours": 0.0,
    }  # fmt: skip
    text = plan.text(config, A100, found)
    assert "not known, its limits allow 12.0 GPU-hours" in text and "2 jobs of which no time is known" in text


def test_energy_and_carbon_are_those_of_a_run_that_took_so_long():
    config = config_of("paper")
    (row,) = plan.rows([phase("c", 1)], config, A100)
    assert row.kwh == pytest.approx([hours * 0.25 for hours in row.gpu_hours])  # 250 W
    assert row.kg == pytest.approx([kwh * 0.37 for kwh in row.kwh])
    assert plan.totals([row, replace(row, gpu_hours=(1.0, 2.0))])["gpu_hours"] == pytest.approx(
        (row.gpu_hours[0] + 1, row.gpu_hours[1] + 2)
    )


def test_the_emoji_study_is_planned_by_its_own_measured_seconds():
    config = config_of("emoji")
    job = PlannedJob("train_b", {"study": "emoji"}, threads=1, gpus=0, minutes=1440.0)
    seconds = json.loads(TABLE.read_text())["seconds"]["train_b"]
    cost = Costs(config, A100).cost(job)
    assert cost.kind == MEASURED and cost.core_hours == pytest.approx([seconds * end / 3600 for end in SPREAD])
    assert Costs(config | {"shard_size": 500}, A100).cost(job).kind == ESTIMATED
    assert Costs(config | {"preset": "tiny"}, A100).cost(job).kind == UNKNOWN


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "?"),
        ((24602.0, 24602.0), "24,600"),
        ((0.5, 12.0), "0.50 to 12.0"),
        (0, "0"),
        (1e-5, "< 0.001"),
        ((1e-5, 1e-4), "< 0.001"),
        (1234567.0, "1,230,000"),
    ],
)
def test_numbers_are_read_easily(value, said):
    assert plan.shown(value) == said


def test_a_wrong_config_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(SystemExit, match="no such file"):
        plan.main(["--configfile", str(tmp_path / "none.yaml")])
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(config_of("paper") | {"shard_size": 0}))
    with pytest.raises(SystemExit, match="shard_size: 0 should be at least 1"):
        plan.main(["--configfile", str(wrong)])
