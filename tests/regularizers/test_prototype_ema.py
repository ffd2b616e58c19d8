"""The moving average of class means, by hand; all baselines on two ranks against one process."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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


def judge(weight: float) -> nn.Linear:
    """A classifier of features (x, y): logits weight * (x, y, 0)."""
    classifier = nn.Linear(2, 3)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[weight, 0.0], [0.0, weight], [0.0, 0.0]]))
        classifier.bias.zero_()
    return classifier


def step(gate: str, classifier: nn.Module) -> tuple[Tensor, dict[str, Tensor], PrototypeEMA]:
    """Pixels (0, 0) and (4, 0) of class 0, (0, 1) of class 1, (0, 2) ignored; returns the gradient."""
    regularizer = PrototypeEMA(3, 2, pull_weight=1.0, gate=gate, update_confidence=0.7)
    features = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 1.0], [0.0, 2.0]], requires_grad=True)
    output = regularizer(features, torch.tensor([0, 0, 1, 255]), classifier)
    (gradient,) = torch.autograd.grad(output.loss, features)
    return gradient, output.metrics, regularizer


@pytest.mark.parametrize(
    ("gate", "weight", "share"),
    [
        # Prototypes (2, 0) and (0, 1); their confidence is e^2w / (e^2w + 2) and e^w / (e^w + 2).
        ("none", -1.0, 1.0),
        ("all", 2.0, 1.0),  # .96 and .79: both above .7, and class 2, not seen yet, is not asked
        ("all", 1.0, 0.0),  # .79 and .58
        ("all", -1.0, 0.0),  # not argmax-correct
        ("per_class", 2.0, 1.0),
        ("per_class", 1.0, 0.5),
        ("per_class", -1.0, 0.0),
    ],
)
def test_gates_by_hand(gate: str, weight: float, share: float) -> None:
    classifier = judge(weight)
    gradient, metrics, regularizer = step(gate, classifier)
    assert metrics["train/gate_open"] == share
    # Two pixels of class 0, 2 away from (2, 0); the mean is over all three valid pixels, pulled or not.
    assert float(metrics["train/pull_loss"]) == pytest.approx((share > 0) * (4 + 4) / 2 / 3)
    wanted = torch.zeros(4, 2)
    wanted[:2, 0] = torch.tensor([-2.0, 2.0]) / 3 * (share > 0)
    torch.testing.assert_close(gradient, wanted)
    # Open or shut, the average moves, and the classifier learns nothing.
    assert regularizer.prototypes.tolist() == [[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert classifier.weight.grad is None


def test_a_gate_follows_the_classifier() -> None:
    _, _, regularizer = step("all", judge(1.0))
    batch = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    assert regularizer(*batch, judge(3.0)).metrics["train/gate_open"] == 1
    assert regularizer(*batch, judge(1.0)).loss == 0


def test_nothing_seen_is_not_open() -> None:
    regularizer = PrototypeEMA(3, 2, gate="all")
    output = regularizer(torch.randn(2, 2), torch.tensor([255, 255]), judge(1.0))
    assert output.loss == output.metrics["train/gate_open"] == 0


def test_further_micro_batches_pull_to_the_prototypes_as_they_are() -> None:
    regularizer = PrototypeEMA(3, 2, pull_weight=1.0)
    regularizer(torch.tensor([[2.0, 3.0]]), torch.tensor([0]), CLASSIFIER)
    before = copy.deepcopy(regularizer.state_dict())
    features = torch.tensor([[4.0, 3.0], [7.0, 7.0]], requires_grad=True)
    loss = regularizer(features, torch.tensor([0, 1]), CLASSIFIER, advance=False).loss
    loss.backward()
    # Class 1 has no prototype yet: its pixel is not pulled, but counts among the valid ones.
    assert float(loss.detach()) == pytest.approx(4 / 2 / 2)
    torch.testing.assert_close(features.grad, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert all(torch.equal(value, before[key]) for key, value in regularizer.state_dict().items())


@pytest.mark.parametrize(
    ("classifier", "said"),
    [
        (nn.Sequential(nn.Linear(2, 3)), "classifier: Sequential is neither"),
        (nn.Linear(2, 4), r"classifier: weight shape \(4, 2\) is neither \(3, 2\)"),
    ],
)
def test_a_gate_needs_the_linear_classifier(classifier: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        step("all", classifier)
    step("none", classifier)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="gate: 'always' is not one of none, all, per_class"):
        PrototypeEMA(3, 2, gate="always")
    with pytest.raises(ValueError, match="update_confidence: 1"):
        PrototypeEMA(3, 2, update_confidence=1.0)
    with pytest.raises(ValueError, match="pull_weight: -1"):
        PrototypeEMA(3, 2, pull_weight=-1.0)
    with pytest.raises(ValueError, match="ema_decay: 1"):
        PrototypeEMA(3, 2, ema_decay=1.0)
    with pytest.raises(ValueError, match=r"label 3 is outside .* 3 classes"):
        PrototypeEMA(3, 2)(torch.zeros(1, 2), torch.tensor([3]), CLASSIFIER)
