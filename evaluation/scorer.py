"""Training EmojiScore: a small CLIP on the study's own training pictures, for the formula of `preference_model`.

Both towers are pretrained and locked, as in LiT (Zhai et al. 2022); only a linear projection of each and the logit
scale are trained, with open_clip's loss, on features that are computed once. Captions and descriptions take turns;
pictures are mirrored half of the time. The epoch with the lowest loss on the validation split is kept. The files hold
the trained tensors and the digests of the locked towers' files, which are checked when the scorer is loaded.

    python -m evaluation.scorer --data DIR --seed N --epochs N --out DIR
"""

import argparse
import csv
import io
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.features import library_versions
from evaluation.images import iter_images
from evaluation.scorer_model import (
    CONTEXT_LENGTH,
    EMBED_DIM,
    NAME,
    NETWORK,
    PREPROCESSING,
    STAGES,
    TRAINED,
    Tokens,
    build,
    to_pixels,
    tower_digests,
)
from wuerstchen.files import (
    atomic_path,
    read_jsonl,
    sha256_file,
    sha256_text,
    write_json,
    write_text,
)
from wuerstchen.progress import progress
from wuerstchen.seeds import derive
from wuerstchen.usage import Usage


@dataclass(frozen=True)
class Recipe:
    """How the projections are trained; chosen on the validation split."""

    epochs: int = 20
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warmup: float = 0.1
    image_dropout: float = 0.3
    text_dropout: float = 0.1
    max_logit_scale: float = 100.0


@torch.inference_mode()
def image_features(model: nn.Module, pictures: Iterator[tuple[str, np.ndarray]], total: int) -> dict[str, Tensor]:
    """Pooled features (2, d) by picture id: as it is, and mirrored."""
    features: dict[str, Tensor] = {}
    bar = progress(what="image features", unit="pictures", total=total)
    part: list[tuple[str, Tensor]] = []

    def flush() -> None:
        # Eight pictures, twice: their maps fit the caches, which halves the time of a larger batch.
        pixels = torch.stack([pixels for _, pixels in part])
        both = torch.cat([pixels, pixels.flip(3)]).contiguous(memory_format=torch.channels_last)
        pooled = model.visual.pooled(both).chunk(2)
        features.update(zip((name for name, _ in part), torch.stack(pooled, 1), strict=True))
        bar.update(len(part))
        part.clear()

    with bar:
        for name, picture in pictures:
            part.append((name, to_pixels(picture)))
            if len(part) == 8:
                flush()
        if part:
            flush()
    return features


@torch.inference_mode()
def text_features(model: nn.Module, tokens: Tokens, texts: Sequence[str], batch_size: int = 32) -> dict[str, Tensor]:
    """Mean of MiniLM's tokens, (384,) by text."""
    unique = sorted(set(texts), key=lambda text: (tokens.count(text), text))
    features: dict[str, Tensor] = {}
    with progress(what="text features", unit="texts", total=len(unique)) as bar:
        for start in range(0, len(unique), batch_size):
            part = unique[start : start + batch_size]
            ids = tokens(part)
            mask = (ids != 0).long()
            hidden = model.text.transformer(input_ids=ids, attention_mask=mask)
            features.update(zip(part, model.text.pooler(hidden, mask), strict=True))
            bar.update(len(part))
    return features


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the full learning rate: a linear rise over the first `warmup` of the steps, then half a cosine to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def fit(
    model: nn.Module,
    images: dict[str, Tensor],
    texts: dict[str, Tensor],
    index: Sequence[dict],
    seed: int,
    recipe: Recipe,
) -> list[dict[str, Any]]:
    """Train the projections and the logit scale in place; the history, one row an epoch.

    `images` are (2, d) by picture id, `texts` (e,) by caption and description. The tensors of the epoch with the
    lowest validation loss are kept, of the last epoch where fewer than two pictures are for validation. Raises
    ValueError where the training split has fewer than two pictures, and ArithmeticError on a non-finite loss.
    """
    from open_clip.loss import ClipLoss

    train = [row for row in index if row["split"] == "train"]
    validation = [row for row in index if row["split"] == "validation"]
    if len(train) < 2:
        raise ValueError(f"the training split has {len(train)} pictures, but a contrastive loss needs two or more")
    pictures = torch.stack([images[row["id"]] for row in train])
    written = [torch.stack([texts[row[key]] for row in train]) for key in ("caption", "description")]
    model.visual.mean.copy_(pictures[:, 0].mean(0))
    # A channel that never fires has no deviation to divide by.
    model.visual.deviation.copy_(pictures[:, 0].std(0) + 1e-4)
    pictures = model.visual.standard(pictures)
    held_out = [torch.stack([images[row["id"]][0] for row in validation])] if validation else []
    held_out = [model.visual.standard(x) for x in held_out]
    held_out += [torch.stack([texts[row["caption"]] for row in validation])] if validation else []

    head, projection, scale = model.visual.head, model.text.proj, model.logit_scale
    trained = {name: parameter for name, parameter in model.named_parameters() if name in TRAINED}
    loss_of = ClipLoss()

    def loss(image: Tensor, text: Tensor) -> Tensor:
        return loss_of(F.normalize(head(image), dim=-1), F.normalize(projection(text), dim=-1), scale.exp())

    batches = math.ceil(len(train) / recipe.batch_size)
    steps = recipe.epochs * batches
    history, best, kept = [], math.inf, {}
    start = time.monotonic()
    with torch.random.fork_rng(devices=[]), progress(what="train", unit="epochs", total=recipe.epochs) as bar:
        torch.manual_seed(derive(seed, "scorer"))
        head.reset_parameters()
        projection.reset_parameters()
        for parameter in trained.values():
            parameter.requires_grad_(True)
        groups = [{"params": [head.weight, projection.weight]}, {"params": [scale], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps, recipe.warmup))
        for epoch in range(1, recipe.epochs + 1):
            total = 0.0
            for rows in torch.randperm(len(train)).split(recipe.batch_size):
                mirrored = torch.randint(2, (len(rows),))
                image = F.dropout(pictures[rows, mirrored], recipe.image_dropout)
                text = F.dropout(written[int(torch.randint(2, ()))][rows], recipe.text_dropout)
                value = loss(image, text)
                if not torch.isfinite(value):
                    raise ArithmeticError(f"the loss of epoch {epoch} is {value.item()}")
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                schedule.step()
                with torch.no_grad():
                    scale.clamp_(max=math.log(recipe.max_logit_scale))
                total += value.item() * len(rows)
            with torch.no_grad():
                checked = loss(*held_out).item() if len(validation) > 1 else None
            if checked is None or checked < best:
                best = math.inf if checked is None else checked
                kept = {name: parameter.detach().clone() for name, parameter in trained.items()}
            seconds = time.monotonic() - start
            history.append(
                {
                    "epoch": epoch,
                    "step": epoch * batches,
                    "loss": total / len(train),
                    "validation_loss": checked,
                    "learning_rate": schedule.get_last_lr()[0],
                    "images_per_second": epoch * len(train) / seconds,
                    "seconds": seconds,
                }
            )
            bar.update()
    model.requires_grad_(False)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(kept[name])
    return history


