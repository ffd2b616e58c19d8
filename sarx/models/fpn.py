"""FPN decoder: a top-down pyramid whose levels are refined, upsampled to stride 4 and added.

Source: Kirillov et al., "Panoptic feature pyramid networks", CVPR 2019, in segmentation-models-pytorch. The
sum is one of maps that end in GroupNorm and ReLU; a 1x1 convolution with BatchNorm and ReLU follows here, so
that features have the scale that the other decoders' have.
"""

from __future__ import annotations

from torch import nn

from sarx.config.schema.model import ModelConfig
from sarx.models.backbone import Backbone
from sarx.models.layers import conv_norm_relu
from sarx.models.segmenter import Segmenter
from sarx.models.smp_decoder import SmpDecoder, smp_channels

PYRAMID, LEVEL = 256, 128
"""Channels of the pyramid and of each refined level, as published."""


def fpn(backbone: Backbone, config: ModelConfig, num_classes: int) -> Segmenter:
    """Create the model on branches at strides 4, 8, 16 and 32; D is ``config.feature_dim`` or 128."""
    from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder

    width = config.feature_dim or LEVEL
    module = FPNDecoder(
        encoder_channels=smp_channels(backbone.channels),
        pyramid_channels=PYRAMID,
        segmentation_channels=LEVEL,
        dropout=0.0,
    )
    decoder = nn.Sequential(SmpDecoder(module), conv_norm_relu(LEVEL, width))
    return Segmenter(backbone, decoder, config, num_classes, feature_dim=width, stride=backbone.strides[0])
