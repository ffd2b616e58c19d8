"""The mathematics of the regularizers as pure functions over tensors.

Legend: C classes, D feature channels, N pixels or samples, B images, (H, W) feature size, (H', W') label
size. Source: Ge et al., "Beyond Prototypes: Semantic Anchor Regularization", AAAI 2024 (arXiv 2312.11872).
No function here reads a value from the device, branches on one or changes its arguments.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

AUX_EPSILON = 1e-9
"""The constant that the published weighting adds to a sum of log-probabilities."""


class AnchorStatistics(NamedTuple):
    """How well the classifier tells the projected anchors apart; three (C,) tensors."""

    log_confidence: Tensor
    confidence: Tensor
    correct: Tensor


def anchor_statistics(logits_CC: Tensor) -> AnchorStatistics:
    """Return log p_c, p_c and whether class c is the argmax of row c.

    The log-softmax keeps log p_c finite where the softmax underflows to 0.

    Args:
        logits_CC: (C, C); row c holds the logits of the projected anchor of class c.

    Returns:
        Three (C,) tensors: log-probability of the own class (with gradient), probability (detached), bool.
    """
    log_confidence = logits_CC.log_softmax(dim=1).diagonal()
    classes = torch.arange(logits_CC.shape[0], device=logits_CC.device)
    return AnchorStatistics(log_confidence, log_confidence.detach().exp(), logits_CC.argmax(dim=1) == classes)


def anchor_loss(log_confidence: Tensor, filter_confidence: float, weighting: str = "hard") -> Tensor:
    """Return the cross-entropy of the anchors that are not yet filtered out.

    With l = -log p and U the classes of p <= filter_confidence:

    - ``hard`` (published): sum over U of w_c l_c, where w_c = log p_c / (sum over U of log p + 1e-9). The
      weights carry gradient, so a class whose l is below half the loss is pushed to a larger l;
    - ``detached``: the same value, with no gradient through the weights;
    - ``uniform``: the mean of l_c over U.

    With U empty the value and every gradient are exactly 0 and the graph stays connected. Only where the sum
    over U lies above -2e-9 (possible only with filter_confidence within 2e-9 of 1) is the denominator held at
    -1e-9, because the published one crosses 0 there.

    Args:
        log_confidence: (C,) log p_c.
        filter_confidence: Classes more confident than this are left out; 1 keeps all.
        weighting: ``hard``, ``detached`` or ``uniform``.

    Returns:
        Scalar.
    """
    left_out = log_confidence.detach().exp() > filter_confidence
    kept = log_confidence.masked_fill(left_out, 0.0)
    if weighting == "uniform":
        return -kept.sum() / (~left_out).sum().clamp(min=1)
    weights = kept / (kept.sum() + AUX_EPSILON).clamp(max=-AUX_EPSILON)
    return ((weights.detach() if weighting == "detached" else weights) * -kept).sum()


def open_gates(statistics: AnchorStatistics, update_confidence: float, gate: str) -> Tensor:
    """Return the (C,) bool of the classes whose gate is open.

    A class passes if it is argmax-correct and p_c > update_confidence. ``all`` (published) opens every gate
    if every class passes and none otherwise, ``per_class`` the gates of the classes that pass, ``always``
    every gate.
    """
    passes = statistics.correct & (statistics.confidence > update_confidence)
    if gate == "all":
        return passes.all().expand_as(passes)
    return passes if gate == "per_class" else torch.ones_like(passes)


def pull_weights(
    counts: Tensor, open_C: Tensor, reduction: str, *, ranks: int = 1, dtype: torch.dtype
) -> Tensor:
    """Return the (C,) weight of one pixel of each class in the pull loss, 0 where the gate is shut.

    ``pixel`` (published) is 1 / V, the mean over all V valid pixels, pulled or not; ``class_balanced`` is
    1 / (K n_c) with K the number of classes in the batch: the mean over them of the mean over their pixels.
    Both are multiplied by the number of ranks, because a distributed wrapper averages over ranks.

    Args:
        counts: (C,) int64 valid pixels per class, over the batch of all ranks.
        open_C: (C,) bool.
        reduction: ``pixel`` or ``class_balanced``.
        ranks: Number of ranks.
        dtype: Of the weights.
    """
    if reduction == "pixel":
        parts = counts.sum().clamp(min=1).expand_as(counts)
    else:
        parts = counts.clamp(min=1) * (counts > 0).sum().clamp(min=1)
    return (ranks / parts.to(torch.promote_types(dtype, torch.float32))).masked_fill(~open_C, 0.0)


def ema_update(average: Tensor, value: Tensor, initialized: Tensor, decay: float) -> Tensor:
    """Return the next moving average as a new tensor: ``value`` itself at first, then the blend.

    Args:
        average: (C, D) current average.
        value: (C, D) what is averaged.
        initialized: Bool, scalar or (C, 1): where ``average`` already holds something.
        decay: Weight of ``average``, in [0, 1).

    Returns:
        (C, D).
    """
    return torch.where(initialized, decay * average + (1.0 - decay) * value, value)


def decay_from_half_life(half_life_share: float, total_steps: int) -> float:
    """Return the decay whose weight halves in ``half_life_share * total_steps`` steps.

    Args:
        half_life_share: Half-life as a share of the training length, above 0.
        total_steps: Optimizer steps of the training, at least 1.

    Raises:
        ValueError: If either is out of range.
    """
    if not half_life_share > 0.0:
        raise ValueError(f"half_life_share: {half_life_share!r} is outside the allowed range (0, inf)")
    if total_steps < 1:
        raise ValueError(f"total_steps: {total_steps!r} is outside the allowed range [1, inf)")
    return float(0.5 ** (1.0 / (half_life_share * total_steps)))


def class_counts(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return the (C,) int64 numbers of pixels per class of int64 labels of any shape, on this rank."""
    rows = labels.masked_fill(labels == ignore_index, num_classes).flatten()
    return rows.new_zeros(num_classes + 1).index_add(0, rows, torch.ones_like(rows))[:-1]


