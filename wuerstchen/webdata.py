"""Webdataset-style tar shards for training on a cluster: what is in them, and in which order samples are drawn.

A shard is an uncompressed tar; the members of one sample share their name up to the first dot: a picture (.jpg, .jpeg,
.png or .webp), a caption (.txt) and metadata (.json). Only these are ever read, as a picture, as text and as JSON;
pickles and whatever else a shard may hold are not touched. `wuerstchen.selection` looks at every sample once and writes
down where those lie that pass its filters. Training then reads pictures by their offsets, in an order that depends on
(seed, epoch) alone. Any sample is reached directly, so a resumed run sees what an uninterrupted one would have seen.
"""

import functools
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import Dataset

from wuerstchen import weights
from wuerstchen.seeds import generator

PICTURES = ("jpg", "jpeg", "png", "webp")
FORMATS = ("JPEG", "PNG", "WEBP")
LARGEST_SIDE = 16_384  # pixels; what claims more is not decoded
CORRUPT_LIMIT = 0.01  # share of the samples
BLOCK = 64  # shards whose samples are mixed; the pictures of a batch come from as many files
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


class CorruptSample(ValueError):
    """A member that cannot be decoded."""


def stop_at_corrupt(corrupt: int, samples: int, limit: float) -> None:
    """Raises ValueError where the share of corrupt samples is over the limit."""
    if corrupt > limit * samples:
        raise ValueError(
            f"{corrupt} of {samples} samples are corrupt, more than --corrupt-limit {limit:g} allows; check the shards"
        )


def expand(pattern: str | Path) -> list[Path]:
    """The files that a pattern names: "shards/{000000..000999}.tar" is a thousand; without braces it is one file.

    Raises ValueError naming the first file that is not there.
    """
    names = [str(pattern)]
    while braces := BRACES.search(names[0]):
        first, last = braces.groups()
        if int(first) > int(last):
            raise ValueError(f"--data: {braces.group()} in {pattern} should count upwards")
        numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        names = [BRACES.sub(number, name, count=1) for name in names for number in numbers]
    if missing := [name for name in names if not Path(name).is_file()]:
        raise ValueError(f"--data: no file {missing[0]} ({len(missing)} of the {len(names)} named are missing)")
    return [Path(name) for name in names]


def decode(data: bytes) -> Image.Image:
    """A picture, RGB. Raises CorruptSample where it is not a whole JPEG, PNG or WebP of at most `LARGEST_SIDE`."""
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        if max(picture.size) > LARGEST_SIDE:
            raise CorruptSample(f"it claims {picture.size[0]}x{picture.size[1]} pixels")
        return picture.convert("RGB")
    except CorruptSample:
        raise
    except Exception as error:  # what a broken file makes Pillow raise is not a closed list
        raise CorruptSample(f"not a whole picture ({type(error).__name__}: {error})") from None


@functools.lru_cache(maxsize=2 * BLOCK)
def _opened(path: str) -> BinaryIO:
    return open(path, "rb", buffering=0)


def read_member(path: str | Path, offset: int, size: int) -> bytes:
    """Bytes of a member of a tar. Raises CorruptSample where the file is too short."""
    data = os.pread(_opened(str(path)).fileno(), size, offset)
    if len(data) != size:
        raise CorruptSample(f"{path} ends within a member")
    return data


@dataclass(frozen=True)
class View:
    """How a picture becomes a training sample: scaled to just cover `cover`, then cut to `crop`; (height, width)."""

    crop: tuple[int, int]
    cover: tuple[int, int]

    @classmethod
    def square(cls, crop: int, cover: int | None = None) -> "View":
        """A square of `crop` pixels out of a picture whose shorter side is `cover` (None: the same)."""
        return cls((crop, crop), (cover or crop,) * 2)


