"""A model of one's own: a folder of its pictures, and a function that draws, through the program."""

import importlib
import shlex
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import random_inception
from PIL import Image

from evaluation import sample, speed
from evaluation.features import read_features
from evaluation.generators.own import AT_ONCE, Called, Folder, checked
from evaluation.pictures import iter_pictures
from evaluation.prompts import read_prompts
from wuerstchen import assets
from wuerstchen.files import read_json, sha256_file, write_jsonl
from wuerstchen.seeds import derive
from wuerstchen.shards import read_info

ROOT = Path(__file__).parents[2]
IDS = [f"p-{i}" for i in range(7)]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    blank = {"image": None, "category": None, "challenge": None, "source_id": None}
    write_jsonl(path, [{"id": name, "prompt": f"thing {name}"} | blank for name in IDS])
    return path


@pytest.fixture
def folder(tmp_path):
    """Pictures as people save them: in several formats and folders, some of other sizes."""
    folder = tmp_path / "mine"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, name in enumerate(IDS):
        picture = Image.fromarray(rng.integers(0, 256, (20, 24 + i, 3), np.uint8))
        picture.save(folder / (f"more/{name}.webp" if i == 3 else f"{name}{'.jpg' if i == 4 else '.png'}"))
    return folder


def draw(prompts, out, *args):
    sample.main(["--model", "my-model-1.5", "--prompts", str(prompts), "--seed", "0", "--out", str(out), *args])
    return dict(iter_pictures(out)), read_info(out)


def test_a_folder_becomes_shards(prompts, folder, tmp_path, capsys):
    drawn, info = draw(prompts, tmp_path / "whole.zip", "--pictures", str(folder))
    expected = dict(iter_pictures(folder))
    assert list(drawn) == IDS and all(np.array_equal(drawn[name], expected[name]) for name in IDS)
    assert info["model"] == "my-model-1.5" and info["unused"] == 0
    assert info["pictures"]["lossy"] == 2 and info["pictures"]["formats"] == {"JPEG": 1, "PNG": 5, "WEBP": 1}
    parts = {}
    for shard in range(2):
        more = ("--pictures", str(folder), "--shard", str(shard), "--shards", "2")
        part, info = draw(prompts, tmp_path / f"{shard}.zip", *more)
        assert info["unused"] == 0  # pictures of the other shard's prompts are not left over
        parts |= part
    assert all(np.array_equal(parts[name], expected[name]) for name in IDS)
    assert not capsys.readouterr().err


