"""Published weights: files as diffusers, transformers and the authors write them, compared with what they came from."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import small_clip
import small_wuerstchen
import torch
from hub_server import HubServer
from safetensors.torch import load_file, save_file

from wuerstchen import assets, assets_table, clip, published
from wuerstchen.clip import ClipConfig
from wuerstchen.convert import to_diffusers
from wuerstchen.presets import CompressorConfig, preset
from wuerstchen.published import load, load_part

PROMPTS = ["a cat dressed as a fire fighter", ""]
FOLDERS = {"stage-a": "vqgan", "stage-b": "decoder", "stage-c": "prior_prior"}


@pytest.fixture(scope="session")
def theirs():
    """The modules of a small Würstchen, all of diffusers and transformers."""
    return small_wuerstchen.modules()


@pytest.fixture(scope="session")
def saved(theirs, tmp_path_factory):
    """The folder that diffusers saves the whole pipeline to."""
    folder = tmp_path_factory.mktemp("saved")
    small_wuerstchen.save(theirs, folder)
    return folder


@pytest.fixture(scope="session")
def small(saved):
    """The preset of the small Würstchen."""
    return load(saved).preset


@pytest.fixture(scope="session")
def compressor():
    """A Semantic Compressor with random weights, of torchvision's and torch's own modules, and its file's tensors."""
    import torchvision

    torch.manual_seed(3)
    backbone = torchvision.models.efficientnet_v2_s(weights=None).features.eval()
    mapper = torch.nn.Sequential(torch.nn.Conv2d(1280, 16, 1, bias=False), torch.nn.BatchNorm2d(16)).eval()
    net = torch.nn.ModuleDict({"backbone": backbone, "mapper": mapper}).requires_grad_(False)
    return torch.nn.Sequential(backbone, mapper), dict(net.state_dict())


def to_authors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of torch's MultiheadAttention and of torchtools' quantiser, which the authors' code has."""
    named = {}
    for name, tensor in tensors.items():
        if ".to_q." in name:
            joined = torch.cat([tensors[name.replace(".to_q.", f".to_{letter}.")] for letter in "qkv"])
            named[name.replace(".to_q.", ".attn.in_proj_")] = joined
        elif ".to_k." not in name and ".to_v." not in name:
            name = name.replace(".to_out.0.", ".attn.out_proj.")
            named[name.replace("vquantizer.embedding.", "vquantizer.codebook.")] = tensor
    return named


@pytest.fixture
def authors(theirs, compressor, tmp_path):
    """A folder of the authors' checkpoints of version 2."""
    a, b, c = (to_authors(theirs[part].state_dict()) for part in FOLDERS)
    assert "vquantizer.codebook.weight" in a and "blocks.2.attention.attn.in_proj_weight" in c
    torch.save({"state_dict": a}, tmp_path / "vqgan_f4_v1_500k.pt")
    torch.save({"state_dict": b, "effnet_state_dict": compressor[1]}, tmp_path / "model_v2_stage_b.pt")
    torch.save({"ema_state_dict": c}, tmp_path / "model_v2_stage_c_finetune_interpolation.pt")
    return tmp_path


def assert_same(networks, theirs):
    """The networks hold the tensors that theirs hold, and compute what these compute."""
    for part, net in (("stage-a", networks.stage_a), ("stage-b", networks.stage_b), ("stage-c", networks.stage_c)):
        ours, expected = to_diffusers(part, net.state_dict()), theirs[part].state_dict()
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[name], expected[name]) for name in expected), part
        assert not net.training
    torch.manual_seed(5)
    t = torch.tensor([0.2, 0.9])
    x, text = torch.randn(2, 16, 6, 6), torch.randn(2, 7, 40)
    with torch.inference_mode():
        a, b = networks.stage_c(x, t, networks.stage_c.condition(text))
        # theirs gives (x - A) / (|1 - B| + 1e-5)
        assert ((x - a) / ((1 - b).abs() + 1e-5) - theirs["stage-c"](x, t, text)).abs().max() < 1e-4
        x, text, image = torch.randn(2, 4, 32, 32), torch.randn(2, 7, 32), torch.randn(2, 16, 3, 3)
        a, b = networks.stage_b(x, t, networks.stage_b.condition(text, image, (32, 32)))
        assert ((x - a) / b - theirs["stage-b"](x, t, image, text)).abs().max() < 1e-3
        expected = theirs["stage-a"].decode(x).sample
        assert (networks.stage_a.decode(x) - expected).abs().max() < 1e-5 and expected.std() > 0.01
    tokenizer = small_clip.tokenizer()
    for encoder, name in ((networks.text_b, ""), (networks.text_c, "prior_")):
        assert (encoder.encode(PROMPTS) - small_clip.tokens(theirs[name], tokenizer, PROMPTS)).abs().max() < 1e-5


