"""The published Würstchen, behind the generators' protocol."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from evaluation.generators import Settings, check_settings
from evaluation.generators.batched import Batched, best_device
from wuerstchen import weights
from wuerstchen.assets import MODELS
from wuerstchen.pipeline import Pipeline
from wuerstchen.sampling import SAMPLING
from wuerstchen.sampling import settings as sampling_of

KNOWN = {"steps_c": int, "guidance_c": float, "steps_b": int, "guidance_b": float}


def is_published(source: Path) -> bool:
    """Whether that is a published model's id, or a folder of its weights in diffusers' or the authors' naming."""
    return str(source) in MODELS or any((source / part).exists() for part in ("prior_prior", "vqgan_f4_v1_500k.pt"))


class PublishedGenerator(Batched):
    """Würstchen from published weights.

    sampling: "paper" or "released", the steps and guidance scales by name; None: the weights' own. settings: those that
    are to be others. device: by default a GPU, in bfloat16, else the CPU, in float32.
    """

    batch_size = 4

    def __init__(
        self,
        source: Path,
        settings: Settings,
        compiled: bool = False,
        device: str | None = None,
        sampling: str | None = None,
    ):
        super().__init__()
        self.device = device or best_device()
        dtype = torch.bfloat16 if self.device.startswith("cuda") else torch.float32
        self.given = check_settings(settings, KNOWN, whole=False)
        if sampling not in (None, *SAMPLING):
            raise ValueError(f"--sampling: {sampling!r} is not known; use {' or '.join(SAMPLING)}")
        self.compiled, self.sampling = compiled, sampling
        self.pipeline = Pipeline.from_pretrained(str(source), dtype, self.device, compiled)

    def batch(self, prompts: list[dict], seed: int) -> np.ndarray:
        texts, ids = ([prompt[key] for prompt in prompts] for key in ("prompt", "id"))
        return self.pipeline(texts, seed=seed, ids=ids, sampling=self.sampling, **self.given)

    def describe(self) -> dict:
        how = sampling_of(self.pipeline.preset, self.sampling, **self.given)
        return {
            "sampler": "ddpm",
            "guidance": {"c": how.guidance_c, "b": how.guidance_b},
            "sampling": self.sampling or "the weights' own",
            "settings": asdict(how),
            "weights_sha256": weights.digest(*self.pipeline.networks.files),
            "precision": str(self.pipeline.dtype).removeprefix("torch."),
            "compiled": self.compiled,
        }
