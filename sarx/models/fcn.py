"""FCN decoder: all branches at stride 4, one 1x1 convolution, a classifier per pixel.

The head of HRNet (Sun et al. 2019, "High-Resolution Representations for Labeling Pixels and Regions").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from sarx.config.schema.model import ModelConfig
from sarx.models.backbone import Backbone
from sarx.models.head import build_head
from sarx.models.output import ModelOutput


def mix_branches(branches: list[Tensor], weight: Tensor) -> Tensor:
    """Upsample all branches to the first one's size, concatenate them and apply a 1x1 convolution.

    Both steps are linear and act on different axes, so they commute: each branch goes through its columns of
    the weight at its own, smaller size, and the results are upsampled and added. The full concatenation
    (HRNet-W48: 720 channels at stride 4) is never built.

    Args:
        branches: (B, D_i, h_i, w_i), finest first.
        weight: (D, sum of D_i, 1, 1).

    Returns:
        (B, D, h_0, w_0)
    """
    columns = torch.split(weight, [branch.shape[1] for branch in branches], dim=1)
    mixed = conv2d(branches[0], columns[0])
    for branch, column in zip(branches[1:], columns[1:], strict=True):
        part = conv2d(branch, column)
        mixed = mixed + interpolate(part, size=mixed.shape[2:], mode="bilinear", align_corners=False)
    return mixed


class FCN(nn.Module):
    """Segment: images (B, in, H, W) -> logits (B, C, H/4, W/4) and features (B, D, H/4, W/4).

    Args:
        backbone: Branches at strides 4, 8, ...
        config: ``feature_dim`` is D, where None keeps the sum of the branches' channels; ``dropout`` is the
            probability that a whole channel is dropped; ``classifier`` names the head.
        num_classes: C.

    Attributes:
        multiple: Sides of images must be multiples of it.
        stride: Of the features.
    """

    def __init__(self, backbone: Backbone, config: ModelConfig, num_classes: int) -> None:
        """Create the decoder; the backbone keeps its weights."""
        super().__init__()
        channels = sum(backbone.channels)
        self.feature_dim: int = config.feature_dim or channels
        self.multiple = backbone.multiple
        self.stride = backbone.strides[0]
        self.backbone = backbone
        self.mix = nn.Conv2d(channels, self.feature_dim, 1, bias=False)
        self.norm = nn.BatchNorm2d(self.feature_dim)
        head = build_head(config, self.feature_dim, num_classes, maps=True)
        self.embed, self.dropout, self.classifier = head

    def forward(self, images: Tensor) -> ModelOutput:
        """Return logits and features at stride 4."""
        mixed = mix_branches(self.backbone(images), self.mix.weight)
        features = self.embed(torch.relu(self.norm(mixed)))
        return ModelOutput(self.classifier(self.dropout(features)), features)
