"""Published Würstchen weights, loaded from located assets or from a folder into this project's networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.assets import MODELS, described, expanded, find, found, locate, place
from wuerstchen.clip import ClipConfig, load_clip, load_clip_files
from wuerstchen.compressor import SemanticCompressor
from wuerstchen.convert import from_authors, from_diffusers
from wuerstchen.files import read_json
from wuerstchen.presets import Preset, StageAConfig, StageCConfig, TextConfig, UNetConfig, preset
from wuerstchen.scaling import latent_scaling
from wuerstchen.stage_a import StageA
from wuerstchen.stage_b import UNet
from wuerstchen.stage_c import StageC
from wuerstchen.text import TextEncoder
from wuerstchen.unpack import NAMES


@dataclass
class Networks:
    """Everything that draws pictures, in eval mode, on one device."""

    preset: Preset
    stage_a: StageA
    stage_b: UNet
    stage_c: StageC
    text_b: TextEncoder
    text_c: TextEncoder
    scaling: dict
    """How Stage C's latents are scaled, as `tasks.latent_scaling` gives it."""
    compressor: SemanticCompressor | None
    files: tuple[Path, ...] = ()
    """The weight files of the stages, each once."""


NETWORKS: dict[str, Callable[[Preset], nn.Module]] = {
    "stage-a": lambda preset: StageA(preset.stage_a),
    "stage-b": lambda preset: UNet(preset.stage_b),
    "stage-c": lambda preset: StageC(preset.stage_c),
    "compressor": lambda preset: SemanticCompressor(preset.compressor),
}
# which of the dictionaries in the authors' checkpoints belongs to a part; Stage C's is a moving average in some
KEYS = {"compressor": ("effnet_state_dict",)}
OTHER_KEYS = ("ema_state_dict", "state_dict")

AUTHORS_STAGE_C = "model_v2_stage_c*.pt"