def framed(picture: Image.Image, view: View, random: torch.Generator | None) -> np.ndarray:
    """The view of a picture, uint8 (3, h, w). With a generator the crop is anywhere, without it in the middle."""
    scale = max(view.cover[0] / picture.height, view.cover[1] / picture.width)
    # at least the crop itself, whatever the rounding
    size = [max(round(side * scale), least) for side, least in zip(picture.size, view.crop[::-1], strict=True)]
    if tuple(size) != picture.size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    room = (picture.height - view.crop[0], picture.width - view.crop[1])
    if random is None:
        top, left = room[0] // 2, room[1] // 2
    else:
        top, left = (int(torch.randint(space + 1, (1,), generator=random)) for space in room)
    pixels = np.asarray(picture)[top : top + view.crop[0], left : left + view.crop[1]]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class Order:
    """An endless order of samples in shards of `counts` samples: every epoch visits each once, in another order.

    Shards are permuted, and samples are permuted within blocks of `BLOCK` shards, so that a training reads from few
    files at a time. It depends on (seed, epoch) alone, and any position is found without going through those before.
    """

    def __init__(self, counts: Sequence[int], seed: int, block: int = BLOCK):
        self.counts, self.seed, self.block = np.asarray(counts), seed, block
        self.total = int(self.counts.sum())
        if not self.total:
            raise ValueError("--data: none of the samples is selected")
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None
        self._mixed: tuple[tuple[int, int], np.ndarray, np.ndarray, np.ndarray] | None = None

    def _shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards in the epoch's order, and the position where each block begins, with the end."""
        if self._epoch is None or self._epoch[0] != epoch:
            shards = torch.randperm(len(self.counts), generator=generator(self.seed, "epoch", epoch)).numpy()
            ends = np.add.reduceat(self.counts[shards], np.arange(0, len(shards), self.block)).cumsum()
            self._epoch = (epoch, shards, np.concatenate([[0], ends]))
        return self._epoch[1:]

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Shard and row, among its selected samples, at a position from 0 on."""
        epoch, offset = divmod(position, self.total)
        shards, starts = self._shards(epoch)
        block = int(np.searchsorted(starts, offset, side="right")) - 1
        if self._mixed is None or self._mixed[0] != (epoch, block):
            mine = shards[block * self.block : (block + 1) * self.block]
            firsts = np.concatenate([[0], self.counts[mine].cumsum()])
            random = generator(self.seed, "epoch", epoch, "block", block)
            self._mixed = ((epoch, block), mine, firsts, torch.randperm(int(firsts[-1]), generator=random).numpy())
        _, mine, firsts, mixed = self._mixed
        row = mixed[offset - starts[block]]
        which = int(np.searchsorted(firsts, row, side="right")) - 1
        return int(mine[which]), int(row - firsts[which])


def positions(step: int, micro: int, rank: int, world: int, batch_size: int, accumulate: int) -> range:
    """Positions of a rank's `micro`-th part of a step's batch; all parts of all ranks make `batch_size` in a row."""
    each = batch_size // (world * accumulate)
    first = step * batch_size + (micro * world + rank) * each
    return range(first, first + each)


class Selection:
    """Which samples of the tar shards are trained on, and where in the files they lie; `wuerstchen.selection` makes it.

    The file is only read where needed: a selection of a hundred million samples has some gigabytes.
    """

    def __init__(self, path: str | Path, shards: Sequence[Path]):
        self.path = str(path)
        if not Path(path).is_file():
            raise ValueError(
                f"--selection: no file {path}; make it with `python -m wuerstchen.selection scan` and `... select`"
            )
        about = weights.metadata(path)
        self.report: dict = about["report"]
        known = {name: (size, i) for i, (name, size) in enumerate(about["shards"])}
        for shard in shards:
            if shard.name not in known:
                raise ValueError(f"--selection: {path} was made without {shard.name}; select again")
            if known[shard.name][0] != shard.stat().st_size:
                raise ValueError(f"--selection: {shard} is not the file that was scanned for {path}; scan it again")
        with safe_open(self.path, "numpy") as file:
            counts = file.get_tensor("counts")
        starts = np.concatenate([[0], counts.cumsum()])
        indices = [known[shard.name][1] for shard in shards]
        self.counts, self.starts = counts[indices], starts[indices]

    def place(self, shard: int, row: int) -> tuple[int, int, int, int]:
        """Offset and size of a sample's picture and of its caption."""
        at = int(self.starts[shard]) + row
        values = _safe_open(self.path).get_slice("places")[at : at + 1]
        return tuple(int(value) for value in values[0])


