"""Plain cross-entropy."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return the mean cross-entropy over valid pixels; 0 with a connected graph if there is none.

    Args:
        logits: (N, C) or (B, C, H, W).
        labels: (N,) or (B, H, W) int64.
        ignore_index: Label of the pixels that do not count.

    Returns:
        Scalar.
    """
    total = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="sum")
    return total / (labels != ignore_index).sum().clamp(min=1)


class CrossEntropy(nn.Module):
    """Mean cross-entropy over the valid pixels.

    Attributes:
        prediction_adjustment: None: predictions use the bare logits.
    """

    prediction_adjustment: Tensor | None = None

    def __init__(self, *, ignore_index: int = 255) -> None:
        """Keep the label of the pixels that do not count."""
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of logits (N, C) or (B, C, H, W) and labels (N,) or (B, H, W)."""
        return cross_entropy(logits, labels, self.ignore_index)
