"""Logit adjustment (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sarx.config.schema.loss import LogitAdjustedConfig
from sarx.losses.counts import floored_counts
from sarx.losses.cross_entropy import cross_entropy
from sarx.losses.normalise import count


def log_prior(class_counts: Tensor) -> Tensor:
    """Return (C,) float64 log shares of the classes among the training pixels.

    A class without a pixel counts as one pixel.

    Raises:
        ValueError: If the counts are no counts.
    """
    counts = floored_counts(class_counts)
    return (counts / counts.sum()).log()


def adjust(logits: Tensor, adjustment: Tensor | None) -> Tensor:
    """Return the logits (N, C) or (B, C, H, W) plus a number per class, (C,); None leaves them alone."""
    if adjustment is None:
        return logits
    return logits + adjustment.view(1, -1, *[1] * (logits.dim() - 2))


class LogitAdjustedCrossEntropy(nn.Module):
    """Logit adjustment by s_c = tau * log prior_c of the (C,) training counts, in one of two places.

    ``training``: the mean over valid pixels of the cross-entropy of ``logits + s``; predictions are the
    argmax of the bare logits. ``post_hoc``: the mean of the plain cross-entropy; predictions are the argmax
    of ``logits - s``. Published: tau = 1. ``tau = 0`` is plain cross-entropy either way.

    Deviations: in segmentation the counts are pixels, and a class without one counts as one pixel.

    Attributes:
        adjustment: (C,) s, what the loss adds to the logits; None with ``post_hoc``.
        prediction_adjustment: (C,) -s, what to add to the logits before their argmax; None with ``training``.
            Neither is in the state dict; both move with the module.
    """

    adjustment: Tensor | None
    prediction_adjustment: Tensor | None

    def __init__(
        self, class_counts: Tensor, *, tau: float = 1.0, when: str = "training", ignore_index: int = 255
    ) -> None:
        """Take the prior from the (C,) training pixel counts.

        Raises:
            ValueError: If the counts are no counts, or for an option out of range, naming it.
        """
        super().__init__()
        options = LogitAdjustedConfig(tau=tau, when=when)
        self.ignore_index = ignore_index
        shift = (options.tau * log_prior(class_counts)).to(torch.get_default_dtype())
        training = options.when == "training"
        self.register_buffer("adjustment", shift if training else None, persistent=False)
        self.register_buffer("prediction_adjustment", None if training else -shift, persistent=False)

    def normaliser(self, labels: Tensor) -> Tensor:
        """Return what the labels (N,) or (B, H, W) of this rank add to the divisor: scalar."""
        return count(labels, self.ignore_index)

    def forward(self, logits: Tensor, labels: Tensor, whole: Tensor | None = None) -> Tensor:
        """Return the scalar loss of logits (N, C) or (B, C, H, W) and labels (N,) or (B, H, W)."""
        return cross_entropy(adjust(logits, self.adjustment), labels, self.ignore_index, whole)
