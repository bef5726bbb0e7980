import numpy as np
import pytest
from PIL import Image

from evaluation.images import iter_images, read_shard
from evaluation.prepare import prepare
from evaluation.real_pictures import main
from wuerstchen.files import write_jsonl

ROW = {"prompt": "a thing", "category": None, "challenge": None, "source_id": None}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (60 + number, 80, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"P_{number}.png")
    return folder


def run(folder, prompts, *more):
    rows = [ROW | {"id": name, "image": image} for name, image in prompts]
    write_jsonl(folder.parent / "p.jsonl", rows)
    main(["--pictures", str(folder), "--prompts", str(folder.parent / "p.jsonl"), *more])


def test_shards_hold_the_pictures_of_their_prompts(photos, tmp_path):
    prompts = [(f"one-{number}", f"P_{number}.png") for number in (4, 2, 0)]
    prepared = ["--prepare", "centre-square-bicubic-32"]
    for shard in (0, 1):
        out = tmp_path / f"{shard}.zip"
        run(photos, prompts, *prepared, "--shard", str(shard), "--shards", "2", "--out", str(out))
    found = dict(iter_images([tmp_path / "0.zip", tmp_path / "1.zip"]))
    assert list(found) == ["one-4", "one-2", "one-0"]
    for number in (4, 2, 0):
        with Image.open(photos / f"P_{number}.png") as picture:
            assert np.array_equal(found[f"one-{number}"], prepare(np.asarray(picture), 32))
    info, _ = read_shard(tmp_path / "0.zip")
    assert info["model"] == "real" and info["preparation"] == prepared[1] and len(info["files_sha256"]) == 64


def test_what_does_not_fit_is_refused(photos, tmp_path):
    out = ["--out", str(tmp_path / "0.zip")]
    with pytest.raises(SystemExit, match="two prompts name one picture"):
        run(photos, [("a", "P_1.png"), ("b", "P_1.png")], *out)
    with pytest.raises(SystemExit, match="P_9.png of prompt a is not among 5 pictures"):
        run(photos, [("a", "P_9.png")], *out)
    with pytest.raises(SystemExit, match="preparation 'centre' is not known"):
        run(photos, [("a", "P_1.png")], "--prepare", "centre", *out)
    assert not (tmp_path / "0.zip").exists()
