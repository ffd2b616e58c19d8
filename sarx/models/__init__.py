"""Models: a timm backbone, a decoder, a classifier. ``DECODERS`` is the registry of decoders.

Importing this package imports neither torch nor timm; building a model does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sarx.models.backbone_names import backbone_names

if TYPE_CHECKING:
    from torch import nn

    from sarx.config.schema.model import ModelConfig
    from sarx.models.backbone import Backbone


def _fcn(backbone: Backbone, config: ModelConfig, num_classes: int) -> nn.Module:
    from sarx.models.fcn import FCN

    return FCN(backbone, config, num_classes)


def _pool(backbone: Backbone, config: ModelConfig, num_classes: int) -> nn.Module:
    from sarx.models.pool import Pool

    return Pool(backbone, config, num_classes)


DECODERS: dict[str, Callable[[Backbone, ModelConfig, int], nn.Module]] = {"fcn": _fcn, "pool": _pool}


def build_model(config: ModelConfig, *, in_channels: int, num_classes: int) -> nn.Module:
    """Create the model of a trial; weights come from torch's global generator.

    Returns:
        A module with ``classifier`` (1x1 ``nn.Conv2d`` or ``nn.Linear``, or a ``PrototypeClassifier``),
        ``feature_dim`` D, and ``forward(images)`` from float (B, in_channels, H, W) to a ``ModelOutput``.

    Raises:
        UserError: If timm has no such backbone, it gives no stride-4 map, or D is too small for the
            classifier.
    """
    from sarx.models.backbone import build_backbone

    backbone = build_backbone(config.backbone, in_channels, config.pretrained)
    return DECODERS[config.decoder](backbone, config, num_classes)


__all__ = ["DECODERS", "backbone_names", "build_model"]
