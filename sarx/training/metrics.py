"""Scores from a confusion matrix (C, C): rows are labels, columns are predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def confusion_matrix(labels: Tensor, predictions: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Count pairs of label and prediction: int64 (C, C) from integer tensors of one shape."""
    valid = labels != ignore_index
    pairs = labels[valid].long() * num_classes + predictions[valid].long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def segmentation_scores(
    matrix: Tensor,
    class_names: Sequence[str],
    score_classes: Sequence[int],
    groups: Mapping[str, Sequence[int]],
) -> dict[str, float]:
    """Return IoU per class, its mean over ``score_classes`` and over each group, and pixel accuracy.

    A class that is neither labelled nor predicted has IoU 0 if it is scored: leaving it out would let a mean
    rise because a class vanished.
    """
    matrix = matrix.double()
    correct = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - correct
    iou = correct / union.clamp(min=1)
    scores = {"miou": _mean(iou, score_classes)}
    scores |= {f"{group}_iou": _mean(iou, members) for group, members in groups.items()}
    scores["pixel_accuracy"] = float(correct.sum() / matrix.sum().clamp(min=1))
    scores |= {f"iou/{name}": float(value) for name, value in zip(class_names, iou, strict=True)}
    unscored = [name for i, name in enumerate(class_names) if i not in set(score_classes)]
    scores |= {f"{name}_iou": scores[f"iou/{name}"] for name in unscored}
    return scores


def classification_scores(
    matrix: Tensor,
    class_names: Sequence[str],
    score_classes: Sequence[int],
    groups: Mapping[str, Sequence[int]],
) -> dict[str, float]:
    """Return recall per class, its mean over ``score_classes`` and over each group, and plain accuracy."""
    matrix = matrix.double()
    recall = matrix.diagonal() / matrix.sum(1).clamp(min=1)
    scores = {"mean_accuracy": _mean(recall, score_classes)}
    scores |= {f"{group}_accuracy": _mean(recall, members) for group, members in groups.items()}
    scores["accuracy"] = float(matrix.diagonal().sum() / matrix.sum().clamp(min=1))
    scores |= {f"accuracy/{name}": float(value) for name, value in zip(class_names, recall, strict=True)}
    return scores


def _mean(values: Tensor, members: Sequence[int]) -> float:
    return float(values[list(members)].mean())


SCORES = {"segmentation": segmentation_scores, "classification": classification_scores}
