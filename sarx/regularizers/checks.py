"""What every regularizer checks: its options when built, shapes and labels when called."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import torch
from torch import Tensor, nn

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


def check_sizes(num_classes: int, feature_dim: int, ignore_index: int) -> None:
    """Refuse fewer than one class or feature channel, and a class that would be ignored."""
    for name, value in (("num_classes", num_classes), ("feature_dim", feature_dim)):
        try:
            check_value(operator.index(value), {"limits": {"low": 1}}, name)
        except TypeError:
            raise ValueError(f"{name}: {value!r} is not an integer") from None
    if 0 <= ignore_index < num_classes:
        raise ValueError(
            f"ignore_index: {ignore_index} is one of the {num_classes} classes, which would never be "
            "trained; give a label that is none, such as -1"
        )


def check_place(module: nn.Module) -> None:
    """Refuse to run where state is lost, or too coarse for a moving average.

    Raises:
        RuntimeError: Inside nn.DataParallel, whose replicas are thrown away after each step.
        ValueError: For state in half precision.
    """
    if getattr(module, "_is_replica", False):
        raise RuntimeError(
            f"{type(module).__name__} keeps state, which nn.DataParallel throws away with its replicas; use "
            "torch.nn.parallel.DistributedDataParallel"
        )
    for name, state in module.named_buffers():
        if state.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"{name}: {state.dtype} is too coarse for a moving average; keep {type(module).__name__} in "
                "float32 and use torch.autocast"
            )


def linear_map(classifier: nn.Module, num_classes: int, feature_dim: int) -> tuple[Tensor, Tensor | None]:
    """Return weight (C, D) and bias (C,) or None of a classifier that applies just these to each pixel.

    Raises:
        ValueError: For another kind of module, a subclass that computes something else, a convolution that is
            not pointwise, or other sizes.
    """
    kinds: tuple[type[nn.Linear] | type[nn.Conv2d], ...] = (nn.Linear, nn.Conv2d)
    kind = next((kind for kind in kinds if isinstance(classifier, kind)), None)
    if kind is None or type(classifier).forward is not kind.forward:
        raise ValueError(f"classifier: {type(classifier).__name__} is neither nn.Linear nor a 1x1 nn.Conv2d")
    assert isinstance(classifier, (nn.Linear, nn.Conv2d))
    wanted, shape = (num_classes, feature_dim), tuple(classifier.weight.shape)
    if shape not in (wanted, (*wanted, 1, 1)):
        raise ValueError(f"classifier: weight shape {shape} is neither {wanted} nor {(*wanted, 1, 1)}")
    if isinstance(classifier, nn.Conv2d) and (classifier.stride != (1, 1) or classifier.padding != (0, 0)):
        raise ValueError("classifier: a 1x1 nn.Conv2d needs stride 1 and padding 0 to see every pixel once")
    return classifier.weight.flatten(start_dim=1), classifier.bias


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