@functools.lru_cache(maxsize=2 * BLOCK)
def _safe_open(path: str):
    return safe_open(path, "numpy")


class Pictures(Dataset):
    """Selected pictures of tar shards with their captions, by (position in the order, view).

    A sample that cannot be decoded after all is replaced by the next one of its shard that can: batches keep their
    size, and the sequence still depends on the files alone. `corrupt` says how many were passed over.
    """

    def __init__(self, shards: Sequence[Path], selection: Selection, seed: int):
        self.shards, self.selection, self.seed = list(shards), selection, seed
        self.order = Order(selection.counts, seed)

    def read(self, shard: int, row: int, view: View, random: torch.Generator | None) -> tuple[np.ndarray, str]:
        """A view, uint8 (3, h, w), and its caption. Raises CorruptSample."""
        picture_at, picture_size, caption_at, caption_size = self.selection.place(shard, row)
        path = self.shards[shard]
        try:
            caption = read_member(path, caption_at, caption_size).decode()
        except UnicodeDecodeError:
            raise CorruptSample("its caption is not UTF-8") from None
        return framed(decode(read_member(path, picture_at, picture_size)), view, random), caption.strip()

    def __getitem__(self, item: tuple[int, View]) -> dict:
        position, view = item
        shard, row = self.order[position]
        count = int(self.selection.counts[shard])
        for passed in range(count):
            random = generator(self.seed, "crop", position)
            try:
                picture, caption = self.read(shard, (row + passed) % count, view, random)
            except CorruptSample:
                continue
            return {"image": torch.from_numpy(picture), "caption": caption, "corrupt": passed}
        raise ValueError(f"{self.shards[shard]}: none of its {count} selected samples can be decoded")


class LatentShards(Dataset):
    """Samples of precomputed shards (`wuerstchen.latents`): the tensors `names`, by (position in the order, view); the
    view is theirs already."""

    def __init__(self, shards: Sequence[Path], names: Sequence[str], seed: int):
        self.shards, self.names = [str(path) for path in shards], list(names)
        self.about = weights.metadata(self.shards[0])
        counts = []
        for path in self.shards:
            about = weights.metadata(path)
            for key in ("preset", "weights", "size"):
                if about[key] != self.about[key]:
                    raise ValueError(f"{path}: {key} is {about[key]!r}, but {self.about[key]!r} in {self.shards[0]}")
            if lacking := set(self.names) - set(about["what"]):
                raise ValueError(f"{path} has no {sorted(lacking)[0]}; precompute --what {' '.join(self.names)}")
            counts.append(about["count"])
        self.order = Order(counts, seed)

    def null(self) -> Tensor:
        """Text tokens of the empty prompt, (1, l, d)."""
        return torch.from_numpy(_safe_open(self.shards[0]).get_tensor("null"))

    def __getitem__(self, item: tuple[int, View]) -> dict:
        shard, row = self.order[item[0]]
        file = _safe_open(self.shards[shard])
        return {name: torch.from_numpy(file.get_slice(name)[row]) for name in self.names} | {"corrupt": 0}


class Batches:
    """Batch sampler of one rank from a step on: its part of every step's batch, in `accumulate` pieces.

    view(step) is the view of all samples of a step.
    """

    def __init__(self, steps: range, rank: int, world: int, batch_size: int, accumulate: int, view):
        self.steps, self.rank, self.world = steps, rank, world
        self.batch_size, self.accumulate, self.view = batch_size, accumulate, view

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, View]]]:
        for step in self.steps:
            view = self.view(step)
            for micro in range(self.accumulate):
                mine = positions(step, micro, self.rank, self.world, self.batch_size, self.accumulate)
                yield [(position, view) for position in mine]
