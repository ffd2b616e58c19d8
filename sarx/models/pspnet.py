"""PSPNet decoder: the last branch beside its means over grids of 1, 2, 3 and 6 cells, one 1x1 convolution.

Source: Zhao et al., "Pyramid scene parsing network", CVPR 2017, in segmentation-models-pytorch (whose last
convolution is 1x1 where the authors' is 3x3).
"""

from __future__ import annotations

from sarx.config.schema.model import ModelConfig
from sarx.models.backbone import Backbone
from sarx.models.segmenter import Segmenter
from sarx.models.smp_decoder import SmpDecoder, smp_channels


def pspnet(backbone: Backbone, config: ModelConfig, num_classes: int) -> Segmenter:
    """Create the model at the stride of the last branch; D is ``config.feature_dim`` or 512."""
    from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder

    width = config.feature_dim or 512
    module = PSPDecoder(smp_channels(backbone.channels), out_channels=width, dropout=0.0)
    return Segmenter(
        backbone,
        SmpDecoder(module),
        config,
        num_classes,
        feature_dim=width,
        stride=backbone.strides[-1],
    )
