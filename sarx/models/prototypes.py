"""Classification by the nearest of several prototypes per class, which no gradient moves.

Source: Zhou et al., "Rethinking semantic segmentation: a prototype view" (ProtoSeg), CVPR 2022 (arXiv
2203.15102), and observations of its released implementation. How the prototypes move is the business of
``sarx.regularizers.protoseg``. Legend: C classes, K prototypes per class, D feature channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pointwise(channels: int, maps: bool) -> nn.Module:
    """Return a trained linear map of the channels: a 1x1 convolution for maps, a linear layer for rows."""
    return nn.Conv2d(channels, channels, 1) if maps else nn.Linear(channels, channels)


class Projection(nn.Module):
    """Projection head: features (B, D, h, w) or (N, D) -> the same shape, every pixel of length 1.

    1x1 convolution, BatchNorm, ReLU, 1x1 convolution, LayerNorm over D, division by the length, as released
    (the release also divides by the length before the LayerNorm, which undoes that but for its epsilon).
    Dropout comes first, as released, and because nothing after it may change a pixel's length. What comes
    before is the decoder's own 1x1 convolution or projection, where the release has a 3x3 convolution.
    """

    def __init__(self, feature_dim: int, dropout: nn.Module, *, maps: bool) -> None:
        """Create the head for maps (B, D, h, w) or rows (N, D)."""
        super().__init__()
        self.dropout = dropout
        batch_norm = nn.BatchNorm2d if maps else nn.BatchNorm1d
        self.mix = nn.Sequential(
            pointwise(feature_dim, maps), batch_norm(feature_dim), nn.ReLU(), pointwise(feature_dim, maps)
        )
        self.norm = nn.LayerNorm(feature_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Return the projected features."""
        mixed = self.mix(self.dropout(features)).movedim(1, -1)
        return F.normalize(self.norm(mixed), dim=-1).movedim(-1, 1)


class PrototypeClassifier(nn.Module):
    """Logits = LayerNorm over classes of s, s_c = max over k of <f, p_ck>, the best cosine of class c.

    The LayerNorm has a weight and a bias per class, which the task loss trains; the prototypes are a buffer
    that starts at random directions and is moved by ``regularizer: protoseg`` alone. Where activation
    checkpointing repeats a forward, the prototypes are those that it ran with.

    Attributes:
        prototypes: (C, K, D) of length 1. Each step binds a new tensor.
        before: The prototypes of the last training forward; None before the first.
    """

    prototypes: Tensor
    before: Tensor | None

    def __init__(self, feature_dim: int, num_classes: int, prototypes_per_class: int = 10) -> None:
        """Draw the prototypes from torch's global generator.

        Args:
            feature_dim: D.
            num_classes: C.
            prototypes_per_class: K; published: 10.
        """
        super().__init__()
        drawn = torch.randn(num_classes, prototypes_per_class, feature_dim)
        self.register_buffer("prototypes", F.normalize(drawn, dim=-1))
        self.before = None
        self.norm = nn.LayerNorm(num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, C, h, w) or (N, C) of features of length 1, (B, D, h, w) or (N, D)."""
        return self.decide(self.cosines(features.movedim(1, -1))).movedim(-1, 1)

    def cosines(self, features: Tensor) -> Tensor:
        """Return (..., C, K) cosines of features (..., D) of length 1 with every prototype."""
        products = F.linear(features, self.current().flatten(end_dim=1))
        return products.view(*products.shape[:-1], *self.prototypes.shape[:2])

    def decide(self, cosines: Tensor) -> Tensor:
        """Return the logits (..., C) of cosines (..., C, K)."""
        logits: Tensor = self.norm(cosines.amax(dim=-1))
        return logits

    def current(self) -> Tensor:
        """Return the prototypes of this forward, or of the one that runs again inside a backward pass."""
        if not self.training or self.before is None or torch.compiler.is_compiling():
            return self.prototypes
        return self.prototypes if torch._C._current_graph_task_id() == -1 else self.before

    def move_to(self, prototypes: Tensor) -> None:
        """End a training forward: bind the prototypes of the next one, (C, K, D) of length 1."""
        if not torch.compiler.is_compiling():  # compiled checkpointing repeats no Python
            self.before = self.prototypes
        self.prototypes = prototypes
