import csv
import io

import pytest
import torch

from wuerstchen import phases, weights
from wuerstchen.files import read_json, write_json, write_text

USED = {"device": "GPU", "count": 8, "kwh_source": "nvml", "parameters": 7}


def phase(folder, steps, seconds, columns="loss"):
    write_text(
        folder / "history.csv",
        f"step,learning_rate,seconds,kwh,{columns}\n1,0.1,{seconds / steps},0.5,3\n{steps},0.1,{seconds},1,2\n",
    )
    usage = USED | {"seconds": seconds, "kwh": 1.0, "images": 4 * steps, "steps": steps, "samples": 4 * steps}
    usage["train_flops"] = 1000 * steps
    write_json(folder / "usage.json", usage)
    weights.save(folder / "model.safetensors", {"x": torch.full((2,), float(steps))}, {"steps": steps})
    return folder


def test_phases_become_one_training(tmp_path):
    folders = [phase(tmp_path / "1", 10, 100.0), phase(tmp_path / "2", 5, 50.0)]
    model, out = folders[1] / "model.safetensors", tmp_path / "whole"
    phases.main([*map(str, folders), "--model", str(model), "--out", str(out)])
    phases.main([*map(str, folders), "--model", str(model), "--out", str(out)])  # a second time, over the first
    rows = list(csv.DictReader(io.StringIO((out / "history.csv").read_text())))
    assert [row["step"] for row in rows] == ["1", "10", "11", "15"]
    assert [float(row["seconds"]) for row in rows] == [10, 100, 110, 150]
    assert [float(row["kwh"]) for row in rows] == [0.5, 1, 1.5, 2]
    assert [row["loss"] for row in rows] == ["3", "2", "3", "2"]
    used = read_json(out / "usage.json")
    assert (used["steps"], used["seconds"], used["kwh"], used["images"], used["samples"]) == (15, 150.0, 2.0, 60, 60)
    assert used["train_flops"] == 15_000
    assert (used["device"], used["count"], used["kwh_source"], used["parameters"]) == ("GPU", 8, "nvml", 7)
    assert (out / "model.safetensors").read_bytes() == model.read_bytes()


def test_phases_of_other_trainings_and_missing_ones_are_named(tmp_path):
    folders = [phase(tmp_path / "1", 10, 100.0), phase(tmp_path / "2", 5, 50.0, columns="mse")]
    flags = ["--model", str(folders[0] / "model.safetensors"), "--out", str(tmp_path / "whole")]
    with pytest.raises(SystemExit, match="phases: .*2/history.csv: columns .*mse; the phase before has .*loss"):
        phases.main([*map(str, folders), *flags])
    with pytest.raises(SystemExit, match="phases: .*3/history.csv"):
        phases.main([str(folders[0]), str(tmp_path / "3"), *flags])
    assert not (tmp_path / "whole" / "model.safetensors").exists()
