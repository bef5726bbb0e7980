"""DF-GAN and GALIP against their authors' code: tensors and their names, and the pictures of equal weights.

That code cannot be installed. What is compared with was printed once by its own classes, with the tensors of `filled`,
on a CPU in float32 (tobran/DF-GAN at 886ae400, tobran/GALIP at 6cbcf3ef, both with the classes of openai/CLIP).
"""

import hashlib
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filled import wave
from scipy.stats import kstest, truncnorm
from small_gans import VOCABULARY, WORDS, filled, write_df_gan, write_galip

from evaluation import speed
from evaluation.clip_models import Tokens
from evaluation.generators import df_gan, galip, make
from wuerstchen import assets
from wuerstchen.deep_fusion import Decoder

PROMPTS = [{"id": f"p-{i}", "prompt": text} for i, text in enumerate(["A red bus.", "two DOGS run", "Ω", "a red dog"])]


def names(tensors: dict[str, torch.Tensor]) -> tuple[int, str]:
    """How many tensors there are, and a digest of their names and shapes."""
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()


def on_meta(kind: type, *args: int) -> torch.nn.Module:
    with torch.device("meta"):
        return kind(*args)


def assert_like(ours: torch.Tensor, mean: float, std: float, some: list[float]) -> None:
    """The same mean, deviation and seven values far apart."""
    values = ours.double().flatten()
    assert values.mean().item() == pytest.approx(mean, abs=2e-5)
    assert values.std().item() == pytest.approx(std, rel=1e-4)
    assert values[:: len(values) // 7][:7].tolist() == pytest.approx(some, abs=2e-5 + 1e-4 * std)


def test_tensors_are_named_and_shaped_as_in_the_official_files():
    """At the official sizes; with 9.7 M parameters of the generator its README's 18 M include the text encoder's."""
    cases = (
        (on_meta(df_gan.DFGan, 32), 226, "8eb0c21d24de44ad50e844880f8fb75271dbc2d8281e0f4e78b0ccb3cf588a43", 9_744_131),
        (on_meta(df_gan.SentenceEncoder, 27_297, 300), 9,
         "b17c848c91c4e227f5a72b6ba4c8547f19dde6a9700ac49af673c2676d939733", 8_629_420),
        (on_meta(galip.Galip, 64), 525, "018809ee892eb0d08b51189b3288ac7d24a1d4f59dbad64946a9e216c6dd521b",
         139_284_675),
    )  # fmt: skip
    for network, count, digest, parameters in cases:
        assert names(network.state_dict()) == (count, digest), type(network)
        assert sum(p.numel() for p in network.parameters()) == parameters


def test_df_gan_draws_what_its_authors_code_draws():
    pictures = filled(df_gan.DFGan, 4)(wave("noise", (2, 100)), wave("text", (2, 256)))
    assert pictures.shape == (2, 3, 256, 256)
    some = [-0.210841, 0.023551, -0.214185, 0.082106, 0.018486, -0.036445, -0.139999]
    assert_like(pictures, -0.034600949534855006, 0.10517821635649004, some)


def test_sentences_are_those_of_damsm():
    encoder = filled(df_gan.SentenceEncoder, 50, 300)
    sentences = encoder([[3, 14, 15, 9, 26], [5, 35, 8]])
    some = [-0.004078, 0.005877, -0.038784, -0.031151, -0.007868, -0.002396, -0.057584]
    assert_like(sentences, -0.001948997911604966, 0.03795008786730921, some)
    assert torch.equal(encoder([[5, 35, 8]])[0], sentences[1])


def test_galip_draws_what_its_authors_code_draws():
    """With all twelve blocks of CLIP; its width, which that code has as a literal, was made 128 there too."""
    pictures = filled(galip.Galip, 4, 128)(wave("noise", (2, 100)), wave("text", (2, 512)))
    assert pictures.shape == (2, 3, 224, 224)
    some = [-0.21714, -0.131316, -0.09019, 0.088788, -0.145476, -0.08178, 0.110443]
    assert_like(pictures, -0.043025998509745256, 0.07161604705662786, some)


@pytest.mark.big
def test_galip_with_clip_at_its_own_width():
    pictures = filled(galip.Galip, 4)(wave("noise", (2, 100)), wave("text", (2, 512)))
    some = [-0.210335, -0.104501, -0.080894, 0.109152, -0.144997, -0.084331, 0.120549]
    assert_like(pictures, -0.039920917453758066, 0.0690899985577627, some)


def test_df_gan_draws_from_its_files(tmp_path):
    write_df_gan(tmp_path)
    drawing = make("df-gan", tmp_path, {})
    drawn = drawing.generate(PROMPTS, seed=0)
    assert [picture.shape for picture in drawn] == [(256, 256, 3)] * 4 and all(picture.std() > 1 for picture in drawn)
    assert np.array_equal(drawing.generate(PROMPTS[1:], seed=0)[0], drawn[1])
    assert not np.array_equal(drawing.generate(PROMPTS[1:], seed=1)[0], drawn[1])
    record = drawing.describe()
    assert record["without_known_words"] == ["p-2"] and record["truncation"] == 0.86
    # the whole of it from its parts
    encoder = filled(df_gan.SentenceEncoder, len(WORDS), 300)
    noise = df_gan.truncated_normal(0, "p-3")[None]
    expected = filled(df_gan.DFGan, 4)(noise, encoder([[1, 2, 7]]))[0].permute(1, 2, 0)
    difference = drawn[3] - (expected.numpy() + 1) * 127.5
    assert np.abs(difference).max() < 0.6  # rounded to nearest


def test_the_speed_of_official_files_is_measured(tmp_path):
    write_df_gan(tmp_path)
    out = tmp_path / "speed.json"
    speed.main(
        ["--model", "df-gan", "--weights", str(tmp_path), "--batch-sizes", "2", "--repeats", "2", "--out", str(out)]
    )
    record = json.loads(out.read_text())
    assert (record["image_size"], record["precision"], record["compiled"]) == (256, "float32", False)
    assert record["batches"][0]["batch_size"] == record["batches"][0]["repeats"] == 2


def test_df_gans_words_and_noise():
    assert df_gan.words_of("A red, RED bus; the dog's run_1 \ufffd\ufffdtwo dógs", VOCABULARY) == [1, 2, 2, 3, 7, 4]
    assert df_gan.words_of("caf\u00e9 d\u00f6og", {"caf": 1, "dog": 2, "dg": 3}) == [1, 2]
    noise = torch.cat([df_gan.truncated_normal(0, f"p-{i}") for i in range(100)]).double().numpy() / 0.86
    assert np.abs(noise).max() <= 2
    assert kstest(noise, truncnorm(-2, 2).cdf).pvalue > 0.01
    assert torch.equal(df_gan.truncated_normal(0, "a"), df_gan.truncated_normal(0, "a"))


class Dangerous:
    def __reduce__(self):
        return print, ("this ran",)


def test_only_text_and_numbers_are_read_from_a_vocabulary(tmp_path, capsys):
    path = tmp_path / "captions_DAMSM.pickle"
    for content, message in (
        (pickle.dumps([[], [], {}, Dangerous()]), "it has a builtins.print, and only text and numbers are read"),
        (pickle.dumps([[], [], {}]), "not DAMSM's captions"),
        (pickle.dumps([[], [], {}, {1: "a"}]), "a number to each word"),
        (b"junk", "not DAMSM's captions"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"captions_DAMSM.pickle: .*{message}"):
            df_gan.read_vocabulary(path)
    assert not capsys.readouterr().out


def test_files_that_do_not_fit_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path / "assets"))
    with pytest.raises(ValueError, match="df-gan/generator is missing: the README of tobran/DF-GAN.*; put it at"):
        make("df-gan", None, {})
    with pytest.raises(ValueError, match="galip/generator is missing: the README of tobran/GALIP"):
        make("galip", None, {})
    with pytest.raises(ValueError, match="--set: steps is unknown; this model takes none"):
        make("galip", None, {"steps": 3.0})
    write_df_gan(tmp_path)
    path = tmp_path / "state_epoch_290.pth"
    whole = torch.load(path, weights_only=True)
    generator = whole["model"]["netG"]
    for wrong, message in (
        ({"epoch": 3}, "no checkpoint of DF-GAN or GALIP: it has no 'model'"),
        ({"model": {"netG": generator | {"module.extra": torch.zeros(1)}}}, "tensor extra is extra"),
        ({"model": {"netG": {"module.fc.bias": torch.zeros(1)}}}, "to_rgb.1.weight is missing"),
        ({"model": {"netG": generator}, "by": Path("somebody")}, "not a file of tensors"),
    ):
        torch.save(wrong, path)
        with pytest.raises(ValueError, match=f"state_epoch_290.pth: .*{message}"):
            make("df-gan", tmp_path, {})
    torch.save(whole, path)
    many = VOCABULARY | {f"w{i}": 8 + i for i in range(3)}
    (tmp_path / "captions_DAMSM.pickle").write_bytes(pickle.dumps([[], [], {}, many]))
    with pytest.raises(ValueError, match=r"11 words, but .*text_encoder100.pth knows 8"):
        make("df-gan", tmp_path, {})


