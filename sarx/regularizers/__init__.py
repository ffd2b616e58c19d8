"""Regularizers of the features that enter a classifier. Needs torch alone.

``REGULARIZERS`` is the registry: name -> builder. All regularizers are called alike, with the features, the
labels and the classifier, and return a ``RegularizerOutput``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from sarx.config.schema import RegularizerConfig
from sarx.config.schema.regularizer import NoRegularizerConfig, PrototypeEmaConfig, SarConfig
from sarx.regularizers.functional import decay_from_half_life
from sarx.regularizers.none import NoRegularizer
from sarx.regularizers.output import RegularizerOutput
from sarx.regularizers.projector import build_projector
from sarx.regularizers.prototype_ema import PrototypeEMA
from sarx.regularizers.sar import SemanticAnchorRegularizer

__all__ = [
    "REGULARIZERS",
    "NoRegularizer",
    "PrototypeEMA",
    "RegularizerOutput",
    "SemanticAnchorRegularizer",
    "build_projector",
    "build_regularizer",
    "decay_from_half_life",
]


def _build_none(config: NoRegularizerConfig, **context: Any) -> nn.Module:
    return NoRegularizer()


def _build_prototype_ema(
    config: PrototypeEmaConfig,
    *,
    num_classes: int,
    feature_dim: int,
    total_steps: int,
    ignore_index: int,
    anchor_seed: int,
) -> nn.Module:
    return PrototypeEMA(
        num_classes,
        feature_dim,
        pull_weight=config.pull_weight,
        ema_decay=_ema_decay(config, total_steps),
        ignore_index=ignore_index,
    )


def _build_sar(
    config: SarConfig,
    *,
    num_classes: int,
    feature_dim: int,
    total_steps: int,
    ignore_index: int,
    anchor_seed: int,
) -> nn.Module:
    return SemanticAnchorRegularizer(
        num_classes,
        feature_dim,
        anchor_dim=config.anchor_dim if isinstance(config.anchor_dim, int) else feature_dim,
        aux_weight=config.aux_weight,
        pull_weight=config.pull_weight,
        ema_decay=_ema_decay(config, total_steps),
        filter_confidence=config.filter_confidence,
        update_confidence=config.update_confidence,
        gate=config.gate,
        anchor_classifier=config.anchor_classifier,
        ignore_index=ignore_index,
        anchor_seed=anchor_seed,
    )


def _ema_decay(config: PrototypeEmaConfig | SarConfig, total_steps: int) -> float:
    """Return the decay, resolving a half-life given as a share of ``total_steps``."""
    if config.ema_half_life is not None:
        return decay_from_half_life(config.ema_half_life, total_steps)
    assert config.ema_decay is not None, "the schema admits exactly one of the two"
    return config.ema_decay


REGULARIZERS: dict[str, Callable[..., nn.Module]] = {
    "none": _build_none,
    "prototype_ema": _build_prototype_ema,
    "sar": _build_sar,
}


def build_regularizer(
    config: RegularizerConfig,
    *,
    num_classes: int,
    feature_dim: int,
    total_steps: int,
    ignore_index: int = 255,
    anchor_seed: int = 0,
) -> nn.Module:
    """Build the regularizer that ``config.name`` names.

    Args:
        config: Options of the regularizer.
        num_classes: C.
        feature_dim: D, the channels that enter the classifier; also what ``anchor_dim: feature_dim`` means.
        total_steps: Optimizer steps of the training, the unit of ``ema_half_life``.
        ignore_index: Label of pixels that do not count.
        anchor_seed: Seed of the fixed anchors, independent of the global generators.

    Raises:
        ValueError: For an unknown name or an option out of range.
    """
    if config.name not in REGULARIZERS:
        raise ValueError(f"regularizer: {config.name!r} is not one of {', '.join(REGULARIZERS)}")
    return REGULARIZERS[config.name](
        config,
        num_classes=num_classes,
        feature_dim=feature_dim,
        total_steps=total_steps,
        ignore_index=ignore_index,
        anchor_seed=anchor_seed,
    )
