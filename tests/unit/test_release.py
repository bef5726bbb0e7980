"""Released weights: what is written of a finished study, what is refused, and what the repository itself releases."""

import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from wuerstchen import emoji, generate, release, unpack, weights
from wuerstchen.data import assign_splits, load_index, split_digest
from wuerstchen.files import read_json, sha256_file, write_json, write_text
from wuerstchen.pipeline import Pipeline, Wuerstchen

STAGES = ["a", "b", "c", "baseline-ldm"]
SETTINGS = {"steps_c": 3, "guidance_c": 2.0, "steps_b": 2, "guidance_b": 1.0}
PART = {"n": 7, "at_10": 0.5, "interval_at_10": [0.25, 0.75]}
RELEASES = [unpack.RELEASED / name for name in unpack.NAMES if (unpack.RELEASED / name / "README.md").is_file()]


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    """The tiny study with what a finished one has beside its trainings."""
    study = tmp_path_factory.mktemp("finished")
    for name in ("train", "data"):
        shutil.copytree(trained / name, study / name, ignore=shutil.ignore_patterns("state", "variants"))
    split = split_digest(load_index(study / "data"))
    licences = [{"artist": "pictures", "licence": "CC BY 4.0", "url": "https://example.org", "credit": "Nobody"}]
    counts = {name: {"total": total} for name, total in (("train", 14), ("validation", 3), ("test", 3))}
    write_json(study / "data/split.json", {"sha256": split, "counts": counts, "size": 128, "licences": licences})
    config = {"study": "short", "preset": "tiny", "seed": 0, "training": {"c": {"steps": 12}}}
    write_text(study / "config.yaml", yaml.safe_dump(config | {"sampling": {"wuerstchen": SETTINGS}}))
    recall = {"wuerstchen": {"seen": PART, "held_out": PART | {"n": 0}}, "ceilings": {"compressor": "not run: x"}}
    scores = {"names": {"wuerstchen": {"emoji-score": {"value": 1.2345}}}}
    write_json(study / "summary.json", {"study": "short", "recall": recall, "scores": scores})
    (study / "scorer").mkdir()
    save_file({"logit_scale": torch.tensor(2.7), "head": torch.randn(4, 3)}, study / "scorer/model.safetensors")
    about = {"split_sha256": split, "model_sha256": sha256_file(study / "scorer/model.safetensors")}
    write_json(study / "scorer/config.json", about)
    write_json(study / "scorer/usage.json", {"seconds": 1.0})
    write_text(study / "scorer/history.csv", "epoch,loss\n1,2.5\n")
    return study


