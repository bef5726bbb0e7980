"""Sampling: one picture for one seed and prompt, whatever else is drawn with it."""

import time

import numpy as np
import pytest
import torch

from evaluation import sample, speed
from evaluation.generators import make
from evaluation.generators import trained as trained_generators
from evaluation.images import iter_images
from evaluation.sample import parse_settings, shard_prompts
from wuerstchen.files import read_json, read_jsonl, sha256_file, write_jsonl
from wuerstchen.pipeline import ImageNoise
from wuerstchen.shards import read_shard

SETTINGS = {
    "wuerstchen": ["steps_c=4", "guidance_c=3", "steps_b=3", "guidance_b=1"],
    "baseline-ldm": ["steps=4", "guidance=3"],
}


@pytest.fixture(scope="module")
def prompts(trained):
    path = trained / "prompts.jsonl"
    rows = [{"id": f"p-{i}", "prompt": f"thing {i}", "image": f"pictures-{i:02d}.png"} for i in range(7)]
    write_jsonl(path, [row | {"category": None, "challenge": "seen", "source_id": row["image"][:-4]} for row in rows])
    return path


def draw(folder, prompts, model, out, *more, shard=0, shards=1, seed=0):
    sample.main(
        ["--model", model, "--weights", str(folder / "train"), "--prompts", str(prompts), "--shard", str(shard),
         "--shards", str(shards), "--seed", str(seed), "--out", str(out), "--set", *SETTINGS.get(model, []), *more]
    )  # fmt: skip
    return out


@pytest.mark.parametrize("model", SETTINGS)
def test_any_number_of_shards_draws_the_same_bytes(trained, prompts, tmp_path, monkeypatch, model):
    monkeypatch.setattr(trained_generators._Trained, "batch_size", 3)
    info, whole = read_shard(draw(trained, prompts, model, tmp_path / "whole.zip"))
    parts = {}
    for shard in range(3):
        out = draw(trained, prompts, model, tmp_path / f"{shard}.zip", shard=shard, shards=3)
        parts |= read_shard(out)[1]
    assert parts == whole and list(parts) == list(whole)
    assert info["model"] == model and info["seed"] == 0 and info["sampler"] == "ddpm"
    assert {"prompts_sha256", "ids", "guidance", "weights_sha256"} <= set(info)
    usage = read_json(tmp_path / "whole.usage.json")
    assert usage["images"] == 7 and usage["seconds"] > 0
    other = read_shard(draw(trained, prompts, model, tmp_path / "other.zip", seed=1))[1]
    assert all(other[name] != whole[name] for name in whole)


def test_one_process_draws_all_prompt_sets_with_one_model(trained, prompts, tmp_path, monkeypatch):
    few, outs = tmp_path / "few.jsonl", [tmp_path / "all.zip", tmp_path / "few.zip"]
    write_jsonl(few, read_jsonl(prompts)[2:5])
    models = []
    monkeypatch.setattr(sample, "make", lambda *how: models.append(make(*how)) or models[-1])
    start = time.monotonic()
    sample.main(
        ["--model", "baseline-ldm", "--weights", str(trained / "train"), "--prompts", str(prompts), str(few),
         "--seed", "0", "--out", *map(str, outs), "--set", *SETTINGS["baseline-ldm"]]
    )  # fmt: skip
    took = time.monotonic() - start
    assert len(models) == 1
    (of_all, pictures), (of_few, again) = map(read_shard, outs)
    assert again == {f"p-{i}": pictures[f"p-{i}"] for i in (2, 3, 4)}
    assert [of_all["prompts_sha256"], of_few["prompts_sha256"]] == [sha256_file(prompts), sha256_file(few)]
    used = [read_json(out.with_suffix(".usage.json")) for out in outs]
    assert [record["images"] for record in used] == [7, 3]
    assert sum(record["seconds"] for record in used) <= took  # nothing is counted twice


def test_shards_are_slices_that_differ_by_one_at_most():
    for number in range(1, 24):
        for shards in range(1, number + 1):
            parts = [shard_prompts(list(range(number)), shard, shards) for shard in range(shards)]
            assert sum(parts, []) == list(range(number))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_noise_depends_on_seed_and_id_alone():
    together = ImageNoise(0, ["a", "b"], "stage-c")((2, 4, 3, 3))
    assert torch.equal(ImageNoise(0, ["b"], "stage-c")((1, 4, 3, 3))[0], together[1])
    assert not torch.equal(ImageNoise(0, ["b"], "stage-b")((1, 4, 3, 3))[0], together[1])
    assert not torch.equal(ImageNoise(1, ["b"], "stage-c")((1, 4, 3, 3))[0], together[1])


