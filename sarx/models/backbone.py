"""timm backbones as lists of feature maps from stride 4 on; the only module that imports timm."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sarx.config.errors import UserError, nearest
from sarx.models.backbone_names import backbone_names

FIRST_STRIDE = 4
PROBE_SIZE = 64
"""Side in pixels of the shapes-only image that a new backbone is tried on."""


class Backbone(nn.Module):
    """Branches (B, channels[i], H/strides[i], W/strides[i]), finest first, of images (B, in, H, W)."""

    def __init__(self, network: nn.Module, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        """Keep the network and what is known of its branches."""
        super().__init__()
        self.network = network
        self.channels = channels
        self.strides = strides

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the branches."""
        return list(self.network(images))


def build_backbone(name: str, in_channels: int, pretrained: bool = False) -> Backbone:
    """Create a timm model that returns its feature maps from stride 4 on.

    HRNets return their raw branches (W48: 48 + 96 + 192 + 384 = 720 channels), not timm's widened ones.

    Raises:
        UserError: If timm has no such model, or it gives no stride-4 map.
    """
    if name.split(".", 1)[0] not in backbone_names():
        raise UserError(f"model.backbone: timm has no model {name!r}; {nearest(name, backbone_names())}")
    choice = _choose_branches(name, in_channels)
    network = _create(name, in_channels, pretrained, choice)
    return Backbone(network, tuple(network.feature_info.channels()), tuple(network.feature_info.reduction()))


@lru_cache(maxsize=64)  # half of the time that a small model takes to build
def _choose_branches(name: str, in_channels: int) -> dict[str, Any]:
    """Find the options that select the branches, on a copy of the network without weights."""
    refusal = f"model.backbone: {name} gives no feature map of stride {FIRST_STRIDE}"
    cure = "choose a convolutional backbone such as lcnet_050, test_convnext or hrnet_w48"
    raw: dict[str, Any] = {"feature_location": ""} if name.startswith("hrnet") else {}
    try:
        with torch.device("meta"):
            whole = _create(name, in_channels, False, raw)
            info = whole.feature_info.info
            chosen = tuple(i for i, item in enumerate(info) if item["reduction"] >= FIRST_STRIDE)
            probe = _create(name, in_channels, False, {**raw, "out_indices": chosen}).eval()
            maps = probe(torch.zeros(1, in_channels, PROBE_SIZE, PROBE_SIZE))
    except (RuntimeError, AttributeError, NotImplementedError, AssertionError, TypeError) as error:
        raise UserError(f"{refusal} ({error}); {cure}") from error
    strides = probe.feature_info.reduction()
    expected = [
        (1, channels, PROBE_SIZE // stride, PROBE_SIZE // stride)
        for channels, stride in zip(probe.feature_info.channels(), strides, strict=True)
    ]
    shapes = [tuple(branch.shape) for branch in maps]
    if not strides or strides[0] != FIRST_STRIDE or shapes != expected:
        raise UserError(f"{refusal} (its maps have strides {strides} and shapes {shapes}); {cure}")
    return {**raw, "out_indices": chosen}


def _create(name: str, in_channels: int, pretrained: bool, options: dict[str, Any]) -> Any:
    import timm

    return timm.create_model(name, pretrained=pretrained, features_only=True, in_chans=in_channels, **options)


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Return the model with every batch normalisation over all ranks; state dict and weights are the same.

    timm's function keeps the activations that timm fuses into its layers, which torch's would drop.
    """
    from timm import layers

    converted: nn.Module = layers.convert_sync_batchnorm(model)  # type: ignore[attr-defined, no-untyped-call]
    return converted