def load(source: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Networks:
    """The networks of a published model, by its id or in a folder.

    A folder is a saved diffusers pipeline (vqgan, decoder, prior_prior and the text encoders of WuerstchenCombined-
    Pipeline), whose sizes are read from its configurations, or holds the authors' three .pt files of version 2; their
    text encoders are assets. Raises ValueError that names what is missing, with sizes and digests, or does not fit.
    """
    if str(source) in MODELS:
        if missing := [name for name in expanded([str(source)]) if found(find(name)) is None]:
            fetch = f"python -m wuerstchen.assets fetch {source}"
            files = "".join(f"\n  {place(find(name))}: {described(find(name))}" for name in missing)
            raise ValueError(
                f"model {source}: {len(missing)} files are missing; run: {fetch} or put them there:{files}"
            )
        chosen = preset("released-v2")
        files = {part: locate(name) for part, name in MODELS[str(source)].items()}
    elif (Path(source) / "prior_prior").is_dir():
        return load_diffusers(Path(source), dtype, device)
    elif Path(source).is_dir():
        chosen, files = preset("released-v2"), authors_files(Path(source))
    elif str(source) == "released-v1":
        raise ValueError("model: released-v1's Stage B is a token model, which no class here holds; see load_part")
    else:
        raise ValueError(f"model: {str(source)!r} is neither a folder nor one of {', '.join([*MODELS, *NAMES])}")
    texts = [load_clip(text, dtype, device) for text in (chosen.text_b or chosen.text, chosen.text)]
    return build(chosen, files, *texts, dtype, device)


def build(
    chosen: Preset,
    files: Mapping[str, Path],
    text_b: TextEncoder,
    text_c: TextEncoder,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Networks:
    """Networks of a preset's sizes from one file per part; without a file for the compressor there is none."""
    parts = {part: load_part(part, chosen, path, dtype, device) for part, path in files.items()}
    return Networks(
        preset=chosen,
        stage_a=parts["stage-a"],
        stage_b=parts["stage-b"],
        stage_c=parts["stage-c"],
        text_b=text_b,
        text_c=text_c,
        scaling=latent_scaling(chosen.latent_scaling, {}),
        compressor=parts.get("compressor"),
        files=tuple(dict.fromkeys(files.values())),
    )


def load_part(
    part: str, chosen: Preset, path: Path, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> nn.Module:
    """One network of a preset's sizes from a file in the authors' or in diffusers' naming.

    part: stage-a, stage-b, stage-c or compressor. Version 1's Stage C is
    `load_part("stage-c", preset("released-v1"), locate("authors/v1-stage-c"))`; its Stage B is a token model (Paella)
    that no class here holds.
    """
    tensors = weights.read(path)
    for key in KEYS.get(part, OTHER_KEYS):
        if isinstance(tensors.get(key), dict):
            tensors = tensors[key]
    if strange := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path}: no tensors of {part}; it holds {', '.join(sorted(map(str, strange)))}")
    # only the attention layers and the codebook are named differently
    theirs = any(".attention.to_" in name or name.startswith("vquantizer.embedding.") for name in tensors)
    try:
        tensors = (from_diffusers if theirs else from_authors)(part, tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    with torch.device("meta"):
        network = NETWORKS[part](chosen)
    return weights.assign(network, tensors, path, dtype, device)


def authors_files(folder: Path) -> dict[str, Path]:
    """The files of version 2 as the authors name them; one holds Stage B and the compressor."""
    stage_c = sorted(folder.glob(AUTHORS_STAGE_C))
    files = {"stage-a": folder / "vqgan_f4_v1_500k.pt", "stage-b": folder / "model_v2_stage_b.pt"}
    if missing := [path.name for path in files.values() if not path.exists()]:
        raise ValueError(f"{folder}: {missing[0]} is missing, and it is no saved diffusers pipeline either")
    if len(stage_c) != 1:
        there = ", ".join(path.name for path in stage_c) or "none"
        raise ValueError(f"{folder}: one file {AUTHORS_STAGE_C} is needed, there is: {there}")
    return files | {"stage-c": stage_c[0], "compressor": files["stage-b"]}


def load_diffusers(folder: Path, dtype: torch.dtype, device: str) -> Networks:
    """The networks of a folder that WuerstchenCombinedPipeline was saved to."""
    a, b, c = (read_config(folder / name) for name in ("vqgan", "decoder", "prior_prior"))
    if b["kernel_size"] != 3:
        raise ValueError(f"{folder}/decoder/config.json: kernel_size is {b['kernel_size']}, only 3 can be loaded")
    released = preset("released-v2")
    blocks = tuple(b["blocks"])
    chosen = replace(
        released,
        name=folder.name,
        text=replace(released.text, dimensions=c["c_cond"]),
        text_b=TextConfig("clip-h", b["clip_embd"]),
        stage_a=StageAConfig(
            levels=a["levels"],
            bottleneck_blocks=a["bottleneck_blocks"],
            width=a["embed_dim"],
            c_latent=a["latent_channels"],
            codebook_size=a["num_vq_embeddings"],
            scale_factor=a["scale_factor"],
        ),
        stage_b=UNetConfig(
            c_in=b["c_in"],
            patch=b["patch_size"],
            widths=tuple(b["c_hidden"]),
            heads=tuple(max(heads, 0) for heads in b["nhead"]),
            levels=tuple(b["level_config"]),
            down=blocks,
            up=blocks[::-1],
            c_image=b["effnet_embd"],
            inject_image=tuple(b["inject_effnet"]),
            c_cond=b["c_cond"],
            c_text=b["clip_embd"],
            c_timestep=b["c_r"],
        ),
        stage_c=StageCConfig(
            c_in=c["c_in"],
            width=c["c"],
            c_text=c["c_cond"],
            c_timestep=c["c_r"],
            depth=c["depth"],
            heads=c["nhead"],
        ),
    )
    names = {"stage-a": "vqgan", "stage-b": "decoder", "stage-c": "prior_prior"}
    files = {part: folder / name / "diffusion_pytorch_model.safetensors" for part, name in names.items()}
    texts = [
        load_clip_files(
            text,
            clip_config(folder / f"{prefix}text_encoder"),
            folder / f"{prefix}text_encoder" / "model.safetensors",
            folder / f"{prefix}tokenizer" / "tokenizer.json",
            dtype,
            device,
        )
        for prefix, text in (("", chosen.text_b), ("prior_", chosen.text))
    ]
    return build(chosen, files, *texts, dtype, device)


def read_config(folder: Path) -> dict:
    """A saved module's config.json. Raises ValueError where there is none."""
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder}/config.json is missing; is {folder.parent} a whole saved pipeline?")
    return read_json(folder / "config.json")


def clip_config(folder: Path) -> ClipConfig:
    """The sizes of a saved CLIPTextModel. Raises ValueError for a variant that `ClipText` is not."""
    values = read_config(folder)
    width = values["hidden_size"]
    for key, only in (("hidden_act", "gelu"), ("intermediate_size", 4 * width)):
        if values[key] != only:
            raise ValueError(f"{folder}/config.json: {key} is {values[key]!r}, only {only!r} can be loaded")
    return ClipConfig(
        width,
        values["num_hidden_layers"],
        values["num_attention_heads"],
        values["vocab_size"],
        values["max_position_embeddings"],
    )
