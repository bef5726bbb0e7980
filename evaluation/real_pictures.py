"""The real pictures of prompts as image shards, cropped and reduced: for figures, spectra and other packages to read.

    python -m evaluation.real_pictures --pictures SOURCE --prompts JSONL --prepare centre-square-bicubic-256 --out ZIP

A picture is named by its prompt. Distances are not measured on these shards but on the files themselves, each with its
own preparation.
"""

import argparse
from pathlib import Path

from PIL import Image

from evaluation.images import write_shard
from evaluation.picture_files import entries, files_sha256, matching, source_of
from evaluation.pictures import Reading
from evaluation.prompts import read_prompts
from evaluation.protocols import preparation
from evaluation.sample import shard_prompts
from wuerstchen.files import sha256_file
from wuerstchen.progress import progress


def main(argv: list[str] | None = None) -> None:
    """Command line: one shard."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.real_pictures", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", required=True, help="an asset's name, a folder or a zip")
    parser.add_argument("--prompts", required=True, type=Path, metavar="JSONL", help="each names its picture")
    parser.add_argument("--prepare", default="none", metavar="NAME", help="crop and filter (default: %(default)s)")
    parser.add_argument("--shard", type=int, default=0, help="which shard of the set, counted from 0")
    parser.add_argument("--shards", type=int, default=1, help="into how many shards the set is cut")
    parser.add_argument("--out", required=True, type=Path, metavar="ZIP")
    options = parser.parse_args(argv)
    try:
        prompts = shard_prompts(read_prompts(options.prompts), options.shard, options.shards)
        listed = matching(entries(source_of(options.pictures)), prompts)
        if len(listed) < len(prompts):
            raise ValueError(f"{options.prompts}: two prompts name one picture; wanted is one prompt of each")
        reading, prepare = Reading(listed), preparation(options.prepare)
        info = {
            "model": "real",
            "prompts_sha256": sha256_file(options.prompts),
            "shard": options.shard,
            "seed": None,
            "sampler": None,
            "guidance": None,
            "preparation": options.prepare,
        }
        pictures = [
            (name, Image.fromarray(prepare.apply(pixels) if prepare else pixels))
            for name, pixels in progress(reading, what="real pictures", unit="pictures")
        ]
        info |= {"weights_sha256": None, "files_sha256": files_sha256(reading.digests)}
        write_shard(options.out, pictures, info)
    except ValueError as error:
        raise SystemExit(f"real pictures: {error}") from None


if __name__ == "__main__":
    main()
