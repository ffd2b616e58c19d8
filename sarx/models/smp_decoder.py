"""Decoders of segmentation-models-pytorch on branches from stride 4 on."""

from __future__ import annotations

from torch import Tensor, nn

from sarx.models.backbone import FIRST_STRIDE


class SmpDecoder(nn.Module):
    """Calls a decoder as its library does, which counts from the image (stride 1) and a map of stride 2 on.

    Of those two no decoder here reads more than the size, so they have no channels.
    """

    def __init__(self, module: nn.Module) -> None:
        """Keep the decoder and draw its weights as its library does, from torch's global generator."""
        from segmentation_models_pytorch.base.initialization import initialize_decoder

        super().__init__()
        initialize_decoder(module)
        self.module = module

    def forward(self, branches: list[Tensor]) -> Tensor:
        """Return the decoder's map of branches (B, channels[i], h_i, w_i), finest first."""
        batch, _, height, width = branches[0].shape
        blank = branches[0].new_empty((batch, 0, height * FIRST_STRIDE, width * FIRST_STRIDE))
        decoded: Tensor = self.module([blank, blank, *branches])
        return decoded


def smp_channels(channels: tuple[int, ...]) -> list[int]:
    """Return the channels of an encoder's maps as the library counts them, for branches from stride 4 on."""
    return [0, 0, *channels]
