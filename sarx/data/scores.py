"""The names of the scores that evaluation gives for a data set; sarx.training.metrics computes them."""

from __future__ import annotations

from sarx.data.dataset import DataSet


def score_names(data: DataSet) -> list[str]:
    """Return every score name without the prefix of its split, such as ``miou`` or ``iou/digit_3``."""
    if data.task == "classification":
        groups = [f"{group}_accuracy" for group in data.groups]
        return ["mean_accuracy", *groups, "accuracy", *(f"accuracy/{name}" for name in data.class_names)]
    unscored = [name for i, name in enumerate(data.class_names) if i not in data.score_classes]
    groups = [f"{group}_iou" for group in data.groups]
    per_class = [f"iou/{name}" for name in data.class_names]
    return ["miou", *groups, "pixel_accuracy", *per_class, *(f"{name}_iou" for name in unscored)]
