"""CLIPScore: how well an image fits its prompt by CLIP, 100 max(cosine, 0), mean over the images.

    python -m evaluation.clip_score --clip clip-b32|clip-l14 --model ID --of PROMPTS JSONL CSV JSON ZIP ... [--of ...]

The scale is that of torchmetrics and of most published tables, and the prompt is read as it stands. Hessel et al.
(2021) multiply by w = 2.5 instead, so that theirs is a fortieth of this, and put "A photo depicts" before the prompt.
The metric's name has the network in it (clip-score-b32): scores of two networks cannot be compared.
"""

import argparse
from dataclasses import replace

from evaluation import clip_models
from evaluation.preference import add_score_arguments, score_sets
from evaluation.preference_model import PreferenceModel

NETWORKS = ("clip-b32", "clip-l14")


def clip_scorer(clip: PreferenceModel) -> PreferenceModel:
    """The model with CLIPScore's formula."""
    metric = f"clip-score-{clip.metric.removeprefix('clip-')}"
    return replace(clip, metric=metric, fixed_scale=100.0, not_negative=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m evaluation.clip_score", description=__doc__.splitlines()[0])
    parser.add_argument("--clip", choices=NETWORKS, required=True)
    add_score_arguments(parser)
    options = parser.parse_args(argv)
    try:
        scorer = clip_scorer(clip_models.load(options.clip, options.precision, options.device))
        score_sets(scorer, options.model, options.of, options.seed)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
