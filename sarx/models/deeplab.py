"""DeepLabV3 and DeepLabV3+ decoders: atrous spatial pyramid pooling on the last branch.

Sources: Chen et al., "Rethinking atrous convolution for semantic image segmentation", 2017 (arXiv
1706.05587); Chen et al., "Encoder-decoder with atrous separable convolution for semantic image segmentation",
ECCV 2018; in segmentation-models-pytorch, without the dropout inside the pooling: dropout comes before the
classifier. In training a BatchNorm over one pooled pixel per image needs two images or more.
"""

from __future__ import annotations

from sarx.config.schema.model import ModelConfig
from sarx.models.backbone import Backbone
from sarx.models.segmenter import Segmenter
from sarx.models.smp_decoder import SmpDecoder, smp_channels

WIDTH = 256


def atrous_rates(stride: int) -> tuple[int, int, int]:
    """Return the dilations of the 3x3 convolutions: 6, 12 and 18 at stride 16, twice that at stride 8."""
    return (12, 24, 36) if stride == 8 else (6, 12, 18)


def deeplabv3(backbone: Backbone, config: ModelConfig, num_classes: int) -> Segmenter:
    """Create the model at the stride of the last branch; D is ``config.feature_dim`` or 256."""
    from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3Decoder

    width, stride = config.feature_dim or WIDTH, backbone.strides[-1]
    module = DeepLabV3Decoder(
        in_channels=backbone.channels[-1],
        out_channels=width,
        atrous_rates=atrous_rates(stride),
        aspp_separable=False,
        aspp_dropout=0.0,
    )
    return Segmenter(backbone, SmpDecoder(module), config, num_classes, feature_dim=width, stride=stride)


def deeplabv3plus(backbone: Backbone, config: ModelConfig, num_classes: int) -> Segmenter:
    """Create the model at stride 4, of a last branch at 8 or 16; D is ``config.feature_dim`` or 256."""
    from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder

    width, stride = config.feature_dim or WIDTH, backbone.strides[-1]
    module = DeepLabV3PlusDecoder(
        encoder_channels=smp_channels(backbone.channels),
        encoder_depth=5,
        out_channels=width,
        atrous_rates=atrous_rates(stride),
        output_stride=stride,
        aspp_separable=True,
        aspp_dropout=0.0,
    )
    return Segmenter(
        backbone,
        SmpDecoder(module),
        config,
        num_classes,
        feature_dim=width,
        stride=backbone.strides[0],
    )
