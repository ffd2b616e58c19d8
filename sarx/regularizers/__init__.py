"""Regularizers of the features that enter a classifier. Needs torch alone.

The registry is ``sarx.config.schema.regularizers.REGULARIZERS``: name -> options, which name the class here.
All regularizers are called alike, ``regularizer(features, labels, classifier)``, and return a
``RegularizerOutput``.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import Any

from torch import nn

from sarx.config.schema.regularizers import RegularizerConfig
from sarx.regularizers.functional import decay_from_half_life
from sarx.regularizers.none import NoRegularizer
from sarx.regularizers.output import RegularizerOutput
from sarx.regularizers.projector import build_projector
from sarx.regularizers.prototype_ema import PrototypeEMA
from sarx.regularizers.sar import SemanticAnchorRegularizer

__all__ = [
    "NoRegularizer",
    "PrototypeEMA",
    "RegularizerOutput",
    "SemanticAnchorRegularizer",
    "build_projector",
    "build_regularizer",
    "decay_from_half_life",
]


def build_regularizer(
    config: RegularizerConfig,
    *,
    num_classes: int,
    feature_dim: int,
    total_steps: int,
    ignore_index: int = 255,
    anchor_seed: int = 0,
) -> nn.Module:
    """Build the regularizer whose options ``config`` holds.

    Args:
        config: Options of the regularizer.
        num_classes: C.
        feature_dim: D, the channels that enter the classifier; also what ``anchor_dim: feature_dim`` means.
        total_steps: Optimizer steps of the training, the unit of ``ema_half_life``.
        ignore_index: Label of pixels that do not count.
        anchor_seed: Seed of the fixed anchors, independent of the global generators.

    Raises:
        ValueError: For an option out of range.
    """
    module, _, name = config.implementation.partition(":")
    implementation = getattr(importlib.import_module(module), name)
    options: dict[str, Any] = {
        item.name: getattr(config, item.name)
        for item in dataclasses.fields(config)  # type: ignore[arg-type]
        if item.name != "name"
    }
    half_life = options.pop("ema_half_life", None)
    if half_life is not None:
        options["ema_decay"] = decay_from_half_life(half_life, total_steps)
    if options.get("anchor_dim") == "feature_dim":
        options["anchor_dim"] = feature_dim
    context = {"ignore_index": ignore_index, "anchor_seed": anchor_seed}
    taken = inspect.signature(implementation).parameters
    options |= {key: value for key, value in context.items() if key in taken}
    built: nn.Module = implementation(num_classes, feature_dim, **options)
    return built
