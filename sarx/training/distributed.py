"""What the ranks of a training do together; with one process every function here does nothing to its input.

The host has initialised the default process group (gloo or nccl) and, with nccl, has chosen each rank's GPU;
it also takes the group down. Every rank must call these functions in the same order.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from sarx.config.errors import UserError
from sarx.regularizers.distributed import global_sum, world_size

T = TypeVar("T")

POLL_S = 5.0
"""Seconds between two signs that rank 0 is still at work."""

__all__ = [
    "average_batch_norm",
    "equalise_buffers",
    "from_main",
    "global_sum",
    "is_main",
    "largest",
    "on_main",
    "on_main_patiently",
    "rank",
    "summed",
    "together",
    "world_size",
    "wrap",
]


def rank() -> int:
    """Return the number of this rank; 0 where no process group is up."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Return whether this is rank 0, which writes files and prints."""
    return rank() == 0


def summed(values: Mapping[str, float]) -> dict[str, float]:
    """Return the sums over ranks, in float64; all ranks give the same keys in the same order."""
    if world_size() == 1:
        return dict(values)
    own = torch.tensor(list(values.values()), dtype=torch.float64, device=_place())
    return dict(zip(values, global_sum(own).tolist(), strict=True))


def largest(value: float) -> float:
    """Return the largest of the ranks' values."""
    if world_size() == 1:
        return value
    most = torch.tensor(value, dtype=torch.float64, device=_place())
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return float(most)


def from_main(value: T) -> T:
    """Return rank 0's value, a small object that can be pickled; that of the other ranks is not looked at."""
    if world_size() == 1:
        return value
    box = [value if is_main() else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def on_main(function: Callable[[], T]) -> T:
    """Return what ``function`` returns on rank 0, which alone calls it; the others wait.

    Its value is small and can be pickled. They wait no longer than the process group's timeout.

    Raises:
        UserError: On every rank, if rank 0's call raised one.
        RuntimeError: On the other ranks, if rank 0's call raised anything else; that goes on there.
    """
    if world_size() == 1:
        return function()
    value: T | None = None
    failure: tuple[bool, str] | None = None
    if is_main():
        try:
            value = function()
        except Exception as error:
            from_main((None, (isinstance(error, UserError), f"{error}" or type(error).__name__)))
            raise
    value, failure = from_main((value, failure))
    if failure is not None:
        raise UserError(failure[1]) if failure[0] else RuntimeError(f"rank 0 failed: {failure[1]}")
    return value  # type: ignore[return-value]


def on_main_patiently(function: Callable[[], T]) -> T:
    """As ``on_main``, for what may take longer than the process group's timeout.

    Rank 0 calls it in a thread, and every ``POLL_S`` the ranks hear that it is still at it.
    """
    if world_size() == 1:
        return function()
    if not is_main():
        while not from_main(False):
            pass
        return on_main(function)
    with ThreadPoolExecutor(1, initializer=partial(_like_this_thread, *_settings())) as pool:
        running = pool.submit(function)
        while not from_main(bool(wait([running], POLL_S).done)):
            pass
        return on_main(running.result)


def _settings() -> tuple[int, int | None]:
    """Return what a thread of torch has of its own: the number of threads of a kernel, and the GPU."""
    in_use = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.get_num_threads(), torch.cuda.current_device() if in_use else None


def _like_this_thread(threads: int, device: int | None) -> None:
    torch.set_num_threads(threads)
    if device is not None:
        torch.cuda.set_device(device)


def together(function: Callable[[], T]) -> T:
    """Return what ``function`` returns on this rank; every rank calls it.

    Raises:
        RuntimeError: Where it succeeded, if it raised on another rank; its own error where it raised.
    """
    try:
        value = function()
    except Exception:
        largest(1.0)
        raise
    if largest(0.0):
        raise RuntimeError("another rank failed; its own error says why")
    return value


def average_batch_norm(module: nn.Module) -> None:
    """Replace the running statistics of every batch normalisation by their mean over ranks.

    Each rank has seen its own share of the batches. Afterwards a model is the same on every rank.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    found = [value for layer in layers for value in (layer.running_mean, layer.running_var)]
    values = [value for value in found if value is not None]
    if world_size() > 1 and values:
        means = global_sum(torch.cat([value.double() for value in values])) / world_size()
        _fill(values, means)


def equalise_buffers(module: nn.Module) -> None:
    """Give every rank the buffers of rank 0; ``wrap`` does so with the parameters."""
    if world_size() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for value in module.buffers():
        by_type.setdefault(value.dtype, []).append(value)
    for dtype in sorted(by_type, key=str):
        values = by_type[dtype]
        flat = torch.cat([value.flatten() for value in values])
        dist.broadcast(flat, src=0)
        _fill(values, flat)


def _fill(values: Iterable[Tensor], flat: Tensor) -> None:
    """Copy consecutive parts of a flat tensor into tensors."""
    start = 0
    for value in values:
        value.copy_(flat[start : start + value.numel()].view(value.shape))
        start += value.numel()


def wrap(module: nn.Module, *, find_unused: bool) -> nn.Module:
    """Return the module in ``DistributedDataParallel``, which makes all ranks equal to rank 0.

    Args:
        module: What is trained.
        find_unused: Whether a step may leave a trained parameter without a gradient; costs a walk through the
            graph after every forward.
    """
    equalise_buffers(module)
    # A 1x1 weight has two equal layouts, and its gradient may come in the other: a copy of a small tensor.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # torch 2.15
    options: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
    if dist.get_backend() == "gloo":
        options["bucket_cap_mb"] = (
            25  # said, the first bucket is not a small one: fewer exchanges on few cores
        )
    return DistributedDataParallel(
        module, find_unused_parameters=find_unused, gradient_as_bucket_view=True, **options
    )


def _place() -> torch.device:
    """Return where tensors must lie for the process group."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
