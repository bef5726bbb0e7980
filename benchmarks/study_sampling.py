"""Sampling as `evaluation.sample` runs it, beside the same weights in plain PyTorch with diffusers' sampler.

python -m benchmarks.study_sampling                          the models of results/emoji, once `make` has trained them
python -m benchmarks.study_sampling --study results/birds    those of another study
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from benchmarks.measure import OURS, PLAIN, medians, result, show
from evaluation.generators import make
from evaluation.generators.trained import BATCH
from evaluation.prompts import read_prompts
from wuerstchen.diffusion import predicted_noise_b, predicted_noise_c
from wuerstchen.pipeline import BaselineLDM, Wuerstchen, doubled, guided_noise
from wuerstchen.scaling import unscale_latents
from wuerstchen.seeds import generator

ROUNDS = 3
SEED = 0


def denoise(
    predict: Callable[[Tensor, Tensor], Tensor], shape: Sequence[int], steps: int, ids: Sequence[str], purpose: str
) -> Tensor:
    """Latents (n, *shape), sampled as diffusers' pipelines do it, with the noise that our pipelines would draw."""
    # diffusers takes seconds to import
    from diffusers import DDPMWuerstchenScheduler
    from diffusers.utils.torch_utils import randn_tensor

    generators = [generator(SEED, name, purpose) for name in ids]
    scheduler = DDPMWuerstchenScheduler()
    scheduler.set_timesteps(steps)
    x = randn_tensor((len(ids), *shape), generator=generators)
    for t in scheduler.timesteps[:-1].unsqueeze(1):
        t = t.expand(len(ids))
        x = scheduler.step(predict(x, t), t, x, generator=generators).prev_sample
    return x


def wuerstchen(
    p: Wuerstchen, text: Tensor, ids: Sequence[str], steps_c: int, guidance_c: float, steps_b: int, guidance_b: float
) -> Tensor:
    """Stage A latents from text tokens. As in diffusers' networks, the condition is computed anew in each step."""

    def predict_c(x: Tensor, t: Tensor) -> Tensor:
        condition = p.stage_c.condition(doubled(text, p.null, guidance_c))
        return guided_noise(p.stage_c, predicted_noise_c, condition, guidance_c)(x, t)

    def predict_b(x: Tensor, t: Tensor) -> Tensor:
        condition = p.stage_b.condition(doubled(text, p.null, guidance_b), image, p.shape[1:])
        return guided_noise(p.stage_b, predicted_noise_b, condition, guidance_b)(x, t)

    latents = denoise(predict_c, (p.stage_c.config.c_in, p.size, p.size), steps_c, ids, "stage-c")
    image = unscale_latents(latents, p.scaling)
    image = image if guidance_b == 1 else torch.cat([image, torch.zeros_like(image)])
    return denoise(predict_b, p.shape, steps_b, ids, "stage-b")


def baseline(p: BaselineLDM, text: Tensor, ids: Sequence[str], steps: int, guidance: float) -> Tensor:
    """Stage A latents from text tokens; the condition is computed anew in each step."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        condition = p.unet.condition(doubled(text, p.null, guidance))
        return guided_noise(p.unet, predicted_noise_b, condition, guidance)(x, t)

    return denoise(predict, p.shape, steps, ids, "baseline-ldm")


LATENTS = {"wuerstchen": wuerstchen, "baseline-ldm": baseline}


def measure(model: str, study: Path, config: dict, rounds: int) -> dict:
    """One batch of pictures, prompt text to pixels."""
    prompts = read_prompts(study / "prompts" / "names.jsonl")[:BATCH]
    texts, ids = ([prompt[key] for prompt in prompts] for key in ("prompt", "id"))
    settings = {key: float(value) for key, value in config["sampling"][model].items()}
    ours = make(model, study / "train", settings)
    plain = {way: make(model, study / "train", settings, compiled=False).pipeline for way in PLAIN}
    for network in vars(plain[PLAIN[0]]).values():
        if isinstance(network, nn.Module):
            network.to(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def draw(way: str):
        if way == OURS:
            return ours.batch(prompts, SEED)
        p = plain[way]
        return p.decode(LATENTS[model](p, p.encoder.encode(texts), ids, **ours.settings))

    calls = {way: functools.partial(draw, way) for way in (OURS, *PLAIN)}
    pictures = {way: call().astype(int) for way, call in calls.items()}  # whatever is compiled is so from now on
    differences = [np.abs(pictures[OURS] - pictures[way]) for way in PLAIN]
    seconds = medians(calls, rounds)
    return {
        "model": model,
        "settings": ours.settings,
        "precision": ours.pipeline.precision,
        "compiled": ours.pipeline.compiled,
        "pictures": len(prompts),
        "seconds": seconds,
        "pictures_per_second": {way: len(prompts) / value for way, value in seconds.items()},
        "max_difference": int(max(difference.max() for difference in differences)),
        "mean_difference": float(max(difference.mean() for difference in differences)),
    }


def run(study: Path, rounds: int) -> dict:
    """The benchmark's JSON object. Raises ValueError where the study has not been run."""
    path = study / "config.yaml"
    if not path.exists():
        raise ValueError(f"--study: {path} is missing; name the results of a study that `make` has run")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    parts = [measure(model, study, config, rounds) for model in LATENTS if model in config["models"]]
    return result(
        "sampling",
        parts,
        weigh=lambda part: 1,
        study=config["study"],
        ratio_of="seconds of a batch by each model",
        max_difference_of="pictures, in levels of 0 to 255",
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("results/emoji"))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timed batches, of which the median counts")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error(f"--rounds: {args.rounds}; use at least 1")
    try:
        record = run(args.study, args.rounds)
    except ValueError as error:
        raise SystemExit(f"benchmark of sampling: {error}") from None
    titles = ["Model", *(f"{way}, pictures/s" for way in (*PLAIN, OURS)), "times faster", "pictures differ by, mean"]
    rows = [
        [
            part["model"],
            *(f"{part['pictures_per_second'][way]:.1f}" for way in (*PLAIN, OURS)),
            f"{part['ratio']:.2f}",
            f"{part['mean_difference']:.2f} of 255",
        ]
        for part in record["parts"]
    ]
    show(record, titles, rows)


if __name__ == "__main__":
    main()
