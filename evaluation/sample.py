"""Draw one shard of each prompt set with one model: a zip of pictures for each set, and beside it what that one took.

What is paid once, loading and compilation, is in the usage of the first set: seconds and kWh of all sets together are
those of the job (but for the writing of the zips).
"""

import argparse
from pathlib import Path

from PIL import Image

from evaluation.generators import KNOWN, MODEL, Generator, Settings, device_of, make
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


def shard_prompts(prompts: list[dict], shard: int, shards: int) -> list[dict]:
    """The prompts of shard number `shard`, counted from 0, of `shards` that differ by one prompt at most.

    Raises ValueError where there is no such shard, or not a prompt for each.
    """
    if not 0 <= shard < shards:
        raise ValueError(f"--shard: {shard} is not one of {shards} shards; it should be from 0 to {shards - 1}")
    if len(prompts) < shards:
        raise ValueError(f"--shards: {shards}, but there are only {len(prompts)} prompts; it should be at most that")
    return prompts[len(prompts) * shard // shards : len(prompts) * (shard + 1) // shards]


def generator_of(args: argparse.Namespace, prompts: list[dict], compiled: bool | None = None) -> Generator:
    """What the command line names; prompts and compiled: see `make`. Raises ValueError."""
    if args.callable is None:
        given = parse_settings(args.set)
        return make(args.model, args.weights, given, args.pictures, compiled, prompts, args.sampling, args.device)
    if args.model in KNOWN or not MODEL.fullmatch(args.model):
        raise ValueError(f"--model: {args.model!r} cannot be a function's; use another name [a-z0-9.-]")
    for flag in ("weights", "pictures", "set", "sampling", "device"):
        if getattr(args, flag):
            raise ValueError(f"--{flag}: not with --callable, which takes prompts and seeds alone")
    from evaluation.generators.own import Called

    return Called(args.callable)


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device, as `make` takes it."""
    parser.add_argument(
        "--device",
        choices=["cpu", "cuda", "auto"],
        help="auto: a GPU where there is one (default: cpu for what a study trained, auto for others' models)",
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, metavar="ID", help=f"{', '.join(KNOWN)}, or a name of your own")
    parser.add_argument(
        "--weights",
        type=Path,
        help="folder of trained stages, a published Würstchen's id, or a diffusers pipeline: its folder, or"
        " OWNER/NAME[@REVISION] in the hub's cache",
    )
    parser.add_argument("--prompts", required=True, type=Path, nargs="+", metavar="JSONL", help="the prompt sets")
    parser.add_argument("--shard", type=int, default=0, help="which shard of each set, counted from 0")
    parser.add_argument("--shards", type=int, default=1, help="into how many shards each set is cut")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=NUMBER", help="sampling settings of the model")
    parser.add_argument(
        "--sampling", metavar="NAME", help="a published Würstchen's settings by name: paper or released"
    )
    parser.add_argument(
        "--pictures", type=Path, help="zip of real pictures, or a model's of your own: named by the ids of the prompts"
    )
    parser.add_argument(
        "--callable", metavar="MODULE:FUNCTION", help="draws for --model: function(prompts, seeds) -> pictures"
    )
    add_device(parser)
    parser.add_argument("--out", required=True, type=Path, nargs="+", metavar="ZIP", help="one for each prompt set")
    args = parser.parse_args(argv)
    try:
        if len(args.out) != len(args.prompts):
            raise ValueError(f"--out: {len(args.out)} zips for {len(args.prompts)} prompt sets; name one for each")
        whole = [read_prompts(path) for path in args.prompts]
        everything = [prompt for prompts in whole for prompt in prompts]
        sets = [shard_prompts(prompts, args.shard, args.shards) for prompts in whole]
        generator, device = None, "cpu"
        if args.callable is None:
            device = device_of(args.model, args.weights, args.pictures, args.device)
        for path, prompts, out in zip(args.prompts, sets, args.out, strict=True):
            # energy is counted from before the weights are loaded: the first set's cost has that in it
            with Usage.resume(None, device) as usage:
                generator = generator or generator_of(args, everything)
                images = generator.generate(prompts, args.seed)
                used = usage.snapshot(images=len(images), model=args.model)
            ids = [prompt["id"] for prompt in prompts]
            info = {
                "model": args.model,
                "prompts_sha256": sha256_file(path),
                "shard": args.shard,
                "seed": args.seed,
                **({"device": used["device"]} if device != "cpu" else {}),  # no CPU changes a picture
                **generator.describe(),
            }
            write_shard(out, zip(ids, map(Image.fromarray, images), strict=True), info)
            write_json(out.with_suffix(".usage.json"), used)
    except ValueError as error:
        raise SystemExit(f"sampling {args.model}: {error}") from None


if __name__ == "__main__":
    main()
