"""Published CLIPs through open_clip, against transformers, torchvision and open_clip's own towers."""

import dataclasses
import json
import math

import numpy as np
import open_clip
import pytest
import small_clip
import small_towers
import torch
import torchvision.transforms.functional as TF
from data_folder import photos
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from evaluation import clip_models, clip_score, preference, preference_model
from evaluation.clip_models import MODELS, PREPROCESSINGS, ClipImages, load_file
from wuerstchen import assets
from wuerstchen.files import sha256_file, write_jsonl
from wuerstchen.shards import write_shard

PROMPTS = [
    "a red apple",
    "Two dogs, on the MOON!",
    "an owl",
    "",
    "a very long text about nothing " * 20,
    "naïve 日本語 🍣",
]
SIZES = [(480, 640), (333, 500), (501, 331), (224, 224), (100, 161), (225, 230), (64, 64)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def theirs(folder):
    """transformers' model and the file it is saved in, as PickScore's is."""
    model = small_towers.hugging_face()
    model.save_pretrained(folder / "pickscore")
    return model, folder / "pickscore" / "model.safetensors"


def load(name, path, precision="fp32"):
    return load_file(name, MODELS[name], path, sha256_file(path), precision, "cpu")


def pictures() -> dict[str, np.ndarray]:
    """Coloured noise, finer and coarser than pixels of the network, of odd and even sizes."""
    random = np.random.default_rng(0)
    rough = [random.integers(0, 256, (5 + i, 9, 3), dtype=np.uint8) for i in range(len(SIZES))]
    large = [np.asarray(Image.fromarray(r).resize(size[::-1])) for r, size in zip(rough, SIZES, strict=True)]
    noise = [random.integers(-30, 31, picture.shape) for picture in large]
    return {f"p{i}": np.clip(p + n, 0, 255).astype(np.uint8) for i, (p, n) in enumerate(zip(large, noise, strict=True))}


def processor(size: int) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


@pytest.mark.parametrize("size", [224, 336])
def test_preprocessing_is_that_of_transformers(size):
    for picture in pictures().values():
        expected = processor(size)(Image.fromarray(picture), return_tensors="pt").pixel_values[0]
        ours = PREPROCESSINGS[f"short-side-crop-{size}"](picture)
        assert ours.shape == (3, size, size) and ours.dtype == torch.float32
        assert (ours - expected).abs().max() < 1e-6


def normalise(pixels):
    return TF.normalize(pixels, clip_models.MEAN, clip_models.DEVIATION)


def test_cmmd_crops_before_it_resizes():
    for picture in pictures().values():
        side = min(picture.shape[:2])
        if (max(picture.shape[:2]) - side) % 2:
            picture = picture[
                : picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2
            ]  # torchvision rounds odd margins
            side = min(picture.shape[:2])
        steps = Compose([CenterCrop(side), Resize((336, 336), InterpolationMode.BICUBIC)])
        expected = normalise(TF.to_tensor(steps(Image.fromarray(picture))))
        assert (PREPROCESSINGS["square-crop-336"](picture) - expected).abs().max() < 1e-6
    wide = pictures()["p0"]
    assert (PREPROCESSINGS["square-crop-336"](wide) - PREPROCESSINGS["short-side-crop-336"](wide)).abs().max() > 0.05


def test_hps_keeps_the_whole_picture():
    """The steps of hpsv2's transform on a tensor, by torchvision's functions."""
    for picture in pictures().values():
        pixels = TF.to_tensor(Image.fromarray(picture))
        scale = 224 / max(pixels.shape[1:])
        new = [round(side * scale) for side in pixels.shape[1:]]
        resized = TF.resize(pixels, new, InterpolationMode.BICUBIC, antialias=True)
        high, wide = 224 - new[0], 224 - new[1]
        expected = normalise(TF.pad(resized, [wide // 2, high // 2, wide - wide // 2, high - high // 2]))
        ours = PREPROCESSINGS["long-side-bars-224"](picture)
        assert ours.shape == (3, 224, 224) and (ours - expected).abs().max() < 1e-5


def test_pickscore_of_photographs_is_that_of_transformers(theirs):
    model, path = theirs
    scorer = load("pickscore", path)
    images = {file.stem: np.asarray(Image.open(file).convert("RGB")) for file in photos(12)}
    assert len({image.shape for image in images.values()}) > 3
    texts, vectors = scorer.embed_texts(PROMPTS, 4), scorer.embed_images(images.items(), batch_size=5)
    pairs = [(text, name) for text in PROMPTS for name in images]
    scores = preference_model.score_pairs(texts, vectors, pairs, scorer.scale).reshape(len(PROMPTS), len(images))
    pixels = processor(224)([Image.fromarray(image) for image in images.values()], return_tensors="pt").pixel_values
    tokens = small_clip.tokenizer()(PROMPTS, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**tokens, pixel_values=pixels).logits_per_text.numpy()
    assert np.abs(scores - expected).max() < 1e-4
    assert np.ptp(expected, axis=1).min() > 0.1 and np.ptp(expected) > 1  # no constant that agrees
    assert scorer.truncated(PROMPTS) == 1 and scorer.metric == "pickscore" and scorer.sha256 == sha256_file(path)
    assert scorer.scale == pytest.approx(100, rel=1e-6) and scorer.protocol.startswith("exp(logit_scale) x")


def embeddings(model, images, preprocessing):
    """open_clip's own towers, tokens filled up to 77."""
    with torch.inference_mode():
        text = model.encode_text(open_clip.get_tokenizer("ViT-H-14")(PROMPTS), normalize=True)
        pixels = torch.stack([PREPROCESSINGS[preprocessing](image) for image in images.values()])
        return text.numpy(), model.encode_image(pixels, normalize=True).numpy()


def test_hps_is_an_open_clip_file_in_half_precision(folder):
    model = small_towers.with_open_clip("hpsv2.1")
    small_towers.save_hpsv2(model, folder / "hps.pt")
    model.half().float()
    scorer = load("hpsv2.1", folder / "hps.pt")
    text, image = embeddings(model, pictures(), "long-side-bars-224")
    ours, seen = scorer.embed_texts(PROMPTS), scorer.embed_images(pictures().items())
    pairs = [(prompt, name) for prompt in PROMPTS for name in seen]
    scores = preference_model.score_pairs(ours, seen, pairs, scorer.scale).reshape(len(PROMPTS), -1)
    assert scorer.scale == 100 and scorer.protocol.startswith("100 x cosine")
    assert np.abs(scores - 100 * text @ image.T).max() < 1e-4


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_openai_publishes_torchscript(folder):
    model = small_towers.with_open_clip("clip-b32")
    small_towers.save_torchscript(model, folder / "openai.pt")
    ours = load("clip-b32", folder / "openai.pt")
    text, image = embeddings(model, pictures(), "short-side-crop-224")
    texts, vectors = ours.embed_texts(PROMPTS), ours.embed_images(pictures().items())
    assert np.abs(np.stack([texts[prompt] for prompt in PROMPTS]) - text).max() < 1e-6
    assert np.abs(np.stack(list(vectors.values())) - image).max() < 1e-6
    exact = load_file(
        "x", dataclasses.replace(MODELS["clip-b32"], quick_gelu=False), folder / "openai.pt", "0", device="cpu"
    )
    assert np.abs(exact.embed_texts(PROMPTS)["an owl"] - texts["an owl"]).max() > 1e-4  # the activation is another


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14-336", "ViT-H-14"])
def test_published_sizes_are_those_of_transformers(name):
    """Names and shapes of the whole networks, without their memory."""
    shape = {"ViT-B-32": (512, 768, 12, 32, 224), "ViT-L-14-336": (768, 1024, 24, 14, 336)}
    text, vision, layers, patch, size = shape.get(name, (1024, 1280, 32, 14, 224))
    text_layers = 24 if name == "ViT-H-14" else 12
    config = CLIPConfig(
        text_config={"hidden_size": text, "intermediate_size": 4 * text, "num_hidden_layers": text_layers},
        vision_config={
            "hidden_size": vision,
            "intermediate_size": 4 * vision,
            "num_hidden_layers": layers,
            "num_attention_heads": 16,
            "patch_size": patch,
            "image_size": size,
        },
        projection_dim=text,
    )
    with torch.device("meta"):
        theirs = preference_model.convert_hf_clip_state_dict(CLIPModel(config).state_dict())
        ours = open_clip.CLIP(**open_clip.get_model_config(name)).state_dict()
    assert {key: tensor.shape for key, tensor in theirs.items()} == {key: value.shape for key, value in ours.items()}
    assert {clip.network for clip in MODELS.values()} >= {name}
    published = dataclasses.replace(MODELS["clip-h"], network=name)
    assert clip_models.sizes(published, ours, "a file") == open_clip.get_model_config(name)


def test_bf16_towers_keep_the_scale_and_score_in_float32(theirs):
    whole, low = (load("pickscore", theirs[1], precision) for precision in ("fp32", "bf16"))
    assert low.name == "pickscore-bf16" and whole.name == "pickscore" and low.metric == whole.metric
    assert low.scale == whole.scale == pytest.approx(math.exp(math.log(100)))  # in bf16 it would be 98.9 or 102
    a, b = (scorer.embed_images(pictures().items()) for scorer in (whole, low))
    assert all(vector.dtype == np.float32 for vector in b.values())
    cosines = [float(a[name] @ b[name]) for name in a]
    assert 0.99 < min(cosines) and max(cosines) < 0.999999


def test_what_does_not_fit_is_named(theirs, tmp_path, monkeypatch):
    state = small_towers.with_open_clip("hpsv2.1").state_dict()
    for name in ("ln_final.bias", "visual.conv1.weight", "transformer.resblocks.1.ln_1.weight"):
        torch.save({"state_dict": {key: state[key] for key in state if key != name}}, tmp_path / "hps.pt")
        with pytest.raises(ValueError, match=f"hps.pt: tensor {name} is (missing|extra)"):
            load("hpsv2.1", tmp_path / "hps.pt")
    with pytest.raises(ValueError, match="unknown CLIP 'clip'; known are: clip-b32, "):
        clip_models.load("clip")
    with pytest.raises(ValueError, match="precision 'fp16'; known are: fp32, bf16"):
        load("pickscore", theirs[1], "fp16")
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path))
    with pytest.raises(ValueError, match="asset pickscore is missing"):
        clip_models.load("pickscore")


def test_every_model_is_in_the_asset_table():
    for clip in MODELS.values():
        asset = assets.find(clip.asset)
        assert asset.bytes or asset.sha256  # the network has the file's sizes, so that this alone refuses another file
        assert clip.preprocessing in PREPROCESSINGS and open_clip.get_model_config(clip.network)


def test_image_embeddings_as_features(theirs):
    extractor = ClipImages(load("pickscore", theirs[1]))
    batch = np.stack([np.roll(pictures()["p3"], i, axis=1) for i in range(18)])
    features, logits = extractor(batch, "short-side-crop-224")
    assert features.shape == (18, 48) and logits.shape == (18, 0) and features.dtype == np.float32
    assert np.linalg.norm(features, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.abs(extractor(batch[17:], "short-side-crop-224")[0] - features[17:]).max() < 1e-6
    with pytest.raises(ValueError, match="unknown preprocessing 'none-128'; CLIP has: short-side-crop-224"):
        extractor(batch, "none-128")


@pytest.fixture
def published(theirs, folder, tmp_path, monkeypatch):
    """The small models where the real ones would lie, the table saying their sizes and digests."""
    openai = small_towers.with_open_clip("clip-l14", seed=1)
    torch.save(openai.state_dict(), folder / "openai_state.pt")
    files = {"pickscore": theirs[1], "clip-l14": folder / "openai_state.pt"}
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path / "assets"))
    for name, path in files.items():
        asset = dataclasses.replace(
            assets.ASSETS["pickscore"], name=name, bytes=path.stat().st_size, sha256=sha256_file(path),
            source=assets.Hub("some/one", "0" * 40, f"{name}{path.suffix}"),
        )  # fmt: skip
        monkeypatch.setitem(assets.ASSETS, name, asset)
        assets.place(asset).parent.mkdir(parents=True, exist_ok=True)
        assets.place(asset).write_bytes(path.read_bytes())
    return files


@pytest.fixture
def answered(tmp_path):
    """Arguments for a prompt set with its images, and the files that are then written."""
    images = {name: Image.fromarray(picture) for name, picture in pictures().items()}
    keys = {"image": None, "category": None, "challenge": None, "source_id": None}
    rows = [{"id": name, "prompt": PROMPTS[i % 6] or "nothing"} | keys for i, name in enumerate(images)]
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    write_shard(tmp_path / "0000.zip", images, {"model": "m"})
    files = [str(tmp_path / name) for name in ("prompts.jsonl", "out.csv", "out.json", "0000.zip")]
    return ["--model", "wuerstchen", "--of", "parti-prompts", *files]


def test_programs_score_with_published_models(published, answered, tmp_path):
    preference.main(["score", "--scorer", "pickscore", "--device", "cpu", *answered])
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["metric"] == "pickscore" and record["extractor"]["sha256"] == sha256_file(published["pickscore"])
    assert record["n"] == 7 and record["truncated_prompts"] == 1 and record["context_length"] == 77
    assert (
        record["interval"][0] < record["value"] < record["interval"][1]
        and record["preprocessing"] == "short-side-crop-224"
    )
    own = f"rival={tmp_path / 'out.csv'}"
    rates = ["win-rate", "--metric", "pickscore", "--model", "wuerstchen", "--scores", str(tmp_path / "out.csv")]
    preference.main([*rates, "--rivals", own, "--prompts", "p", "--seed", "0", "--out", str(tmp_path / "rates.json")])
    rates = json.loads((tmp_path / "rates.json").read_text())
    assert rates["metric"] == "pickscore" and rates["valid"] is True and rates["rivals"]["rival"]["ties"] == 7

    clip_score.main(["--clip", "clip-l14", "--device", "cpu", *answered])
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["metric"] == "clip-score-l14" and record["protocol"].endswith("float32, 0 where negative")
    clip, scores = clip_models.load("clip-l14", device="cpu"), preference.read_scores(tmp_path / "out.csv")
    texts, vectors = clip.embed_texts(PROMPTS), clip.embed_images(pictures().items())
    expected = {f"p{i}": 100 * max(0, float(texts[PROMPTS[i]] @ vectors[f"p{i}"])) for i in (0, 1, 2, 4, 5)}
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert min(scores.values()) >= 0

    with pytest.raises(SystemExit, match="--scorer pickscor: neither a folder nor one of pickscore, hpsv2.1"):
        preference.main(["score", "--scorer", "pickscor", *answered])
    with pytest.raises(SystemExit, match="--precision and --device are for published scorers"):
        preference.main(["score", "--scorer", str(tmp_path), "--precision", "bf16", *answered])
    assets.place(assets.ASSETS["pickscore"]).write_bytes(published["pickscore"].read_bytes()[:-1] + b"\xff")
    with pytest.raises(SystemExit, match="sha256 is .*, but asset pickscore has"):
        preference.main(["score", "--scorer", "pickscore", *answered])
