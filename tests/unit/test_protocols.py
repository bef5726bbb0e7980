from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from evaluation.comparability import comparable, require_comparable
from evaluation.protocols import CLEAN, DEFAULT, PROTOCOLS, find, preparation, prepared


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def test_the_three_are_there_and_differ():
    assert set(PROTOCOLS) == {"coco30k-clean", "coco30k-pytorch-fid", "coco30k-torch-fidelity"}
    assert len({protocol.digest() for protocol in PROTOCOLS.values()}) == 3
    assert find(DEFAULT).preprocessing == "pil-float-299"
    with pytest.raises(ValueError, match="unknown protocol 'fid'; known are: coco30k-clean"):
        find("fid")


def test_every_choice_is_in_the_digest_and_the_name_is_not():
    assert replace(CLEAN, id="mine").digest() == CLEAN.digest()
    changes = {
        "captions": "other", "captions_sha256": "0", "one_caption_per_image": False, "reference": "matched",
        "crop": "none", "filter": "box", "size": 299, "quantise": False, "preprocessing": "tf1-299",
        "extractor": "dinov2", "codec": "jpeg-90",
    }  # fmt: skip
    digests = {replace(CLEAN, **{field: value}).digest() for field, value in changes.items()}
    assert len(digests | {CLEAN.digest()}) == len(changes) + 1
    assert set(CLEAN.record()["protocol_choices"]) == set(changes)


def test_captions_get_their_digest_once():
    named = CLEAN.of_captions("ab")
    assert named.captions_sha256 == "ab" and named.of_captions("ab") == named
    with pytest.raises(ValueError, match="captions coco-30k of sha256 ab, not cd"):
        named.of_captions("cd")


def test_unknown_choices_are_named():
    with pytest.raises(ValueError, match="filter is 'bilinear', not lanczos or bicubic or box or none"):
        replace(CLEAN, filter="bilinear")
    with pytest.raises(ValueError, match="unknown preprocessing 'clean'"):
        replace(CLEAN, preprocessing="clean")


@pytest.mark.parametrize("size", [(427, 640), (640, 426), (333, 480), (256, 256)])
def test_the_crop_is_torchvisions_and_the_filter_pillows(size):
    image = Image.fromarray(picture(*size))
    square = functional.center_crop(image, [min(size)])
    expected = np.asarray(square.resize((256, 256), Image.Resampling.LANCZOS))
    assert np.array_equal(prepared(np.asarray(image), CLEAN), expected)
    assert np.array_equal(prepared(np.asarray(image), replace(CLEAN, filter="none")), np.asarray(square))


def test_without_rounding_a_picture_stays_in_floats():
    noise = picture(300, 400)
    exact = prepared(noise, replace(CLEAN, quantise=False))
    assert exact.dtype == np.float32 and exact.shape == (256, 256, 3)
    assert exact.min() == 0 and exact.max() == 255
    # Pillow cuts whole numbers off at 0 and 255 between its two passes too
    grey = noise // 4 + 96
    exact = prepared(grey, replace(CLEAN, quantise=False))
    assert np.abs(exact - prepared(grey, CLEAN)).max() <= 1.5
    assert not torch.equal(torch.tensor(exact), torch.tensor(exact).round())


def test_a_preparation_has_the_name_of_its_crop_and_filter():
    noise = picture(300, 400)
    for protocol in (*PROTOCOLS.values(), replace(CLEAN, quantise=False), replace(CLEAN, filter="none")):
        made = preparation(protocol.preparation)
        assert made.name == protocol.preparation and np.array_equal(made.apply(noise), prepared(noise, protocol))
        assert protocol.features_preprocessing == f"{made.name}/{protocol.preprocessing}"
    assert CLEAN.preparation == "centre-square-lanczos-256"
    squeezed = preparation("none-bicubic-224").apply(noise)
    assert np.array_equal(squeezed, np.asarray(Image.fromarray(noise).resize((224, 224), Image.Resampling.BICUBIC)))
    bare = replace(CLEAN, crop="none", filter="none")
    assert preparation(bare.preparation) is None and bare.features_preprocessing == bare.preprocessing
    for wrong in ("centre", "none-nearest-9", "none-bicubic", "none-bicubic-0", "centre-square-lanczos-256-"):
        with pytest.raises(ValueError, match=f"preparation '{wrong}' is not known; it is one of centre-square, none"):
            preparation(wrong)


def test_scores_of_different_protocols_are_not_ranked():
    score = {"metric": "fid", "model": "a", "extractor": {"name": "inception", "sha256": "0"}, "n": 30000}
    score |= {"preprocessing": "pil-float-299", "reference_sha256": "1", "value": 16.0, **CLEAN.record()}
    rival = score | {"model": "b", "value": 12.0}
    assert comparable(score, rival)
    require_comparable([score, rival])
    other = rival | PROTOCOLS["coco30k-pytorch-fid"].record()
    assert not comparable(score, other)
    with pytest.raises(
        ValueError, match="of a and b cannot be ranked together: protocol 'coco30k-clean' and 'coco30k-p"
    ):
        require_comparable([score, score, other])
    with pytest.raises(ValueError, match="n 30000 and 5000"):
        require_comparable([score, rival | {"n": 5000}])
    require_comparable([])
