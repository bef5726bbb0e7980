import numpy as np
import pytest
import random_inception
import torch

from evaluation.extractors import EXTRACTORS
from evaluation.inception import Inception, InceptionBF16, Network, convolutions, from_torchscript, read_tensors
from wuerstchen.files import sha256_file


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_inception.write(tmp_path_factory.mktemp("inception"))


@pytest.fixture(scope="module")
def inception(weights):
    extractor = Inception(weights)
    extractor.batch_size = 3
    return extractor


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, size=(4, 96, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def computed(inception, pictures):
    return inception(pictures, "tf1-299")


def close(a, b, relative=1e-5):
    return np.abs(a - b).max() <= relative * np.abs(b).max()


def test_features_and_logits_are_torch_fidelitys(weights, pictures, computed):
    with torch.inference_mode():
        theirs = random_inception.torch_fidelity(weights)(torch.tensor(pictures).permute(0, 3, 1, 2))
    features, logits = computed
    assert features.shape == (4, 2048) and logits.shape == (4, 1008)
    assert features.dtype == logits.dtype == np.float32
    assert close(features, theirs[0].numpy()) and close(logits, theirs[1].numpy())


def test_pictures_differ_more_than_that(computed):
    features, logits = computed
    assert not close(features[:1], features[1:2], 1e-2) and not close(logits[:1], logits[1:2], 1e-2)


def test_a_pictures_numbers_do_not_depend_on_its_neighbours(inception, pictures, computed):
    assert np.array_equal(inception(pictures[2:3], "tf1-299")[0], computed[0][2:3])


def test_bf16_is_another_extractor(weights, pictures, computed):
    half = InceptionBF16(weights)
    half.batch_size = 1
    assert half.name == "inception-bf16" != Inception.name
    features, _ = half(pictures[:1], "tf1-299")
    assert features.dtype == np.float32
    assert close(features, computed[0][:1], 0.1) and not close(features, computed[0][:1], 1e-5)


def test_registered_and_weights_named(weights, inception):
    assert EXTRACTORS["inception"] is Inception and EXTRACTORS["inception-bf16"] is InceptionBF16
    assert inception.sha256 == sha256_file(weights)


def test_other_sizes_are_refused(inception, pictures):
    with pytest.raises(ValueError, match="299x299, preprocessing 'tf1-224' makes 224x224"):
        inception(pictures, "tf1-224")
    with pytest.raises(ValueError, match="unknown preprocessing 'none-128'"):
        inception(pictures, "none-128")


def test_weight_files_must_fit(weights, tmp_path):
    tensors = read_tensors(weights)
    assert len(convolutions()) == 94 == sum(key.endswith("conv.weight") for key in tensors)
    with pytest.raises(ValueError, match="1 tensors of the weight file are not known, such as AuxLogits"):
        Network(tensors | {"AuxLogits": torch.zeros(1)})
    with pytest.raises(ValueError, match="no tensor Mixed_6c.branch_pool.bn.bias"):
        Network({key: value for key, value in tensors.items() if key != "Mixed_6c.branch_pool.bn.bias"})
    with pytest.raises(ValueError, match=r"fc.weight is \(1000, 2048\)"):
        Network(tensors | {"fc.weight": torch.zeros(1000, 2048)})
    broken = tmp_path / "broken.pth"
    broken.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="broken.pth: not a file of tensors"):
        read_tensors(broken)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_a_torchscript_program_of_another_digest_is_not_run(tmp_path):
    path = tmp_path / "inception-2015-12-05.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(ValueError, match="only that of f58cb9b6"):
        read_tensors(path)


@pytest.mark.parametrize("nested", [False, True])
def test_torchscript_names_are_those_of_the_torch_file(weights, nested):
    """Both ways to hold a convolution and its norm: tensors of one module, or two modules."""
    expected = read_tensors(weights)
    ones = {key: torch.ones_like(t) if key.endswith("bn.weight") else t for key, t in expected.items()}
    script = {"output.weight": ones["fc.weight"], "output.bias": ones["fc.bias"]}
    parts = {"conv.weight": "weight", "bn.bias": "beta", "bn.running_mean": "mean", "bn.running_var": "var"}
    for name, place in convolutions().items():
        tower = place if "_9_" in place or "_10_" in place else place.replace("_tower_1_", ".tower_1.")
        for ours, theirs in parts.items():
            script[f"layers.{tower}.{ours if nested else theirs}"] = ones[f"{name}.{ours}"]
    renamed = from_torchscript(script)
    assert set(renamed) == set(expected)
    assert all(torch.equal(renamed[key], ones[key]) for key in ones)
    with pytest.raises(ValueError, match="tensor layers.mixed_11.conv.weight has no place"):
        from_torchscript({"layers.mixed_11.conv.weight": torch.zeros(1)})
