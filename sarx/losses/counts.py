"""Training pixel counts per class, as the re-balancing losses use them."""

from __future__ import annotations

import torch
from torch import Tensor


def floored_counts(class_counts: Tensor) -> Tensor:
    """Return the (C,) counts in float64, with one pixel in place of none.

    A class that the training set lacks would otherwise have a prior of log 0 or an infinite weight.

    Raises:
        ValueError: If the counts are not one-dimensional, negative, not finite or all zero.
    """
    counts = class_counts.detach().to(torch.float64)
    if counts.dim() != 1 or counts.numel() == 0:
        raise ValueError(f"class_counts: shape {tuple(counts.shape)} is not (C,) with C of at least 1")
    if not bool((counts.isfinite() & (counts >= 0)).all()) or not bool((counts > 0).any()):
        raise ValueError(f"class_counts: {class_counts.tolist()} must be finite, at least 0, and not all 0")
    return counts.clamp(min=1.0)
