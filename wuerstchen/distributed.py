"""Processes of a distributed training: their group, how a network is spread over them, and whole checkpoints.

`python -m wuerstchen.distributed --processes N [--nodes M] -m wuerstchen.train ...` starts N processes, on M nodes of
the Slurm job that it is in. All other options are torchrun's, but its exit status is that of the first process that
failed, or `STOPPED` where it passed a signal on, so that a script can tell a training that goes on by the same command
from one that broke.
"""

import argparse
import contextlib
import functools
import os
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from wuerstchen import weights
from wuerstchen.blocks import ResBlock
from wuerstchen.runs import STOPPED
from wuerstchen.stage_a import MixingBlock


@dataclass(frozen=True)
class Ranks:
    """This process among those of the training."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0


def start() -> Ranks:
    """Join the process group that torchrun describes; a group of one where it was not used."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        torch.set_float32_matmul_precision("high")  # TF32 where autocast leaves float32, as the authors trained
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    # bound to its GPU, a process need not guess in a barrier which one is its own
    options = {"backend": "nccl", "device_id": device} if cuda else {"backend": "gloo"}
    if "RANK" not in os.environ:
        options |= {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group(**options)
    return Ranks(dist.get_rank(), dist.get_world_size(), device)


def checkpoint_activations(module: nn.Module) -> None:
    """Compute the residual blocks again in the backward pass, in place: their hidden maps are four times as wide as
    everything else, and most of a training's memory."""
    for block in module.modules():
        if isinstance(block, ResBlock | MixingBlock):
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def spread(module: nn.Module, parallel: str, ranks: Ranks) -> nn.Module:
    """The module to call: replicated by DDP, or sharded over all processes by FSDP2.

    Parameters stay float32; autocast decides what is computed in bfloat16, so that both give the same numbers. FSDP2
    gathers residual blocks, two thirds of the parameters, one at a time. All else is one unit: keys and values of the
    attention are computed outside the blocks' own forward, where nothing would gather them.
    """
    if parallel == "ddp":
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.to(memory_format=torch.channels_last)  # as its gradient comes, which is copied otherwise
        devices = [ranks.device.index] if ranks.device.type == "cuda" else None
        return DistributedDataParallel(module, devices, forward_sync_buffers=False, gradient_as_bucket_view=True)
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    for block in module.modules():
        if isinstance(block, ResBlock | MixingBlock):
            fully_shard(block, mesh=mesh)
    return fully_shard(module, mesh=mesh)


@contextlib.contextmanager
def accumulating(module: nn.Module, last: bool):
    """Gradients are averaged over the processes in the last of a step's pieces only; forward belongs in here too."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
        yield
    else:
        with contextlib.nullcontext() if last else module.no_sync():
            yield


@torch.no_grad()
def average(tensors: Iterable[Tensor], world: int) -> None:
    """Average tensors over the processes, in place and in one message."""
    tensors = list(tensors)
    if world == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world
    for tensor, piece in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(piece.view_as(tensor))


def floats(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating-point buffers by name: all that a moving average is taken of."""
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: tensor for name, tensor in named if tensor.is_floating_point()}


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; others as they are."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, which all processes must ask for; others as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def assign(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor, or this process's part of it, into `target`."""
    value = value.to(target.device)
    if isinstance(target, DTensor):
        # without a source rank nothing is sent: every process has read the same file
        target.copy_(distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None))
    else:
        target.copy_(value)


