"""UPerNet decoder: pyramid pooling on the last branch, a top-down pyramid, all levels fused at stride 4.

Source: Xiao et al., "Unified perceptual parsing for scene understanding", ECCV 2018, in
segmentation-models-pytorch (which normalises every branch with a LayerNorm first).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate

from sarx.config.schema.model import ModelConfig
from sarx.models.backbone import FIRST_STRIDE, Backbone
from sarx.models.segmenter import Segmenter
from sarx.models.smp_decoder import SmpDecoder, smp_channels


def simple_pyramid(maps: list[Tensor]) -> list[Tensor]:
    """Resize four maps of one size (B, D, h, w) bilinearly to 4, 2, 1 and 1/2 times that size.

    Of a vision transformer with patches of 16 pixels they then have strides 4, 8, 16 and 32, as the maps of a
    convolutional network.
    """
    height, width = maps[0].shape[2:]
    sizes = [
        (4 * height, 4 * width),
        (2 * height, 2 * width),
        (height, width),
        ((height + 1) // 2, (width + 1) // 2),
    ]
    return [
        interpolate(item, size=size, mode="bilinear", align_corners=False)
        for item, size in zip(maps, sizes, strict=True)
    ]


class OnSimplePyramid(nn.Module):
    """A decoder on the simple pyramid of maps that all have one size."""

    def __init__(self, decoder: nn.Module) -> None:
        """Keep the decoder."""
        super().__init__()
        self.decoder = decoder

    def forward(self, branches: list[Tensor]) -> Tensor:
        """Return the decoder's map."""
        decoded: Tensor = self.decoder(simple_pyramid(branches))
        return decoded


def upernet(backbone: Backbone, config: ModelConfig, num_classes: int) -> Segmenter:
    """Create the model; D, the width of the whole decoder, is ``config.feature_dim`` or 256.

    In training a BatchNorm over one pooled pixel per image needs two images or more.
    """
    from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder

    width = config.feature_dim or 256
    module = UPerNetDecoder(encoder_channels=smp_channels(backbone.channels), decoder_channels=width)
    decoder: nn.Module = SmpDecoder(module)
    stride = backbone.strides[0]
    if backbone.isotropic:
        decoder, stride = OnSimplePyramid(decoder), stride // FIRST_STRIDE
    return Segmenter(backbone, decoder, config, num_classes, feature_dim=width, stride=stride)
