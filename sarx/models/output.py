"""What a model returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ModelOutput(NamedTuple):
    """Result of one forward pass.

    Attributes:
        logits: (B, C, h, w) at feature resolution, or (N, C) in classification.
        features: What enters the classifier, before dropout if that comes last: (B, D, h, w) or (N, D).
    """

    logits: Tensor
    features: Tensor
