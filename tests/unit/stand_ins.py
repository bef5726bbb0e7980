"""Stand-ins for every file of others that a study of published models reads: in the real formats and names, and tiny.

Weights are random. Inception alone has its own size, since the tools beside which ours is checked read no other.
"""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import random_inception
import small_gans
import small_pipelines
import small_towers
import timm
import torch
from PIL import Image

from evaluation import dinov2
from evaluation.generators.galip import SENTENCE
from wuerstchen import assets
from wuerstchen.files import sha256_file

COUNT = 12  # pictures of each set, and prompts
COCO = [f"COCO_val2014_{number:012d}" for number in range(COUNT)]
NARRATED = [f"{number:012d}" for number in range(1000, 1000 + COUNT)]


def photograph(name: str, height: int, width: int) -> np.ndarray:
    """A picture of some structure, uint8 (height, width, 3), that follows from its name: smooth shapes with an edge."""
    random = np.random.default_rng(list(name.encode()))
    rough = random.integers(0, 256, (5, 6, 3), np.uint8)
    picture = np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)).copy()
    picture[height // 3 : height // 2, width // 4 :] = random.integers(0, 256, 3)
    return picture


def pictures(names: list[str], suffix: str, folder: Path) -> Path:
    """Photographs of one size in a folder."""
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(photograph(name, 96, 120)).save(folder / f"{name}.{suffix}", quality=95)
    return folder


def zipped(names: list[str], path: Path) -> None:
    """Photographs in an official zip of COCO's, below a folder of its name."""
    folder = pictures(names, "jpg", path.with_suffix("") / path.stem)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{path.stem}/{file.name}")
    shutil.rmtree(folder.parent)


def annotations(path: Path) -> None:
    """Two captions of each picture, in the official zip."""
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate(COCO)]
    captions = [
        {"id": 10 * n + twice, "image_id": n, "caption": f"Photograph {n} of a thing, told {twice} times"}
        for n in range(COUNT)
        for twice in range(2)
    ]
    with zipfile.ZipFile(path, "w") as archive:
        text = json.dumps({"images": images, "annotations": captions})
        archive.writestr("annotations/captions_val2014.json", text)


def narratives(path: Path) -> None:
    """One narrative of each picture; every other one is longer than a text encoder reads."""
    lines = []
    for number, name in enumerate(NARRATED):
        said = f"In {name} we see it" + ", and then a dog" * (30 * (number % 2)) + "."
        row = {"dataset_id": "mscoco_val2017", "image_id": str(int(name)), "annotator_id": 7, "caption": said}
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines))


def parti(path: Path) -> None:
    """Parti-prompts of two categories."""
    rows = [f"a {n} on a hill\t{('Arts', 'Animals')[n % 2]}\tBasic\t" for n in range(COUNT)]
    path.write_text("\n".join(["Prompt\tCategory\tChallenge\tNote", *rows]) + "\n")


def dinov2_file(path: Path) -> None:
    """DINOv2 by its authors' names, which timm has too, with positions of 37 x 37."""
    sizes = {"embed_dim": 2 * dinov2.HEAD, "depth": 1, "num_heads": 2}
    torch.manual_seed(4)
    network = timm.create_model(dinov2.NETWORK, img_size=518, num_classes=0, **sizes).requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # fresh ones say the same of all pictures
    torch.save(network.state_dict() | {"mask_token": torch.zeros(1, 2 * dinov2.HEAD)}, path)


def openai(name: str, embedding: int = small_towers.EMBEDDING) -> Callable[[Path], None]:
    """What writes one of OpenAI's CLIPs."""
    return lambda path: small_towers.save_torchscript(small_towers.with_open_clip(name, 1, 1, embedding), path)


def pickscore(path: Path) -> None:
    """PickScore as transformers saves it."""
    small_towers.hugging_face(2, 1).save_pretrained(path.parent)


def pipeline(name: str) -> Callable[[Path], None]:
    """What writes a Stable Diffusion, with the files of the published one."""

    def write(folder: Path) -> None:
        small_pipelines.save(name, folder)
        for tokenizer in sorted(folder.glob("tokenizer*")):
            small_pipelines.as_published(tokenizer)

    return write


WRITERS: dict[str, Callable[[Path], object]] = {
    "coco/annotations-2014": annotations,
    "coco/val2014": lambda path: zipped(COCO, path),
    "coco/val2017": lambda path: zipped(NARRATED, path),
    "localized-narratives/coco-val": narratives,
    "parti-prompts": parti,
    "celeba-hq": lambda path: pictures([f"{number:05d}" for number in range(COUNT)], "png", path),
    "inception": lambda path: random_inception.write(path.parent),
    "dinov2-l14": dinov2_file,
    "clip-b32": openai("clip-b32", SENTENCE),  # which GALIP reads too
    "clip-l14": openai("clip-l14"),
    "clip-l14-336": openai("clip-l14-336"),
    "pickscore": pickscore,
    "hpsv2.1": lambda path: small_towers.save_hpsv2(small_towers.with_open_clip("hpsv2.1", 3, 1), path),
    "df-gan/generator": lambda path: small_gans.write_df_gan(path.parent),
    "galip/generator": lambda path: small_gans.write_galip(path.parent),
    "sd-1.4": pipeline("sd-1.4"),
    "sd-2.1": pipeline("sd-2.1"),
    "sd-xl": pipeline("sd-xl"),
}
WITH_OTHERS = ("df-gan/text-encoder", "df-gan/vocabulary")  # are written beside others


def write() -> dict[str, tuple[int, str]]:
    """Write all where WUERSTCHEN_ASSETS names a folder; returns size and digest of each that is one file."""
    known = {}
    for name in (*WRITERS, *WITH_OTHERS):
        path = assets.place(assets.find(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in WRITERS:
            WRITERS[name](path)
        if path.is_file():
            known[name] = path.stat().st_size, sha256_file(path)
    return known


def tell(tree: Path, known: dict[str, tuple[int, str]]) -> None:
    """Let the asset table of a copy of the tree have the sizes and digests of the stand-ins, and none for others."""
    with open(tree / "wuerstchen" / "assets_table.py", "a") as table:
        table.write(f"\nfrom dataclasses import replace\n\nKNOWN = {known!r}\n")
        table.write("SAID = {name: {'bytes': size, 'sha256': digest} for name, (size, digest) in KNOWN.items()}\n")
        table.write("TABLE = tuple(replace(asset, **SAID.get(asset.name, {})) for asset in TABLE)\n")
