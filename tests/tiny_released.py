"""A cut-down study of published models: config/released.yaml itself with few prompts, all models, and the baseline LDM.

Every file of others is a stand-in (`stand_ins`), so that all goes through the rules and programs of the whole study.
"""

from pathlib import Path

import numpy as np
import small_wuerstchen
import stand_ins
import tiny_study
import yaml
from PIL import Image
from trees import ROOT

MINE = "mine"  # a folder of pictures: the real ones with some noise
FEW = {"steps": 2}


def make(folder: Path) -> Path:
    """Write into `folder` what is no asset: a Würstchen, a baseline, a model's own pictures. Returns the config."""
    folder.mkdir(parents=True)
    small_wuerstchen.save(small_wuerstchen.modules(), folder / "wuerstchen")
    tiny_study.build(folder / "study")
    tiny_study.run(folder / "study", "baseline-ldm", "--steps", 2)
    (folder / MINE).mkdir()
    names = [*stand_ins.COCO, *stand_ins.NARRATED, *(f"parti-{n:04d}" for n in range(1, stand_ins.COUNT + 1))]
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).normal(0, 8, (96, 120, 3))
        pixels = (stand_ins.photograph(name, 96, 120) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / MINE / f"{name.lower().replace('_', '-')}.png")
    (folder / "config.yaml").write_text(yaml.safe_dump(config(folder), sort_keys=False))
    return folder / "config.yaml"


def config(folder: Path) -> dict:
    """The study's config. The paper's models at their own size are not timed: that takes a GPU."""
    whole = yaml.safe_load((ROOT / "config" / "released.yaml").read_text(encoding="utf-8"))
    whole["study"] = "tiny-released"
    for prompts in whole["prompts"].values():
        prompts["count"] = stand_ins.COUNT
    whole["shard_size"] = stand_ins.COUNT * len(whole["prompts"]) // 2
    rivals = [model for model in whole["models"] if isinstance(model, str)]
    whole["models"] = [
        {"id": "wuerstchen", "weights": f"{folder}/wuerstchen"},
        {"id": "baseline-ldm", "weights": f"{folder}/study/train"},
        *rivals,
        {"id": MINE, "folder": f"{folder}/{MINE}"},
    ]
    whole["sampling"] |= dict.fromkeys(("sd-1.4", "sd-2.1", "sd-xl"), FEW)
    whole["sampling"]["wuerstchen"] |= {"steps_c": 2, "steps_b": 1}
    whole["sampling"]["baseline-ldm"] = FEW | {"guidance": 3.0}
    whole["metrics"].remove("speed")
    whole["robustness"] |= {"size": 48, "parts": 2, "manipulations": ["jpeg-50", "nearest", "contrast-up"]}
    return whole
