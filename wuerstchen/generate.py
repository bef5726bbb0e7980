"""Draw a picture of a prompt, with published weights or those of a study.

python -m wuerstchen.generate "a red apple" --model released-v2 --size 1024x1536 --seed 7 --out apple.png
python -m wuerstchen.generate "openmoji of red apple" --model emoji --out apple.png
python -m wuerstchen.generate "twemoji of red apple" --model results/emoji/train --out apple.png

The PNG's text chunks say how it was drawn: prompt, negative_prompt, model, weights_sha256, seed, size and settings.
"""

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wuerstchen import weights
from wuerstchen.files import atomic_path
from wuerstchen.pipeline import Pipeline
from wuerstchen.sampling import SAMPLING, settings

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from WIDTHxHEIGHT. Raises ValueError where it is not that."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match:
        raise ValueError(f"--size: {text!r}; use WIDTHxHEIGHT in pixels, like 1024x1536")
    return int(match[1]), int(match[2])


def best_device() -> str:
    """cuda or mps where there is one, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def save(picture: Image.Image, path: Path, texts: dict[str, str]) -> None:
    """Write a PNG with text chunks, atomically."""
    chunks = PngInfo()
    for key, value in texts.items():
        chunks.add_itxt(key, value)  # UTF-8, unlike a plain text chunk
    with atomic_path(path) as temporary:
        picture.save(temporary, "PNG", pnginfo=chunks)


def generate(args: argparse.Namespace) -> None:
    """Draw and save. Raises ValueError for what cannot be drawn."""
    size = parse_size(args.size) if args.size else (None, None)
    if args.out.suffix.lower() != ".png":
        raise ValueError(f"--out: {args.out} should end in .png")
    given = {key: getattr(args, key) for key in ("steps_c", "guidance_c", "steps_b", "guidance_b")}
    device = args.device or best_device()
    dtype = args.precision or ("bf16" if device.startswith("cuda") else "fp32")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: {device!r} is not there ({str(error).splitlines()[0]})") from None
    pipeline = Pipeline.from_pretrained(args.model, PRECISIONS[dtype], device, args.compile)
    pictures = pipeline(args.prompt, *size, args.seed, args.negative_prompt, sampling=args.sampling, **given)
    picture = Image.fromarray(pictures[0])
    texts = {
        "prompt": args.prompt,
        "negative_prompt": args.negative_prompt or "",
        "model": args.model,
        "weights_sha256": weights.digest(*pipeline.networks.files),
        "seed": str(args.seed),
        "size": "{}x{}".format(*picture.size),
        "settings": json.dumps(
            asdict(settings(pipeline.preset, args.sampling, **given))
            | {"sampler": "ddpm", "precision": dtype, "device": device}
        ),
    }
    save(picture, args.out, texts)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("--model", required=True, metavar="ID_OR_FOLDER", help="released-v2, emoji or a folder")
    parser.add_argument("--size", metavar="WIDTHxHEIGHT", help="in pixels; default: what the model was made for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="PNG")
    parser.add_argument("--negative-prompt", help="what guidance leads away from")
    parser.add_argument(
        "--sampling", choices=SAMPLING, help="whose steps and guidance scales; default: the model's own"
    )
    parser.add_argument("--steps-c", type=int, help="equal steps of Stage C")
    parser.add_argument("--guidance-c", type=float, help="guidance scale of Stage C; 1 is none")
    parser.add_argument("--steps-b", type=int, help="equal steps of Stage B")
    parser.add_argument("--guidance-b", type=float, help="guidance scale of Stage B; 1 is none")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps; default: the best there is")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: bf16 on CUDA, else fp32")
    parser.add_argument("--compile", action="store_true", help="compile first: pays for many pictures in one process")
    args = parser.parse_args(argv)
    try:
        generate(args)
    except ValueError as error:
        raise SystemExit(f"generating: {error}") from None


if __name__ == "__main__":
    main()
