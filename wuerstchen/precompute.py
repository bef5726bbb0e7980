"""What training needs of every picture and caption, computed once: text tokens, Stage A latents, compressor latents."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wuerstchen import weights
from wuerstchen.compressor import SemanticCompressor
from wuerstchen.data import load_index, load_pictures
from wuerstchen.presets import CompressorConfig, Preset, StageAConfig, from_dict, preset
from wuerstchen.progress import progress
from wuerstchen.stage_a import StageA
from wuerstchen.text import text_encoder

BATCH = 8  # fits the CPU's caches: Stage A encodes twice as fast as in batches of 64


def batches(array: np.ndarray | Tensor, name: str) -> Iterator[Tensor]:
    """Slices of `BATCH` rows as tensors, with their progress."""
    for start in progress(range(0, len(array), BATCH), what=name, unit=f"batches of {BATCH}"):
        yield torch.as_tensor(array[start : start + BATCH])


def map_batches(compute: Callable[[Tensor], Tensor], array: np.ndarray | Tensor, name: str) -> Tensor:
    """Apply `compute` to batches without gradients; float16 results, stacked."""
    with torch.inference_mode():
        return torch.cat([compute(batch).half() for batch in batches(array, name)])


def tokens(preset: Preset, rows: list[dict]) -> dict[str, Tensor]:
    """Text tokens of short and long captions, float16 (n, length, dimensions), and of the empty prompt."""
    encoder = text_encoder(preset.text)
    captions, descriptions = ([row[key] for row in rows] for key in ("caption", "description"))
    long = [text for text, n in zip(descriptions, encoder.lengths(descriptions), strict=True) if n > preset.text.length]
    if long:
        raise ValueError(f"{len(long)} captions are longer than text.length {preset.text.length}, first: {long[0]!r}")
    return {
        "captions": encoder.encode(captions).half(),
        "descriptions": encoder.encode(descriptions).half(),
        "null": encoder.encode([""]).half(),
    }


def images(pictures: Tensor) -> Tensor:
    """uint8 pictures (n, 3, h, w) as float32 in [0, 1], channels last in memory, where the CPU is fastest."""
    return pictures.float().div(255).to(memory_format=torch.channels_last)


def load_stage_a(folder: str | Path) -> StageA:
    """Stage A from train/a."""
    path = Path(folder) / "a" / "model.safetensors"
    tensors, metadata = weights.load(path)
    return weights.load_module(StageA(from_dict(StageAConfig, metadata["stage_a"])), tensors, "stage_a.", path)


def load_compressor(folder: str | Path) -> SemanticCompressor:
    """The Semantic Compressor as Stage B's training left it, from train/b."""
    path = Path(folder) / "b" / "model.safetensors"
    tensors, metadata = weights.load(path)
    compressor = SemanticCompressor(from_dict(CompressorConfig, metadata["compressor"]))
    return weights.load_module(compressor, tensors, "compressor.", path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", required=True, choices=["tokens", "a", "trunk", "compressor"])
    parser.add_argument("--preset", required=True)
    parser.add_argument("--data", required=True, type=Path, help="folder with index.jsonl and pictures.zip")
    parser.add_argument("--weights", type=Path, help="folder of trained stages (for a and compressor)")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    try:
        chosen = preset(args.preset)
        rows = load_index(args.data)
        metadata: dict[str, object] = {"ids": weights.ids_digest([row["id"] for row in rows]), "what": args.what}
        if args.what == "tokens":
            tensors = tokens(chosen, rows)
        elif args.what == "compressor":
            compressor = load_compressor(args.weights).to(memory_format=torch.channels_last)
            trunk = weights.load(args.out.parent / "trunk.safetensors")[0]["latents"]
            latents = map_batches(lambda x: compressor.head(x.float()), trunk, "compressor latents")
            train = latents[[row["split"] == "train" for row in rows]].float()
            metadata["mean"] = train.mean(dim=(0, 2, 3)).tolist()
            metadata["std"] = train.std(dim=(0, 2, 3)).tolist()
            tensors = {"latents": latents}
        else:
            pictures = load_pictures(args.data, rows)
            if args.what == "a":
                stage_a = load_stage_a(args.weights).to(memory_format=torch.channels_last)
                scale = stage_a.config.scale_factor
                latents = map_batches(lambda x: stage_a.encode(images(x)) / scale, pictures, "Stage A latents")
            else:
                compressor = SemanticCompressor(chosen.compressor, pretrained=True).eval()
                compressor = compressor.to(memory_format=torch.channels_last)
                latents = map_batches(lambda x: compressor.trunk(images(x)), pictures, "compressor trunk")
            tensors = {"latents": latents}
        weights.save(args.out, tensors, metadata)
    except ValueError as error:
        raise SystemExit(f"precompute {args.what}: {error}") from None


if __name__ == "__main__":
    main()
