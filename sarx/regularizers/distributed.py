"""Sums over all ranks of the default process group; without one, over this process alone.

A distributed wrapper averages gradients over ranks. A loss that is normalised by a global count is therefore
multiplied by the number of ranks: see ``world_size``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """Return the number of ranks; 1 where no process group is up."""
    return dist.get_world_size() if _is_up() else 1


def global_sum(values: Tensor) -> Tensor:
    """Return the sum over ranks as a new tensor without gradient. Every rank must call it."""
    total = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def global_sum_with_gradient(values: Tensor) -> Tensor:
    """Return the sum over ranks; its gradient is the sum of the ranks' gradients. Every rank must call it."""
    if world_size() == 1:
        return values
    result: Tensor = _GlobalSum.apply(values)
    return result


class _GlobalSum(torch.autograd.Function):
    """All-reduce in both directions."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor) -> Tensor:
        return global_sum(values)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        return global_sum(gradients[0].contiguous())


def _is_up() -> bool:
    return dist.is_available() and dist.is_initialized()