def gathered(tensors: dict[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Whole copies on the CPU in the first process, nothing in the others; all must call it."""
    result = {}
    for name, tensor in tensors.items():
        value = whole(tensor.detach())
        if ranks.first:
            result[name] = value.to("cpu", copy=True).contiguous()
    return result


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: dict[int, str]) -> dict[str, Tensor]:
    """An optimiser's state as "parameter/key"; `names` are the parameters' by id."""
    return {
        f"{names[id(p)]}/{key}": value
        for group in optimiser.param_groups
        for p in group["params"]
        for key, value in optimiser.state[p].items()
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], names: dict[int, str]) -> None:
    """The inverse of `optimiser_tensors`, from whole tensors."""
    by_name = {names[id(p)]: p for group in optimiser.param_groups for p in group["params"]}
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        parameter = by_name[name]
        if value.shape == parameter.shape and value.dim():
            optimiser.state[parameter][key] = torch.zeros_like(parameter)
            assign(optimiser.state[parameter][key], value)
        else:
            optimiser.state[parameter][key] = value.to(parameter.device)


class Checkpoints:
    """A training's last state and the one before it, each one safetensors file of whole tensors.

    They can be read with any number of processes. A file that is cut short, by a full disk say, is not lost work: then
    the one before it is used, and a line says so.
    """

    def __init__(self, folder: Path):
        self.last, self.previous = folder / "last.safetensors", folder / "previous.safetensors"

    def save(self, tensors: dict[str, Tensor], about: dict) -> None:
        """Write a state; at every moment at least one whole one is on the disk. For the first process alone."""
        fresh = self.last.with_name("next.safetensors")
        weights.save(fresh, tensors, about)
        if self.last.exists():
            os.replace(self.last, self.previous)
        os.replace(fresh, self.last)

    def find(self) -> Path | None:
        """The newest whole state, or None where there is none at all.

        Raises ValueError where there are states and none is whole: to start anew would be to lose the training.
        """
        problems = []
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                weights.metadata(path)
            except ValueError as error:
                problems.append(str(error))
                continue
            if problems:
                print(f"{problems[0]}; going on from {path.name}", file=sys.stderr)
            return path
        if problems:
            raise ValueError(f"{problems[0]}; delete {self.last.parent} to train anew")
        return None


def read_state(path: Path) -> dict[str, dict[str, Tensor]]:
    """Tensors of a state by their first part: {"networks": {name: tensor}, ...}."""
    parts: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = file.get_tensor(name)
    return parts


def launch(argv: list[str], environment: Mapping[str, str]) -> tuple[list[str], list[str] | None]:
    """What `argv` asks for: torchrun's arguments or, on several nodes, the command that starts torchrun on each.

    Raises ValueError where the processes cannot be spread evenly, or where there is nothing to start them with.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--nodes", type=int, default=1)
    program = argv.index("-m") if "-m" in argv else 0
    args, others = parser.parse_known_args(argv[:program])
    if args.processes is None:
        return argv, None
    each, rest = divmod(args.processes, args.nodes)
    if each < 1 or rest:
        raise ValueError(f"--processes: {args.processes} cannot be spread evenly over --nodes {args.nodes}")
    arguments = ["--nproc-per-node", str(each), *others, *argv[program:]]
    if args.nodes == 1:
        return ["--standalone", *arguments], None
    if "SLURM_JOB_ID" not in environment:
        raise ValueError(f"--nodes: {args.nodes}, but this is no job of Slurm; start torchrun on each node")
    with socket.socket() as free:  # this process runs on the job's first node, where all others find their group
        free.bind(("", 0))
        meet = f"{socket.gethostname()}:{free.getsockname()[1]}"
    start = ["srun", "--overlap", f"--nodes={args.nodes}", f"--ntasks={args.nodes}", "--ntasks-per-node=1"]
    start += ["--cpu-bind=none", "--wait=120", sys.executable, "-m", "wuerstchen.distributed"]
    start += ["--nnodes", str(args.nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", meet]
    return [], [*start, "--rdzv-id", environment["SLURM_JOB_ID"], *arguments]


def main(argv: list[str] | None = None) -> None:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        arguments, elsewhere = launch(sys.argv[1:] if argv is None else argv, os.environ)
    except ValueError as error:
        raise SystemExit(f"distributed: {error}") from None
    if elsewhere is not None:
        # a step's own settings would be taken for the new one's
        kept = ("SLURM_JOB_ID", "SLURM_CONF", "SLURM_CLUSTER_NAME")
        os.execvpe("srun", elsewhere, {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k in kept})
    try:
        run.main(arguments)
    except SignalException as error:
        print(f"told to stop by {error.sigval.name}", file=sys.stderr)
        raise SystemExit(STOPPED) from None
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        print(f"local rank {failure.local_rank} ended with status {failure.exitcode}", file=sys.stderr)
        raise SystemExit(failure.exitcode if failure.exitcode > 0 else 1) from None


if __name__ == "__main__":
    main()
