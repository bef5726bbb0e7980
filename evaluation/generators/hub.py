"""Rivals that run in diffusers: Stable Diffusion 1.4, 2.1 and XL, and any text-to-image pipeline saved for it.

Each draws at its own size with its own scheduler, steps and guidance, as in the paper ("default configuration", 4): SD
XL without its refiner. Nothing is downloaded and no code of a repository is run; networks come from safetensors alone.

Safety checkers are not loaded: what they black out would be measured as a picture. An SD XL's invisible watermark is
off too; by default it depends on whether another package is installed.
"""

import inspect
import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.generators import DIFFUSERS, KNOWN, Settings, check_settings
from evaluation.generators.batched import Batched, best_device
from wuerstchen import weights
from wuerstchen.assets import locate
from wuerstchen.files import read_json
from wuerstchen.seeds import generator

INDEX = "model_index.json"
REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?")
# without its variants' files, such as model.fp16.safetensors
NETWORK = re.compile(r"(model|diffusion_pytorch_model)(-\d+-of-\d+)?\.safetensors")
LIBRARIES = ("diffusers", "transformers")
SETTABLE = {"steps": int, "guidance": float}  # and what diffusers calls it:
NAMES = {"steps": "num_inference_steps", "guidance": "guidance_scale"}


def folder_of(model: str, source: Path | None) -> Path:
    """Where a pipeline lies: a published model's asset, a folder, or a hub's repository in the cache of its client.

    source: a folder or OWNER/NAME[@REVISION]. Raises ValueError that says what is missing and how to get it.
    """
    if source is None:
        return locate(model)
    if source.is_dir():
        if not (source / INDEX).is_file():
            unknown = "" if model in DIFFUSERS else f"--model: {model!r} is not known ({', '.join(KNOWN)}), and "
            raise ValueError(f"{unknown}--weights: {source} is no saved diffusers pipeline: it has no {INDEX}")
        return source
    match = REPOSITORY.fullmatch(source.as_posix())
    if not match:
        raise ValueError(f"--weights: {source} is neither a folder nor OWNER/NAME[@REVISION] of the hub")
    from huggingface_hub import try_to_load_from_cache

    name, revision = match[1], match[2] or "main"
    cached = try_to_load_from_cache(name, INDEX, revision=revision)
    if not isinstance(cached, str):
        raise ValueError(
            f"--weights: {name} at {revision} is no folder, and not in the hub's cache; if it is meant, run:"
            f" hf download {name} --revision {revision}"
        )
    return Path(cached).parent


def parts_of(folder: Path) -> dict[str, list[str | None]]:
    """Each part of a saved pipeline as [library, class]; "_class_name" is the pipeline's own as [None, class].

    Raises ValueError for a pipeline, or a part, that only code in its own folder knows.
    """
    import diffusers

    index = read_json(folder / INDEX)
    name = index.get("_class_name")
    if not isinstance(name, str) or not hasattr(diffusers, name):
        raise ValueError(f"{folder / INDEX}: _class_name is {name!r}, which diffusers {version('diffusers')} has not")
    parts = {key: value for key, value in index.items() if isinstance(value, list)}
    for key, value in parts.items():
        if value[0] not in (None, *LIBRARIES) and key != "safety_checker":
            raise ValueError(f"{folder / INDEX}: {key} is from {value[0]!r}; only {' and '.join(LIBRARIES)} are loaded")
    return parts | {"_class_name": [None, name]}


def load(folder: Path, dtype: torch.dtype, device: str) -> Any:
    """The pipeline in a folder, on a device. Raises ValueError, one line, where it is not loaded or takes no text."""
    import diffusers

    parts = parts_of(folder)
    kind = getattr(diffusers, parts["_class_name"][1])
    takes = inspect.signature(kind.__call__).parameters
    if lacking := [name for name in ("prompt", "generator", NAMES["steps"], "output_type") if name not in takes]:
        raise ValueError(f"{folder}: {kind.__name__} is no text-to-image pipeline: it takes no {lacking[0]}")
    options: dict[str, Any] = {}
    if "safety_checker" in parts:
        options = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if "add_watermarker" in inspect.signature(kind.__init__).parameters:
        options["add_watermarker"] = False
    try:
        pipeline = kind.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True, **options)
    except Exception as error:  # each version of both libraries has its own
        raise ValueError(f"{folder}: not loaded: {' '.join(str(error).split())}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


class DiffusersGenerator(Batched):
    """A pipeline of diffusers. settings: steps and guidance, where they are not to be the pipeline's own.

    device: by default a GPU, in float16, else the CPU, in float32.
    """

    batch_size = 4

    def __init__(self, model: str, source: Path | None, settings: Settings, device: str | None = None):
        super().__init__()
        self.device = device or best_device()
        self.dtype = torch.float16 if self.device.startswith("cuda") else torch.float32
        self.folder = folder_of(model, source)
        self.pipeline = load(self.folder, self.dtype, self.device)
        takes = inspect.signature(self.pipeline.__call__).parameters
        self.known = {key: kind for key, kind in SETTABLE.items() if NAMES[key] in takes}
        own = {key: takes[NAMES[key]].default for key in self.known}
        self.settings = own | check_settings(settings, self.known, whole=False)
        self.black: list[str] = []
        self.truncated: list[str] = []

    def generate(self, prompts: Sequence[dict], seed: int) -> list[np.ndarray]:
        """One image per prompt. Raises ValueError naming a prompt whose picture is not finite.

        Pictures that are black all over are kept, and named by `describe`: they are rarely meant.
        """
        self.truncated = [prompt["id"] for prompt in prompts if self.too_long(prompt["prompt"])]
        images = super().generate(prompts, seed)
        self.black = [prompt["id"] for prompt, image in zip(prompts, images, strict=True) if not image.any()]
        return images

    def too_long(self, prompt: str) -> bool:
        """Whether a tokenizer of the pipeline cuts the prompt."""
        tokenizers = [getattr(self.pipeline, name, None) for name in ("tokenizer", "tokenizer_2")]
        return any(len(t(prompt).input_ids) > t.model_max_length for t in tokenizers if t is not None)

    @torch.inference_mode()
    def batch(self, prompts: list[dict], seed: int) -> np.ndarray:
        pictures = self.pipeline(
            prompt=[prompt["prompt"] for prompt in prompts],
            generator=[generator(seed, prompt["id"], "diffusers") for prompt in prompts],
            output_type="np",
            **{NAMES[key]: value for key, value in self.settings.items()},
        ).images
        finite = np.isfinite(pictures).all(axis=(1, 2, 3))
        if not finite.all():
            which = prompts[int(finite.argmin())]["id"]
            raise ValueError(f"the picture of prompt {which} is not finite, in {self.dtype}")
        return np.round(pictures * 255).astype(np.uint8)

    def describe(self) -> dict:
        files = sorted(
            path
            for name in self.pipeline.components
            for path in (self.folder / name).glob("*.safetensors")
            if NETWORK.fullmatch(path.name)
        )
        return {
            "sampler": type(self.pipeline.scheduler).__name__,
            "scheduler": json.loads(self.pipeline.scheduler.to_json_string()),
            "guidance": self.settings.get("guidance"),
            "settings": self.settings,
            "weights_sha256": weights.digest(*files),
            "precision": str(self.dtype).removeprefix("torch."),
            "pipeline": type(self.pipeline).__name__,
            "diffusers": version("diffusers"),
            "black": self.black,
            "truncated": self.truncated,
        }
