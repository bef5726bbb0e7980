"""Snapshots: the moving average on the way, at given shares of a training's steps."""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from wuerstchen import weights
from wuerstchen.files import atomic_path


class Snapshots:
    """Snapshots at `percents` of the steps from `first` to `last`: {percent}.safetensors, in the format of a model.

    Until the training ends they stand beside its state: Snakemake deletes the outputs of a job that was cut off, and a
    training that goes on from a later step could not make them again.
    """

    def __init__(self, out: Path, percents: Sequence[int], first: int, last: int):
        if wrong := [percent for percent in percents if not 0 < percent < 100]:
            raise ValueError(f"--snapshots: {wrong[0]} should be a percentage from 1 to 99")
        self.kept, self.published = out / "state" / "snapshots", out / "snapshots"
        self.due = {percent: first + math.ceil(percent * (last - first) / 100) for percent in percents}

    def _path(self, percent: int) -> Path:
        return self.kept / f"{percent}.safetensors"

    def clear(self) -> None:
        """Forget those of an earlier training."""
        shutil.rmtree(self.kept, ignore_errors=True)

    def missing(self, step: int) -> bool:
        """Whether a training at `step` is past a snapshot that was not taken, or was taken at another step."""
        return any(
            due <= step and not (self._path(percent).exists() and weights.metadata(self._path(percent))["steps"] == due)
            for percent, due in self.due.items()
        )

    def take(self, step: int, write: Callable[[Path], None]) -> None:
        """Have those that are due at this step written; call it before the state of the step is saved."""
        for percent, due in self.due.items():
            if due == step:
                write(self._path(percent))

    def publish(self) -> None:
        """Copy all to their final place."""
        for percent in self.due:
            with atomic_path(self.published / f"{percent}.safetensors") as temporary:
                shutil.copyfile(self._path(percent), temporary)
