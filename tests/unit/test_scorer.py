"""evaluation.scorer: its towers, its training on synthetic features, and the whole way on thirty pictures."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from evaluation import scorer, scorer_model
from evaluation.scorer import Recipe
from wuerstchen.assets import locate
from wuerstchen.files import read_json, sha256_file, write_json, write_jsonl
from wuerstchen.shards import write_shard

COLOURS = ("red", "green", "blue", "yellow", "black", "purple")
SHAPES = ("circle", "square", "triangle", "bar", "ring")


def draw(colour: str, shape: str) -> Image.Image:
    picture = Image.new("RGB", (128, 128), "white")
    pen = ImageDraw.Draw(picture)
    if shape == "circle":
        pen.ellipse((24, 24, 104, 104), fill=colour)
    elif shape == "square":
        pen.rectangle((30, 30, 98, 98), fill=colour)
    elif shape == "triangle":
        pen.polygon([(64, 20), (110, 105), (18, 105)], fill=colour)
    elif shape == "bar":
        pen.rectangle((10, 52, 118, 76), fill=colour)
    else:
        pen.ellipse((24, 24, 104, 104), outline=colour, width=12)
    return picture


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Thirty pictures of coloured shapes, four of them for validation and four held out."""
    folder = tmp_path_factory.mktemp("data")
    rows, pictures = [], {}
    for number, (colour, shape) in enumerate((c, s) for c in COLOURS for s in SHAPES):
        name = f"shape-{number:02}"
        pictures[name] = draw(colour, shape)
        split = {3: "validation", 5: "test"}.get(number % 7, "train")
        rows.append(
            {
                "id": name,
                "artist": "pictures",
                "thing": f"{colour} {shape}",
                "name": f"{colour} {shape}",
                "caption": f"pictures of {colour} {shape}",
                "description": f"a drawing on white that shows a {colour} {shape}",
                "group": "shapes",
                "subgroup": shape,
                "special": None,
                "split": split,
                "image": f"{name}.png",
            }
        )
    write_jsonl(folder / "index.jsonl", rows)
    write_shard(folder / "pictures.zip", pictures, {})
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("scorer")
    scorer.main(["--data", str(data), "--seed", "0", "--epochs", "4", "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def loaded(trained):
    return scorer_model.load(trained)


def test_files(trained, data):
    config, usage = read_json(trained / "config.json"), read_json(trained / "usage.json")
    assert config["model_sha256"] == sha256_file(trained / "model.safetensors")
    assert config["seed"] == 0 and config["recipe"]["epochs"] == 4
    with open(trained / "history.csv") as file:
        history = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in history] == [1, 2, 3, 4] and float(history[0]["loss"]) > 0
    losses = [float(row["validation_loss"]) for row in history]
    assert config["best_epoch"] == 1 + losses.index(min(losses))
    train = sum(row["split"] == "train" for row in map(json.loads, open(data / "index.jsonl")))
    assert usage["images"] == 4 * train and usage["steps"] == 4 and usage["kwh"] > 0
    # The locked towers are referred to, not copied: the file holds the projections alone.
    assert (trained / "model.safetensors").stat().st_size < 8e6


def test_the_towers_score_as_they_were_trained(loaded, data):
    """Features computed once for the training and the scoring path must be the same function."""
    model, text = loaded.model, "pictures of red circle"
    picture = np.asarray(draw("red", "circle"))
    with torch.inference_mode():
        pooled = scorer.image_features(model, iter([("p", picture)]), 1)["p"][0]
        image = nn.functional.normalize(model.visual.head(model.visual.standard(pooled)), dim=-1).numpy()
        features = scorer.text_features(model, scorer_model.Tokens(), [text, "a"])[text]
        words = nn.functional.normalize(model.text.proj(features), dim=-1).numpy()
    assert np.allclose(loaded.embed_images([("p", picture)])["p"], image, atol=1e-5)
    assert np.allclose(loaded.embed_texts([text])[text], words, atol=1e-5)


def test_its_scores_keep_their_name_and_formula(loaded):
    formula = "exp(logit_scale) x cosine of text and image embedding, normalised and multiplied in float32"
    assert (loaded.metric, loaded.protocol) == ("emoji-score", formula) and loaded.fixed_scale is None


def test_a_texts_neighbours_do_not_change_it(loaded):
    """Padding is masked: a short text beside a long one scores as it does alone."""
    long = "pictures of " + "very " * 30 + "long bar"
    assert np.allclose(loaded.embed_texts(["a dog"])["a dog"], loaded.embed_texts(["a dog", long])["a dog"], atol=1e-5)


def test_text_features_are_minilms_mean_of_tokens(loaded):
    transformers = pytest.importorskip("sentence_transformers")
    texts = ["openmoji of hot dog", "a flat drawing on white that shows a cat"]
    theirs = transformers.SentenceTransformer(str(locate("minilm/config").parent), device="cpu").encode(texts)
    ours = scorer.text_features(loaded.model, scorer_model.Tokens(), texts)
    for text, expected in zip(texts, theirs, strict=True):
        value = nn.functional.normalize(ours[text], dim=0).numpy()
        assert np.allclose(value, expected / np.linalg.norm(expected), atol=1e-5)


def test_pooled_stages_are_timms_features(loaded):
    """Against timm's own features_only network with the same weights."""
    import timm

    trunk = loaded.model.visual.trunk
    theirs = timm.create_model(scorer_model.NETWORK, features_only=True, out_indices=scorer_model.STAGES).eval()
    theirs.load_state_dict({k: v for k, v in trunk.state_dict().items() if k in theirs.state_dict()})
    pixels = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = theirs(pixels)
        pooled = loaded.model.visual.pooled(pixels)
    widths = [x.shape[1] for x in maps]
    assert pooled.shape == (2, 5 * sum(widths))
    assert torch.allclose(pooled[:, -widths[-1] :], maps[-1].amax((2, 3)), atol=1e-4)
    corner = maps[0][:, 0, : maps[0].shape[2] // 2, : maps[0].shape[3] // 2].mean((1, 2))
    assert torch.allclose(pooled[:, 0], corner, atol=1e-4)


def test_long_texts_are_cut_and_counted(loaded):
    fits, long = "dog " * (scorer_model.CONTEXT_LENGTH - 2), "dog " * (scorer_model.CONTEXT_LENGTH - 1)
    assert loaded.truncated([fits, long, "dog"]) == 1
    assert loaded.tokenize([long]).shape == (1, scorer_model.CONTEXT_LENGTH)
    assert loaded.tokenize([long])[0, -1] == loaded.tokenize(["dog"])[0, -1]  # the end mark stays


def test_other_sizes_are_resized_and_oblong_ones_refused():
    assert scorer_model.to_pixels(np.full((256, 256, 3), 255, np.uint8)).shape == (3, 128, 128)
    assert scorer_model.to_pixels(np.full((256, 256, 3), 255, np.uint8)).max() == 1
    with pytest.raises(ValueError, match="square"):
        scorer_model.to_pixels(np.zeros((128, 96, 3), np.uint8))


def test_files_that_do_not_belong_together_are_refused(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "other")
    config = read_json(trained / "config.json")
    write_json(tmp_path / "other" / "config.json", config | {"model_sha256": "0" * 64})
    with pytest.raises(ValueError, match="config.json says 0000"):
        scorer_model.load(tmp_path / "other")
    write_json(tmp_path / "other" / "config.json", config)
    monkeypatch.setattr(scorer_model, "tower_digests", lambda: config["towers"] | {"all-minilm-l6-v2": "f" * 64})
    with pytest.raises(ValueError, match="trained with all-minilm-l6-v2 of SHA-256 .* but ffff"):
        scorer_model.load(trained)


def test_a_missing_picture_is_named(data, tmp_path):
    rows = [json.loads(line) for line in open(data / "index.jsonl")]
    write_jsonl(tmp_path / "index.jsonl", [*rows, rows[0] | {"id": "shape-99"}])
    shutil.copy(data / "pictures.zip", tmp_path)
    with pytest.raises(SystemExit, match="1 pictures are missing, such as shape-99"):
        scorer.main(["--data", str(tmp_path), "--seed", "0", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="--epochs: 0"):
        scorer.main(["--data", str(tmp_path), "--seed", "0", "--epochs", "0", "--out", str(tmp_path / "out")])


class Projections(nn.Module):
    """What `fit` needs of the open_clip model, without towers."""

    def __init__(self, images: int, texts: int):
        super().__init__()
        trunk = nn.Identity()
        trunk.feature_info = [{"num_chs": images // 5 if stage == 2 else 0} for stage in range(5)]
        self.visual = scorer_model.PooledStages(trunk, 16)
        self.text = nn.Module()
        self.text.proj = nn.Linear(texts, 16, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))


def synthetic(count: int = 300):
    """Pictures and texts that are different linear views of one hidden vector each."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, 8, generator=random)
    views = [hidden @ torch.randn(8, width, generator=random) for width in (40, 40, 24, 24)]
    rows = [
        {"id": f"p{i}", "caption": f"c{i}", "description": f"d{i}", "split": split}
        for i, split in enumerate(["train"] * (count * 4 // 5) + ["validation"] * (count // 5))
    ]
    images = {f"p{i}": torch.stack([views[0][i], views[1][i]]) for i in range(count)}
    texts = {f"c{i}": views[2][i] for i in range(count)} | {f"d{i}": views[3][i] for i in range(count)}
    return images, texts, rows


def test_training_aligns_pictures_with_their_texts():
    images, texts, rows = synthetic()
    model = Projections(40, 24)
    history = scorer.fit(model, images, texts, rows, 0, Recipe(epochs=40, batch_size=64, learning_rate=1e-2))
    held_out = [row for row in rows if row["split"] == "validation"]
    image = model.visual.head(model.visual.standard(torch.stack([images[r["id"]][0] for r in held_out])))
    text = model.text.proj(torch.stack([texts[r["caption"]] for r in held_out]))
    similarity = nn.functional.normalize(image, dim=1) @ nn.functional.normalize(text, dim=1).T
    assert (similarity.argmax(1) == torch.arange(len(held_out))).float().mean() > 0.8  # chance: 1 in 60
    # The kept tensors are the best epoch's.
    best = min(row["validation_loss"] for row in history)
    labels = torch.arange(len(held_out))
    logits = model.logit_scale.exp() * similarity
    value = (nn.functional.cross_entropy(logits, labels) + nn.functional.cross_entropy(logits.T, labels)) / 2
    assert value.item() == pytest.approx(best, rel=1e-4)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_training_is_reproducible_and_depends_on_the_seed():
    def head(seed):
        model = Projections(40, 24)
        scorer.fit(model, *synthetic(60), seed, Recipe(epochs=2, batch_size=16))
        return model.visual.head.weight

    assert torch.equal(head(0), head(0)) and not torch.equal(head(0), head(1))


def test_without_validation_pictures_the_last_epoch_is_kept():
    images, texts, rows = synthetic(20)
    rows = [row | {"split": "train"} for row in rows]
    history = scorer.fit(Projections(40, 24), images, texts, rows, 0, Recipe(epochs=3))
    assert [row["validation_loss"] for row in history] == [None] * 3 and scorer.best_epoch(history) == 3


def test_one_training_picture_is_too_few():
    images, texts, rows = synthetic(10)
    rows = [row | {"split": "train" if row["id"] == "p0" else "validation"} for row in rows]
    with pytest.raises(ValueError, match="the training split has 1 pictures"):
        scorer.fit(Projections(40, 24), images, texts, rows, 0, Recipe())


def test_a_broken_feature_stops_the_training():
    images, texts, rows = synthetic(20)
    texts["c0"][0] = texts["d0"][0] = float("nan")
    with pytest.raises(ArithmeticError, match="the loss of epoch 1 is nan"):
        scorer.fit(Projections(40, 24), images, texts, rows, 0, Recipe(epochs=2))


def test_learning_rate_rises_then_falls_to_zero():
    rates = [scorer.rate_at(step, 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1 and rates[100] == pytest.approx(0)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert scorer.rate_at(0, 1, 0.1) == 1
