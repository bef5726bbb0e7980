"""evaluation.preference: PickScore's formula against transformers, win rates, validity, and what is refused."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from evaluation import preference, preference_model
from evaluation.preference_model import PreferenceModel
from wuerstchen.files import write_json, write_jsonl
from wuerstchen.shards import write_shard

WORDS = 60
LENGTH = 12


def ids_of(text: str) -> list[int]:
    """A toy tokenizer: start mark 57, one number a word, end mark 58 (the highest, as CLIP's is)."""
    return [57, *(sum(word.encode()) % 57 for word in text.split()), 58]


def tokenize(texts):
    import torch

    rows = [ids_of(text) for text in texts]
    rows = [row if len(row) <= LENGTH else [*row[: LENGTH - 1], 58] for row in rows]
    return torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows])


def to_pixels(picture):
    import torch

    return torch.tensor(picture).permute(2, 0, 1).float().div(127.5).sub(1)


@pytest.fixture(scope="module")
def clips():
    """The same random CLIP twice: transformers' and, its weights converted, open_clip's."""
    import open_clip
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = shape | {"vocab_size": WORDS, "max_position_embeddings": LENGTH, "hidden_act": "gelu", "eos_token_id": 58}
    vision = shape | {"image_size": 32, "patch_size": 8, "hidden_act": "gelu"}
    theirs = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    with torch.no_grad():  # fresh weights are so small that every cosine would be near 1
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        theirs.logit_scale.fill_(math.log(100))
    ours = open_clip.CLIP(
        embed_dim=24,
        vision_cfg={"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "mlp_ratio": 4.0},
        text_cfg={"context_length": LENGTH, "vocab_size": WORDS, "width": 32, "heads": 4, "layers": 2},
        quick_gelu=False,
    ).eval()
    ours.load_state_dict(preference_model.convert_hf_clip_state_dict(theirs.state_dict()))
    return theirs, ours


def scorer_of(model) -> PreferenceModel:
    return PreferenceModel(
        name="tiny",
        sha256="0" * 64,
        model=model,
        preprocess=to_pixels,
        tokenize=tokenize,
        count_tokens=lambda text: len(ids_of(text)),
        context_length=LENGTH,
        preprocessing="none",
        metric="tiny-score",
    )


def pictures(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {f"p{i}": random.integers(0, 256, (32, 32, 3), dtype=np.uint8) for i in range(count)}


TEXTS = ["a red apple", "two dogs on the moon", "an owl", "a very long text " * 6, "a red apple"]


def test_scores_are_pickscores(clips):
    """Against transformers' own logits, exp(logit_scale) x cosine, which PickScore's model card computes."""
    import torch

    theirs, ours = clips
    images = pictures(5)
    scorer = scorer_of(ours)
    texts, vectors = scorer.embed_texts(TEXTS), scorer.embed_images(images.items(), batch_size=2)
    pairs = [(text, name) for text in TEXTS for name in images]
    scores = preference_model.score_pairs(texts, vectors, pairs, scorer.scale).reshape(5, 5)
    with torch.inference_mode():
        pixels = torch.stack([to_pixels(image) for image in images.values()])
        ids = tokenize(TEXTS)
        expected = theirs(input_ids=ids, pixel_values=pixels).logits_per_text.numpy()
    assert scores.dtype == np.float32
    assert np.abs(scores - expected).max() < 1e-4
    assert np.ptp(expected) > 1  # the test would pass on anything if all scores were alike


def test_converted_names_are_open_clips_and_strangers_are_refused(clips):
    theirs, ours = clips
    assert set(preference_model.convert_hf_clip_state_dict(theirs.state_dict())) == set(ours.state_dict())
    with pytest.raises(ValueError, match="adapter.weight"):
        preference_model.convert_hf_clip_state_dict({"adapter.weight": None})


def test_low_precision_towers_still_score_in_float32(clips):
    import copy

    import torch

    low = scorer_of(copy.deepcopy(clips[1]).to(torch.bfloat16))
    vector = low.embed_images(pictures(1).items())["p0"]
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)  # normalised in bfloat16 it would be off by 1e-3


def test_truncated_texts_are_counted(clips):
    scorer = scorer_of(clips[1])
    assert scorer.truncated([" ".join(["word"] * (LENGTH - 2))]) == 0
    assert scorer.truncated([" ".join(["word"] * (LENGTH - 1))]) == 1
    assert scorer.truncated(TEXTS) == 1


def prompts_file(path, ids):
    keys = {"image": None, "category": None, "challenge": None, "source_id": None}
    write_jsonl(path, [{"id": name, "prompt": TEXTS[i % 4]} | keys for i, name in enumerate(ids)])


def shard(path, images):
    write_shard(path, {name: Image.fromarray(image) for name, image in images.items()}, {"model": "m"})


def test_score_program_over_shards(clips, monkeypatch, tmp_path):
    from evaluation import scorer_model

    monkeypatch.setattr(scorer_model, "load", lambda folder: scorer_of(clips[1]))
    images = pictures(6)
    prompts_file(tmp_path / "prompts.jsonl", ["p3", "p0", "p5", "p1", "p2", "p4"])
    shard(tmp_path / "0000.zip", {name: images[name] for name in ("p0", "p1", "p2", "p3")})
    shard(tmp_path / "0001.zip", {name: images[name] for name in ("p4", "p5")})
    files = [str(tmp_path / name) for name in ("prompts.jsonl", "out.csv", "out.json")]
    arguments = ["score", "--scorer", str(tmp_path), "--model", "m", "--of", "names", *files]
    shards = [str(tmp_path / "0000.zip"), str(tmp_path / "0001.zip")]
    again = [files[0], str(tmp_path / "again.csv"), str(tmp_path / "again.json")]
    preference.main([*arguments, *shards, "--of", "names", *again, *shards])
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()

    with open(tmp_path / "out.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["p3", "p0", "p5", "p1", "p2", "p4"]
    scores = preference.read_scores(tmp_path / "out.csv")
    texts, vectors = scorer_of(clips[1]).embed_texts(TEXTS), scorer_of(clips[1]).embed_images(images.items())
    assert scores["p5"] == pytest.approx(100 * float(texts[TEXTS[2]] @ vectors["p5"]), abs=1e-4)

    record = json.loads((tmp_path / "out.json").read_text())
    keys = "schema metric protocol model prompts value interval interval_method n seed images_sha256 reference_sha256"
    assert set(record) >= {*keys.split(), "extractor", "preprocessing", "versions"}
    assert record["n"] == 6 and record["truncated_prompts"] == 1 and record["context_length"] == LENGTH
    assert record["value"] == pytest.approx(np.mean(list(scores.values())), abs=1e-5)
    assert record["interval"][0] < record["value"] < record["interval"][1]

    assert "lossy" not in record
    saved = {name: Image.fromarray(images[name]) for name in ("p4", "p5")}
    write_shard(tmp_path / "0001.zip", saved, {"pictures": {"n": 2, "lossy": 1}})
    preference.main([*arguments, *shards])
    assert json.loads((tmp_path / "out.json").read_text())["lossy"] == {"images": 1}

    with pytest.raises(SystemExit, match="2 ids of the prompts are missing, such as p4"):
        preference.main([*arguments, shards[0]])
    shard(tmp_path / "0002.zip", {"stranger": images["p0"]})
    with pytest.raises(SystemExit, match="1 ids are not among the prompts, such as stranger"):
        preference.main([*arguments, *shards, str(tmp_path / "0002.zip")])
    with pytest.raises(SystemExit, match="--of names: five or more values needed"):
        preference.main(arguments)


def test_scores_survive_the_csv_bit_for_bit(tmp_path):
    scores = np.random.default_rng(0).normal(20, 3, 500).astype(np.float32)
    ids = [f"p{i}" for i in range(500)]
    preference.write_scores(tmp_path / "scores.csv", ids, scores)
    read = preference.read_scores(tmp_path / "scores.csv")
    assert list(read) == ids and np.array_equal(np.array(list(read.values())), scores)


@pytest.mark.parametrize(
    "text, message",
    [
        ("id,score\np0,1.0\np0,2.0\n", "line 3: id 'p0' is repeated"),
        ("id,score\np0,nan\n", "line 2: score 'nan' is not finite"),
        ("id,score\np0,high\n", "line 2: score 'high' is no number"),
        ("name,score\np0,1\n", "expected id,score"),
        ("id,score\n", "no scores"),
    ],
)
def test_broken_scores_are_refused(tmp_path, text, message):
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        preference.read_scores(tmp_path / "scores.csv")


def floats(*values):
    return {f"p{i}": np.float32(value) for i, value in enumerate(values)}


def test_win_rate_counts_ties_apart():
    result = preference.win_rate(floats(3, 2, 1, 5, 5), floats(1, 2, 2, 4, 4.5), 0, "rival")
    assert (result["wins"], result["losses"], result["ties"], result["n"]) == (3, 1, 1, 5)
    assert result["rate"] == 0.6 and result["half_tie_rate"] == 0.7
    assert result["mean_difference"] == pytest.approx(0.5)
    expected = binomtest(3, 5).proportion_ci(method="wilson")
    assert result["interval"] == pytest.approx([expected.low, expected.high])


def test_a_model_against_itself_only_ties():
    scores = floats(*range(9))
    result = preference.win_rate(scores, scores, 0, "itself")
    assert (result["wins"], result["losses"], result["ties"]) == (0, 0, 9)
    assert result["rate"] == 0 and result["half_tie_rate"] == 0.5 and result["mean_difference"] == 0


def test_a_tie_is_a_tie_of_float32():
    close = floats(20.0000005), floats(20.0)  # float32 near 20 is 2e-6 apart
    assert preference.win_rate(*close, 0, "r")["ties"] == 1
    assert preference.win_rate(floats(20.00001), floats(20.0), 0, "r")["wins"] == 1


def test_bootstrap_is_by_prompt_and_about_the_wilson_interval():
    random = np.random.default_rng(1)
    ours = floats(*random.normal(20.2, 1, 500))
    result = preference.win_rate(ours, floats(*random.normal(20, 1, 500)), 0, "r")
    assert result["bootstrap"] == pytest.approx(result["interval"], abs=0.015)
    shuffled = dict(reversed(ours.items()))
    assert preference.win_rate(shuffled, ours, 0, "r")["ties"] == 500  # matched by id, not by place


def test_different_prompts_are_refused():
    with pytest.raises(ValueError, match="scores of r: 1 ids of the model's scores are missing, such as p2"):
        preference.win_rate(floats(1, 2, 3), floats(1, 2), 0, "r")
    with pytest.raises(ValueError, match="scores of r: 1 ids are not among the model's scores, such as p2"):
        preference.win_rate(floats(1, 2), floats(1, 2, 3), 0, "r")


def test_win_rate_program(tmp_path):
    for name, scores in {"ours": [3, 2, 1], "ldm": [1, 2, 2], "other": [0, 0, 0]}.items():
        preference.write_scores(tmp_path / f"{name}.csv", ["p0", "p1", "p2"], np.float32(scores))
    write_json(tmp_path / "validity.json", {"valid": False})
    arguments = ["win-rate", "--model", "wuerstchen", "--scores", str(tmp_path / "ours.csv"), "--prompts", "names"]
    arguments += ["--validity", str(tmp_path / "validity.json"), "--seed", "0", "--out", str(tmp_path / "out.json")]
    ldm, other = f"ldm={tmp_path}/ldm.csv", f"other={tmp_path}/other.csv"
    preference.main([*arguments, "--rivals", ldm, other])
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["valid"] is False and list(record["rivals"]) == ["ldm", "other"]
    assert record["rivals"]["other"]["rate"] == 1.0 and record["rivals"]["ldm"]["ties"] == 1
    with pytest.raises(SystemExit, match="NAME=CSV"):
        preference.main([*arguments, "--rivals", ldm, ldm])
    with pytest.raises(SystemExit, match="absent.csv"):
        preference.main([*arguments, "--rivals", f"ldm={tmp_path}/absent.csv"])


def index_of(things: int = 8) -> list[dict]:
    """Two artists' pictures of each thing, in subgroups of four; the first two things are held out."""
    return [
        {
            "id": f"{artist}-{i}",
            "artist": artist,
            "thing": f"thing {i}",
            "caption": f"{artist} of thing {i}",
            "subgroup": f"subgroup {i // 4}",
            "special": None,
            "split": "test" if i < 2 else "train",
        }
        for artist in ("openmoji", "twemoji")
        for i in range(things)
    ]


def test_negatives_are_of_the_same_artist_and_another_thing():
    index = index_of()
    index.append(index[0] | {"id": "openmoji-twin", "caption": "openmoji of thing 0, woman", "split": "train"})
    index.append(index[0] | {"id": "openmoji-flag", "special": "flags", "thing": "flag", "caption": "openmoji of flag"})
    drawn = preference.draw_negatives(index, seed=0)
    assert set(drawn["random"]) == {"openmoji-0", "openmoji-1", "twemoji-0", "twemoji-1"}  # no flag
    assert sorted(drawn["random"]["openmoji-0"]) == [f"openmoji of thing {i}" for i in range(1, 8)]
    assert sorted(drawn["subgroup"]["openmoji-0"]) == [f"openmoji of thing {i}" for i in (1, 2, 3)]
    assert drawn == preference.draw_negatives(index[::-1], seed=0)
    few = preference.draw_negatives(index, seed=0, count=3)["random"]["openmoji-0"]
    assert len(set(few)) == 3
    assert few != preference.draw_negatives(index, seed=1, count=3)["random"]["openmoji-0"]


def vectors_of(index, wrong=()):
    """One axis for each thing; the pictures named in `wrong` show the thing after theirs."""
    axes = np.eye(20, dtype=np.float32)
    number = {row["id"]: int(row["thing"].split()[-1]) for row in index}
    texts = {row["caption"]: axes[number[row["id"]]] for row in index}
    return texts, {name: axes[n + 1 if name in wrong else n] for name, n in number.items()}


def test_validity_of_a_scorer_that_knows_everything():
    index = index_of()
    result = preference.validity(index, preference.draw_negatives(index, 0), *vectors_of(index), seed=0)
    assert result["valid"] is True and result["random"]["rate"] == result["subgroup"]["rate"] == 1
    assert result["random"]["n"] == 4 and result["subgroup"]["by_artist"]["twemoji"]["n"] == 2


def test_one_bad_artist_makes_it_invalid():
    index = index_of()
    texts, images = vectors_of(index, wrong=("twemoji-0", "twemoji-1"))
    result = preference.validity(index, preference.draw_negatives(index, 0), texts, images, seed=0)
    assert result["random"]["by_artist"]["openmoji"]["rate"] == 1
    assert result["random"]["by_artist"]["twemoji"]["rate"] == 0  # all others tie at 0, and a tie is not beaten
    assert result["random"]["rate"] == 0.5 and result["valid"] is False


def test_an_artist_without_held_out_pictures_is_not_valid():
    index = [row | {"split": "train"} if row["artist"] == "twemoji" else row for row in index_of()]
    result = preference.validity(index, preference.draw_negatives(index, 0), *vectors_of(index), seed=0)
    assert result["random"]["by_artist"]["twemoji"] == {"rate": None, "interval": None, "n": 0}
    assert result["valid"] is False


def test_a_blind_scorer_is_at_chance():
    index, random = index_of(400), np.random.default_rng(0)
    for row in index:
        row["split"] = "test"
    texts = {row["caption"]: random.normal(size=16).astype(np.float32) for row in index}
    images = {row["id"]: random.normal(size=16).astype(np.float32) for row in index}
    result = preference.validity(index, preference.draw_negatives(index, 0), texts, images, seed=0)
    assert 0.45 < result["random"]["rate"] < 0.55 and 0.45 < result["subgroup"]["rate"] < 0.55
    assert result["valid"] is False