def train(data: Path, seed: int, recipe: Recipe, out: Path) -> None:
    """Train on the training split of a data folder; write model.safetensors, config.json, history.csv, usage.json."""
    from safetensors.torch import save_file

    with Usage(device="cpu") as usage:
        index = read_jsonl(data / "index.jsonl")
        rows = {row["id"]: row for row in index if row["split"] in ("train", "validation")}
        towers = tower_digests()
        model = build()
        pictures = ((name, picture) for name, picture in iter_images([data / "pictures.zip"]) if name in rows)
        images = image_features(model, pictures, len(rows))
        if missing := sorted(set(rows) - set(images)):
            raise ValueError(f"{data / 'pictures.zip'}: {len(missing)} pictures are missing, such as {missing[0]}")
        wanted = [row[key] for row in rows.values() for key in ("caption", "description")]
        texts = text_features(model, Tokens(), wanted)
        history = fit(model, images, texts, list(rows.values()), seed, recipe)
        seen = sum(row["split"] == "train" for row in rows.values()) * recipe.epochs
        used = usage.snapshot(images=seen, steps=history[-1]["step"], stage="scorer")

    state = model.state_dict()
    with atomic_path(out / "model.safetensors") as temporary:
        save_file({name: state[name].contiguous() for name in TRAINED}, temporary)
    config = {
        "schema": 1,
        "name": NAME,
        "architecture": {
            "image": NETWORK,
            "stages": list(STAGES),
            "pooling": "2 x 2 averages and maximum of each stage, standardised, projected",
            "preprocessing": PREPROCESSING,
            "text": "all-MiniLM-L6-v2, mean of tokens, projected",
            "context_length": CONTEXT_LENGTH,
            "embed_dim": EMBED_DIM,
        },
        "model_sha256": sha256_file(out / "model.safetensors"),
        "towers": towers,
        "trained_parameters": sum(state[name].numel() for name in TRAINED if name.endswith(("weight", "scale"))),
        "recipe": vars(recipe),
        "seed": seed,
        "split_sha256": sha256_text("".join(sorted(f"{row['id']} {row['split']}\n" for row in index))),
        "index_sha256": sha256_file(data / "index.jsonl"),
        "best_epoch": best_epoch(history),
        "logit_scale": float(state["logit_scale"].exp()),
        "versions": library_versions("torch", "open_clip_torch", "timm", "transformers"),
    }
    write_json(out / "config.json", config)
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(out / "history.csv", text.getvalue())
    write_json(out / "usage.json", used)


def best_epoch(history: Sequence[dict]) -> int:
    """The first epoch with the lowest validation loss; the last one where there is no validation loss."""
    checked = [row for row in history if row["validation_loss"] is not None]
    return min(checked, key=lambda row: row["validation_loss"])["epoch"] if checked else history[-1]["epoch"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m evaluation.scorer", description="Train the EmojiScore's CLIP.")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="with index.jsonl and pictures.zip")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    options = parser.parse_args(argv)
    if options.epochs < 1:
        raise SystemExit(f"--epochs: {options.epochs}, but at least one epoch is needed")
    try:
        train(options.data, options.seed, Recipe(epochs=options.epochs), options.out)
    except (ValueError, OSError, ArithmeticError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
