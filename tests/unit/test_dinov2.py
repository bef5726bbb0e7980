"""DINOv2 through timm from a file of the original's names, against transformers with the same random weights."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor
from transformers import Dinov2Config, Dinov2Model

from evaluation import dinov2, extractors
from wuerstchen import weights
from wuerstchen.assets import find

WIDTH = 128


@pytest.fixture(scope="module")
def theirs():
    """transformers' model for 224 px; its 16 x 16 positions will be those that ours computes."""
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, image_size=224, patch_size=14)
    model = Dinov2Model(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def original(theirs, tmp_path_factory):
    """The same weights as DINOv2's authors name and save them, with positions of 37 x 37 as of 518 px."""
    folder = tmp_path_factory.mktemp("dinov2")
    theirs.save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    tensors = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": torch.randn(1, 1 + 37 * 37, WIDTH, generator=torch.Generator().manual_seed(1)),
        "mask_token": torch.zeros(1, WIDTH),
    }
    for kind in ("weight", "bias"):
        tensors[f"patch_embed.proj.{kind}"] = state[f"embeddings.patch_embeddings.projection.{kind}"]
        tensors[f"norm.{kind}"] = state[f"layernorm.{kind}"]
        for i in range(2):
            layer, block = f"encoder.layer.{i}", f"blocks.{i}"
            qkv = [state[f"{layer}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            tensors[f"{block}.attn.qkv.{kind}"] = torch.cat(qkv)
            tensors[f"{block}.attn.proj.{kind}"] = state[f"{layer}.attention.output.dense.{kind}"]
            for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                tensors[f"{block}.{part}.{kind}"] = state[f"{layer}.{part}.{kind}"]
            for j in (1, 2):
                tensors[f"{block}.ls{j}.gamma"] = state[f"{layer}.layer_scale{j}.lambda1"]
    path = folder / "dinov2_vitl14_pretrain.pth"
    torch.save(tensors, path)
    return path


def extractor(path) -> dinov2.DINOv2:
    """The extractor at the small size."""
    made = object.__new__(dinov2.DINOv2)
    made.sha256, made._model = "0" * 64, dinov2.build(weights.read(path), path)
    return made


def test_features_are_those_of_transformers(theirs, original):
    pictures = np.random.default_rng(0).integers(0, 256, (18, 240, 300, 3), dtype=np.uint8)
    features, logits = extractor(original)(pictures, "pil-uint8-224")
    theirs.embeddings.position_embeddings.copy_(dinov2.resample_positions(weights.read(original)["pos_embed"], 16))
    # dgm-eval's transform
    steps = [Resize((224, 224), InterpolationMode.BICUBIC), ToTensor(), Normalize(dinov2.MEAN, dinov2.DEVIATION)]
    pixels = torch.stack([Compose(steps)(Image.fromarray(picture)) for picture in pictures])
    expected = theirs(pixels).pooler_output.numpy()  # the class token after the norm
    assert features.shape == (18, WIDTH) and logits.shape == (18, 0) and features.dtype == np.float32
    assert np.abs(features - expected).max() < 1e-5
    assert expected.std(axis=0).mean() > 1e-3


def test_positions_are_sampled_by_the_rule_with_a_tenth():
    """Keys' cubic kernel, a = -3/4, four taps at (i + 1/2) 37 / 16.1 - 1/2, written out."""

    def kernel(x):
        x, a = abs(x), -0.75
        return (a + 2) * x**3 - (a + 3) * x**2 + 1 if x < 1 else a * (x**3 - 5 * x**2 + 8 * x - 4)

    taps = np.zeros((16, 37))
    for i in range(16):
        place = (i + 0.5) * 37 / 16.1 - 0.5
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            taps[i, min(max(tap, 0), 36)] += kernel(place - tap)
    grid = np.random.default_rng(0).normal(size=(37, 37))
    positions = torch.tensor(np.concatenate([[7], grid.ravel()]), dtype=torch.float32)[None, :, None]
    found = dinov2.resample_positions(positions, 16)
    assert found.shape == (1, 257, 1) and found[0, 0] == 7
    assert np.abs(found[0, 1:, 0].numpy() - (taps @ grid @ taps.T).ravel()).max() < 1e-5
    assert dinov2.resample_positions(found, 16) is found


def test_what_does_not_fit_is_named(original, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="preprocessing 'none-128'; DINOv2 has pil-uint8-224 only"):
        extractor(original)(np.zeros((1, 224, 224, 3), np.uint8), "none-128")
    tensors = weights.read(original)
    del tensors["blocks.1.ls2.gamma"]
    with pytest.raises(ValueError, match="a file: tensor blocks.1.ls2.gamma is missing"):
        dinov2.build(tensors, "a file")
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path))
    for name, asset in {"dinov2": "dinov2-l14", "clip-l14-336": "clip-l14-336"}.items():
        with pytest.raises(ValueError, match=f"asset {asset} is missing"):
            extractors.load(name)


def test_the_published_file_has_this_size():
    """300 million parameters, as the authors count them, of four bytes; and its row in the table."""
    with torch.device("meta"):
        import timm

        network = timm.create_model(dinov2.NETWORK, img_size=518, num_classes=0)
    parameters = sum(p.numel() for p in network.parameters()) + 1024  # and the mask token
    assert 0 < find(dinov2.ASSET).bytes - 4 * parameters < 200_000
