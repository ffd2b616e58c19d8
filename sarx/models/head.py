"""What every decoder ends in: an embedding, dropout and a classifier. ``CLASSIFIERS`` is the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from sarx.config.schema.model import ModelConfig
from sarx.models.prototypes import Projection, PrototypeClassifier
from sarx.models.simplex_etf import simplex_etf


class Head(NamedTuple):
    """Three modules: ``features = embed(x)``, ``logits = classifier(dropout(features))``."""

    embed: nn.Module
    dropout: nn.Module
    classifier: nn.Module


def _linear(config: ModelConfig, feature_dim: int, num_classes: int, maps: bool) -> Head:
    classifier = nn.Conv2d(feature_dim, num_classes, 1) if maps else nn.Linear(feature_dim, num_classes)
    return Head(nn.Identity(), _dropout(config, maps), classifier)


def _simplex_etf(config: ModelConfig, feature_dim: int, num_classes: int, maps: bool) -> Head:
    norm = nn.BatchNorm2d(feature_dim) if maps else nn.BatchNorm1d(feature_dim)
    return Head(norm, _dropout(config, maps), simplex_etf(feature_dim, num_classes, maps=maps))


def _prototypes(config: ModelConfig, feature_dim: int, num_classes: int, maps: bool) -> Head:
    projection = Projection(feature_dim, _dropout(config, maps), maps=maps)
    classifier = PrototypeClassifier(feature_dim, num_classes, config.prototypes_per_class)
    return Head(projection, nn.Identity(), classifier)


def _dropout(config: ModelConfig, maps: bool) -> nn.Module:
    return nn.Dropout2d(config.dropout) if maps else nn.Dropout(config.dropout)


CLASSIFIERS: dict[str, Callable[[ModelConfig, int, int, bool], Head]] = {
    "linear": _linear,
    "simplex_etf": _simplex_etf,
    "prototypes": _prototypes,
}


def build_head(config: ModelConfig, feature_dim: int, num_classes: int, *, maps: bool) -> Head:
    """Create what ``config.classifier`` names; weights come from torch's global generator.

    Args:
        config: Options of the model.
        feature_dim: D, the channels that the decoder gives.
        num_classes: C.
        maps: Whether the features are maps (B, D, h, w) instead of rows (N, D).

    Raises:
        UserError: If D is too small for the classifier.
    """
    return CLASSIFIERS[config.classifier](config, feature_dim, num_classes, maps)
