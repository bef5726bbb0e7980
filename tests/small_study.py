"""A small results folder with two models' pictures, and studies made of it."""

from pathlib import Path

import numpy as np
from PIL import Image

from study_app.manifest import Study, build
from wuerstchen.files import write_jsonl
from wuerstchen.shards import write_shard

MODELS = ("wuerstchen", "baseline-ldm")


def results(
    folder: Path, sets: tuple[str, ...] = ("names",), count: int = 60, sizes: tuple[int, int] = (48, 48)
) -> Path:
    """Prompts and pictures as a study's DAG writes them; the second model's pictures are `sizes[1]` wide."""
    rng = np.random.default_rng(0)
    for name in sets:
        ids = [f"{name}-{i:03d}" for i in range(count)]
        write_jsonl(folder / "prompts" / f"{name}.jsonl", [{"id": i, "prompt": f"a picture of {i}"} for i in ids])
        for model, size in zip(MODELS, sizes, strict=True):
            half = count // 2
            for shard, part in enumerate((ids[:half], ids[half:])):
                pictures = {i: Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)) for i in part}
                write_shard(folder / "images" / model / name / f"{shard:04d}.zip", pictures, {"model": model})
    return folder


def study(folder: Path, prompts: str = "names", count: int = 60, **settings) -> Study:
    """A study of `count` prompts; without a minimum exposure unless one is given."""
    made = folder / "results"
    if not (made / "prompts" / f"{prompts}.jsonl").exists():
        results(made, (prompts,), count)
    return build(made, MODELS, prompts, folder / "study_data" / prompts, **({"min_exposure_ms": 0} | settings))
