"""CLIP's text encoders against transformers, diffusers and open_clip, with CLIP's vocabulary and random weights."""

from dataclasses import replace

import pytest
import small_clip
import torch
from diffusers import StableDiffusionPipeline
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from wuerstchen.clip import SIZES, ClipConfig, ClipText, from_hugging_face, load_clip_files
from wuerstchen.presets import TextConfig
from wuerstchen.text import text_encoder
from wuerstchen.weights import parameters

PROMPTS = [
    "Anthropomorphic cat dressed as a fire fighter",
    "",
    "it's  CAFÉ Über-größe,\tI'll pay 1234.50 € for 3 naïve 日本語 🍣!?",
    "a red apple, " * 40,
    "snow",
]
TEXT = TextConfig("clip-h", 64)
SMALL = {"clip-h": ClipConfig(64, 3, 4), "clip-bigg": ClipConfig(80, 4, 5)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of both encoders at reduced width, the models and the tokenizer."""
    folder, tokens_of = tmp_path_factory.mktemp("clip"), small_clip.tokenizer()
    models = {name: small_clip.model(sizes.width, sizes.depth, sizes.heads) for name, sizes in SMALL.items()}
    for name, net in models.items():
        small_clip.save(folder, f"{name}_", net, tokens_of)
    return folder, models, tokens_of


def load(folder, name="clip-h", sizes=None):
    return load_clip_files(
        TextConfig(name, SMALL[name].width),
        sizes or SMALL[name],
        folder / f"{name}_text_encoder" / "model.safetensors",
        folder / f"{name}_tokenizer" / "tokenizer.json",
    )


@pytest.mark.parametrize("name", SMALL)
def test_tokens_equal_those_of_transformers(saved, name):
    folder, models, tokens_of = saved
    theirs = small_clip.tokens(models[name], tokens_of, PROMPTS)
    ours = load(folder, name).encode(PROMPTS, batch_size=2)
    assert ours.shape == (5, 77, SMALL[name].width)
    assert (ours - theirs).abs().max() < 1e-5  # padding included: Stages B and C see all 77
    assert theirs.std(dim=1).mean() > 0.1  # and it is no constant that agrees


def test_padding_is_masked(saved):
    folder, models, tokens_of = saved
    batch = tokens_of(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        unmasked = models["clip-h"](batch.input_ids).last_hidden_state
    ours = load(folder).encode(PROMPTS)
    assert (ours[0] - unmasked[0]).abs().max() > 1e-2
    assert (ours[3] - unmasked[3]).abs().max() < 1e-5  # a long prompt has none


# Stable Diffusion's, with the padding of its tokenizer and the activation of its config
STABLE_DIFFUSION = {"clip-l": ("<|endoftext|>", "quick_gelu"), "clip-h-penultimate": ("!", "gelu")}


@pytest.mark.parametrize("name", STABLE_DIFFUSION)
def test_tokens_equal_those_of_stable_diffusions_pipeline(name, tmp_path):
    padding, activation = STABLE_DIFFUSION[name]
    sizes = replace(SIZES[name], width=48, depth=3, heads=4)
    net, tokens_of = small_clip.model(48, 3, 4, activation=activation), small_clip.tokenizer(padding)
    nothing = dict.fromkeys(("vae", "unet", "scheduler", "safety_checker", "feature_extractor"))
    theirs = StableDiffusionPipeline(**nothing, text_encoder=net, tokenizer=tokens_of, requires_safety_checker=False)
    # transformers takes "!" within a prompt for padding where that is "!", which OpenCLIP does not
    prompts = [prompt.replace("!", "") for prompt in PROMPTS]
    with torch.inference_mode():
        expected, _ = theirs.encode_prompt(prompts, "cpu", 1, False)
    small_clip.save(tmp_path, "", net, small_clip.tokenizer())
    files = tmp_path / "text_encoder/model.safetensors", tmp_path / "tokenizer/tokenizer.json"
    encoder, seen = load_clip_files(TextConfig(name, 48), sizes, *files), []
    ours = encoder.encode(prompts, batch_size=2)
    assert ours.shape == expected.shape == (5, 77, 48)
    assert (ours - expected).abs().max() < 1e-5  # the padding's tokens too
    masked = load_clip_files(TextConfig(name, 48), replace(sizes, masked=True), *files).encode(prompts)
    assert (masked - expected).abs().max() > 1e-2
    encoder.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    encoder.encode(PROMPTS)
    assert torch.equal(seen[0], SimpleTokenizer()(PROMPTS)) == (padding == "!")  # OpenCLIP's padding is token 0


def test_word_pieces_are_those_of_transformers_and_of_open_clip(saved):
    folder, _, tokens_of = saved
    encoder = load(folder)
    for prompt in PROMPTS:
        pieces = encoder.pieces(encoder.tokenizer.encode(prompt))
        assert pieces == tokens_of(prompt, max_length=77, truncation=True).input_ids
        assert pieces == [i for i in SimpleTokenizer()(prompt)[0].tolist() if i]


def test_long_prompts_are_counted_and_keep_their_end_mark(saved):
    encoder = load(saved[0])
    assert encoder.lengths(PROMPTS)[3] == 2 + 4 * 40
    assert encoder.truncated(PROMPTS) == 1
    assert encoder.pieces(encoder.tokenizer.encode(PROMPTS[3]))[-1] == encoder.padding == 49407


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_those_of_the_published_sizes(name):
    sizes = SIZES[name]
    with torch.device("meta"):
        ours = ClipText(sizes)
        theirs = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=sizes.width,
                intermediate_size=4 * sizes.width,
                num_hidden_layers=sizes.depth,
                num_attention_heads=sizes.heads,
            )
        )
    assert parameters(ours) == parameters(theirs)
    known = {"clip-h": 352_984_064, "clip-l": 123_060_480}
    assert parameters(ours) == known.get(name, parameters(ours))


def test_released_files_have_a_prefix_and_position_numbers(saved, tmp_path):
    tensors = load_file(saved[0] / "clip-h_text_encoder" / "model.safetensors")
    plain = from_hugging_face(SMALL["clip-h"], tensors, "a file")
    released = {f"text_model.{name}": tensor for name, tensor in tensors.items()}
    released["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    renamed = from_hugging_face(SMALL["clip-h"], released, "a file")
    assert plain.keys() == renamed.keys() and all(torch.equal(plain[name], renamed[name]) for name in plain)


def test_tensors_that_do_not_fit_are_named(saved, tmp_path):
    folder = saved[0]
    tensors = load_file(folder / "clip-h_text_encoder" / "model.safetensors")
    norm = "final_layer_norm.weight"
    cases = {
        "tensor final_layer_norm.weight is missing": {k: v for k, v in tensors.items() if k != norm},
        r"tensor visual is extra": tensors | {"visual": torch.zeros(1)},
        r"tensor norm.weight is \(65,\), expected \(64,\)": tensors | {norm: torch.zeros(65)},
    }
    for message, wrong in cases.items():
        save_file(wrong, tmp_path / "wrong.safetensors")
        with pytest.raises(ValueError, match=f"wrong.safetensors: {message}"):
            load_clip_files(
                TEXT, SMALL["clip-h"], tmp_path / "wrong.safetensors", folder / "clip-h_tokenizer" / "tokenizer.json"
            )


def test_another_tokenizer_is_refused(saved):
    from wuerstchen.assets import locate

    path = saved[0] / "clip-h_text_encoder" / "model.safetensors"
    with pytest.raises(ValueError, match="tokenizer.json: there is no <|endoftext|>"):
        load_clip_files(TEXT, SMALL["clip-h"], path, locate("minilm/tokenizer"))


def test_a_missing_encoder_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("WUERSTCHEN_ASSETS", str(tmp_path))
    with pytest.raises(ValueError, match="clip-bigg/text is missing.*2,772,149,276 bytes.*fetch clip-bigg/text"):
        text_encoder(TextConfig("clip-bigg", 1280))