def test_guidance_changes_the_picture_and_one_is_unguided(trained, prompts, tmp_path):
    pictures = []
    for i, guidance in enumerate(("1", "1.000001", "50")):
        out = tmp_path / f"{i}.zip"
        sample.main(
            ["--model", "baseline-ldm", "--weights", str(trained / "train"), "--prompts", str(prompts),
             "--seed", "0", "--out", str(out), "--set", "steps=4", f"guidance={guidance}"]
        )  # fmt: skip
        pictures.append(np.stack([image for _, image in iter_images([out])]).astype(int))
    # the unguided path runs one network pass; a scale just above one runs two and must agree
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert np.abs(pictures[0] - pictures[2]).max() > 1


def test_real_pictures_and_ceilings_are_keyed_by_prompt(trained, prompts, tmp_path):
    zip_of_pictures = trained / "data" / "pictures.zip"
    pictures = ["--pictures", str(zip_of_pictures)]
    real = dict(iter_images([draw(trained, prompts, "real", tmp_path / "real.zip", *pictures)]))
    truth = dict(iter_images([zip_of_pictures]))
    assert all(np.array_equal(real[f"p-{i}"], truth[f"pictures-{i:02d}"]) for i in range(7))
    settings = ["steps_b=3", "guidance_b=1"]
    for model in ("ceiling-stage-a", "ceiling-compressor"):
        drawn = dict(iter_images([draw(trained, prompts, model, tmp_path / f"{model}.zip", *settings, *pictures)]))
        assert list(drawn) == list(real) and all(image.shape == (128, 128, 3) for image in drawn.values())


def test_what_is_wrong_is_named(trained, prompts, tmp_path):
    with pytest.raises(ValueError, match="steps_c.*KEY=NUMBER|KEY=NUMBER.*steps_c"):
        parse_settings(["steps_c"])
    with pytest.raises(ValueError, match="--shard: 3 is not one of 3 shards"):
        shard_prompts([{}] * 7, 3, 3)
    with pytest.raises(ValueError, match="--shards: 8, but there are only 7 prompts"):
        shard_prompts([{}] * 7, 0, 8)
    with pytest.raises(SystemExit, match="--out: 2 zips for 1 prompt sets"):
        draw(trained, prompts, "real", tmp_path / "x.zip", "--out", "x.zip", "y.zip")
    with pytest.raises(SystemExit, match="'sd-3' is not known.*wuerstchen"):
        draw(trained, prompts, "sd-3", tmp_path / "x.zip")
    with pytest.raises(SystemExit, match="guidance is missing"):
        sample.main(
            ["--model", "baseline-ldm", "--weights", str(trained / "train"), "--prompts", str(prompts),
             "--seed", "0", "--out", str(tmp_path / "x.zip"), "--set", "steps=4"]
        )  # fmt: skip
    with pytest.raises(SystemExit, match="no such checkpoint"):
        draw(tmp_path, prompts, "wuerstchen", tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_speed_counts_images_per_batch(trained, tmp_path):
    out = tmp_path / "speed.json"
    speed.main(
        ["--model", "baseline-ldm", "--weights", str(trained / "train"), "--batch-sizes", "1", "2", "--out", str(out),
         "--set", *SETTINGS["baseline-ldm"]]
    )  # fmt: skip
    record = read_json(out)
    assert [batch["batch_size"] for batch in record["batches"]] == [1, 2]
    for batch in record["batches"]:
        assert batch["seconds_per_image"] * batch["batch_size"] == pytest.approx(batch["seconds_per_batch"])
        assert batch["fastest"] <= batch["seconds_per_batch"] <= batch["slowest"]
    assert record["image_size"] == 128 and record["steps"] == {"steps": 4, "guidance": 3.0}
    assert record["measures"].startswith("prompt text to pixels") and record["precision"] in ("bf16", "fp32")
    assert record["compiled"] is False and len(record["weights_sha256"]) == 64
