"""Evaluate a model on one split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sarx.training.metrics import SCORES, confusion_matrix

if TYPE_CHECKING:
    from sarx.data import DataSet, Split

BATCH = 100


def evaluate(
    model: nn.Module, split: Split, data: DataSet, device: torch.device, prefix: str
) -> dict[str, float]:
    """Score a model on every sample of a split; the model's mode is restored afterwards.

    Args:
        model: Returns a ``ModelOutput``.
        split: Images and labels.
        data: Description of the data set.
        device: Where the model lies.
        prefix: Prefix of the metric names, such as ``val``.
    """
    training = model.training
    model.eval()
    matrix = torch.zeros(data.num_classes, data.num_classes, dtype=torch.int64, device=device)
    with torch.inference_mode():
        for start in range(0, len(split), BATCH):
            labels = torch.tensor(split.labels[start : start + BATCH], device=device)
            predictions = predict(
                model, torch.tensor(split.images[start : start + BATCH]), labels, data, device
            )
            matrix += confusion_matrix(labels, predictions, data.num_classes, data.ignore_index)
    model.train(training)
    scores = SCORES[data.task](matrix, data.class_names, data.score_classes, data.groups)
    return {f"{prefix}/{name}": value for name, value in scores.items()}


def predict(model: nn.Module, images: Tensor, labels: Tensor, data: DataSet, device: torch.device) -> Tensor:
    """Return the predicted class of every label position: images uint8 (B, C, H, W)."""
    logits = resize_logits(model(normalise(images, data, device)).logits, labels)
    result: Tensor = logits.argmax(dim=1)
    return result


def normalise(images: Tensor, data: DataSet, device: torch.device) -> Tensor:
    """Turn uint8 images (B, C, H, W) into what the model sees: float32, zero mean and unit variance."""
    pixels = images.to(device).float().div_(255)
    mean = torch.tensor(data.mean, device=device).view(1, -1, 1, 1)
    std = torch.tensor(data.std, device=device).view(1, -1, 1, 1)
    return pixels.sub_(mean).div_(std)


def resize_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Upsample logits (B, C, h, w) bilinearly to the labels (B, H, W); logits (N, C) stay as they are."""
    if logits.dim() == 2 or logits.shape[2:] == labels.shape[1:]:
        return logits
    return interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
