"""Pictures of a model that this project does not know: a folder of them, or a Python function that draws."""

import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.images import MAX_PIXELS
from evaluation.picture_files import entries, files_sha256
from evaluation.pictures import Reading, add_up
from wuerstchen.files import sha256_file
from wuerstchen.progress import progress
from wuerstchen.seeds import derive

AT_ONCE = 16  # prompts that a function is given at a time
SHOWN = 5


def some(names: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


class Folder:
    """Pictures named by the ids of their prompts, in a folder or zip, in any format that `evaluation.pictures` reads.

    prompts: all that will be drawn, those of other shards too. Raises ValueError naming the prompts that have no
    picture, and those pictures beside that have no prompt; where only such are left over, stderr and `describe` tell.
    """

    def __init__(self, path: Path, prompts: Iterable[dict]):
        self.path, self.entries = path, {entry.id: entry for entry in entries(path)}
        ids = dict.fromkeys(prompt["id"] for prompt in prompts)
        missing = [name for name in ids if name not in self.entries]
        self.unused = [name for name in self.entries if name not in ids]
        left = f"{len(self.unused)} of its pictures are of no prompt ({some(self.unused)})" if self.unused else ""
        if missing:
            raise ValueError(
                f"{path}: no picture of {len(missing)} of {len(ids)} prompts ({some(missing)})"
                + (f"; {left}; a picture's name, without its suffix, should be the prompt's id" if left else "")
            )
        if left:
            print(f"{path}: {left}", file=sys.stderr)
        self.reading = Reading([])

    def generate(self, prompts: Sequence[dict], seed: int) -> list[np.ndarray]:
        """The picture of each prompt, uint8 (h, w, 3). Raises ValueError naming one that cannot be read."""
        self.reading = Reading([self.entries[prompt["id"]] for prompt in prompts])
        return [pixels for _, pixels in progress(self.reading, what="pictures", unit="pictures")]

    def describe(self) -> dict:
        """Nothing is known of the model; "pictures" says in which formats and sizes they were, and how many lossy."""
        return {
            "sampler": None,
            "guidance": None,
            "weights_sha256": None,
            "files_sha256": files_sha256(self.reading.digests),
            "pictures": add_up(self.reading.records),
            "unused": len(self.unused),
        }


class Called:
    """A function(prompts: list[str], seeds: list[int]) -> uint8 arrays (h, w, 3) or PIL images, one per prompt.

    name: MODULE:FUNCTION, imported from the current folder or what is installed. It runs: name it on the command line
    only. A seed is below 2**63 and depends on the run's seed and the prompt's id alone; the function is called with
    `batch_size` prompts, with fewer at the end.
    """

    def __init__(self, name: str):
        module, colon, function = name.partition(":")
        if not (module and colon and function):
            raise ValueError(f"--callable: {name!r} should be MODULE:FUNCTION")
        try:
            found: Any = importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f"--callable: {module} cannot be imported ({error})") from error
        for part in function.split("."):
            found = getattr(found, part, None)
        if not callable(found):
            raise ValueError(f"--callable: {module} has no function {function}")
        self.name, self.function, self.batch_size = name, found, AT_ONCE
        self.source = Path(importlib.import_module(module).__file__ or "")

    def generate(self, prompts: Sequence[dict], seed: int) -> list[np.ndarray]:
        """What the function draws. Raises ValueError naming the prompt of something that is no picture."""
        images = []
        size = self.batch_size
        for start in progress(range(0, len(prompts), size), what="pictures", unit=f"calls of {size}"):
            batch = prompts[start : start + size]
            drawn = self.function([p["prompt"] for p in batch], [derive(seed, p["id"], "callable") for p in batch])
            drawn = list(drawn)
            if len(drawn) != len(batch):
                raise ValueError(f"{self.name} returned {len(drawn)} pictures of {len(batch)} prompts")
            images += [
                checked(picture, f"{self.name}: prompt {p['id']}") for p, picture in zip(batch, drawn, strict=True)
            ]
        return images

    def describe(self) -> dict:
        source = sha256_file(self.source) if self.source.is_file() else None
        return {
            "sampler": None,
            "guidance": None,
            "weights_sha256": None,
            "callable": self.name,
            "source_sha256": source,
        }


def checked(picture: Any, where: str) -> np.ndarray:
    """uint8 RGB (h, w, 3) of an array or PIL image. Raises ValueError naming `where` for anything else."""
    if isinstance(picture, Image.Image):
        if picture.mode != "RGB":
            raise ValueError(f"{where}: a PIL image of mode {picture.mode}; it should be RGB")
        picture = np.asarray(picture)
    if not isinstance(picture, np.ndarray):
        raise ValueError(f"{where}: a {type(picture).__name__}; it should be a uint8 array or a PIL image")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"{where}: a {picture.dtype} array {picture.shape}; it should be uint8 (height, width, 3)")
    if not 0 < picture.shape[0] * picture.shape[1] <= MAX_PIXELS:
        raise ValueError(f"{where}: {picture.shape[1]}x{picture.shape[0]} pixels; it should be 1 to {MAX_PIXELS:,}")
    return picture
