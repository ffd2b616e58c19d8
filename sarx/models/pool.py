"""Classification: global average of the last branch, an optional projection, a classifier."""

from __future__ import annotations

from torch import Tensor, nn

from sarx.config.schema.model import ModelConfig
from sarx.models.backbone import Backbone
from sarx.models.head import build_head
from sarx.models.output import ModelOutput


class Pool(nn.Module):
    """Classify: images (N, in, H, W) -> logits (N, C) and features (N, D).

    Args:
        backbone: Only its last branch is used.
        config: ``feature_dim`` is D, where None keeps the channels of the last branch, with no projection;
            ``dropout`` is the probability that a feature is dropped; ``classifier`` names the head.
        num_classes: C.

    Attributes:
        multiple: Sides of images must be multiples of it.
    """

    def __init__(self, backbone: Backbone, config: ModelConfig, num_classes: int) -> None:
        """Create the head; the backbone keeps its weights."""
        super().__init__()
        channels, feature_dim = backbone.channels[-1], config.feature_dim
        self.feature_dim: int = feature_dim or channels
        self.multiple = backbone.least_multiple
        self.backbone = backbone
        self.project: nn.Module = nn.Identity()
        if feature_dim is not None:
            self.project = nn.Sequential(
                nn.Linear(channels, feature_dim, bias=False), nn.BatchNorm1d(feature_dim), nn.ReLU()
            )
        head = build_head(config, self.feature_dim, num_classes, maps=False)
        self.embed, self.dropout, self.classifier = head

    def forward(self, images: Tensor) -> ModelOutput:
        """Return logits and features."""
        features = self.embed(self.project(self.backbone(images)[-1].mean(dim=(2, 3))))
        return ModelOutput(self.classifier(self.dropout(features)), features)
