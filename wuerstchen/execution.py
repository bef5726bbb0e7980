"""How networks run: precision, and compilation of their repeated blocks."""

import shutil
import sysconfig
from pathlib import Path

import torch
from torch import nn

from wuerstchen.blocks import AttentionBlock, ResBlock
from wuerstchen.stage_a import MixingBlock


def native_precision(name: str) -> str:
    """The precision itself, or fp32 for bf16 where the processor has no bf16 arithmetic: it would only be slower.

    Raises ValueError for another name than bf16 and fp32.
    """
    if name not in ("bf16", "fp32"):
        raise ValueError(f"precision: {name!r}; use bf16 or fp32")
    can = torch.cpu.get_capabilities()
    return name if can.get("avx512_bf16") or can.get("amx_bf16") or can.get("bf16") else "fp32"


def autocast(precision: str) -> torch.autocast:
    """Matrix products and convolutions in that precision; all else, and what they feed, in float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def can_compile() -> bool:
    """Whether torch finds what it compiles with: a C++ compiler and Python's headers."""
    return shutil.which("g++") is not None and (Path(sysconfig.get_path("include")) / "Python.h").exists()


def compile_blocks(module: nn.Module) -> None:
    """Compile each repeated block in place: a fraction of the time that compiling whole networks takes."""
    import torch._inductor.config  # two seconds that only those who compile need pay

    # networks have blocks of many widths, and each is one more specialisation of the same forward function
    torch._dynamo.config.recompile_limit = 256
    # in this process, unless it has several threads: a job's helpers would each import torch first
    torch._inductor.config.compile_threads = torch.get_num_threads()
    for block in module.modules():
        if isinstance(block, ResBlock | AttentionBlock | MixingBlock):
            block.compile(dynamic=False)


def compile_network(module: nn.Module) -> nn.Module:
    """Compile a whole network in place, when it first runs and once for each shape of its inputs."""
    import torch._inductor.config

    torch._inductor.config.compile_threads = torch.get_num_threads()
    module.compile(dynamic=False)
    return module
