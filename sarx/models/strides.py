"""Which decoder works on which strides of a backbone's branches."""

from __future__ import annotations

from sarx.config.errors import UserError
from sarx.models.backbone import FIRST_STRIDE, Backbone

PYRAMID = (4, 8, 16, 32)
WHOLE_DEPTH = ("linear", "pool")
"""Decoders that read only what the network ends in."""


def check_strides(decoder: str, backbone: Backbone, name: str) -> None:
    """Refuse a backbone whose branches have not the strides that a decoder counts on.

    Args:
        decoder: One of ``DECODERS``.
        backbone: What is built.
        name: What it is called.

    Raises:
        UserError: With the strides that there are and what would be right.
    """
    found = f"its maps have strides {', '.join(map(str, backbone.strides))}"
    if decoder == "pool":
        return
    if decoder == "linear":
        if not backbone.isotropic:
            raise UserError(
                f"{name} is no plain vision transformer, whose patch features linear classifies ({found}); "
                "choose a backbone such as vit_small_patch16_224, or decoder fcn",
                key="model.backbone",
            )
        return
    if decoder == "upernet" and backbone.isotropic:
        return
    if backbone.strides[0] != FIRST_STRIDE:
        raise UserError(
            f"{name} gives no feature map of stride {FIRST_STRIDE} ({found}); choose a convolutional "
            "backbone such as lcnet_050, test_convnext or hrnet_w48, or for a vision transformer decoder "
            "upernet or linear",
            key="model.backbone",
        )
    if decoder == "fpn" and backbone.strides != PYRAMID:
        raise UserError(
            f"fpn needs maps of stride 4, 8, 16 and 32, and {name} does not give these ({found}); choose a "
            "backbone such as resnet50, or decoder upernet",
            key="model.backbone",
        )
