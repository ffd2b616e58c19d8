"""Task losses over logits. Needs torch alone.

``LOSSES`` is the registry: name -> builder. All are called alike: ``loss(logits, labels)`` returns a scalar.
Where a process group is up and the logits need a gradient, that is this rank's part of the mean over the
pixels of all ranks, times their number, for a wrapper that averages gradients over ranks; every rank must
call it. For gradient accumulation, ``loss(logits, labels, whole)`` divides by what the sum of
``loss.normaliser(labels)`` over all micro-batches and ranks is.
All have ``prediction_adjustment``: (C,) what to add to the logits before they predict (``adjust``), or None.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from sarx.config.schema import LossConfig
from sarx.config.schema.loss import ClassBalancedConfig, CrossEntropyConfig, LogitAdjustedConfig, OhemConfig
from sarx.losses.class_balanced import ClassBalancedCrossEntropy, class_weights
from sarx.losses.cross_entropy import CrossEntropy, cross_entropy
from sarx.losses.logit_adjusted import LogitAdjustedCrossEntropy, adjust
from sarx.losses.ohem import OhemCrossEntropy

__all__ = [
    "LOSSES",
    "ClassBalancedCrossEntropy",
    "CrossEntropy",
    "LogitAdjustedCrossEntropy",
    "OhemCrossEntropy",
    "adjust",
    "build_loss",
    "class_weights",
    "cross_entropy",
]


def _build_cross_entropy(config: CrossEntropyConfig, class_counts: Tensor, ignore_index: int) -> nn.Module:
    return CrossEntropy(ignore_index=ignore_index)


def _build_logit_adjusted(config: LogitAdjustedConfig, class_counts: Tensor, ignore_index: int) -> nn.Module:
    return LogitAdjustedCrossEntropy(
        class_counts, tau=config.tau, when=config.when, ignore_index=ignore_index
    )


def _build_class_balanced(config: ClassBalancedConfig, class_counts: Tensor, ignore_index: int) -> nn.Module:
    return ClassBalancedCrossEntropy(
        class_counts, weighting=config.weighting, beta=config.beta, ignore_index=ignore_index
    )


def _build_ohem(config: OhemConfig, class_counts: Tensor, ignore_index: int) -> nn.Module:
    return OhemCrossEntropy(
        threshold=config.threshold, min_kept_share=config.min_kept_share, ignore_index=ignore_index
    )


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "cross_entropy": _build_cross_entropy,
    "logit_adjusted": _build_logit_adjusted,
    "class_balanced": _build_class_balanced,
    "ohem": _build_ohem,
}


def build_loss(config: LossConfig, *, class_counts: Tensor, ignore_index: int = 255) -> nn.Module:
    """Build the loss that ``config.name`` names; move it to the device of the logits with ``.to``.

    Args:
        config: Options of the loss.
        class_counts: (C,) training pixels per class; cross_entropy and ohem do not look at them.
        ignore_index: Label of the pixels that do not count.

    Returns:
        A module without parameters: logits (N, C) or (B, C, H, W), labels (N,) or (B, H, W) -> scalar.

    Raises:
        ValueError: For an unknown name, an option out of range or counts that are no counts.
    """
    if config.name not in LOSSES:
        raise ValueError(f"loss: {config.name!r} is not one of {', '.join(LOSSES)}")
    return LOSSES[config.name](config, class_counts, ignore_index)
