import json
import shutil
from pathlib import Path

import pytest
import yaml

from workflow import check, published
from workflow.pretrained import pretrained
from workflow.settings import SCHEMA


def test_all_is_here(config: dict, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "check.json"
    check.main(["--configfile", str(tmp_path / "config.yaml"), "--out", str(out)])
    assert json.loads(out.read_text())["missing"] == []


def test_everything_missing_is_listed_at_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(check, "pins", lambda: {"numpy": "2.4.6", "no-such-package": "1.0", "nor-this": "2.0"})
    monkeypatch.setattr(check, "GIGABYTES", 10**9)
    captions = ["--source", "folder", "--captions", str(tmp_path / "captions.jsonl")]
    with pytest.raises(SystemExit) as stopped:
        check.main([*captions, "--out", str(tmp_path / "check.json")])
    said = str(stopped.value)
    assert "no-such-package==1.0, nor-this==2.0" in said
    assert "captions.jsonl: no such file" in said
    assert "disk space" in said
    assert not (tmp_path / "check.json").exists()


def test_bad_lines_of_captions_are_listed(tmp_path: Path) -> None:
    captions = tmp_path / "captions.jsonl"
    captions.write_text('{"image": "../a.png", "caption": "x"}\n{"image": "b.png", "caption": ""}\n')
    missing, _ = check.check({"source": "folder", "captions": str(captions)}, tmp_path)
    assert any("line 1" in line and "'..'" in line for line in missing)
    assert any("line 2" in line and "'caption'" in line for line in missing)


def test_another_version_is_only_a_warning(config: dict, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(check, "pins", lambda: {"numpy": "0.0.1"})
    missing, warnings = check.check(config["data"], tmp_path)
    assert missing == []
    assert any("numpy" in line and "0.0.1" in line for line in warnings)


def test_without_a_compiler_it_goes_on_with_a_warning(config: dict, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    missing, warnings = check.check(config["data"], tmp_path)
    assert missing == []
    assert any("g++" in line and "times as long" in line for line in warnings)


def test_damaged_package_is_named(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "weights_package"
    package.mkdir()
    (package / "model.bin").write_bytes(b"12345")
    info = tmp_path / "weights_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weights-package\nVersion: 1.0\n")
    (info / "RECORD").write_text("weights_package/model.bin,,5\nweights_package/other.bin,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert check.damaged_package("weights-package") == [
        "package weights-package is damaged: weights_package/other.bin is missing; install it again"
    ]
    (package / "other.bin").touch()
    assert check.damaged_package("weights-package") == []
    (package / "model.bin").write_bytes(b"123")
    assert "has 3 bytes, not 5" in check.damaged_package("weights-package")[0]


def test_absent_package_is_left_to_the_pins() -> None:
    assert check.damaged_package("no-such-package") == []


@pytest.mark.parametrize(
    ("changes", "wanted", "others"),
    [
        ({}, ["sd-2.1/vae", "vgg16", "efficientnet-v2-s", "clip-h/text", "clip-h-penultimate/text"], "sd-1.4"),
        ({"baseline": "appendix-e4"}, ["sd-1.4/vae", "vgg16", "clip-h/tokenizer", "clip-l/text"], "sd-2.1"),
        ({"models": ["wuerstchen"]}, ["vgg16", "efficientnet-v2-s", "clip-h/text"], "/vae"),
    ],
)
def test_a_training_at_paper_size_lacks_files_that_it_starts_from(
    changes: dict, wanted: list[str], others: str, tmp_path: Path, monkeypatch
) -> None:
    for name in ("WUERSTCHEN_ASSETS", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    config = yaml.safe_load((Path(__file__).parents[2] / "config" / "paper.yaml").read_text(encoding="utf-8")) | changes
    names = pretrained(config)
    assert set(wanted) <= set(names) and not any(others in name for name in names)
    data = {"source": "folder", "captions": str(tmp_path / "captions.jsonl"), "assets": names}
    missing, _ = check.check(data, tmp_path)
    for name in wanted:
        assert any(f"asset {name} is missing" in line and "sha256" in line for line in missing), name


def test_published_models_lack_files_all_of_which_are_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path / "nothing"))
    for name in ("HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    config = yaml.safe_load((SCHEMA.parent / "released.yaml").read_text(encoding="utf-8"))
    config["models"].append({"id": "mine", "folder": str(tmp_path / "my pictures")})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as stopped:
        check.main(["--configfile", str(tmp_path / "config.yaml")])
    said = str(stopped.value)
    assert "my pictures: no such file or folder" in said
    assert "asset coco/val2014 is missing (6,645,013,297 bytes, sha256 fe9be816052049c34717e077d9e34aa6" in said
    assert "python -m wuerstchen.assets fetch coco/val2014" in said
    assert f"put it at {tmp_path / 'nothing' / 'celeba-hq'}" in said
    for name in published.assets(config):
        assert f"asset {name!r} is not known" in said or f"asset {name} is missing" in said, name
