"""Classification: global average of the last branch, an optional projection, a linear classifier."""

from __future__ import annotations

from torch import Tensor, nn

from sarx.models.backbone import Backbone
from sarx.models.output import ModelOutput


class Pool(nn.Module):
    """Classify: images (N, in, H, W) -> logits (N, C) and features (N, D).

    Args:
        backbone: Only its last branch is used.
        feature_dim: D; None keeps the channels of the last branch, with no projection.
        num_classes: C.
        dropout: Probability that a feature is dropped before the classifier.
    """

    def __init__(self, backbone: Backbone, feature_dim: int | None, num_classes: int, dropout: float) -> None:
        """Create the head; the backbone keeps its weights."""
        super().__init__()
        channels = backbone.channels[-1]
        self.feature_dim: int = feature_dim or channels
        self.backbone = backbone
        self.project: nn.Module = nn.Identity()
        if feature_dim is not None:
            self.project = nn.Sequential(
                nn.Linear(channels, feature_dim, bias=False), nn.BatchNorm1d(feature_dim), nn.ReLU()
            )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.feature_dim, num_classes)

    def forward(self, images: Tensor) -> ModelOutput:
        """Return logits and features."""
        features = self.project(self.backbone(images)[-1].mean(dim=(2, 3)))
        return ModelOutput(self.classifier(self.dropout(features)), features)
