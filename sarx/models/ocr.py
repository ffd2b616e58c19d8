"""OCR decoder: pixels attend to the mean features of the regions that auxiliary logits mark.

Source: Yuan, Chen and Wang, "Object-contextual representations for semantic segmentation", ECCV 2020; widths
as for HRNet: 512 channels for pixels, half of that inside the attention.
Legend: B images, K channels of all branches, C classes, D feature channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sarx.config.schema.model import ModelConfig
from sarx.models.backbone import Backbone
from sarx.models.head import build_head
from sarx.models.layers import attend, concatenate, conv_norm_relu
from sarx.models.output import ModelOutput


def region_features(pixels: Tensor, logits: Tensor) -> Tensor:
    """Return the mean pixel feature of each class's soft region, f_c = sum_i m_ci x_i.

    Args:
        pixels: x, (B, D, h, w).
        logits: (B, C, h, w); m_c is their softmax over the pixels of one image.

    Returns:
        (B, D, C)
    """
    regions = logits.flatten(2).softmax(dim=2)
    return pixels.flatten(2) @ regions.mT.to(pixels.dtype)


class ObjectContext(nn.Module):
    """Context y_i = rho(sum_c w_ic delta(f_c)), w_i = softmax over c of phi(x_i) . psi(f_c) / sqrt(D/2)."""

    def __init__(self, width: int) -> None:
        """Create the four transforms for D = width channels."""
        super().__init__()
        inner = max(width // 2, 1)
        self.phi = nn.Sequential(conv_norm_relu(width, inner), conv_norm_relu(inner, inner))
        self.psi = nn.Sequential(conv_norm_relu(width, inner), conv_norm_relu(inner, inner))
        self.delta = conv_norm_relu(width, inner)
        self.rho = conv_norm_relu(inner, width)

    def forward(self, pixels: Tensor, regions: Tensor) -> Tensor:
        """Return the context (B, D, h, w) of pixels (B, D, h, w) from regions (B, D, C)."""
        columns = regions.unsqueeze(3)
        keys, values = self.psi(columns).squeeze(3), self.delta(columns).squeeze(3)
        context: Tensor = self.rho(attend(self.phi(pixels), keys, values))
        return context


class OCR(nn.Module):
    """Segment: images (B, in, H, W) -> logits, auxiliary logits and features at stride 4.

    Both logits are (B, C, H/4, W/4), the features (B, D, H/4, W/4).

    Args:
        backbone: Branches at strides 4, 8, ...; all are upsampled to the first one's size and concatenated.
        config: ``feature_dim`` is D, where None is 512; ``dropout`` is the probability that a channel is
            dropped before the classifier.
        num_classes: C.

    Attributes:
        multiple: Sides of images must be multiples of it.
        stride: Of the features.
    """

    def __init__(self, backbone: Backbone, config: ModelConfig, num_classes: int) -> None:
        """Create the decoder; the backbone keeps its weights."""
        super().__init__()
        channels = sum(backbone.channels)
        width = config.feature_dim or 512
        self.feature_dim: int = width
        self.multiple = backbone.multiple
        self.stride = backbone.strides[0]
        self.backbone = backbone
        self.coarse = nn.Sequential(conv_norm_relu(channels, channels), nn.Conv2d(channels, num_classes, 1))
        self.pixels = conv_norm_relu(channels, width, 3)
        self.context = ObjectContext(width)
        self.fuse = conv_norm_relu(2 * width, width)
        head = build_head(config, width, num_classes, maps=True)
        self.embed, self.dropout, self.classifier = head

    def forward(self, images: Tensor) -> ModelOutput:
        """Return logits, features and auxiliary logits."""
        branches = concatenate(self.backbone(images))
        auxiliary, pixels = self.coarse(branches), self.pixels(branches)
        context = self.context(pixels, region_features(pixels, auxiliary))
        features = self.embed(self.fuse(torch.cat([context, pixels], dim=1)))
        return ModelOutput(self.classifier(self.dropout(features)), features, auxiliary)
