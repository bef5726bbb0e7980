"""Names of tensors: this project's, the authors' (as their code saves a checkpoint) and diffusers'.

Only the attention layers and the codebook are named differently, and diffusers keeps queries, keys and values apart:

    ours       attention.in_proj.{weight,bias}       attention.out_proj.*        vquantizer.codebook.weight
    authors    attention.attn.in_proj_{weight,bias}  attention.attn.out_proj.*   vquantizer.codebook.weight
    diffusers  attention.to_{q,k,v}.{weight,bias}    attention.to_out.0.*        vquantizer.embedding.weight

Each function takes and gives a state dict. Tensors are not copied but where queries, keys and values are joined or
divided. Half a block or an unknown name is an error here; whether widths and depths are those of a preset is seen when
the tensors are loaded into its networks.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cache

import torch
from torch import Tensor

PARTS = ("stage-a", "stage-b", "stage-c", "compressor")

Leaves = tuple[str, ...]  # names of the tensors of one module


def _with_biases(*layers: str) -> Leaves:
    return tuple(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))


def _batch_norm(name: str) -> Leaves:
    return tuple(f"{name}.{kind}" for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))


LAYER: Leaves = ("weight", "bias")
RESIDUAL: Leaves = (
    *_with_biases("depthwise", "channelwise.0", "channelwise.4"),
    "channelwise.2.gamma",
    "channelwise.2.beta",
)
TIMESTEP = _with_biases("mapper")
RESIZE = _with_biases("1")  # a layer norm without parameters, then the strided convolution
MIXING: Leaves = (*_with_biases("depthwise.1", "channelwise.0", "channelwise.2"), "gammas")
LATENTS: Leaves = ("0.weight", *_batch_norm("1"))
ATTENTION: dict[str, Leaves] = {
    "ours": _with_biases("attention.in_proj", "attention.out_proj", "kv_mapper.1"),
    "authors": (
        "attention.attn.in_proj_weight",
        "attention.attn.in_proj_bias",
        *_with_biases("attention.attn.out_proj", "kv_mapper.1"),
    ),
    "diffusers": _with_biases(
        "attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0", "kv_mapper.1"
    ),
}


def _layout(part: str, naming: str) -> dict[str, tuple[Leaves, ...]]:
    """What a part is made of: a regular expression of modules' names and what each of them may hold.

    Where an expression has numbers, they must be consecutive.
    """
    blocks = (RESIDUAL, TIMESTEP, ATTENTION[naming])
    if part == "stage-c":
        return {r"projection|cond_mapper\.0|cond_mapper\.2|out\.1": (LAYER,), r"blocks\.\d+": blocks}
    if part == "stage-b":
        return {
            r"clip_mapper|embedding\.1|clf\.1": (LAYER,),
            r"effnet_mappers\.[0-9]+": (LAYER,),  # some levels have none, so they need not be consecutive
            r"(?:down|up)_blocks\.\d+\.\d+": (*blocks, RESIZE),
        }
    codebook = "vquantizer.embedding" if naming == "diffusers" else "vquantizer.codebook"
    return {
        r"in_block\.1|out_block\.0": (LAYER,),
        re.escape(codebook): (("weight",),),
        r"(?:down|up)_blocks\.\d+": (MIXING, LAYER, _with_biases("0"), LATENTS),
    }


def _fixed(pattern: str) -> list[str]:
    """The modules that an expression without numbers names one by one."""
    return [] if "[" in pattern or r"\d" in pattern else [name.replace("\\", "") for name in pattern.split("|")]


def _check(part: str, naming: str, names: Collection[str]) -> None:
    """Raises ValueError that names the first tensor that is missing or extra."""
    if part == "compressor":
        return _check_compressor(names)
    found: dict[str, set[str]] = defaultdict(set)
    allowed: dict[str, tuple[Leaves, ...]] = {}
    layout = _layout(part, naming)
    for name in names:
        for pattern, kinds in layout.items():
            if match := re.match(rf"({pattern})\.(.+)", name):
                module, leaf = match[1], match[match.lastindex]
                if any(leaf in kind for kind in kinds):
                    found[module].add(leaf)
                    allowed[module] = kinds
                    break
        else:
            raise _unlike(part, naming, name, "extra")
    for pattern in layout:
        for module in _fixed(pattern):
            found.setdefault(module, set())
            allowed[module] = layout[pattern]
    for module, leaves in sorted(found.items()):
        kind = min(allowed[module], key=lambda kind: len(leaves ^ set(kind)))
        for leaf in sorted(leaves ^ set(kind)):
            raise _unlike(part, naming, f"{module}.{leaf}", "extra" if leaf in leaves else "missing")
    for module in sorted(found):
        before = re.sub(r"\d+$", lambda number: str(int(number[0]) - 1), module)
        if "blocks" in module and not before.endswith(".-1") and before not in found:
            raise _unlike(part, naming, f"{before}.*", "missing")


@cache
def _compressor_names(backbone: str) -> frozenset[str]:
    """Names of the Semantic Compressor's tensors, which are torchvision's."""
    from wuerstchen.compressor import SemanticCompressor
    from wuerstchen.presets import CompressorConfig

    with torch.device("meta"):
        return frozenset(SemanticCompressor(CompressorConfig(backbone=backbone)).state_dict())


def _check_compressor(names: Collection[str]) -> None:
    """The same for the Semantic Compressor, v2's or v1's."""
    given = set(names)
    if given == _compressor_names("efficientnet_v2_s"):
        return
    whole = (_compressor_names("efficientnet_v2_s"), _compressor_names("efficientnet_v2_l"))
    expected = min(whole, key=lambda known: len(known ^ given))
    for name in sorted(given ^ expected):
        raise _unlike("compressor", "torchvision", name, "extra" if name in given else "missing")


def _unlike(part: str, naming: str, name: str, kind: str) -> ValueError:
    said = {"ours": "this project's", "authors": "the authors'", "torchvision": "torchvision's"}.get(
        naming, "diffusers'"
    )
    return ValueError(f"{part}: tensor {name} is {kind}, in {said} naming")


def _renamed(part: str, tensors: Mapping[str, Tensor], naming: str, pairs: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Tensors checked against a naming, then renamed: each pair is a part of a name and what takes its place."""
    if part not in PARTS:
        raise ValueError(f"part: {part!r} is not known; use one of {', '.join(PARTS)}")
    _check(part, naming, tensors)
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in pairs:
            name = name.replace(old, new)
        renamed[name] = tensor
    return renamed