class CountedWords(torch.nn.Module):
    """A text encoder in CLIP's place: each token's number tells."""

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.sin(tokens.double().sum(1, keepdim=True) * torch.linspace(0.001, 0.02, galip.SENTENCE)).float()


def test_galip_draws_from_its_file(tmp_path):
    network = write_galip(tmp_path)
    text = SimpleNamespace(model=CountedWords(), tokenize=Tokens(77), name="words", sha256="0" * 64)
    drawing = galip.GalipGenerator(tmp_path, {}, "cpu", lambda device: text)
    drawn = drawing.generate(PROMPTS, seed=0)
    assert [picture.shape for picture in drawn] == [(224, 224, 3)] * 4 and all(picture.std() > 1 for picture in drawn)
    assert np.array_equal(drawing.generate(PROMPTS[2:], seed=0)[1], drawn[3])
    assert drawing.describe()["text_encoder"] == {"name": "words", "sha256": "0" * 64}
    from wuerstchen.seeds import generator

    noise = torch.randn(100, generator=generator(0, "p-1", "galip"))[None]
    expected = network(noise, text.model.encode_text(text.tokenize([PROMPTS[1]["prompt"]])))[0].permute(1, 2, 0)
    assert np.abs(drawn[1] - (expected.clamp(-1, 1).numpy() + 1) * 127.5).max() < 0.6
    network.state_dict()["to_rgb.1.bias"].fill_(float("nan"))
    drawing.network = network
    with pytest.raises(ValueError, match="pre_cc12m.pth: a picture of prompts p-0 and following is not finite"):
        drawing.generate(PROMPTS, seed=0)


def test_where_their_files_are_looked_for():
    assert issubclass(df_gan.DFGan, Decoder) and issubclass(galip.Galip, Decoder)
    for name in (*df_gan.FILES, galip.FILE, galip.TEXT):
        assert assets.find(name)
