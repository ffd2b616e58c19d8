"""SegFormer decoder: a linear layer per branch, all upsampled to stride 4, one 1x1 convolution.

Source: Xie et al., "SegFormer: Simple and efficient design for semantic segmentation with transformers",
NeurIPS 2021, in segmentation-models-pytorch.
"""

from __future__ import annotations

from sarx.config.schema.model import ModelConfig
from sarx.models.backbone import Backbone
from sarx.models.segmenter import Segmenter
from sarx.models.smp_decoder import SmpDecoder, smp_channels


def segformer(backbone: Backbone, config: ModelConfig, num_classes: int) -> Segmenter:
    """Create the model; D, the width of the whole decoder, is ``config.feature_dim`` or 256."""
    from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder

    width = config.feature_dim or 256
    module = SegformerDecoder(smp_channels(backbone.channels), segmentation_channels=width)
    return Segmenter(
        backbone,
        SmpDecoder(module),
        config,
        num_classes,
        feature_dim=width,
        stride=backbone.strides[0],
    )
