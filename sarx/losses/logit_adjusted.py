"""Logit adjustment during training (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sarx.losses.counts import floored_counts
from sarx.losses.cross_entropy import cross_entropy


class LogitAdjustedCrossEntropy(nn.Module):
    """Mean cross-entropy over valid pixels of ``logits + tau * log prior``; predictions use the bare logits.

    The prior is the share of each class among the training pixels, where a class without a pixel counts as
    one pixel. ``tau = 0`` is plain cross-entropy.

    Attributes:
        adjustment: (C,) tau * log prior; not in the state dict, moves with the module.
    """

    adjustment: Tensor

    def __init__(self, class_counts: Tensor, *, tau: float = 1.0, ignore_index: int = 255) -> None:
        """Take the prior from the (C,) training pixel counts.

        Raises:
            ValueError: If the counts are no counts.
        """
        super().__init__()
        self.ignore_index = ignore_index
        counts = floored_counts(class_counts)
        adjustment = tau * (counts / counts.sum()).log()
        self.register_buffer("adjustment", adjustment.to(torch.get_default_dtype()), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of logits (N, C) or (B, C, H, W) and labels (N,) or (B, H, W)."""
        shift = self.adjustment.view(1, -1, *[1] * (logits.dim() - 2))
        return cross_entropy(logits + shift, labels, self.ignore_index)
