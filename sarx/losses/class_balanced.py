"""Class-balanced cross-entropy: weights by inverse frequency or by the effective number of samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sarx.losses.counts import floored_counts
from sarx.losses.normalise import normalise


def class_weights(class_counts: Tensor, *, weighting: str, beta: float) -> Tensor:
    """Return (C,) float64 weights with mean 1 over the classes.

    ``inverse`` is 1 / n_c. ``effective`` is (1 - beta) / (1 - beta ** n_c) (Cui et al., "Class-balanced
    loss based on effective number of samples", CVPR 2019, eq. 2): beta = 0 gives equal weights, beta -> 1
    gives ``inverse``, and counts far above 1 / (1 - beta) all weigh alike, so beta has to be chosen for the
    counts at hand. A class without a training pixel counts as one pixel.

    Args:
        class_counts: (C,) training pixel counts.
        weighting: ``effective`` or ``inverse``.
        beta: In [0, 1); used by ``effective`` alone.

    Raises:
        ValueError: For an unknown weighting, a beta out of range or counts that are no counts.
    """
    counts = floored_counts(class_counts)
    if weighting == "inverse":
        weights = 1.0 / counts
    elif weighting == "effective":
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"beta: {beta!r} is outside the allowed range [0, 1)")
        log_beta = math.log(beta) if beta > 0.0 else -math.inf
        weights = -(1.0 - beta) / torch.expm1(counts * log_beta)
    else:
        raise ValueError(f"weighting: {weighting!r} is not one of effective, inverse")
    return weights / weights.mean()


class ClassBalancedCrossEntropy(nn.Module):
    """Weighted mean of the cross-entropy: sum over valid pixels of w_y l, divided by the sum of w_y.

    Both sums are over the pixels of all ranks.

    Dividing by the summed weights, as torch does for a weighted mean, keeps the scale of the loss that of
    plain cross-entropy whatever classes a batch holds. Without a valid pixel the loss is 0.

    Attributes:
        weights: (C,) with mean 1; not in the state dict, moves with the module.
        prediction_adjustment: None: predictions use the bare logits.
    """

    weights: Tensor
    prediction_adjustment: Tensor | None = None

    def __init__(
        self,
        class_counts: Tensor,
        *,
        weighting: str = "effective",
        beta: float = 0.999999,
        ignore_index: int = 255,
    ) -> None:
        """Take the weights from the (C,) training pixel counts; see ``class_weights``."""
        super().__init__()
        self.ignore_index = ignore_index
        weights = class_weights(class_counts, weighting=weighting, beta=beta)
        self.register_buffer("weights", weights.to(torch.get_default_dtype()), persistent=False)

    def pixel_weights(self, labels: Tensor) -> Tensor:
        """Return the weight of every label, 0 where it is ignored; of the labels' shape."""
        ignored = labels == self.ignore_index
        return self.weights[labels.masked_fill(ignored, 0)].masked_fill(ignored, 0.0)

    def normaliser(self, labels: Tensor) -> Tensor:
        """Return what the labels (N,) or (B, H, W) of this rank add to the divisor: scalar."""
        return self.pixel_weights(labels).sum()

    def forward(self, logits: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
        """Return the scalar loss of logits (N, C) or (B, C, H, W) and labels (N,) or (B, H, W)."""
        losses = F.cross_entropy(logits, labels, ignore_index=self.ignore_index, reduction="none")
        weights = self.pixel_weights(labels)
        return normalise((weights * losses).sum(), weights.sum(), whole)