def class_sums(features: Tensor, labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return the sum of the features of every class, on this rank; 0 for a class without pixels.

    Args:
        features: (N, D) or (B, D, H, W).
        labels: (N,) or (B, H, W) int64; every label is ``ignore_index`` or in [0, C).
        num_classes: C.
        ignore_index: Label of the pixels that do not count.

    Returns:
        (C, D) with gradient.
    """
    rows = labels.masked_fill(labels == ignore_index, num_classes).flatten()
    features_ND = features.movedim(1, -1).flatten(end_dim=-2)
    return features_ND.new_zeros(num_classes + 1, features_ND.shape[1]).index_add(0, rows, features_ND)[:-1]


def downsample_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the label map at another size, by the nearest rule of ``torch.nn.functional.interpolate``.

    Args:
        labels: (B, H', W'), any dtype.
        size: (H, W).

    Returns:
        (B, H, W) of the same dtype.
    """
    if labels.shape[1:] == size:
        return labels
    rows = _nearest_index(labels.shape[1], size[0], labels.device)
    columns = _nearest_index(labels.shape[2], size[1], labels.device)
    return labels[:, rows[:, None], columns]


def _nearest_index(length: int, wanted: int, device: torch.device) -> Tensor:
    """Return the (wanted,) source positions that nearest interpolation picks out of ``length``."""
    positions = torch.arange(length, dtype=torch.float32, device=device)
    return F.interpolate(positions[None, None], size=wanted, mode="nearest")[0, 0].long()


def mean_pairwise_cosine(rows_CD: Tensor) -> Tensor:
    """Return the mean cosine between two different rows of a (C, D) matrix; zero rows count as cosine 0."""
    directions = F.normalize(rows_CD, dim=1)
    count = directions.shape[0]
    off_diagonal = directions.sum(dim=0).square().sum() - directions.square().sum()
    return off_diagonal / (count * (count - 1))


def zeroed(loss: Tensor, where: Tensor | None = None) -> Tensor:
    """Return 0 in place of a scalar loss, everywhere or where a bool scalar says so.

    The graph stays connected, so that no parameter is left without a gradient, and unlike a product with 0
    a loss that is not finite still gives 0.
    """
    return loss.masked_fill(torch.ones_like(loss, dtype=torch.bool) if where is None else where, 0.0)


def weighted(loss: Tensor, weight: float) -> Tensor:
    """Return ``weight * loss``, or a connected exact 0 when the weight is 0."""
    return loss * weight if weight else zeroed(loss)
