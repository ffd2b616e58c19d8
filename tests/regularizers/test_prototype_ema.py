"""The moving average of class means, by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sarx.regularizers import PrototypeEMA

CLASSIFIER = nn.Linear(2, 3)


def test_two_steps_by_hand() -> None:
    regularizer = PrototypeEMA(3, 2, pull_weight=0.5, ema_decay=0.75)
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [100.0, 100.0], [5.0, 6.0]], requires_grad=True)
    output = regularizer(features, torch.tensor([0, 0, 255, 2]), CLASSIFIER)
    assert regularizer.prototypes.tolist() == [[2.0, 3.0], [0.0, 0.0], [5.0, 6.0]]
    # Two pixels lie (1, 1) from their mean, one lies on it: (1 + 1 + 0) / 3.
    assert float(output.metrics["train/pull_loss"]) == pytest.approx(2 / 3)
    assert float(output.loss.detach()) == pytest.approx(1 / 3)
    assert float(output.metrics["train/prototypes_seen"]) == pytest.approx(2 / 3)
    output.loss.backward()
    sixth = 0.5 * 2 / (2 * 3)
    wanted = torch.tensor([[-sixth, -sixth], [sixth, sixth], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(features.grad, wanted)

    output = regularizer(torch.tensor([[6.0, 7.0], [4.0, 4.0]]), torch.tensor([0, 1]), CLASSIFIER)
    # Class 0 moves by a quarter, class 1 starts at its mean, class 2 is absent and stays.
    assert regularizer.prototypes.tolist() == [[3.0, 4.0], [4.0, 4.0], [5.0, 6.0]]
    assert float(output.metrics["train/pull_loss"]) == pytest.approx(9 / 2)
    assert output.metrics["train/prototypes_seen"] == 1


def test_maps_equal_rows() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(2, 2, 3, 4), torch.randint(0, 3, (2, 6, 8))
    by_map, by_row = PrototypeEMA(3, 2), PrototypeEMA(3, 2)
    rows = features.permute(0, 2, 3, 1).reshape(-1, 2)
    one = by_map(features, labels, CLASSIFIER)
    two = by_row(rows, labels[:, ::2, ::2].reshape(-1), CLASSIFIER)
    torch.testing.assert_close(one.loss, two.loss)
    torch.testing.assert_close(by_map.prototypes, by_row.prototypes)


def test_all_ignored_moves_nothing() -> None:
    regularizer = PrototypeEMA(3, 2)
    features = torch.ones(4, 2, requires_grad=True)
    output = regularizer(features, torch.full((4,), 255), CLASSIFIER)
    output.loss.backward()
    assert output.loss == 0
    assert not features.grad.any()
    assert not regularizer.seen.any()


def test_eval_changes_nothing_and_keeps_the_keys() -> None:
    regularizer = PrototypeEMA(3, 2)
    batch = (torch.randn(4, 2), torch.tensor([0, 1, 0, 1]), CLASSIFIER)
    trained = regularizer(*batch)
    before = copy.deepcopy(regularizer.state_dict())
    output = regularizer.eval()(*batch)
    assert output.loss == 0
    assert output.metrics.keys() == trained.metrics.keys()
    assert all(torch.equal(value, before[key]) for key, value in regularizer.state_dict().items())


def test_two_forwards_before_one_backward() -> None:
    regularizer = PrototypeEMA(3, 2)
    features, labels = torch.randn(4, 2, requires_grad=True), torch.tensor([0, 1, 0, 1])
    (
        regularizer(features, labels, CLASSIFIER).loss + regularizer(features + 1, labels, CLASSIFIER).loss
    ).backward()
    assert features.grad.abs().max() > 0


def test_half_precision_features_under_autocast() -> None:
    regularizer = PrototypeEMA(3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = regularizer(torch.randn(4, 2).bfloat16(), torch.tensor([0, 1, 0, 1]), CLASSIFIER)
    assert regularizer.prototypes.dtype == output.loss.dtype == torch.float32


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="pull_weight: -1"):
        PrototypeEMA(3, 2, pull_weight=-1.0)
    with pytest.raises(ValueError, match="ema_decay: 1"):
        PrototypeEMA(3, 2, ema_decay=1.0)
    with pytest.raises(ValueError, match=r"label 3 is outside .* 3 classes"):
        PrototypeEMA(3, 2)(torch.zeros(1, 2), torch.tensor([3]), CLASSIFIER)
