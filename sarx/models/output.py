"""What a model returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ModelOutput(NamedTuple):
    """Result of one forward pass.

    Attributes:
        logits: (B, C, h, w) at feature resolution, or (N, C) in classification.
        features: What enters the classifier, before dropout if that comes last: (B, D, h, w) or (N, D).
        auxiliary: (B, C, h, w) logits of an earlier layer to train beside the others, where the decoder has
            such; what predicts are ``logits`` alone.
    """

    logits: Tensor
    features: Tensor
    auxiliary: Tensor | None = None
