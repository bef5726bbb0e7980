"""A study of twenty noise pictures, trained at the preset `tiny`: what the tests of training and sampling work on."""

import numpy as np
from PIL import Image

from wuerstchen import precompute, train
from wuerstchen.files import sha256_file, write_jsonl
from wuerstchen.shards import write_shard


def build(folder) -> None:
    """Pictures with captions, tokens, trained Stage A and latents: what the diffusion stages start from."""
    data, random = folder / "data", np.random.default_rng(0)
    rows, pictures = [], {}
    for i in range(20):
        split = "train" if i < 14 else "validation" if i < 17 else "test"
        row = {key: None for key in ("special", "group", "subgroup")}
        row |= {"id": f"pictures-{i:02d}", "artist": "pictures", "thing": f"thing {i}", "name": f"thing {i}"}
        row |= {"caption": f"thing {i}", "description": f"a thing with the number {i}", "split": split}
        rows.append(row | {"image": f"pictures-{i:02d}.png"})
        pictures[row["id"]] = Image.fromarray(random.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    write_jsonl(data / "index.jsonl", rows)
    write_shard(data / "pictures.zip", pictures, {"index_sha256": sha256_file(data / "index.jsonl")})
    common = ["--preset", "tiny", "--data", str(data)]
    latents = folder / "latents"
    precompute.main(["--what", "tokens", *common, "--out", str(data / "tokens.safetensors")])
    precompute.main(["--what", "trunk", *common, "--out", str(latents / "trunk.safetensors")])
    run(folder, "a")
    precompute.main(
        ["--what", "a", *common, "--weights", str(folder / "train"), "--out", str(latents / "a.safetensors")]
    )


def finish(folder) -> None:
    """Train the other stages, for sampling."""
    run(folder, "b", "--snapshots", 50)
    precompute.main(
        ["--what", "compressor", "--preset", "tiny", "--data", str(folder / "data"), "--weights", str(folder / "train"),
         "--out", str(folder / "latents" / "compressor.safetensors")]
    )  # fmt: skip
    run(folder, "c", "--snapshots", 50)
    run(folder, "baseline-ldm", "--steps", 2, "--snapshots", 50)


def run(folder, stage, *more, out=None):
    out = out or folder / "train" / stage
    train.main(
        ["--stage", stage, "--preset", "tiny", "--data", str(folder / "data"), "--latents", str(folder / "latents"),
         "--seed", "0", "--out", str(out), *map(str, more)]
    )  # fmt: skip
    return out