def test_missing_and_extra_pictures_are_named(prompts, folder, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(folder / "other.png")
    _, info = draw(prompts, tmp_path / "x.zip", "--pictures", str(folder))
    assert info["unused"] == 1
    assert "1 of its pictures are of no prompt (other)" in capsys.readouterr().err
    (folder / "p-2.png").rename(folder / "thing-2.png")
    with pytest.raises(SystemExit) as error:
        draw(prompts, tmp_path / "y.zip", "--pictures", str(folder))
    assert "no picture of 1 of 7 prompts (p-2); 2 of its pictures are of no prompt (other, thing-2)" in str(error.value)
    (folder / "p-2.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(SystemExit, match="p-2.png"):
        draw(prompts, tmp_path / "y.zip", "--pictures", str(folder))
    with pytest.raises(ValueError, match=r"\(id-0, id-1, id-2, id-3, id-4 and 4 more\)"):
        Folder(folder, [{"id": f"id-{i}"} for i in range(9)])
    assert not (tmp_path / "y.zip").exists()


MODULE = """
import numpy as np
from PIL import Image

calls = []

def draw(prompts, seeds):
    calls.append(len(prompts))
    pictures = [np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8) for seed in seeds]
    return [Image.fromarray(picture) if i % 2 else picture for i, picture in enumerate(pictures)]

def few(prompts, seeds):
    return draw(prompts, seeds)[1:]

def grey(prompts, seeds):
    return [np.zeros((4, 4), np.uint8) for _ in prompts]
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that can be imported."""
    (tmp_path / "my_drawing.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_drawing"
    sys.modules.pop("my_drawing", None)


def test_a_function_draws(prompts, module, tmp_path):
    drawn, info = draw(prompts, tmp_path / "x.zip", "--callable", f"{module}:draw")
    assert list(drawn) == IDS and info["callable"] == "my_drawing:draw" and len(info["source_sha256"]) == 64
    for name in IDS:
        rng = np.random.default_rng(derive(0, name, "callable"))
        assert np.array_equal(drawn[name], rng.integers(0, 256, (12, 10, 3), np.uint8))
    part, _ = draw(prompts, tmp_path / "1.zip", "--callable", f"{module}:draw", "--shard", "1", "--shards", "2")
    assert all(np.array_equal(part[name], drawn[name]) for name in part) and len(part) == 4
    rows = [{"id": f"{i}", "prompt": ""} for i in range(AT_ONCE + 2)]
    assert len(Called(f"{module}:draw").generate(rows, 0)) == AT_ONCE + 2
    assert sys.modules[module].calls[-2:] == [AT_ONCE, 2]


def test_a_functions_speed_is_measured_by_whole_batches(module, tmp_path):
    out = tmp_path / "speed.json"
    speed.main(
        ["--model", "mine", "--callable", f"{module}:draw", "--batch-sizes", "1", "20", "--repeats", "1", "--out",
         str(out)]
    )  # fmt: skip
    assert sys.modules[module].calls == [1, 1, 20, 20]  # each once to warm up
    record = read_json(out)
    assert (record["image_size"], record["precision"], record["weights_sha256"]) == ("10x12", "not said", None)
    with pytest.raises(SystemExit, match="speed of real: --pictures: needed for real"):
        speed.main(["--model", "real", "--batch-sizes", "1", "--out", str(out)])
    with pytest.raises(ValueError, match="its pictures are there already"):
        speed.measure(Folder.__new__(Folder), 1, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_drawing", "should be MODULE:FUNCTION"),
        ("no_such_module:draw", "no_such_module cannot be imported"),
        ("my_drawing:paint", "my_drawing has no function paint"),
        ("my_drawing:few", "returned 6 pictures of 7 prompts"),
        ("my_drawing:grey", r"prompt p-0: a uint8 array \(4, 4\); it should be uint8 \(height, width, 3\)"),
    ],
)
def test_what_is_wrong_with_a_function_is_named(prompts, module, tmp_path, name, message):
    with pytest.raises(SystemExit, match=message):
        draw(prompts, tmp_path / "x.zip", "--callable", name)
    assert not (tmp_path / "x.zip").exists()


def test_what_is_no_picture_is_refused():
    for picture, message in (
        (np.zeros((4, 4, 3), np.float32), "a float32 array"),
        (np.zeros((0, 4, 3), np.uint8), "4x0 pixels"),
        (Image.new("RGBA", (4, 4)), "mode RGBA; it should be RGB"),
        ([[0, 0, 0]], "a list"),
    ):
        with pytest.raises(ValueError, match=f"here: .*{message}"):
            checked(picture, "here")


def test_a_function_has_a_name_of_its_own(prompts, module, tmp_path):
    with pytest.raises(SystemExit, match="--model: 'sd-xl' cannot be a function's"):
        draw(prompts, tmp_path / "x.zip", "--callable", f"{module}:draw", "--model", "sd-xl")
    with pytest.raises(SystemExit, match="--pictures: not with --callable"):
        draw(prompts, tmp_path / "x.zip", "--callable", f"{module}:draw", "--pictures", "somewhere")
    with pytest.raises(SystemExit, match="'My Model' is not known.*wuerstchen"):
        draw(prompts, tmp_path / "x.zip", "--model", "My Model", "--pictures", "somewhere")
    assert len(read_prompts(prompts)) == 7


def test_the_guides_commands_work(prompts, folder, tmp_path, monkeypatch):
    """From pictures to FID, as docs/evaluate-your-model.md says it, but for Inception's weights."""
    lines = (ROOT / "docs" / "evaluate-your-model.md").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line.startswith("python -m evaluation.")][1:5]
    assert [command.split()[2] for command in commands] == [
        *("evaluation.sample", "evaluation.features", "evaluation.features", "evaluation.protocol_scores"),
    ]
    (tmp_path / "prompts").mkdir()
    rows = [row | {"image": f"{row['id']}.png"} for row in read_prompts(prompts)]
    write_jsonl(tmp_path / "prompts" / "coco30k.jsonl", rows)
    rng = np.random.default_rng(1)
    (tmp_path / "my-pictures").mkdir()
    with zipfile.ZipFile(tmp_path / "val2014.zip", "w") as photographs:
        for name in IDS:
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / f"{name}.png")
            photographs.write(tmp_path / f"{name}.png", f"val2014/{name}.png")
    for name in IDS:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / f"my-pictures/{name}.jpg")
    for name, path in (("inception", random_inception.write(tmp_path)), ("coco/val2014", tmp_path / "val2014.zip")):
        stand_in = replace(assets.ASSETS[name], bytes=path.stat().st_size, sha256=sha256_file(path))
        monkeypatch.setitem(assets.ASSETS, name, stand_in)
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for command in commands:
        python, flag, module, *args = shlex.split(command)
        assert (python, flag) == ("python", "-m")
        importlib.import_module(module).main(args)
    assert read_features(tmp_path / "my-model.npz").lossy == len(IDS)  # shards remember what they were made of
    for metric in ("fid", "kid", "is"):
        score = read_json(tmp_path / f"{metric}.json")
        assert (score["metric"], score["protocol"], score["model"]) == (metric, "coco30k-clean", "my-model")
        assert score["n"] == len(IDS) == score["lossy"]["images"]
        assert score["extractor"]["sha256"] == assets.ASSETS["inception"].sha256
    assert read_json(tmp_path / "fid.json")["reference_n"] == len(IDS)
