"""The models that this project trains, behind the generators' protocol."""

from pathlib import Path

import numpy as np
import torch

from evaluation.generators import Settings, check_settings
from evaluation.generators.batched import Batched
from evaluation.generators.pictures import Pictures
from wuerstchen import weights
from wuerstchen.adversarial import DFGanPictures
from wuerstchen.df_gan import TRUNCATION
from wuerstchen.pipeline import BaselineLDM, Reconstruction, Wuerstchen
from wuerstchen.probing import Probed

BATCH = 25
# At the paper's size, 1024 px: 13 GB of activations, most of them Stage B's, beside 5 GB of weights (shapes added up).
BATCH_ON_GPU = 16


class _Trained(Batched):
    batch_size = BATCH

    def __init__(self, settings: Settings, known: dict[str, type], device: str):
        super().__init__()
        self.known, self.device = known, device
        if device != "cpu":
            self.batch_size = BATCH_ON_GPU
        self.set(settings)

    def set(self, settings: Settings) -> None:
        """Draw with these settings from now on. Raises ValueError for missing, unknown and impossible ones."""
        self.settings = check_settings(settings, self.known)

    def load(self, path: Path) -> int:
        """Draw with other weights of the stage that was trained last, from now on; returns their training steps.

        The networks stay, so that nothing is compiled again.
        """
        return self.pipeline.load(path)

    def _record(self, pipeline, files: list[Path], guidance: float | dict | None) -> dict:
        return {
            "sampler": "ddpm",
            "guidance": guidance,
            "settings": self.settings,
            "weights_sha256": weights.digest(*files),
            "precision": pipeline.precision,
            "compiled": pipeline.compiled,
        }


class WuerstchenGenerator(_Trained):
    network = Wuerstchen

    def __init__(self, folder: Path, settings: Settings, compiled: bool | None = None, device: str = "cpu"):
        known = {"steps_c": int, "guidance_c": float, "steps_b": int, "guidance_b": float}
        super().__init__(settings, known, device)
        self.pipeline = self.network(folder, compiled, device)

    def batch(self, prompts: list[dict], seed: int) -> np.ndarray:
        texts, ids = ([prompt[key] for prompt in prompts] for key in ("prompt", "id"))
        return self.pipeline.generate(texts, ids, seed, **self.settings)

    def describe(self) -> dict:
        guidance = {"c": self.settings["guidance_c"], "b": self.settings["guidance_b"]}
        return self._record(self.pipeline, self.pipeline.files, guidance)


class ProbeGenerator(WuerstchenGenerator):
    """Stage C alone: the latents that `WuerstchenGenerator` draws with the same settings, by the probe decoder."""

    network = Probed


class BaselineGenerator(_Trained):
    def __init__(self, folder: Path, name: str, settings: Settings, compiled: bool | None = None, device: str = "cpu"):
        super().__init__(settings, {"steps": int, "guidance": float}, device)
        self.pipeline = BaselineLDM(folder, name, compiled, device)

    def batch(self, prompts: list[dict], seed: int) -> np.ndarray:
        texts, ids = ([prompt[key] for prompt in prompts] for key in ("prompt", "id"))
        return self.pipeline.generate(texts, ids, seed, **self.settings)

    def describe(self) -> dict:
        return self._record(self.pipeline, self.pipeline.files, self.settings["guidance"])


class SmallDFGanGenerator(_Trained):
    """The DF-GAN that a study trains; it draws in one pass, and takes no settings."""

    def __init__(self, folder: Path, settings: Settings, device: str = "cpu"):
        super().__init__(settings, {}, device)
        self.pipeline = DFGanPictures(folder, device)

    def batch(self, prompts: list[dict], seed: int) -> np.ndarray:
        texts, ids = ([prompt[key] for prompt in prompts] for key in ("prompt", "id"))
        return self.pipeline.generate(texts, ids, seed)

    def describe(self) -> dict:
        record = self._record(self.pipeline, self.pipeline.files, None)
        return record | {"sampler": None, "truncation": TRUNCATION}


class ReconstructionGenerator(_Trained):
    """Real pictures through Stage A, or through compressor, Stage B (with the prompt, or the empty one) and Stage A."""

    def __init__(
        self,
        folder: Path,
        through_compressor: bool,
        settings: Settings,
        pictures: Path,
        text: bool = True,
        compiled: bool | None = None,
        device: str = "cpu",
    ):
        super().__init__(settings, {"steps_b": int, "guidance_b": float}, device)
        self.pictures, self.text = Pictures(pictures, other_artist=False), text
        self.model = Reconstruction(folder, through_compressor, compiled, device)

    def batch(self, prompts: list[dict], seed: int) -> np.ndarray:
        real = torch.from_numpy(np.stack(self.pictures.generate(prompts, seed))).permute(0, 3, 1, 2).float() / 255
        ids = [prompt["id"] for prompt in prompts]
        texts = [prompt["prompt"] if self.text else "" for prompt in prompts]
        return self.model.reconstruct(real, texts, ids, seed, **self.settings)

    def load(self, path: Path) -> int:
        return self.model.load(path)

    def describe(self) -> dict:
        return self._record(self.model.pictures, self.model.files, self.settings["guidance_b"])
