"""PickScore for Würstchen against six models on one prompt set, beside the code of PickScore's model card.

python -m benchmarks.preference                             CLIP-H's size: minutes on two CPU cores
python -m benchmarks.preference --prompts 2 --rounds 1      less of it

Ours: `score_images` on each model's shard, then `win_rate` of each rival. The peer: for each prompt and rival the
card's function, with transformers' CLIPModel and CLIPProcessor, on the pair of pictures. The same random weights.
"""

import argparse
import functools
import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from benchmarks.measure import medians, show
from evaluation.clip_models import MODELS, PRECISIONS, build, wrap
from evaluation.features import library_versions
from evaluation.images import read_shard
from evaluation.preference import score_images, win_rate
from evaluation.preference_model import PreferenceModel, convert_hf_clip_state_dict
from wuerstchen.execution import native_precision
from wuerstchen.seeds import derive, generator
from wuerstchen.shards import write_shard
from wuerstchen.usage import cpu_name

SUBJECT = "wuerstchen"
RIVALS = ("sd-1.4", "sd-2.1", "sd-xl", "df-gan", "galip", "baseline-ldm")
PROMPTS = (
    "a red fox asleep in the snow",
    "an old lighthouse on a cliff at dusk, waves breaking below, oil on canvas with thick strokes",
    "three green bottles",
    "a street market in the rain, neon signs reflected in puddles, people with umbrellas, seen from above",
    "portrait of an astronaut holding a sunflower",
    "a bowl of soup that is also a tiny ocean with a sailing boat in it",
)
PICTURE = 512
ROUNDS = 3
SEED = 0
PEER, FP32, BF16 = "model card, fp32", "ours, fp32", "ours, bf16 towers"


def clip_h() -> CLIPConfig:
    """PickScore's sizes in transformers' terms."""
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
    text |= {"hidden_act": "gelu", "projection_dim": 1024, "eos_token_id": 49407, "bos_token_id": 49406}
    vision |= {"hidden_act": "gelu", "projection_dim": 1024, "patch_size": 14, "image_size": 224}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=1024)


def random_clip(config: CLIPConfig) -> CLIPModel:
    """transformers' model with seeded weights that keep activations about 1, and logit_scale as PickScore's."""
    with torch.device("meta"):
        model = CLIPModel(config)
    model.to_empty(device="cpu")
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1])[None])
    random = generator(SEED, "clip")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(generator=random).div_(math.sqrt(weight[0].numel()) if weight.dim() > 1 else 10)
            if "norm" in name and name.endswith("weight"):
                weight.add_(1)
        model.logit_scale.fill_(math.log(100))
    return model.eval().requires_grad_(False)


def processor() -> CLIPProcessor:
    """CLIP-H's, its vocabulary from open_clip's package."""
    from open_clip.tokenizer import SimpleTokenizer

    theirs, names = SimpleTokenizer(), {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(piece, piece): number for piece, number in theirs.encoder.items()}
    return CLIPProcessor(CLIPImageProcessorPil(), CLIPTokenizer(vocab=vocabulary, merges=list(theirs.bpe_ranks)))


def model_card(
    model: CLIPModel, process: CLIPProcessor, prompt: str, images: Sequence[Image.Image]
) -> tuple[list[float], list[float]]:
    """Probabilities that each image is preferred, and their scores, in the steps of the model card.

    Since transformers 5 the two functions return an object, whose `pooler_output` has the embedding.
    """
    options = {"padding": True, "truncation": True, "max_length": 77, "return_tensors": "pt"}
    pixels, tokens = process(images=list(images), return_tensors="pt"), process(text=prompt, **options)
    with torch.no_grad():
        image = model.get_image_features(**pixels).pooler_output
        image = image / image.norm(dim=-1, keepdim=True)
        text = model.get_text_features(**tokens).pooler_output
        text = text / text.norm(dim=-1, keepdim=True)
        scores = model.logit_scale.exp() * (text @ image.T)[0]
        return torch.softmax(scores, dim=-1).tolist(), scores.tolist()


def scorer(model: CLIPModel, chosen: str) -> PreferenceModel:
    """Our PickScore with the tensors of transformers' model."""
    clip = MODELS["pickscore"]
    tensors = convert_hf_clip_state_dict(model.state_dict())
    return wrap("pickscore", clip, build(clip, tensors, "the random weights", PRECISIONS[chosen], "cpu"), "0" * 64)


def draw(folder: Path, prompts: Sequence[dict], size: int) -> dict[str, Path]:
    """A shard of PNGs for each model: seeded noise of several widths, so that no two pictures look alike."""
    shards = {}
    for model in (SUBJECT, *RIVALS):
        pictures = {}
        for row in prompts:
            random = np.random.default_rng(derive(SEED, model, row["id"]))
            layers = [random.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (3, 9, size // 4)]
            large = [np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC)) for x in layers]
            pictures[row["id"]] = Image.fromarray(np.average(large, axis=0, weights=(5, 3, 2)).astype(np.uint8))
        shards[model] = folder / f"{model}.zip"
        write_shard(shards[model], pictures, {"model": model})
    return shards


