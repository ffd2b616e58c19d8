"""What most decoders share: backbone, a decoder module that gives one map, classifier."""

from __future__ import annotations

from torch import Tensor, nn

from sarx.config.schema.model import ModelConfig
from sarx.models.backbone import Backbone
from sarx.models.head import build_head
from sarx.models.output import ModelOutput


class Segmenter(nn.Module):
    """Segment: images (B, in, H, W) -> logits (B, C, h, w) and features (B, D, h, w), h = H / stride.

    Attributes:
        multiple: Sides of images must be multiples of it.
        stride: Of the features.
        feature_dim: D.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: nn.Module,
        config: ModelConfig,
        num_classes: int,
        *,
        feature_dim: int,
        stride: int,
    ) -> None:
        """Put the parts together.

        Args:
            backbone: Gives the branches.
            decoder: Branches, finest first -> (B, feature_dim, h, w).
            config: ``dropout`` is the probability that a whole channel is dropped before the classifier.
            num_classes: C.
            feature_dim: D.
            stride: Of what the decoder gives.
        """
        super().__init__()
        self.feature_dim = feature_dim
        self.multiple = backbone.multiple
        self.stride = stride
        self.backbone = backbone
        self.decoder = decoder
        head = build_head(config, feature_dim, num_classes, maps=True)
        self.embed, self.dropout, self.classifier = head

    def forward(self, images: Tensor) -> ModelOutput:
        """Return logits and features."""
        features = self.embed(self.decoder(self.backbone(images)))
        return ModelOutput(self.classifier(self.dropout(features)), features)