AUTHORS = [  # ours, theirs
    (".attention.in_proj.", ".attention.attn.in_proj_"),
    (".attention.out_proj.", ".attention.attn.out_proj."),
]
DIFFUSERS = [
    (".attention.out_proj.", ".attention.to_out.0."),
    ("vquantizer.codebook.", "vquantizer.embedding."),
]


def from_authors(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A part's state dict in this project's names from one in the authors'. part: one of `PARTS`.

    Raises ValueError that names a missing or extra tensor.
    """
    return _renamed(part, tensors, "authors", [(theirs, ours) for ours, theirs in AUTHORS])


def to_authors(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_authors`."""
    return _renamed(part, tensors, "ours", AUTHORS)


def from_diffusers(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A part's state dict in this project's names from one in diffusers'. part: one of `PARTS`.

    Raises ValueError that names a missing or extra tensor.
    """
    joined = {}
    for name, tensor in _renamed(part, tensors, "diffusers", [(theirs, ours) for ours, theirs in DIFFUSERS]).items():
        if ".attention.to_q." in name:
            qkv = [tensors[name.replace("to_q", letter)] for letter in ("to_q", "to_k", "to_v")]
            joined[name.replace("to_q", "in_proj")] = torch.cat(qkv)
        elif not re.search(r"\.attention\.to_[kv]\.", name):
            joined[name] = tensor
    return joined


def to_diffusers(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_diffusers`."""
    divided = {}
    for name, tensor in _renamed(part, tensors, "ours", DIFFUSERS).items():
        if ".attention.in_proj." in name:
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                # a copy: safetensors refuses tensors that share their memory
                divided[name.replace("in_proj", f"to_{letter}")] = third.clone()
        else:
            divided[name] = tensor
    return divided