def test_a_pipeline_that_diffusers_saved(saved, theirs):
    networks = load(saved)
    assert_same(networks, theirs)
    assert networks.compressor is None
    assert networks.preset.stage_a.scale_factor == 0.43
    assert networks.scaling == {"name": "released", "offset": [1.0], "scale": [42.0]}


@pytest.fixture
def hub(saved, small, theirs, compressor, tmp_path, monkeypatch):
    """A hub on loopback that has every file of `released-v2`, at the names of the real ones and the small size."""
    server = HubServer()
    save_file(compressor[1], tmp_path / "compressor.safetensors")
    sources = {f"wuerstchen-v2/{part}": saved / name / assets_table.DIFFUSERS for part, name in FOLDERS.items()}
    sources["wuerstchen-v2/compressor"] = tmp_path / "compressor.safetensors"
    for name, prefix in (("clip-h", ""), ("clip-bigg", "prior_")):
        released = load_file(saved / f"{prefix}text_encoder" / "model.safetensors")
        save_file({f"text_model.{key}": value for key, value in released.items()}, tmp_path / name)
        sources |= {f"{name}/text": tmp_path / name, f"{name}/tokenizer": saved / f"{prefix}tokenizer/tokenizer.json"}
    for name, path in sources.items():
        asset, content = assets.ASSETS[name], path.read_bytes()
        server.files[f"{asset.source.repo}/resolve/{asset.source.revision}/{asset.source.path}"] = content
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(assets.ASSETS, name, replace(asset, bytes=len(content), sha256=digest))
    released = replace(small, text=preset("released-v2").text, compressor=CompressorConfig())
    monkeypatch.setattr(published, "preset", {"released-v2": released}.__getitem__)
    monkeypatch.setattr(clip, "SIZES", {"clip-h": ClipConfig(32, 2, 4), "clip-bigg": ClipConfig(40, 3, 5)})
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path / "assets"))
    yield server
    server.close()


def test_the_published_model_from_the_hub(hub, theirs, compressor):
    assets.main(["fetch", "wuerstchen-v2/stage-a", "clip-bigg/text"])
    with pytest.raises(ValueError, match="6 files are missing; run: .* fetch released-v2 or put them") as error:
        load("released-v2")  # nothing is fetched on the way
    stage_c = assets.find("wuerstchen-v2/stage-c")
    assert f"{assets.place(stage_c)}: {assets.described(stage_c)}\n" in str(error.value)
    assets.main(["fetch", "released-v2"])
    assert len(hub.sent) == len(hub.files)
    networks = load("released-v2")
    assert_same(networks, theirs)
    images = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        ours, expected = networks.compressor.features(images), compressor[0][0](images)
        assert torch.allclose(ours, expected, atol=1e-6)
        assert torch.allclose(networks.compressor.head(images), compressor[0](images), atol=1e-5)


