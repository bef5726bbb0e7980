"""A GPU that computes nothing: torch's fake tensors on the device "cuda", for machines that have none."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
PRODUCTS = ("addmm", "baddbmm", "bmm", "convolution", "linear", "mm")


class NoGpu(FakeTensorMode):
    """Within it, tensors on "cuda" have a shape and a precision, and no values; those on the CPU are as ever.

    As on a GPU an error is raised where an operation is given tensors of both devices, or a product those of two
    precisions. What is copied back to the CPU is zero. `computed` collects the (operation, precision) of what
    ran there.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.computed: set[tuple[str, torch.dtype]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if func in (aten.pin_memory.default, aten._pin_memory.default):
            return args[0]  # without a driver none can be pinned
        if not any(isinstance(x, FakeTensor) or (isinstance(x, torch.device) and x.type == "cuda") for x in leaves):
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, self.faked, (args, kwargs))
        name = func.overloadpacket.__name__
        given = {x.dtype for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        if name in PRODUCTS and len(given) > 1:  # which fake tensors let pass
            raise RuntimeError(f"{name} of {given}")
        found = super().__torch_dispatch__(func, types, args, kwargs)
        for x in tree_leaves(found):
            if isinstance(x, Tensor) and x.device.type == "cuda":
                self.computed.add((name, x.dtype))
        if func is aten._to_copy.default and found.device.type == "cpu":
            return torch.zeros(found.shape, dtype=found.dtype)
        return found

    def faked(self, x: Tensor) -> Tensor:
        return x if isinstance(x, FakeTensor) else self.from_tensor(x.detach())