Scores = dict[str, dict[str, float]]  # by model and prompt id


def ours(model: PreferenceModel, prompts: Sequence[dict], shards: Mapping[str, Path], out: Scores) -> None:
    """Scores of all pictures into `out`, and the win rates, which take no time."""
    for name, shard in shards.items():
        out[name] = dict(zip(*score_images(model, prompts, [shard]), strict=True))
    for rival in RIVALS:
        win_rate(out[SUBJECT], out[rival], SEED, rival)


def theirs(
    model: CLIPModel, process: CLIPProcessor, prompts: Sequence[dict], shards: Mapping[str, Path], out: Scores
) -> None:
    """The same with a call of the model card for each pair."""
    pictures = {name: read_shard(shard)[1] for name, shard in shards.items()}
    for row in prompts:
        for rival in RIVALS:
            pair = [Image.open(io.BytesIO(pictures[name][row["id"]])) for name in (SUBJECT, rival)]
            _, scores = model_card(model, process, row["prompt"], pair)
            for name, score in zip((SUBJECT, rival), scores, strict=True):
                out.setdefault(name, {})[row["id"]] = score


def table_of(scores: Scores) -> np.ndarray:
    """(models, prompts), the subject first."""
    return np.array([[*scores[name].values()] for name in (SUBJECT, *RIVALS)], dtype=np.float64)


def compare(scores: np.ndarray, expected: np.ndarray) -> dict:
    """How far scores are from the peer's, and on which share of pairs the other picture is preferred."""
    flipped = np.sign(scores[0] - scores[1:]) != np.sign(expected[0] - expected[1:])
    return {"max_difference": float(np.abs(scores - expected).max()), "flipped_share": float(flipped.mean())}


def run(count: int, rounds: int) -> dict:
    """Time both sides in turns on the first `count` prompts."""
    prompts = [{"id": f"p{i}", "prompt": prompt} for i, prompt in enumerate(PROMPTS[:count])]
    model = random_clip(clip_h())
    bf16 = native_precision("bf16") == "bf16"
    scorers = {FP32: scorer(model, "fp32")} | ({BF16: scorer(model, "bf16")} if bf16 else {})
    found: dict[str, Scores] = {side: {} for side in (PEER, *scorers)}
    with tempfile.TemporaryDirectory() as folder:
        shards = draw(Path(folder), prompts, PICTURE)
        calls = {PEER: functools.partial(theirs, model, processor(), prompts, shards, found[PEER])}
        for side, made in scorers.items():
            calls[side] = functools.partial(ours, made, prompts, shards, found[side])
        seconds = medians(calls, rounds)
    scores = {side: table_of(values) for side, values in found.items()}
    parts = [
        {"side": side, "seconds": seconds[side], "ratio": seconds[PEER] / seconds[side]}
        | compare(scores[side], scores[PEER])
        for side in calls
    ]
    gaps = np.abs(scores[PEER][0] - scores[PEER][1:])
    by_side = {part["side"]: part for part in parts}
    low = by_side.get(BF16, {})
    return {
        "name": "preference",
        "ratio_of": f"seconds from shards to win rates, {len(shards)} models on {count} prompts, fp32",
        "ratio": by_side[FP32]["ratio"],
        "ratio_bf16": low.get("ratio"),
        "peer": PEER,
        "max_difference": by_side[FP32]["max_difference"],
        "max_difference_bf16": low.get("max_difference"),
        "flipped_share_bf16": low.get("flipped_share"),
        "pairs": gaps.size,
        "gap_of_pairs": {"median": float(np.median(gaps)), "smallest": float(gaps.min())},
        "device": cpu_name(),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "parts": parts,
        "versions": {"torch": torch.__version__} | library_versions("open_clip_torch", "transformers", "pillow"),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4, help=f"of {len(PROMPTS)} (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of which the median counts (default: %(default)s)")
    options = parser.parse_args(argv)
    if not 1 <= options.prompts <= len(PROMPTS) or options.rounds < 1:
        raise SystemExit(f"benchmark of preference: --prompts is 1 to {len(PROMPTS)}, --rounds at least 1")
    record = run(options.prompts, options.rounds)
    titles = ("Side", "seconds", "times faster", "scores differ by", "preferences flipped")
    rows = [
        [
            part["side"],
            f"{part['seconds']:.1f}",
            f"{part['ratio']:.2f}",
            f"{part['max_difference']:.1e}",
            f"{part['flipped_share']:.0%} of {record['pairs']}",
        ]
        for part in record["parts"]
    ]
    show(record, titles, rows)


if __name__ == "__main__":
    main()
