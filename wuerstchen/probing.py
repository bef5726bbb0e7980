"""The probe decoder at work: trained on the compressor's latents, then drawing Stage C's in the place of Stages B and A
(appendix D)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.data import load_index, load_pictures
from wuerstchen.inputs import read_rows
from wuerstchen.pipeline import Wuerstchen
from wuerstchen.precompute import images
from wuerstchen.presets import Preset
from wuerstchen.probe import ProbeDecoder
from wuerstchen.sampling import to_uint8
from wuerstchen.tasks import Losses, Task

PIXELS = 16  # of the probe's pictures to each latent, on a side


def resized(pictures: Tensor, side: int) -> Tensor:
    """Pictures (n, 3, h, w) of about [0, 1] at another size, bicubic, within [0, 1]."""
    return F.interpolate(pictures, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


class ProbeTask(Task):
    """Mean squared error of the training pictures in small, from the compressor's latents; the paper names no loss."""

    def __init__(self, preset: Preset, data: Path, latents: Path):
        self.recipe, self.config = preset.recipes["probe"], {"c_in": preset.compressor.c_latent, "widths": preset.probe}
        rows = load_index(data)
        tensors, _ = read_rows(latents / "compressor.safetensors", rows)
        self.latents, side = tensors["latents"].float(), PIXELS * preset.compressed_size
        pictures = torch.from_numpy(load_pictures(data, rows))
        self.pictures = torch.cat([resized(images(some), side) for some in pictures.split(64)])
        splits = ("train", "validation")
        self.train_rows, self.validation_rows = (
            torch.tensor([i for i, row in enumerate(rows) if row["split"] == split]) for split in splits
        )
        self.n = len(self.train_rows)
        self.modules = nn.ModuleDict({"probe": ProbeDecoder(**self.config)})

    def error(self, modules: nn.ModuleDict, rows: Tensor) -> Tensor:
        """Mean squared error of some rows' pictures."""
        return F.mse_loss(modules["probe"](self.latents[rows]).float(), self.pictures[rows])

    def losses(self, modules: nn.ModuleDict, rows: Tensor, random: torch.Generator, step: int) -> Losses:
        return {"loss": self.error(modules, self.train_rows[rows])}

    def validation_loss(self, modules: nn.ModuleDict) -> float:
        return self.error(modules, self.validation_rows[:256]).item()

    def metadata(self, modules: nn.ModuleDict) -> dict:
        return {"probe": self.config}


class Probed(Wuerstchen):
    """Pictures of Stage C alone: its latents, the same as for `Wuerstchen`, go to the probe decoder in train/probe."""

    def __init__(self, folder: str | Path, compiled: bool | None = None, device: str = "cpu"):
        super().__init__(folder, compiled, device)
        path = Path(folder) / "probe" / "model.safetensors"
        tensors, metadata = weights.load(path)
        probe = weights.load_module(ProbeDecoder(**metadata["probe"]), tensors, "probe.", path)
        self.probe = probe.to(self.device)
        self.files = [self.files[-1], path]

    def refine(
        self, latents: Tensor, text: Tensor, ids: Sequence[str], seed: int, steps: int, guidance: float
    ) -> Tensor:
        """The latents as they are: Stage B has no part in these pictures."""
        return latents

    def decode(self, latents: Tensor) -> np.ndarray:
        """The probe's small pictures of compressor latents, resized to the size of Stage A's."""
        return to_uint8(resized(self.probe(latents).float(), 4 * self.shape[-1]))
