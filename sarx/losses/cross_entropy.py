"""Plain cross-entropy."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sarx.losses.normalise import count, normalise


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int, whole: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over valid pixels; 0 with a connected graph if there is none.

    The mean is over the pixels of all ranks: see ``sarx.losses.normalise``.

    Args:
        logits: (N, C) or (B, C, H, W).
        labels: (N,) or (B, H, W) int64.
        ignore_index: Label of the pixels that do not count.
        whole: Scalar number of valid pixels to divide by; None: those of this batch on all ranks.

    Returns:
        Scalar.
    """
    total = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="sum")
    return normalise(total, count(labels, ignore_index), whole)


class CrossEntropy(nn.Module):
    """Mean cross-entropy over the valid pixels of all ranks.

    Attributes:
        prediction_adjustment: None: predictions use the bare logits.
    """

    prediction_adjustment: Tensor | None = None

    def __init__(self, *, ignore_index: int = 255) -> None:
        """Keep the label of the pixels that do not count."""
        super().__init__()
        self.ignore_index = ignore_index

    def normaliser(self, labels: Tensor) -> Tensor:
        """Return what the labels (N,) or (B, H, W) of this rank add to the divisor: scalar."""
        return count(labels, self.ignore_index)

    def forward(self, logits: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
        """Return the scalar loss of logits (N, C) or (B, C, H, W) and labels (N,) or (B, H, W)."""
        return cross_entropy(logits, labels, self.ignore_index, whole)
