"""Checkpoints: safetensors files that carry the configuration of their network."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from wuerstchen.files import atomic_path

KEY = "wuerstchen"


def save(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]) -> None:
    """Write tensors and JSON-able metadata to one safetensors file, atomically. Raises OSError naming the file."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            # one key only: the format writes several in an order that changes from run to run
            save_file(whole, temporary, {KEY: json.dumps(dict(metadata))})
        except SafetensorError as error:
            raise OSError(f"{path}: {error}") from None


def metadata(path: str | Path) -> dict:
    """The metadata of a file that `save` wrote. Raises ValueError where the file has none."""
    with _open(path) as file:
        values = file.metadata() or {}
    try:
        return json.loads(values[KEY])
    except (json.JSONDecodeError, KeyError):
        raise ValueError(f"{path}: its metadata is not that of a checkpoint of this project") from None


def load(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and metadata of a file that `save` wrote."""
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return tensors, metadata(path)


def _open(path: str | Path):
    if not Path(path).exists():
        raise ValueError(f"{path}: no such checkpoint; has its stage been trained?")
    try:
        return safe_open(path, "pt")
    except Exception as error:
        raise ValueError(f"{path}: not a safetensors file, or cut short ({error})") from None


def read(path: str | Path) -> dict:
    """What a file of published weights holds, mapped into memory: tensors by name, or in a .pt dicts of them.

    Of a .pt nothing but tensors and plain values is read. Raises ValueError that names a file of another kind.
    """
    if not Path(path).exists():
        raise ValueError(f"{path} is missing")
    if Path(path).suffix == ".safetensors":
        with _open(path) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    try:
        # only the zip format, torch's since 2020, can be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        raise ValueError(f"{path}: not a file of tensors ({str(error).splitlines()[0]})") from None


def compare(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path, prefix: str = "") -> None:
    """Raises ValueError that names the first tensor that is missing, extra or misshapen for `module`."""
    expected = module.state_dict()
    if wrong := sorted(set(tensors) ^ set(expected)):
        kind = "extra" if wrong[0] in tensors else "missing"
        raise ValueError(f"{source}: tensor {prefix}{wrong[0]} is {kind} ({len(wrong)} names differ)")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{source}: tensor {prefix}{name} is {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            )


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str, source: str | Path) -> nn.Module:
    """Load the tensors below `prefix` into `module`, strictly; a missing, extra or misshapen tensor is named."""
    mine = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    compare(module, mine, source, prefix)
    module.load_state_dict(mine)
    return module.eval()


def assign(
    module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path, dtype: torch.dtype, device: str
) -> nn.Module:
    """Give tensors to a module on the meta device, strictly, in a precision and on a device; it is for use only.

    What has both already is not copied: tensors that were mapped stay in their file.
    """
    compare(module, tensors, source)
    state = {
        name: tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
        for name, tensor in tensors.items()
    }
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False).eval()


def digest(*paths: str | Path) -> str:
    """One SHA-256 over the contents of several files, in order."""
    from wuerstchen.files import sha256_file, sha256_text

    return sha256_text("\n".join(sha256_file(path) for path in paths))


def parameters(*modules: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for module in modules for p in module.parameters())


def ids_digest(ids: list[str]) -> str:
    """Digest of the order of pictures that precomputed rows belong to."""
    from wuerstchen.files import sha256_text

    return sha256_text("\n".join(ids))
