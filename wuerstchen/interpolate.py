"""Interpolate two checkpoints of one network, as the paper's final Stage C is the middle of two trainings (E.3)."""

import argparse
from pathlib import Path

import torch

from wuerstchen import weights
from wuerstchen.files import sha256_file

# what says how a checkpoint came about rather than what it is
HISTORY = ("seed", "steps", "phase", "interpolated")


def interpolate(a: Path, b: Path, out: Path, share: float = 0.5) -> None:
    """Write (1 - share) A + share B, computed in float32, to `out`.

    Raises ValueError where the two are not of the same network: names, shapes, or the metadata that describe it.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"--share: {share} should be from 0 to 1")
    (ours, about), (theirs, other) = weights.load(a), weights.load(b)
    for key in sorted((set(about) | set(other)) - set(HISTORY)):
        if about.get(key) != other.get(key):
            raise ValueError(f"{b}: {key} is {other.get(key)!r}, but {about.get(key)!r} in {a}")
    if names := sorted(set(ours) ^ set(theirs)):
        raise ValueError(f"{names[0]} is in one of {a} and {b} alone ({len(names)} tensors differ)")
    mixed = {}
    for name, tensor in ours.items():
        if tensor.shape != theirs[name].shape:
            raise ValueError(f"{b}: {name} is {tuple(theirs[name].shape)}, but {tuple(tensor.shape)} in {a}")
        if tensor.is_floating_point():
            mixed[name] = torch.lerp(tensor.float(), theirs[name].float(), share).to(tensor.dtype)
        else:
            mixed[name] = tensor
    sources = [{"sha256": sha256_file(path), "share": part} for path, part in ((a, 1 - share), (b, share))]
    weights.save(out, mixed, {**about, "interpolated": sources})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", type=Path, metavar="B")
    parser.add_argument("--share", type=float, default=0.5, help="of B; the paper's is 0.5")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    try:
        interpolate(args.a, args.b, args.out, args.share)
    except ValueError as error:
        raise SystemExit(f"interpolate: {error}") from None


if __name__ == "__main__":
    main()
