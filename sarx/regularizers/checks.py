"""What every regularizer checks: its options when built, shapes and labels when called."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from sarx.config.schema.options import check_value, coerce, field_types
from sarx.regularizers.functional import downsample_labels


def check_options(owner: type, **values: Any) -> None:
    """Check options against the types and ranges that the schema dataclass ``owner`` declares.

    Raises:
        ValueError: Naming the option, the value and what is allowed.
    """
    fields = {item.name: item for item in dataclasses.fields(owner)}
    kinds = field_types(owner)
    for name, value in values.items():
        wanted = tuple(kind for kind in kinds[name] if kind is not type(None))
        check_value(coerce(value, wanted, name), fields[name].metadata, name)


def check_sizes(num_classes: int, feature_dim: int) -> None:
    """Refuse fewer than one class or feature channel."""
    check_value(num_classes, {"limits": {"low": 1}}, "num_classes")
    check_value(feature_dim, {"limits": {"low": 1}}, "feature_dim")


def align_labels(
    features: Tensor, labels: Tensor, *, num_classes: int, feature_dim: int, ignore_index: int
) -> Tensor:
    """Check a batch and return its labels as int64 at the feature size.

    Args:
        features: (N, D) or (B, D, H, W).
        labels: (N,) or (B, H', W'), integer.
        num_classes: C.
        feature_dim: D.
        ignore_index: The one label outside [0, C) that is allowed.

    Returns:
        (N,) or (B, H, W).

    Raises:
        ValueError: For shapes or a dtype that do not fit and, on the CPU in eager mode, for a label out of
            range. Elsewhere such a label is an asynchronous device assertion.
    """
    if features.dim() not in (2, 4) or features.shape[1] != feature_dim:
        wanted = f"(N, {feature_dim}) nor (B, {feature_dim}, H, W)"
        raise ValueError(f"features: shape {tuple(features.shape)} is neither {wanted}")
    if labels.dim() != features.dim() - 1 or labels.shape[0] != features.shape[0]:
        wanted = "(N,)" if features.dim() == 2 else "(B, H', W')"
        raise ValueError(
            f"labels: shape {tuple(labels.shape)} is not {wanted} for features {tuple(features.shape)}"
        )
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise ValueError(f"labels: dtype {labels.dtype} is not an integer type")
    labels = labels.long()
    _check_range(labels, num_classes, ignore_index)
    return downsample_labels(labels, (features.shape[2], features.shape[3])) if labels.dim() == 3 else labels


def _check_range(labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """Refuse labels that are neither in [0, C) nor ``ignore_index``, before any downsampling hides them."""
    wrong = ((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)
    allowed = f"[0, {num_classes - 1}] for {num_classes} classes, or ignore_index {ignore_index}"
    if labels.device.type != "cpu" or torch.compiler.is_compiling():
        torch._assert_async(~wrong.any(), f"labels: a label is outside the allowed range {allowed}")
    elif wrong.any():
        raise ValueError(f"labels: label {int(labels[wrong][0])} is outside the allowed range {allowed}")
