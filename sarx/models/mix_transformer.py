"""Mix Transformers of segmentation-models-pytorch as backbones.

Source: Xie et al., "SegFormer: Simple and efficient design for semantic segmentation with transformers",
NeurIPS 2021.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sarx.models.pretrained import loading

STRIDES = (4, 8, 16, 32)


class MapsOnly(nn.Module):
    """Drops the image and the empty map of stride 2 that the encoder returns before its four maps."""

    def __init__(self, encoder: nn.Module) -> None:
        """Keep the encoder."""
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return maps (B, channels[i], H/strides[i], W/strides[i]) of images (B, in, H, W)."""
        return list(self.encoder(images)[2:])


class RatesOnCpu(TorchFunctionMode):
    """Computes ``torch.linspace`` on the CPU: the encoder reads numbers off it, meta tensors have none."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``."""
        kwargs = dict(kwargs or {})
        return func(*args, **(kwargs | {"device": "cpu"} if func is torch.linspace else kwargs))


def mix_transformer(
    name: str, in_channels: int, pretrained: bool
) -> tuple[nn.Module, tuple[int, ...], tuple[int, ...]]:
    """Create an encoder; returns it with the channels and strides of its maps.

    Raises:
        UserError: If its weights cannot be loaded.
    """
    from segmentation_models_pytorch.encoders import encoders, get_encoder

    entry = encoders[name]
    channels = tuple(entry["params"]["embed_dims"])
    if pretrained:
        with loading(name, entry["pretrained_settings"]["imagenet"]["repo_id"]):
            encoder = get_encoder(name, in_channels=in_channels, weights="imagenet")
    else:
        with RatesOnCpu():
            encoder = entry["encoder"](in_chans=in_channels, **copy.deepcopy(entry["params"]))
    return MapsOnly(encoder), channels, STRIDES
