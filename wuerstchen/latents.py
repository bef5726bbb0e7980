"""Precompute what the diffusion stages are trained on, shard by shard: latents and text tokens.

    torchrun --nproc-per-node 8 -m wuerstchen.latents --preset paper --stage c --phase 2 --weights train \\
        --data 'shards/{000000..000999}.tar' --what compressor tokens --out latents

--what a: latents of Stage A; vae: of the baseline's own first stage; compressor; tokens: of the stage's text encoder.
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
from wuerstchen.first_stage import load_first_stage
from wuerstchen.objectives import as_images, baseline_latents, compressed, encoder_on, phases, view
from wuerstchen.paper import with_baseline
from wuerstchen.precompute import load_compressor
from wuerstchen.presets import Preset, preset
from wuerstchen.progress import progress
from wuerstchen.runs import add_baseline
from wuerstchen.webdata import CORRUPT_LIMIT, CorruptSample, Pictures, Selection, View, expand, stop_at_corrupt

WHAT = ("a", "vae", "compressor", "tokens")


class Encoder:
    """The frozen networks that make latents and tokens of pictures and captions."""

    def __init__(self, chosen: Preset, stage: str, what: list[str], folder: Path | None, device: torch.device):
        self.preset, self.stage, self.what, self.device = chosen, stage, what, device
        if folder is None and "compressor" in what:
            raise ValueError("--weights: the compressor is needed; name the folder of the trained stages that holds b/")
        names = {"a": "stage-a", "vae": chosen.baseline_first_stage}
        self.first_stages = {
            key: load_first_stage(name, folder).to(device) for key, name in names.items() if key in what
        }
        self.compressor = load_compressor(folder).to(device) if "compressor" in what else None
        self.text = encoder_on(chosen.text_of(stage), device) if "tokens" in what else None
        used = {key: first_stage.file for key, first_stage in self.first_stages.items()}
        if self.compressor is not None:
            used["compressor"] = folder / "b" / "model.safetensors"
        self.digests = {name: sha256_file(used[name]) for name in what if name in used}

    @torch.inference_mode()
    def __call__(self, pictures: Tensor, captions: list[str]) -> dict[str, Tensor]:
        """float16 on the CPU, one row for each of the pictures, uint8 (n, 3, h, w)."""
        found = {}
        if self.first_stages or self.compressor is not None:
            images = as_images(pictures, self.device)
        for name, first_stage in self.first_stages.items():
            found[name] = first_stage.encode(images)
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
    chosen, paths = with_baseline(preset(args.preset), args.baseline), expand(args.data)
    latents = baseline_latents(chosen) if args.stage == "baseline-ldm" else "a"
    if other := {"a", "vae"} & set(args.what) - {latents}:
        raise ValueError(f"--what: {other.pop()}; stage {args.stage} of preset {args.preset} works on {latents}")
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
        **({"first_stage": chosen.baseline_first_stage} if "vae" in args.what else {}),
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
    parser.add_argument("--weights", type=Path, help="folder of the trained stages (a/, b/) whose latents these are")
    add_baseline(parser)
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
