from __future__ import annotations

import itertools

import pytest
import torch

from sarx.config.schema.data import DigitScenesConfig, DigitsLTConfig
from sarx.config.schema.optim import OptimConfig
from sarx.data import describe, score_names
from sarx.training.metrics import SCORES, classification_scores, confusion_matrix, segmentation_scores
from sarx.training.optim import build_optimizer, learning_rate

NAMES = ("background", "a", "b", "c")
GROUPS = {"head": (1,), "body": (2,), "tail": (3,)}


def test_confusion_by_hand():
    labels = torch.tensor([[0, 0, 1], [1, 2, 255]])
    predictions = torch.tensor([[0, 1, 1], [1, 0, 3]])
    matrix = confusion_matrix(labels, predictions, 4, 255)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_segmentation_scores_by_hand():
    matrix = torch.tensor([[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    scores = segmentation_scores(matrix, NAMES, (1, 2, 3), GROUPS)
    assert scores["iou/a"] == pytest.approx(2 / 3)
    assert scores["iou/c"] == 0.0  # neither labelled nor predicted: counted, not skipped
    assert scores["miou"] == pytest.approx(2 / 9)
    assert scores["background_iou"] == pytest.approx(1 / 3)
    assert (scores["head_iou"], scores["tail_iou"]) == (pytest.approx(2 / 3), 0.0)
    assert scores["pixel_accuracy"] == pytest.approx(3 / 5)


def test_classification_scores_by_hand():
    matrix = torch.tensor([[3, 1], [1, 1]])
    scores = classification_scores(matrix, ("x", "y"), (0, 1), {"head": (0,), "tail": (1,)})
    assert scores["mean_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["tail_accuracy"] == pytest.approx(1 / 2)


def test_iou_agrees_with_torchmetrics():
    from torchmetrics.functional.classification import multiclass_jaccard_index

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 16, 16), generator=generator)
    predictions = torch.randint(0, 4, (2, 16, 16), generator=generator)
    scores = segmentation_scores(confusion_matrix(labels, predictions, 4, 255), NAMES, (0, 1, 2, 3), {})
    theirs = multiclass_jaccard_index(predictions, labels, 4, average=None)
    assert [scores[f"iou/{name}"] for name in NAMES] == pytest.approx(theirs.tolist(), abs=1e-6)


def test_the_learning_rate_falls_from_lr_to_its_floor():
    config = OptimConfig(lr=0.01, power=0.9, floor=0.01)
    rates = [learning_rate(config, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[100] == pytest.approx(0.0001)
    assert rates[50] == pytest.approx(0.01 * (0.5**0.9 * 0.99 + 0.01))
    assert all(a > b for a, b in itertools.pairwise(rates))


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_optimizers(name, kind):
    optimizer = build_optimizer(
        [torch.nn.Parameter(torch.zeros(2))], OptimConfig(name=name, weight_decay=0.5)
    )
    assert isinstance(optimizer, kind)
    assert optimizer.param_groups[0]["weight_decay"] == 0.5


@pytest.mark.parametrize("name", ["digit_scenes", "digits_lt"])
def test_the_names_that_a_plan_may_use_are_the_names_that_evaluation_gives(name):
    config = {"digit_scenes": DigitScenesConfig, "digits_lt": DigitsLTConfig}[name]()
    data = describe(config, 0)
    matrix = torch.ones(data.num_classes, data.num_classes)
    scores = SCORES[data.task](matrix, data.class_names, data.score_classes, data.groups)
    assert list(scores) == score_names(data)
