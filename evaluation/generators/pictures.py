"""Real pictures of the prompts, read from the study's zip of pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.images import decode
from wuerstchen.files import sha256_file
from wuerstchen.shards import read_info, read_pictures


class Pictures:
    """The picture that a prompt names or, with `other_artist`, the other artist's picture of the same thing."""

    def __init__(self, path: Path, other_artist: bool):
        self.path, self.other_artist = path, other_artist
        read_info(path)  # which raises ValueError where that is no whole shard

    def name(self, prompt: dict) -> str:
        """Id of the picture. Raises ValueError where the prompt has none."""
        if prompt["image"] is None:
            raise ValueError(f"prompt {prompt['id']} has no picture")
        name = prompt["image"].removesuffix(".png")
        if not self.other_artist:
            return name
        artist, _, rest = name.partition("-")
        return f"{ {'openmoji': 'twemoji', 'twemoji': 'openmoji'}[artist] }-{rest}"

    def generate(self, prompts: Sequence[dict], seed: int) -> list[np.ndarray]:
        names = [self.name(prompt) for prompt in prompts]
        pngs = read_pictures(self.path, names)
        return [decode(png, f"{self.path}: {name}.png") for name, png in zip(names, pngs, strict=True)]

    def describe(self) -> dict:
        return {"sampler": None, "guidance": None, "weights_sha256": sha256_file(self.path)}
