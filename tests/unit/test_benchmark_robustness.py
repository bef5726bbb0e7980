"""The benchmark's three sides do the same work: on two noise pictures and one manipulation (a minute)."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("evaluation.inception")
from benchmarks import robustness  # noqa: E402


@pytest.mark.big
def test_all_sides_compute_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(robustness, "NAMES", ("jpeg-50",))
    monkeypatch.setattr(robustness, "OWN", ("jpeg-50",))
    monkeypatch.setattr(robustness, "SETS", ("reference", "jpeg-50"))
    before = torch.get_num_threads()
    for i in range(3):
        grid = np.random.default_rng(i).integers(0, 256, size=(20, 30, 3), dtype=np.uint8)
        Image.fromarray(grid).resize((320, 270), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.jpg")
    robustness.main(["--pictures", str(tmp_path), "--count", "2"])
    lines = capsys.readouterr().out.splitlines()
    record = json.loads(lines[-1])
    assert {"name", "ratio", "peer", "max_difference", "device", "parts"} <= set(record)
    assert record["ratio_of"].startswith("2 sets of 2 pictures")
    assert [part["protocol"] for part in record["parts"]] == ["tf1-299", "pil-float-299"]
    for part in record["parts"]:
        assert part["max_difference"]["of_features"] < 1e-5
        assert part["max_difference"]["of_values_by_one_formula"] < 1e-4
        assert part["seconds"]["ours"] > 0 and part["cpu_seconds"]["theirs"] > 0
    faster = min(record["parts"], key=lambda part: part["seconds"]["theirs"])
    assert record["ratio"] == faster["ratio"] and record["peer"] == faster["peer"]
    assert sum(line.startswith("|") for line in lines) == 4
    assert torch.get_num_threads() == before
