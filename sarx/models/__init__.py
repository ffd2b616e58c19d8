"""Models: a backbone, a decoder, a classifier. ``DECODERS`` is the registry of decoders.

Importing this package imports neither torch nor timm; building a model does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sarx.models.backbone_names import backbone_names

if TYPE_CHECKING:
    from torch import nn

    from sarx.config.schema.model import ModelConfig
    from sarx.models.backbone import Backbone


def _of(module: str, name: str) -> Callable[[Backbone, ModelConfig, int], nn.Module]:
    """Return the builder ``name`` of a module here, which is imported when it is called."""

    def build(backbone: Backbone, config: ModelConfig, num_classes: int) -> Any:
        builder = getattr(importlib.import_module(f"sarx.models.{module}"), name)
        return builder(backbone, config, num_classes)

    return build


DECODERS: dict[str, Callable[[Backbone, ModelConfig, int], nn.Module]] = {
    "fcn": _of("fcn", "FCN"),
    "ocr": _of("ocr", "OCR"),
    "nonlocal": _of("nonlocal_head", "nonlocal_"),
    "deeplabv3": _of("deeplab", "deeplabv3"),
    "deeplabv3plus": _of("deeplab", "deeplabv3plus"),
    "pspnet": _of("pspnet", "pspnet"),
    "fpn": _of("fpn", "fpn"),
    "upernet": _of("upernet", "upernet"),
    "segformer": _of("segformer", "segformer"),
    "linear": _of("linear", "linear"),
    "pool": _of("pool", "Pool"),
}


def build_model(config: ModelConfig, *, in_channels: int, num_classes: int) -> nn.Module:
    """Create the model of a trial; weights come from torch's global generator.

    Returns:
        A module with ``classifier`` (1x1 ``nn.Conv2d`` or ``nn.Linear``, or a ``PrototypeClassifier``),
        ``feature_dim`` D, ``multiple`` (what sides of images must be multiples of; other sizes may raise, or
        give maps that are not exactly 1/stride of the image), ``stride`` of the features (not in
        classification), and ``forward(images)`` from float (B, in_channels, H, W) to a ``ModelOutput``.

    Raises:
        UserError: If there is no such backbone, it does not give the maps that the decoder needs, its weights
            cannot be had, or D is too small for the classifier.
    """
    from sarx.models.backbone import build_backbone
    from sarx.models.strides import WHOLE_DEPTH, check_strides

    config.check_decoder()
    backbone = build_backbone(
        config.backbone,
        in_channels,
        config.pretrained,
        output_stride=config.output_stride,
        final=config.decoder in WHOLE_DEPTH,
    )
    check_strides(config.decoder, backbone, config.backbone)
    return DECODERS[config.decoder](backbone, config, num_classes)


__all__ = ["DECODERS", "backbone_names", "build_model"]
