"""Draw one shard of prompts with one model into one zip of pictures."""

import argparse
from pathlib import Path

from PIL import Image

from evaluation.generators import Settings, make
from evaluation.images import write_shard
from evaluation.prompts import read_prompts
from wuerstchen.files import sha256_file, write_json
from wuerstchen.usage import Usage


def parse_settings(pairs: list[str]) -> Settings:
    """`KEY=NUMBER` pairs as a mapping. Raises ValueError naming a pair that is none."""
    settings: Settings = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            settings[key] = float(value)
        except ValueError:
            raise ValueError(f"--set: expected KEY=NUMBER, found {pair!r}") from None
    return settings


def shard_prompts(prompts: list[dict], shard: int, size: int) -> list[dict]:
    """The prompts of shard number `shard`, counted from 0. Raises ValueError where there is no such shard."""
    chosen = prompts[shard * size : (shard + 1) * size]
    if not chosen:
        raise ValueError(f"--shard: {shard} of {size} prompts each, but there are only {len(prompts)} prompts")
    return chosen


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path, help="folder of trained stages")
    parser.add_argument("--prompts", required=True, type=Path)
    parser.add_argument("--shard", required=True, type=int)
    parser.add_argument("--shard-size", type=int, default=500)
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=NUMBER", help="sampling settings of the model")
    parser.add_argument("--pictures", type=Path, help="zip of real pictures, for the models that read it")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    try:
        prompts = shard_prompts(read_prompts(args.prompts), args.shard, args.shard_size)
        # energy is counted from before the weights are loaded: a shard's cost has that in it
        with Usage.resume(None, "cpu") as usage:
            generator = make(args.model, args.weights, parse_settings(args.set), args.pictures)
            images = generator.generate(prompts, args.seed)
            used = usage.snapshot(images=len(images), model=args.model)
        ids = [prompt["id"] for prompt in prompts]
        info = {
            "model": args.model,
            "prompts_sha256": sha256_file(args.prompts),
            "shard": args.shard,
            "seed": args.seed,
            **generator.describe(),
        }
        write_shard(args.out, zip(ids, map(Image.fromarray, images), strict=True), info)
        write_json(args.out.with_suffix(".usage.json"), used)
    except ValueError as error:
        raise SystemExit(f"sampling {args.model}: {error}") from None


if __name__ == "__main__":
    main()
