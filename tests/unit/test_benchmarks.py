"""Benchmarks end in one JSON object, and both sides of them do the same work."""

import json
import math
from dataclasses import replace

import pytest
import torch
import yaml
from trees import ROOT

from benchmarks import frechet, sampling, study_sampling, study_training, training
from benchmarks.measure import OURS, PLAIN, medians
from wuerstchen.files import write_jsonl, write_text
from wuerstchen.presets import preset


@pytest.fixture(autouse=True)
def threads():
    """Benchmarks set torch's number of threads; other tests keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def last_line(capsys) -> dict:
    lines = capsys.readouterr().out.splitlines()
    record = json.loads(lines[-1])
    assert {"name", "ratio", "max_difference", "device", "parts"} <= set(record)
    for part in record["parts"]:
        assert set(part["seconds"]) == {OURS, *PLAIN}
        assert part["ratio"] == min(part["seconds"][way] for way in PLAIN) / part["seconds"][OURS]
    # a Markdown table with a row for each part stands above
    assert sum(line.startswith("|") for line in lines) == 2 + len(record["parts"])
    return record


def test_training_of_a_study(capsys):
    study_training.main(["--preset", "tiny", "--rounds", "1", "--stages", "a", "b", "c"])
    record = last_line(capsys)
    assert record["name"] == "study_training" and record["threads"] == 1
    b, c = preset("tiny").recipes["b"], preset("tiny").recipes["c"]
    parts = [(part["stage"], part["first_step"], part["steps"]) for part in record["parts"]]
    assert parts == [("a", 0, 12), ("b", 0, 6), ("b", 6, 6), ("c", 0, c.steps)] and b.compressor_steps == 6
    total = {way: sum(part["steps"] * part["seconds"][way] for part in record["parts"]) for way in (OURS, *PLAIN)}
    assert math.isclose(record["ratio"], min(total[way] for way in PLAIN) / total[OURS])
    # in fp32, uncompiled, all ways compute the same, text that is skipped or not included
    assert 0 < record["max_difference"] < 1e-4
    work = [part["gflop_per_sample"] for part in record["parts"]]
    assert work[1][OURS] > work[2][OURS] and max(work[3].values()) > work[3][OURS]
    assert all(part["share_of_matrix_rate"][OURS] > 0 for part in record["parts"])


def test_the_peer_runs_in_the_default_memory_format(tmp_path):
    study_training.write_pictures(128, tmp_path)
    seen = {}
    for way in PLAIN:
        trainer = study_training.make_trainer(way, "b", preset("tiny"), tmp_path, 0)
        unet = trainer.task.modules["stage_b"]
        unet.embedding.register_forward_hook(lambda module, inputs, output, way=way: seen.update({way: inputs[0]}))
        trainer.update()
        weight = unet.down_blocks[1][0][1].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) != (way == PLAIN[0])
    assert [seen[way].is_contiguous() for way in PLAIN] == [True, False]


def test_baseline_steps_spend_the_flops_of_stages_b_and_c():
    tiny = preset("tiny")
    count = study_training.study_steps("baseline-ldm", tiny, 9)
    spent = sum(study_training.diffusion_flops(tiny, stage, 9) for stage in ("b", "c"))
    each = study_training.diffusion_flops(tiny, "baseline-ldm", 9, steps=1)
    assert (count - 1) * each < spent <= count * each


def test_sampling_of_a_study(trained, tmp_path, capsys):
    rows = [{"id": f"p-{i}", "prompt": f"thing {i}", "image": None, "category": None} for i in range(3)]
    (tmp_path / "train").symlink_to(trained / "train")  # other tests use the study without a config
    write_jsonl(tmp_path / "prompts/names.jsonl", [row | {"challenge": "seen", "source_id": None} for row in rows])
    config = yaml.safe_load((ROOT / "tests/tiny.yaml").read_text(encoding="utf-8"))
    config["sampling"]["wuerstchen"]["guidance_b"] = 2.0
    write_text(tmp_path / "config.yaml", yaml.safe_dump(config))
    study_sampling.main(["--study", str(tmp_path), "--rounds", "1"])
    record = last_line(capsys)
    assert [part["model"] for part in record["parts"]] == ["wuerstchen", "baseline-ldm"]
    # the same noise through the same networks by two samplers: the same pictures, but for rounding
    assert record["max_difference"] <= 2


def test_sampling_names_a_study_that_was_not_run(tmp_path):
    with pytest.raises(SystemExit, match="--study: .*config.yaml is missing"):
        study_sampling.main(["--study", str(tmp_path)])


@pytest.fixture
def small(monkeypatch):
    """The medium size made small."""
    medium = sampling.medium()
    chosen = replace(
        medium,
        image_size=128,
        compressor=replace(medium.compressor, input_size=96),
        stage_a=replace(medium.stage_a, width=32, bottleneck_blocks=1),
        stage_b=replace(medium.stage_b, widths=(16, 16, 32, 32), heads=(0, 2, 2, 2), down=(1,) * 4, up=(1,) * 4),
        stage_c=replace(medium.stage_c, width=32, depth=2, heads=4),
    )
    monkeypatch.setattr(sampling, "medium", lambda: chosen)


def test_sampling_beside_diffusers(small, tmp_path, capsys):
    out = tmp_path / "measured.json"
    arguments = ["--eager", "--rounds", "1", "--sampling", "paper", "--out", str(out)]
    sampling.main([*arguments, "--batch", "2"])
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < first["max_difference"] < 1e-3
    (cell,) = first["cells"]
    assert all(0.01 < std < 10 for std in cell["output_std"].values())
    whole = {side: values["whole"] for side, values in cell["seconds"].items()}
    assert first["ratio"] == whole["diffusers"] / whole["pipeline"]
    assert first["ratio_sdpa"] == whole["diffusers, SDPA"] / whole["pipeline"]
    assert first["ms_per_image"] == {side: 500 * seconds for side, seconds in whole.items()}
    # what was measured before the run was cut is kept
    sampling.main([*arguments, "--batch", "2", "1"])
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["cells"][0] == cell and [cell["batch"] for cell in record["cells"]] == [2, 1]
    with pytest.raises(SystemExit, match="--out: .*another measurement"):
        sampling.main(["--eager", "--out", str(out)])


@pytest.fixture
def small_training(monkeypatch):
    """The small Stage C made tiny, on the CPU."""
    chosen = training.small()
    stage_c = replace(chosen.stage_c, width=32, depth=2, heads=4)
    monkeypatch.setattr(training, "small", lambda: replace(chosen, stage_c=stage_c))
    monkeypatch.setattr(training, "PIXELS", 192)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_training_beside_diffusers(small_training, tmp_path, capsys):
    out = tmp_path / "measured.json"
    training.main(["--rounds", "1", "--micro-batch", "2", "--out", str(out)])
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert first["name"] == "training" and first["latents"] == [16, 6, 6] and first["device"]
    (part,) = first["parts"]
    sides = part["sides"]
    assert set(sides) == {training.OURS, training.PEER, training.PEER_SDPA} and part["out_of_memory"] == []
    # the same losses, which the optimiser has changed from step to step
    losses = sides[training.OURS]["losses"]
    assert len(set(losses)) == training.COMPARED and 0 < first["max_difference"] < 1e-5
    assert first["ratio"] == sides[training.PEER]["seconds"] / sides[training.OURS]["seconds"]
    assert first["ratio_compiled"] is None and "gpu_hours" not in first
    assert first["ours"]["images_per_second"] == 2 / sides[training.OURS]["seconds"] and first["ours"]["mfu"] is None
    # what was measured before the run was cut is kept
    training.main(["--rounds", "1", "--micro-batch", "3", "2", "--out", str(out)])
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["parts"][0] == part and record["micro_batch"] == record["ours"]["micro_batch"] == 3
    with pytest.raises(SystemExit, match="--out: .*another measurement"):
        training.main(["--precision", "bf16", "--out", str(out)])
    with pytest.raises(SystemExit, match="--device: cuda; .*here on cpu"):
        training.main(["--device", "cuda"])


def test_the_comparison_of_losses_finds_another_training(small_training, monkeypatch, capsys):
    monkeypatch.setattr(training, "AS_THE_SCRIPT", ("timesteps=uniform", "drop_text=0", "warmup=0"))  # weighed by p2
    training.main(["--rounds", "1", "--micro-batch", "2"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["max_difference"] > 0.1


def test_what_runs_out_of_memory_is_a_result(small_training, monkeypatch, capsys):
    made = training.make_step

    def limited(side, *arguments):
        if side == training.PEER:
            raise torch.OutOfMemoryError("more than there is")
        return made(side, *arguments)

    monkeypatch.setattr(training, "make_step", limited)
    training.main(["--rounds", "1", "--micro-batch", "1"])
    said = capsys.readouterr().out
    record = json.loads(said.splitlines()[-1])
    assert training.PEER in record["parts"][0]["out_of_memory"] and record["ratio"] is record["micro_batch"] is None
    assert "out of memory" in said


def test_flops_of_stage_c():
    """Counted by hand for width c, over p positions and the text's tokens; the notes' 406 GFLOP at the size of E.3."""
    config = replace(preset("paper-text").stage_c, width=64, depth=3, heads=4)
    c, p, words = 64, 6 * 6, 77
    block = (
        p * (9 * c + 8 * c * c + 4 * c * c) + words * 3 * c * c + 2 * p * (p + words) * c + config.c_timestep * 2 * c
    )
    rest = p * (16 * c + c * 32) + words * (config.c_text * c + c * c)
    assert training.flops(config, (192, 192), words) == 3 * 2 * (config.depth * block + rest)
    assert round(training.flops(preset("paper-text").stage_c, (768, 768), 77) / 3e9) == 406


def test_gpu_hours_add_up_the_phases():
    paper = preset("paper")
    found = training.gpu_hours(paper, 400e12)
    assert found["steps"] == 918_000 and found["paper"] == 24_602 and len(found["by_phase"]) == 4
    second = paper.recipes["c"].phases[1]
    work = second.steps * second.batch_size * training.flops(paper.stage_c, (768, 768), 77)
    assert math.isclose(found["by_phase"][1], work / 400e12 / 3600) and found["by_phase"][0] < found["by_phase"][1] / 2
    assert math.isclose(found["total"], sum(found["by_phase"]))


def test_compilation_pays_after_some_images_or_never():
    assert sampling.pays(20.0, 2.0) == {"warm_up_seconds": 20.0, "break_even_images": 10.0}
    assert sampling.pays(20.0, -2.0)["break_even_images"] is None


def test_medians_let_the_calls_take_turns():
    order = []
    found = medians({name: lambda name=name: order.append(name) for name in "ab"}, 3)
    assert order == list("ababab") and set(found) == {"a", "b"} and all(value >= 0 for value in found.values())


def test_frechet(capsys):
    frechet.main(["--samples", "80", "--width", "40", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    record = json.loads(lines[-1])
    assert {"name", "ratio", "ratio_scipy_sqrtm", "ratio_cached", "max_difference", "device"} <= set(record)
    assert 0 < record["max_difference"] < 1e-9
    seconds = {part["route"]: part["seconds"] for part in record["parts"]}
    assert record["ratio"] == seconds[frechet.TORCH_FIDELITY] / seconds[frechet.OURS]
    assert sum(line.startswith("|") for line in lines) == 2 + len(record["parts"])