@pytest.fixture(scope="module")
def released(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("released") / "emoji"
    release.main(["--study", str(finished), "--out", str(out)])
    return out


def unpacked(released, study, out, **changed):
    options = {"weights": released, "preset": "tiny", "split": study / "data/split.json", "scorer": out / "scorer"}
    flags = [text for key, value in (options | changed).items() for text in (f"--{key}", str(value))]
    unpack.main([*flags, "--stages", *STAGES, "--out", str(out / "train")])
    return out


def test_weights_are_rounded_to_fp16_and_nothing_else_is_lost(finished, released, tmp_path):
    back = unpacked(released, finished, tmp_path)
    for stage in STAGES:
        paths = [folder / "train" / stage / "model.safetensors" for folder in (finished, released, back)]
        (old, about), (small, noted), (new, same) = map(weights.load, paths)
        assert {name: tensor.shape for name, tensor in new.items()} == {name: t.shape for name, t in old.items()}
        assert any(tensor.dtype == torch.float16 for tensor in small.values())
        for name, tensor in old.items():
            assert new[name].dtype == tensor.dtype
            torch.testing.assert_close(new[name], tensor, rtol=2**-11, atol=2**-24)
        assert noted == same == about | {"released": "short", "split_sha256": noted["split_sha256"]}
        assert paths[1].stat().st_size < 0.6 * paths[0].stat().st_size
        used = read_json(back / "train" / stage / "usage.json")
        assert used == read_json(finished / "train" / stage / "usage.json") | {"released": "short"}
        assert (back / "train" / stage / "history.csv").stat().st_size > 0
    for folder in (released, back):
        digest = sha256_file(folder / "scorer/model.safetensors")
        assert read_json(folder / "scorer/config.json")["model_sha256"] == digest
    assert load_file(back / "scorer/model.safetensors")["logit_scale"].dtype == torch.float32


def test_pictures_hardly_change_and_a_release_draws_as_what_it_unpacks_to(finished, released, tmp_path):
    back = unpacked(released, finished, tmp_path)
    drawn = [
        Wuerstchen(folder / "train", compiled=False).generate(["thing 1"], ["x"], 0, **SETTINGS).astype(int)
        for folder in (finished, released, back)
    ]
    assert np.array_equal(drawn[1], drawn[2])
    assert np.abs(drawn[0] - drawn[1]).mean() < 2 < drawn[0].std()


def test_the_card_says_what_was_measured(finished, released):
    card = (released / "README.md").read_text(encoding="utf-8")
    split = read_json(finished / "data/split.json")["sha256"]
    recall = "| wuerstchen | 50.0 % (25.0 to 75.0 %) | no such prompts |"
    scores = "| Prompts: model | emoji-score |\n| --- | ---: |\n| names: wuerstchen | 1.234 |"
    for said in (split, "CC BY 4.0 (https://example.org). Nobody", recall, scores, "| Stage C | ", "steps: 12"):
        assert said in card, said
    for path in released.rglob("*.safetensors"):
        line = f"| {path.relative_to(released)} | {path.stat().st_size:,} | {sha256_file(path)} |"
        assert line in card, line


def test_the_history_of_a_long_training_is_thinned():
    rows = [f"{n},{n / 2 if n % 30 == 0 else ''},0.5" for n in range(1, 1001)]
    kept = release.thinned("\n".join(["step,validation_loss,loss", *rows]) + "\n", rows=50).splitlines()
    steps = [int(row.split(",")[0]) for row in kept[1:]]
    assert steps == sorted({*range(1, 1001, 20), *range(30, 1001, 30), 1000}) and kept[-1] == rows[-1]
    short = "step,validation_loss,loss\n1,,0.5\n2,3.5,0.5\n"
    assert release.thinned(short) == short


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda study: (study / "summary.json").unlink(), "summary.json is missing; release a study that has finished"),
        (lambda study: shutil.rmtree(study / "train/baseline-ldm"), "train/baseline-ldm/model.safetensors is missing"),
        (lambda study: write_json(study / "scorer/config.json", {"split_sha256": "x"}), "on another split than"),
        (
            lambda study: weights.save(study / "train/a/model.safetensors", {"big": torch.tensor([1e5])}, {}),
            "train/a/model.safetensors: tensor big reaches 100000; fp16 ends at 65504",
        ),
        (
            lambda study: weights.save(study / "train/a/model.safetensors", {"much": torch.zeros(2**23)}, {}),
            "train/a/model.safetensors would have 16,777,",
        ),
    ],
)
def test_what_cannot_be_released_is_said_and_nothing_is_written(finished, tmp_path, change, said):
    study = shutil.copytree(finished, tmp_path / "study")
    change(study)
    with pytest.raises(SystemExit, match=re.escape(said)):
        release.main(["--study", str(study), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_all_together_are_limited_too(monkeypatch):
    files = {name: bytes(10) for name in "abc"}
    monkeypatch.setattr(release, "ALL_BYTES", 30)
    release.require_small(files)
    with pytest.raises(ValueError, match="the release would have 40 bytes; it has at most 30"):
        release.require_small(files | {"d": bytes(10)})


def test_another_split_or_preset_is_refused(finished, released, tmp_path):
    write_json(tmp_path / "split.json", {"sha256": "0" * 64})
    with pytest.raises(
        SystemExit, match="trained on the split [0-9a-f]{64}, but this study's pictures are split as 0000"
    ):
        unpacked(released, finished, tmp_path, split=tmp_path / "split.json")
    with pytest.raises(SystemExit, match="weights of the preset tiny, but the config's is emoji"):
        unpacked(released, finished, tmp_path, preset="emoji")
    with pytest.raises(SystemExit, match="no such checkpoint"):
        unpacked(tmp_path, finished, tmp_path)
    assert not (tmp_path / "train").exists()


def test_a_release_is_drawn_with_by_its_name(released, tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "RELEASED", tmp_path / "none")
    with pytest.raises(SystemExit, match="model emoji: .*none/emoji/train holds no weights"):
        generate.main(["x", "--model", "emoji", "--out", str(tmp_path / "x.png")])
    monkeypatch.setattr(unpack, "RELEASED", released.parent)
    generate.main(["thing 1", "--model", "emoji", "--device", "cpu", "--out", str(tmp_path / "x.png")])
    assert (tmp_path / "x.png").stat().st_size > 0
    assert Pipeline.from_pretrained("emoji").preset.sampling.steps_c == SETTINGS["steps_c"]


def test_released_weights_are_of_the_split_that_the_code_makes():
    """What they were measured on as held out must be held out by today's code."""
    if not RELEASES:
        pytest.skip("no weights are released in this tree")
    rows, _ = emoji.listing()
    for folder in RELEASES:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        split = assign_splits(rows, config["seed"])
        digest = split_digest([row | {"split": split[row["id"]]} for row in rows])
        assert f"Digest of the split: `{digest}`" in (folder / "README.md").read_text(encoding="utf-8")
        for path in folder.glob("train/*/model.safetensors"):
            unpack.require_same_study(path, weights.metadata(path), config["preset"], digest)
        assert read_json(folder / "scorer/config.json")["split_sha256"] == digest
        release.require_small({str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()})


def test_the_notebook_runs_from_its_first_cell_to_its_last(released, monkeypatch):
    path = unpack.RELEASED.parents[1] / "docs" / "inference.ipynb"
    if not RELEASES:  # then with weights of a tiny study, under the same name
        monkeypatch.setattr(unpack, "RELEASED", released.parent)
    assert path.stat().st_size < 300_000
    namespace: dict = {}
    cells = [cell for cell in read_json(path)["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"{path.name}, code cell {number}", "exec"), namespace)
    assert len(cells) == 6 and namespace["picture"].shape == (128, 128, 3)
    assert np.array_equal(namespace["refined"](0), namespace["picture"])
    assert not np.array_equal(namespace["refined"](1), namespace["picture"])
