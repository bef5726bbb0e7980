"""The benchmark of preferences at a small size: both sides score alike."""

import json

import pytest
import small_towers
from transformers import CLIPConfig

from benchmarks import preference
from wuerstchen.execution import native_precision


@pytest.fixture
def small(monkeypatch):
    """CLIP-H's sizes made small on both sides."""
    config = small_towers.hugging_face().config
    monkeypatch.setattr(preference, "clip_h", lambda: CLIPConfig(**config.to_dict()))
    monkeypatch.setattr(preference, "PICTURE", 96)


def test_preference(small, capsys):
    preference.main(["--prompts", "2", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    record = json.loads(lines[-1])
    assert {"name", "ratio", "ratio_bf16", "max_difference", "device", "parts"} <= set(record)
    peer, fp32, *low = record["parts"]
    assert sum(line.startswith("|") for line in lines) == 2 + len(record["parts"])
    assert peer["max_difference"] == 0 and record["ratio"] == peer["seconds"] / fp32["seconds"]
    assert 0 < record["max_difference"] == fp32["max_difference"] < 1e-4 and fp32["flipped_share"] == 0
    assert record["pairs"] == 12 and record["gap_of_pairs"]["median"] > 1e-3
    if native_precision("bf16") == "bf16":
        assert 1e-3 < record["max_difference_bf16"] < 5 and 0 <= record["flipped_share_bf16"] < 0.5
        assert record["ratio_bf16"] == peer["seconds"] / low[0]["seconds"]
    with pytest.raises(SystemExit, match="--prompts is 1 to 6"):
        preference.main(["--prompts", "7"])
