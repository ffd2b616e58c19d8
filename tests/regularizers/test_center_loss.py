"""The centre loss, by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sarx.regularizers.center_loss import CenterLoss

CLASSIFIER = nn.Linear(2, 3)
LABELS = torch.tensor([0, 0, 255, 2])


def first_features() -> torch.Tensor:
    return torch.tensor([[1.0, 2.0], [3.0, 4.0], [100.0, 100.0], [5.0, 6.0]], requires_grad=True)


def test_two_steps_by_hand() -> None:
    regularizer = CenterLoss(3, 2, pull_weight=4.0)
    features = first_features()
    output = regularizer(features, LABELS, CLASSIFIER)
    # Centres at the origin: 1/2 of the mean over 3 pixels of (5, 25, 61) / 2.
    assert float(output.metrics["train/pull_loss"]) == pytest.approx(91 / 12)
    assert float(output.loss.detach()) == pytest.approx(91 / 3)
    output.loss.backward()
    wanted = features.detach() * 4.0 / (2 * 3)
    wanted[2] = 0.0
    torch.testing.assert_close(features.grad, wanted)
    assert not regularizer.centres.any()
    # 0 - .5 * -(4, 6) / (1 + 2); class 1 has no pixel; 0 - .5 * -(5, 6) / (1 + 1).
    centres = torch.tensor([[2 / 3, 1.0], [0.0, 0.0], [1.25, 1.5]])
    torch.testing.assert_close(regularizer.next_centres, centres)

    output = regularizer(torch.zeros(1, 2), torch.tensor([0]), CLASSIFIER)
    torch.testing.assert_close(regularizer.centres, centres)
    assert float(output.metrics["train/pull_loss"]) == pytest.approx((4 / 9 + 1) / 4)
    # c - .5 * (c - 0) / (1 + 1): three quarters are left.
    centres[0] *= 0.75
    torch.testing.assert_close(regularizer.next_centres, centres)


def test_micro_batches_of_one_step_share_the_centres() -> None:
    regularizer = CenterLoss(3, 2)
    for _ in range(2):
        first = regularizer(first_features(), LABELS, CLASSIFIER)
    before = copy.deepcopy(regularizer.state_dict())
    further = regularizer(first_features(), LABELS, CLASSIFIER, advance=False)
    assert torch.equal(further.loss, first.loss)
    assert all(torch.equal(value, before[key]) for key, value in regularizer.state_dict().items())


def test_checkpointing_moves_the_centres_once_and_gives_the_same_gradient() -> None:
    plain, repeated = CenterLoss(3, 2), CenterLoss(3, 2)
    for _ in range(2):
        one, two = first_features(), first_features()
        plain(one, LABELS, CLASSIFIER).loss.backward()
        checkpoint(lambda x: repeated(x, LABELS, CLASSIFIER).loss, two, use_reentrant=False).backward()
        assert torch.equal(one.grad, two.grad)
    assert torch.equal(plain.next_centres, repeated.next_centres)


def test_alpha_1_forgets_the_centre_up_to_the_1_in_the_denominator() -> None:
    regularizer = CenterLoss(1, 1, alpha=1.0)
    for _ in range(2):
        regularizer(torch.full((999, 1), 8.0), torch.zeros(999, dtype=torch.int64), nn.Linear(1, 1))
    assert float(regularizer.next_centres) == pytest.approx(8.0 * (1 - 1e-6))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="pull_weight: -1"):
        CenterLoss(3, 2, pull_weight=-1.0)
    with pytest.raises(ValueError, match=r"alpha: 1.5 is outside the allowed range \[0, 1\]"):
        CenterLoss(3, 2, alpha=1.5)
