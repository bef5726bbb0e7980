"""Precompute what Stages B and C are trained on, shard by shard: Stage A latents, compressor latents, text tokens.

    torchrun --nproc-per-node 8 -m wuerstchen.latents --preset paper --stage c --phase 2 --weights train \\
        --data 'shards/{000000..000999}.tar' --what compressor tokens --out latents

Each tar shard gives one safetensors file of the same name; what is there already is not made again. Pictures are cut in
the middle, since a random crop cannot be stored. Values are float16, four times as precise as bfloat16.
"""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from wuerstchen import weights
from wuerstchen.distributed import Ranks, start
from wuerstchen.files import sha256_file
from wuerstchen.objectives import as_images, compressed, encoder_on, phases, stage_a_latents, text_b, view
from wuerstchen.precompute import load_compressor, load_stage_a
from wuerstchen.presets import Preset, preset
from wuerstchen.progress import progress
from wuerstchen.webdata import CORRUPT_LIMIT, CorruptSample, Pictures, Selection, View, expand, stop_at_corrupt

WHAT = ("a", "compressor", "tokens")


class Encoder:
    """The frozen networks that make latents and tokens of pictures and captions."""

    def __init__(self, chosen: Preset, stage: str, what: list[str], folder: Path, device: torch.device):
        self.preset, self.stage, self.what, self.device = chosen, stage, what, device
        self.stage_a = load_stage_a(folder).to(device) if "a" in what else None
        self.compressor = load_compressor(folder).to(device) if "compressor" in what else None
        text = text_b(chosen) if stage == "b" else chosen.text
        self.text = encoder_on(text, device) if "tokens" in what else None
        used = {"a": "a", "compressor": "b"}
        self.digests = {name: sha256_file(folder / used[name] / "model.safetensors") for name in what if name in used}

    @torch.inference_mode()
    def __call__(self, pictures: Tensor, captions: list[str]) -> dict[str, Tensor]:
        """float16 on the CPU, one row for each of the pictures, uint8 (n, 3, h, w)."""
        found = {}
        if self.stage_a is not None or self.compressor is not None:
            images = as_images(pictures, self.device)
        if self.stage_a is not None:
            found["a"] = stage_a_latents(self.stage_a, images)
        if self.compressor is not None:
            if self.stage == "c":  # whose pictures come at the size that the compressor sees
                found["compressor"] = self.compressor(images, tuple(images.shape[-2:]))
            else:
                found["compressor"] = compressed(self.compressor, self.preset, images)
        if self.text is not None:
            found["tokens"] = self.text.encode(captions, len(captions))
        return {name: tensor.half().cpu() for name, tensor in found.items()}


def precompute(pictures: Pictures, shard: int, encoder: Encoder, cut: View, batch: int) -> tuple[dict, int]:
    """Tensors of a shard's selected samples, in their order, and how many were corrupt and left out."""
    parts, corrupt = [], 0
    rows = range(int(pictures.selection.counts[shard]))
    for first in rows[::batch]:
        found = []
        for row in rows[first : first + batch]:
            try:
                found.append(pictures.read(shard, row, cut, None))
            except CorruptSample:
                corrupt += 1
        if found:
            images, captions = zip(*found, strict=True)
            parts.append(encoder(torch.stack([torch.from_numpy(image) for image in images]), list(captions)))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}, corrupt


def run(args: argparse.Namespace, ranks: Ranks) -> None:
    """Precompute this process's share of the shards: every `world`-th."""
    chosen, paths = preset(args.preset), expand(args.data)
    known = phases(chosen, args.stage)
    if not 1 <= args.phase <= len(known):
        raise ValueError(f"--phase: {args.phase}; stage {args.stage} of preset {args.preset} has {len(known)}")
    sizes = known[args.phase - 1].sizes
    if len(sizes) > 1:
        raise ValueError(f"--phase: {args.phase} mixes {len(sizes)} sizes of pictures; train it on the tar shards")
    pictures = Pictures(paths, Selection(args.selection or paths[0].parent / "selection.safetensors", paths), 0)
    encoder = Encoder(chosen, args.stage, args.what, args.weights, ranks.device)
    about = {
        "preset": chosen.name,
        "what": sorted(args.what),
        "size": list(sizes[0]),
        "weights": encoder.digests,
        "selection": pictures.selection.report,
    }
    mine = range(ranks.rank, len(paths), ranks.world)
    total, passed_over = 0, 0
    for shard in progress(mine, what="latents", unit="shards") if ranks.first else mine:
        target = args.out / f"{paths[shard].stem}.safetensors"
        if target.exists():
            there = weights.metadata(target)
            if {key: there.get(key) for key in about} != about:
                raise ValueError(f"{target} was made with other settings; delete it, or name another --out")
            continue
        tensors, corrupt = precompute(pictures, shard, encoder, view(chosen, args.stage, sizes[0]), args.batch_size)
        count = len(next(iter(tensors.values()))) if tensors else 0
        total, passed_over = total + count + corrupt, passed_over + corrupt
        stop_at_corrupt(passed_over, max(total, 1000), args.corrupt_limit)
        if encoder.text is not None:
            tensors["null"] = encoder.text.encode([""]).half().cpu()
        weights.save(target, tensors, about | {"count": count, "corrupt": corrupt})
    print(f"process {ranks.rank}: {total} samples, {passed_over} of them corrupt and left out", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", required=True)
    parser.add_argument("--stage", required=True, choices=["b", "c", "baseline-ldm"])
    parser.add_argument("--phase", type=int, default=1, help="whose size of pictures is used")
    parser.add_argument("--what", required=True, nargs="+", choices=WHAT)
    parser.add_argument("--data", required=True, help="'shards/{000000..000999}.tar'")
    parser.add_argument("--selection", type=Path, help="what `selection select` wrote; default: beside the shards")
    parser.add_argument("--weights", required=True, type=Path, help="folder of the trained stages (a/, b/)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--corrupt-limit", type=float, default=CORRUPT_LIMIT)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    ranks = start()
    try:
        run(args, ranks)
    except ValueError as error:
        raise SystemExit(f"latents: {error}") from None
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
