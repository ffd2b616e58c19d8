"""Evaluate a model on one split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sarx.losses import adjust
from sarx.models.output import ModelOutput
from sarx.training.distributed import global_sum, rank, world_size
from sarx.training.metrics import SCORES, confusion_matrix

if TYPE_CHECKING:
    from sarx.data import DataSet, Split

BATCH = 100


def evaluate(
    model: nn.Module,
    split: Split,
    data: DataSet,
    device: torch.device,
    prefix: str,
    adjustment: Tensor | None = None,
) -> dict[str, float]:
    """Score a model on every sample of a split; the model's mode is restored afterwards.

    Each rank takes every n-th batch, and the counts of all ranks are added: every rank must call it, with
    the same model, and gets the scores that one process gives.

    Args:
        model: Returns a ``ModelOutput``.
        split: Images and labels.
        data: Description of the data set.
        device: Where the model lies.
        prefix: Prefix of the metric names, such as ``val``.
        adjustment: (C,) what the task loss wants added to the logits that predict, or None.
    """
    share = (rank(), world_size())
    matrix = confusion(model, split, data, device, adjustment=adjustment, share=share)
    return scores(global_sum(matrix), data, prefix)


def confusion(
    model: nn.Module,
    split: Split,
    data: DataSet,
    device: torch.device,
    observe: Callable[[Tensor, ModelOutput], None] | None = None,
    adjustment: Tensor | None = None,
    share: tuple[int, int] = (0, 1),
) -> Tensor:
    """Return the confusion matrix, int64 (C, C), of a model on every sample of a split.

    Args:
        model: Returns a ``ModelOutput``.
        split: Images and labels.
        data: Description of the data set.
        device: Where the model lies.
        observe: Called with the labels and the output of each batch, in order, so that what else is
            measured on these samples costs no second forward pass.
        adjustment: (C,) what the task loss wants added to the logits that predict, or None.
        share: (r, n): only every n-th batch, from the r-th on.
    """
    matrix = torch.zeros(data.num_classes, data.num_classes, dtype=torch.int64, device=device)
    with evaluating(model):
        for start in range(share[0] * BATCH, len(split), share[1] * BATCH):
            labels = torch.tensor(split.labels[start : start + BATCH], device=device)
            output = infer(model, torch.tensor(split.images[start : start + BATCH]), data, device)
            predictions = predicted_classes(output.logits, labels, adjustment)
            matrix += confusion_matrix(labels, predictions, data.num_classes, data.ignore_index)
            if observe is not None:
                observe(labels, output)
    return matrix


def scores(matrix: Tensor, data: DataSet, prefix: str) -> dict[str, float]:
    """Return the scores of a confusion matrix (C, C) under the names ``prefix/...``."""
    values = SCORES[data.task](matrix, data.class_names, data.score_classes, data.groups)
    return {f"{prefix}/{name}": value for name, value in values.items()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode without gradients inside the block; its mode is restored after it."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def predict(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    data: DataSet,
    device: torch.device,
    adjustment: Tensor | None = None,
) -> Tensor:
    """Return the predicted class of every label position: images uint8 (B, C, H, W)."""
    return predicted_classes(infer(model, images, data, device).logits, labels, adjustment)


def infer(model: nn.Module, images: Tensor, data: DataSet, device: torch.device) -> ModelOutput:
    """Return what a model gives for uint8 images (B, C, H, W), in the precision of its weights: no autocast.

    A trial that trains in half precision is scored in float32.
    """
    dtype = next((value.dtype for value in model.parameters()), torch.float32)
    output: ModelOutput = model(normalise(images, data, device, dtype))
    return output


def feature_size(model: nn.Module, split: Split, data: DataSet, device: torch.device) -> tuple[int, ...]:
    """Return (h, w) of the features of these images, or () in classification."""
    with evaluating(model):
        features = infer(model, torch.tensor(split.images[:1]), data, device).features
    return tuple(features.shape[2:])


def predicted_classes(logits: Tensor, labels: Tensor, adjustment: Tensor | None = None) -> Tensor:
    """Return the class of the largest adjusted logit at every label position: int64 of the labels' shape."""
    return resize_logits(adjust(logits, adjustment), labels).argmax(dim=1)


def normalise(
    images: Tensor, data: DataSet, device: torch.device, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Turn uint8 images (B, C, H, W) into what the model sees: floats of zero mean and unit variance."""
    pixels = images.to(device).to(dtype).div_(255)
    mean = torch.tensor(data.mean, device=device, dtype=dtype).view(1, -1, 1, 1)
    std = torch.tensor(data.std, device=device, dtype=dtype).view(1, -1, 1, 1)
    return pixels.sub_(mean).div_(std)


def resize_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Upsample logits (B, C, h, w) bilinearly to the labels (B, H, W); logits (N, C) stay as they are."""
    if logits.dim() == 2 or logits.shape[2:] == labels.shape[1:]:
        return logits
    return interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
