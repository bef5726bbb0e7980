import json
from collections import defaultdict

import numpy as np
import pytest
import timm
import torch
from data_folder import published
from PIL import Image
from timm.data import ImageNetInfo

from evaluation import extractors
from evaluation.extractors import EfficientNetLite2, load, preprocess, renamed_by_order
from wuerstchen.assets import locate


@pytest.fixture(scope="module")
def lite2():
    return EfficientNetLite2()


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, size=(11, 128, 128, 3), dtype=np.uint8)


def test_lite2_shapes_and_digest(lite2, pictures):
    features, logits = lite2(pictures[:2], "none-128")
    assert features.shape == (2, 1280) and logits.shape == (2, 1000)
    assert features.dtype == logits.dtype == np.float32
    # The file carries the first digits of its own digest in its name.
    assert len(lite2.sha256) == 64 and locate("efficientnet-lite2").stem.endswith(lite2.sha256[:8])


def test_a_pictures_features_do_not_depend_on_its_neighbours(lite2, pictures):
    features, logits = lite2(pictures, "none-128")
    for selection in ([3], [10, 3, 0], list(range(10, -1, -1))):
        again = lite2(pictures[selection], "none-128")
        assert np.array_equal(again[0], features[selection]) and np.array_equal(again[1], logits[selection])


def test_folded_norms_change_nothing_that_counts(lite2, pictures):
    model = timm.create_model("tf_efficientnet_lite2", pretrained=False).eval()
    model.load_state_dict(
        renamed_by_order(torch.load(locate("efficientnet-lite2"), weights_only=True), model.state_dict())
    )
    with torch.inference_mode():
        expected = model((torch.tensor(pictures[:2]).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).numpy()
    assert lite2(pictures[:2], "none-128")[1] == pytest.approx(expected, abs=1e-4 * float(np.abs(expected).max()))


def test_lite2_knows_what_photographs_show(lite2):
    """Plausible classes on COCO photographs of one kind of thing: wrong weights, order or scaling would fail."""
    folder = published("photos_coco_mini")
    kinds = {
        "elephant": "elephant", "banana": "banana", "pizza": "pizza", "zebra": "zebra", "toilet": "toilet seat",
        "traffic light": "traffic light", "laptop": "laptop", "airplane": "airliner", "broccoli": "broccoli",
        "umbrella": "umbrella", "orange": "orange", "vase": "vase",
    }  # fmt: skip
    shown = defaultdict(set)
    for part in ("train2017", "val2017"):
        record = json.loads((folder / f"instances_{part}.json").read_text())
        names = {category["id"]: category["name"] for category in record["categories"]}
        for annotation in record["annotations"]:
            if annotation["area"] > 20000 and names[annotation["category_id"]] in kinds:
                shown[f"{part}/{annotation['image_id']:012d}.jpg"].add(names[annotation["category_id"]])
    files = sorted(name for name in shown if (folder / name).is_file())
    assert len(files) >= 10
    squares = []
    for name in files:
        picture = Image.open(folder / name).convert("RGB")
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        squares.append(np.asarray(picture.crop((left, top, left + side, top + side)).resize((256, 256))))
    logits = lite2(np.stack(squares), "bicubic-128")[1]
    labels = ImageNetInfo()
    right = 0
    for name, row in zip(files, logits, strict=True):
        top = " ".join(labels.index_to_description(int(i)).lower() for i in np.argsort(-row)[:5])
        right += any(kinds[kind] in top for kind in shown[name])
    assert right >= len(files) / 2, f"{right} of {len(files)} photographs have their thing among the top five"


def test_preprocessing_by_name(pictures):
    same = preprocess(pictures, "none-128")
    assert same.shape == (11, 3, 128, 128) and same.dtype == torch.float32
    assert np.array_equal(same.permute(0, 2, 3, 1).numpy(), pictures)
    assert torch.equal(same, preprocess(pictures, "bicubic-128"))
    wave = (127 + 120 * np.sin(np.arange(256) / 9)).astype(np.uint8)
    large = np.broadcast_to(wave[None, :, None], (256, 256, 3)).copy()
    resized = preprocess(large[None], "bicubic-128")[0].permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(large).resize((128, 128), Image.Resampling.BICUBIC))
    assert np.abs(resized - expected).max() <= 1.5
    assert np.abs(resized - resized.round()).max() > 0.1


def test_bad_pictures_are_refused(pictures):
    with pytest.raises(ValueError, match="128x128, got 64x64"):
        preprocess(pictures[:, :64, :64], "none-128")
    with pytest.raises(ValueError, match="square"):
        preprocess(pictures[:, :64], "bicubic-128")
    with pytest.raises(ValueError, match="unknown preprocessing 'tf1'; known are: none-128"):
        preprocess(pictures, "tf1")
    with pytest.raises(ValueError, match="uint8"):
        preprocess(pictures.astype(np.float32), "none-128")


def test_weights_are_matched_by_order_and_shape():
    source = {"a.weight": torch.zeros(2, 3), "a.bias": torch.ones(2)}
    target = {"b.weight": torch.empty(2, 3), "b.bias": torch.empty(2)}
    assert torch.equal(renamed_by_order(source, target)["b.bias"], torch.ones(2))
    with pytest.raises(ValueError, match=r"a.weight \(2, 3\).*does not fit b.weight \(3, 2\)"):
        renamed_by_order(source, {"b.weight": torch.empty(3, 2), "b.bias": torch.empty(2)})
    with pytest.raises(ValueError, match="a.bias"):
        renamed_by_order(source, {"b.weight": torch.empty(2, 3), "b.running_mean": torch.empty(2)})
    with pytest.raises(ValueError, match="2 tensors, the network 1"):
        renamed_by_order(source, {"b.weight": torch.empty(2, 3)})


def test_unknown_extractor_is_named():
    with pytest.raises(ValueError, match="unknown extractor 'vgg'; known are: efficientnet-lite2"):
        load("vgg")
    assert set(extractors.EXTRACTORS) >= {"efficientnet-lite2", "inception", "dinov2", "clip-l14-336"}
