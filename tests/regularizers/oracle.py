"""The pull loss in its most literal form: one-hot labels, a dense target map, plain autograd."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def one_hot_pull(features: Tensor, labels: Tensor, targets_CD: Tensor, ignore_index: int) -> Tensor:
    """Return the mean over valid pixels of (1/D) ||f_i - m_{y_i}||^2.

    The labels become one-hot maps with an extra class for ignored pixels, and the maps times the targets a
    dense target for every pixel.

    Args:
        features: (B, D, H, W).
        labels: (B, H, W) int64.
        targets_CD: (C, D).
        ignore_index: Label of the pixels that do not count.
    """
    classes = targets_CD.shape[0]
    ignored = labels == ignore_index
    one_hot = F.one_hot(labels.masked_fill(ignored, classes), classes + 1).movedim(-1, 1).to(features.dtype)
    padded = torch.cat([targets_CD, targets_CD.new_zeros(1, targets_CD.shape[1])])
    dense = torch.einsum("bchw,cd->bdhw", one_hot, padded)
    squares = F.mse_loss(features, dense, reduction="none") * (~ignored).unsqueeze(1)
    return squares.sum() / (~ignored).sum().clamp(min=1) / features.shape[1]


def gathered_pull(features: Tensor, labels: Tensor, targets_CD: Tensor, ignore_index: int) -> Tensor:
    """Return the same loss with the dense target taken by indexing."""
    ignored = labels == ignore_index
    dense = targets_CD[labels.masked_fill(ignored, 0)].movedim(-1, 1)
    squares = (features - dense).square().mean(dim=1).masked_fill(ignored, 0.0)
    return squares.sum() / (~ignored).sum().clamp(min=1)
