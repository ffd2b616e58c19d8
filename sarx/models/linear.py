"""Linear decoder: a classifier straight on the patch features of a vision transformer.

The features end in the network's LayerNorm, not in BatchNorm and ReLU as those of other decoders, so that
their scale is not that of SAR's projected anchors: the case for ``regularizer.feature_norm``.
"""

from __future__ import annotations

from torch import Tensor, nn

from sarx.config.schema.model import ModelConfig
from sarx.models.backbone import Backbone
from sarx.models.segmenter import Segmenter


class LastBranch(nn.Module):
    """Leaves the last branch as it is."""

    def forward(self, branches: list[Tensor]) -> Tensor:
        """Return it."""
        return branches[-1]


def linear(backbone: Backbone, config: ModelConfig, num_classes: int) -> Segmenter:
    """Create the model at the stride of the patches; D is the transformer's width."""
    return Segmenter(
        backbone,
        LastBranch(),
        config,
        num_classes,
        feature_dim=backbone.channels[-1],
        stride=backbone.strides[-1],
    )