def test_the_authors_files(authors, hub, theirs, compressor):
    assets.main(["fetch", *assets.ENCODERS])
    networks = load(authors)
    assert_same(networks, theirs)
    loaded = networks.compressor.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in compressor[1].items())
    (authors / "model_v2_stage_c.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="one file .* is needed, there is: model_v2_stage_c.pt, model_v2_stage_c_fin"):
        load(authors)
    (authors / "vqgan_f4_v1_500k.pt").unlink()
    with pytest.raises(ValueError, match="vqgan_f4_v1_500k.pt is missing"):
        load(authors)


def test_the_evaluation_draws_with_it(saved, hub, tmp_path):
    """From its folder or its id: what the pipeline draws of the same ids, with its own settings by default."""
    from evaluation.generators import make

    prompts = [{"id": f"p-{i}", "prompt": text} for i, text in enumerate([*PROMPTS, "two pears"])]
    drawing = make("wuerstchen", saved, {"steps_c": 2.0, "steps_b": 1.0})
    drawing.batch_size = 2
    # in small: 128 x 128 pixels
    drawing.pipeline.preset = replace(drawing.pipeline.preset, image_size=128, compressor=CompressorConfig(96))
    drawn = drawing.generate(prompts, seed=3)
    texts, ids = ([prompt[key] for prompt in prompts[:2]] for key in ("prompt", "id"))
    expected = drawing.pipeline(texts, seed=3, ids=ids, steps_c=2, steps_b=1)
    assert [picture.shape for picture in drawn] == [(128, 128, 3)] * 3
    assert (drawn[0] == expected[0]).all() and (drawn[1] == expected[1]).all() and expected.std() > 1
    assert (drawing.generate(prompts[2:], seed=3)[0] == drawn[2]).all()
    record = drawing.describe()
    own = preset("released-v2").sampling
    assert record["guidance"] == {"c": own.guidance_c, "b": own.guidance_b}
    assert record["settings"]["steps_c"] == 2 and record["settings"]["start_b"] == own.start_b
    assert len(record["weights_sha256"]) == 64 and record["sampling"] == "the weights' own"
    by_name = make("wuerstchen", saved, {"steps_c": 2.0}, sampling="paper").describe()
    said = preset("paper").sampling
    assert by_name["sampling"] == "paper" and by_name["settings"]["steps_c"] == 2
    assert by_name["settings"]["guidance_b"] == said.guidance_b != own.guidance_b
    assert by_name["settings"]["start_b"] == own.start_b  # which the weights were trained for
    with pytest.raises(ValueError, match="--sampling: paper is of wuerstchen alone; sd-xl takes --set"):
        make("sd-xl", None, {}, sampling="paper")
    with pytest.raises(ValueError, match="--sampling: 'own' is not known; use paper or released"):
        make("wuerstchen", saved, {}, sampling="own")
    with pytest.raises(ValueError, match="model released-v2: .* are missing; run"):
        make("wuerstchen", Path("released-v2"), {})
    assets.main(["fetch", "released-v2"])
    by_id = make("wuerstchen", Path("released-v2"), {})
    assert by_id.describe()["settings"]["steps_c"] == own.steps_c
    with pytest.raises(ValueError, match="--set: steps is unknown; this model takes steps_c, guidance_c"):
        make("wuerstchen", saved, {"steps": 2.0})


def test_half_precision_and_no_gradients(saved):
    networks = load(saved, torch.bfloat16)
    for net in (networks.stage_a, networks.stage_b, networks.stage_c):
        assert {p.dtype for p in net.parameters()} == {torch.bfloat16}
        assert not any(p.requires_grad for p in net.parameters())
    assert networks.text_c.encode(PROMPTS).dtype == torch.bfloat16


@pytest.mark.parametrize("part", FOLDERS)
def test_tensors_that_do_not_fit_are_named(part, saved, small, tmp_path):
    tensors = load_file(saved / FOLDERS[part] / assets_table.DIFFUSERS)
    name = {"stage-a": "out_block.0.bias", "stage-b": "clip_mapper.bias", "stage-c": "cond_mapper.0.bias"}[part]
    cases = {
        rf"tensor {name} is missing": {k: v for k, v in tensors.items() if k != name},
        r"tensor surprise is extra": tensors | {"surprise": torch.zeros(1)},
        rf"tensor {name} is \(3,\), expected \(": tensors | {name: torch.zeros(3)},
    }
    for message, wrong in cases.items():
        for suffix, write in ((".safetensors", save_file), (".pt", torch.save)):
            path = tmp_path / f"wrong{suffix}"
            write(wrong, path)
            with pytest.raises(ValueError, match=f"wrong{suffix}: .*{message}"):
                load_part(part, small, path)


def test_only_tensors_are_read_from_a_pickle(small, tmp_path):
    torch.save({"state_dict": {"in_block.1.weight": Path("not a tensor")}}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="model.pt: not a file of tensors") as error:
        load_part("stage-a", small, tmp_path / "model.pt")
    assert "\n" not in str(error.value)
    (tmp_path / "model.pt").write_bytes(b"junk")
    with pytest.raises(ValueError, match="model.pt: not a file of tensors"):
        load_part("stage-a", small, tmp_path / "model.pt")
    torch.save({"optimizer": {"step": 1}}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="model.pt: no tensors of stage-a; it holds optimizer"):
        load_part("stage-a", small, tmp_path / "model.pt")


def test_unknown_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'released-v9' is neither a folder nor one of released-v2, released-v2-base"):
        load("released-v9")
    with pytest.raises(ValueError, match="missing, and it is no saved diffusers pipeline"):
        load(tmp_path)


def test_version_1_has_stage_c(theirs, small, tmp_path):
    """Its classes are version 2's with another text encoder; the checkpoint holds a moving average."""
    with pytest.raises(ValueError, match="released-v1's Stage B is a token model.*load_part"):
        load("released-v1")
    assert preset("released-v1").stage_c.c_text == 1024
    torch.save({"ema_state_dict": to_authors(theirs["stage-c"].state_dict())}, tmp_path / "model_stage_c_ema.pt")
    net = load_part("stage-c", small, tmp_path / "model_stage_c_ema.pt")
    assert all(
        torch.equal(value, theirs["stage-c"].state_dict()[name])
        for name, value in to_diffusers("stage-c", net.state_dict()).items()
    )


MEASURE = """
import sys
from pathlib import Path
from wuerstchen.presets import preset
from wuerstchen.published import load_part

def held():
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) * 1024

networks = [load_part("compressor", preset("released-v2"), Path(sys.argv[1]))]
before = held()
networks += [load_part("compressor", preset("released-v2"), Path(path)) for path in sys.argv[1:]]
print(held() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_stay_in_their_file(compressor, tmp_path):
    """Twice 81 MB are loaded, and hardly any memory is taken but that of the mapped files."""
    files = [tmp_path / "compressor.safetensors", tmp_path / "compressor.pt"]
    for path, write in zip(files, (save_file, torch.save), strict=True):
        write(compressor[1], path)
    result = subprocess.run([sys.executable, "-c", MEASURE, *map(str, files)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 30e6
