"""The embedded data are neither hopeless nor solved for plain cross-entropy at the lengths in use."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sarx.config.compose import compose
from sarx.data import load_split
from sarx.training.loop import train
from sarx.training.metrics import confusion_matrix, segmentation_scores
from sarx.training.report import train_and_report


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_quick_training_of_plain_cross_entropy_has_room_below_and_above():
    torch.set_num_threads(1)
    config = compose({"regularizer": "none", "training": "quick", "role": "confirm"})
    *_, last = train_and_report(config)
    assert 0.05 < last.metrics["test/tail_iou"] < 0.8
    assert last.metrics["test/miou"] > 2 * commonest_class_miou(config)


def commonest_class_miou(config):
    """Return the best mIoU of predicting one and the same digit everywhere."""
    labels = torch.tensor(np.array(load_split(config.data, config.seed, "test").labels))
    names = [str(c) for c in range(11)]
    return max(
        segmentation_scores(
            confusion_matrix(labels, torch.full_like(labels, c), 11, 255), names, range(1, 11), {}
        )["miou"]
        for c in range(1, 11)
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_full_training_of_plain_cross_entropy_has_flattened():
    torch.set_num_threads(1)
    config = compose({"regularizer": "none", "training": "full"})
    scores = [result.metrics["val/miou"] for result in train(config)]
    assert scores[-1] - scores[-1 - len(scores) // 5] < 0.02
    assert 0.05 < scores[-1] < 0.9
