"""The loss of held-out samples in a training on a cluster.

They come from `wuerstchen.selection select --validation`, or from shards that `wuerstchen.latents` made of that
selection. At every check, after every resume and with any number of processes these are the same samples in the same
crops, with the same noise at the same timesteps; only the weights differ. Nothing here draws from the training's
generators.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader

from wuerstchen.distributed import Ranks
from wuerstchen.objectives import Objective
from wuerstchen.runs import deaf
from wuerstchen.webdata import LatentShards, Pictures, Selection, View, expand


def open_held_out(path: str, training: Pictures | LatentShards, seed: int) -> Pictures | LatentShards:
    """The held-out samples that belong to a training's data: of the same tar shards, or precomputed like its own.

    Raises ValueError where they are of another kind, or the training's data do not leave them out.
    """
    if isinstance(training, Pictures):
        if Path(path).suffix != ".safetensors":
            raise ValueError(f"--validation: {path} should be what `selection select --validation` wrote")
        selection = Selection(path, training.shards)
        refuse_trained_on(path, selection.report, training.selection.report)
        return Pictures(training.shards, selection, seed)
    held_out = LatentShards(expand(path), training.names, seed)
    refuse_trained_on(path, held_out.about["selection"], training.about["selection"])
    for key in ("preset", "weights", "size"):
        if held_out.about[key] != training.about[key]:
            raise ValueError(
                f"--validation: {key} of {path} is {held_out.about[key]!r}, that of the training's shards is"
                f" {training.about[key]!r}"
            )
    return held_out


def refuse_trained_on(path: str, held_out: dict, trained_on: dict) -> None:
    """Raises ValueError where the reports of two selections do not say that they share no sample."""
    if held_out.get("part") != "validation":
        raise ValueError(f"--validation: {path} is a selection to train on; name what `select --validation` wrote")
    if trained_on.get("part") != "training" or trained_on["share"] < held_out["share"]:
        raise ValueError(
            f"--validation: what is trained on does not leave out the samples of {path}; make both selections with one"
            " `select --validation`"
        )


class HeldOut:
    """The samples of a check, `n` at most, and how they are spread over the processes."""

    def __init__(self, dataset: Pictures | LatentShards, view: View, n: int, each: int, workers: int, seed: int):
        """view: what is seen of a picture; each: samples at a time in each process; seed: of the noise."""
        self.dataset, self.view, self.each, self.workers, self.seed = dataset, view, each, workers, seed
        self.n = min(n, dataset.order.total)

    def parts(self, ranks: Ranks) -> Iterator[list[int]]:
        """This process's numbers of samples, part by part. All processes have equally many parts of `each`, since FSDP2
        gathers weights in each forward pass: numbers from `n` on are padding."""
        for first in range(0, self.n, ranks.world * self.each):
            first += ranks.rank * self.each
            yield [*range(first, first + self.each)]

    @torch.no_grad()
    def loss(self, model: nn.Module, objective: Objective, ranks: Ranks, autocast: torch.autocast) -> float:
        """The mean over all samples. All processes must call it, and get the same. model: the objective as wrapped."""
        parts = list(self.parts(ranks))
        positions = [[(number % self.n, self.view) for number in part] for part in parts]
        loader = DataLoader(
            self.dataset, batch_sampler=positions, num_workers=min(self.workers, len(parts)), worker_init_fn=deaf
        )
        total = torch.zeros(1, dtype=torch.float64, device=ranks.device)
        objective.networks.eval()
        for numbers, batch in zip(parts, loader, strict=True):
            with autocast:
                inputs = objective.fixed(objective.prepare(batch), [i % self.n for i in numbers], self.n, self.seed)
                losses = model(inputs, None, 0)["loss"]
            total += losses[: sum(i < self.n for i in numbers)].double().sum()
        objective.networks.train()
        dist.all_reduce(total)
        return total.item() / self.n
