"""NonLocal decoder: a convolution, attention of every pixel to every other, two convolutions.

Source: Wang et al., "Non-local neural networks", CVPR 2018 (embedded Gaussian), on the last branch of a
dilated network and between convolutions as common toolboxes for segmentation arrange it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sarx.config.schema.model import ModelConfig
from sarx.models.backbone import Backbone
from sarx.models.layers import attend, conv_norm_relu
from sarx.models.segmenter import Segmenter


class NonLocalBlock(nn.Module):
    """z_i = x_i + BN(W y_i), y_i = sum_j softmax_j(theta(x_i) . phi(x_j) / sqrt(d)) g(x_j), d = D/2.

    Maps (B, D, h, w) to the same shape. The BatchNorm starts at scale 0, so that the block starts as the
    identity (section 4.1). The paper does not divide by sqrt(d); toolboxes do.
    """

    def __init__(self, channels: int) -> None:
        """Create the layers for D channels."""
        super().__init__()
        inner = max(channels // 2, 1)
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.out = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return z."""
        y = attend(self.theta(x), self.phi(x).flatten(2), self.g(x).flatten(2))
        z: Tensor = x + self.norm(self.out(y))
        return z


class NonLocalDecoder(nn.Module):
    """Last branch (B, K, h, w) -> (B, D, h, w)."""

    def __init__(self, channels: int, width: int) -> None:
        """Create the layers for K channels and D = width."""
        super().__init__()
        self.before = conv_norm_relu(channels, width, 3)
        self.block = NonLocalBlock(width)
        self.after = conv_norm_relu(width, width, 3)
        self.fuse = conv_norm_relu(channels + width, width, 3)

    def forward(self, branches: list[Tensor]) -> Tensor:
        """Return the map."""
        last = branches[-1]
        inner = self.after(self.block(self.before(last)))
        fused: Tensor = self.fuse(torch.cat([last, inner], dim=1))
        return fused


def nonlocal_(backbone: Backbone, config: ModelConfig, num_classes: int) -> Segmenter:
    """Create the model at the stride of the last branch; D is ``config.feature_dim`` or 512."""
    width = config.feature_dim or 512
    decoder = NonLocalDecoder(backbone.channels[-1], width)
    return Segmenter(backbone, decoder, config, num_classes, feature_dim=width, stride=backbone.strides[-1])
