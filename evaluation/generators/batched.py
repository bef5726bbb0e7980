"""Generators that draw in batches, all of one shape, so that a picture does not depend on those beside it."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from wuerstchen.progress import progress


def padded_batches(prompts: Sequence[dict], size: int) -> Iterator[tuple[list[dict], int]]:
    """Batches of exactly `size`, the last one filled up with its own first prompt, and how many of each count.

    All batches have one shape, so that the arithmetic, and with it every byte of a picture, is the same in each.
    """
    for start in progress(range(0, len(prompts), size), what="pictures", unit=f"batches of {size}"):
        batch = list(prompts[start : start + size])
        yield batch + [batch[0]] * (size - len(batch)), len(batch)


def best_device() -> str:
    """cuda where there is one, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class Batched:
    """What `generate` needs is `batch`."""

    batch_size: int

    def __init__(self) -> None:
        # With several threads the last bits of a picture depend on its place in the batch, and so on the shard size,
        # and on the number of cores. Shards side by side use the cores better anyway.
        torch.set_num_threads(1)

    def batch(self, prompts: list[dict], seed: int) -> Sequence[np.ndarray]:
        """Images of one batch, each uint8 (h, w, 3)."""
        raise NotImplementedError

    def generate(self, prompts: Sequence[dict], seed: int) -> list[np.ndarray]:
        """One image per prompt, uint8 (h, w, 3)."""
        images: list[np.ndarray] = []
        for batch, counted in padded_batches(prompts, self.batch_size):
            images.extend(self.batch(batch, seed)[:counted])
        return images
