"""Division of a sum of losses by what the pixels of all ranks weigh.

A distributed wrapper averages gradients over ranks, so each rank's part of a global mean is multiplied by
their number: the mean over ranks is then the global mean, and so is the gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def over_ranks(weight: Tensor, losses: Tensor) -> tuple[Tensor, int]:
    """Return the sum of ``weight`` over ranks and their number; its own and 1 where nothing is trained.

    Trained is what needs a gradient: then every rank of the default process group, if one is up, must be
    here. A loss that is only looked at, such as that of a validation on one rank, waits for nobody.

    Args:
        weight: Any shape, without gradient.
        losses: What is to be divided.
    """
    if not (losses.requires_grad and dist.is_available() and dist.is_initialized()):
        return weight, 1
    ranks = dist.get_world_size()
    if ranks > 1:
        weight = weight.clone()
        dist.all_reduce(weight)
    return weight, ranks


def normalise(total: Tensor, weight: Tensor, whole: Tensor | None = None) -> Tensor:
    """Return this rank's part of the global mean, times the number of ranks; 0 without any weight.

    Args:
        total: Scalar, the weighted sum of this rank's losses.
        weight: Scalar, the sum of their weights.
        whole: Scalar, the weights of all ranks and micro-batches where the caller knows them; None: those of
            this call on all ranks.
    """
    if whole is None:
        whole, ranks = over_ranks(weight, total)
    else:
        ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    whole = whole.to(total.dtype)
    return (total * ranks if ranks > 1 else total) / whole.masked_fill(whole == 0, 1.0)


def count(labels: Tensor, ignore_index: int) -> Tensor:
    """Return the number of labels that count: int64 scalar."""
    return torch.sum(labels != ignore_index)
