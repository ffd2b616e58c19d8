"""Models: a timm backbone, a decoder, a linear classifier. ``DECODERS`` is the registry of decoders.

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


def _fcn(backbone: Backbone, feature_dim: int | None, num_classes: int, dropout: float) -> nn.Module:
    from sarx.models.fcn import FCN

    return FCN(backbone, feature_dim, num_classes, dropout)


def _pool(backbone: Backbone, feature_dim: int | None, num_classes: int, dropout: float) -> nn.Module:
    from sarx.models.pool import Pool

    return Pool(backbone, feature_dim, num_classes, dropout)


DECODERS: dict[str, Callable[[Backbone, int | None, int, float], nn.Module]] = {"fcn": _fcn, "pool": _pool}


def build_model(config: ModelConfig, *, in_channels: int, num_classes: int) -> nn.Module:
    """Create the model of a trial; weights come from torch's global generator.

    Returns:
        A module with ``classifier`` (1x1 ``nn.Conv2d`` or ``nn.Linear``), ``feature_dim`` D, and
        ``forward(images)`` from float (B, in_channels, H, W) to a ``ModelOutput``.

    Raises:
        UserError: If timm has no such backbone, or it gives no stride-4 map.
    """
    from sarx.models.backbone import build_backbone

    backbone = build_backbone(config.backbone, in_channels, config.pretrained)
    return DECODERS[config.decoder](backbone, config.feature_dim, num_classes, config.dropout)


__all__ = ["DECODERS", "backbone_names", "build_model"]
