"""Logit adjustment after training: the loss is plain, the predictions are shifted."""

from __future__ import annotations

import math

import pytest
import torch

from sarx.config.schema import GROUPS
from sarx.config.schema.loss import CrossEntropyConfig, LogitAdjustedConfig
from sarx.losses import LOSSES, LogitAdjustedCrossEntropy, adjust, build_loss

COUNTS = torch.tensor([3, 1])


def test_post_hoc_trains_with_plain_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 2, 4, 5), torch.randint(0, 2, (2, 4, 5))
    labels[0, 0] = 255
    post_hoc = build_loss(LogitAdjustedConfig(tau=2.0, when="post_hoc"), class_counts=COUNTS)
    plain = build_loss(CrossEntropyConfig(), class_counts=COUNTS)
    assert torch.equal(post_hoc(logits, labels), plain(logits, labels))


def test_predictions_by_hand() -> None:
    loss = LogitAdjustedCrossEntropy(COUNTS, tau=2.0, when="post_hoc")
    wanted = [-2 * math.log(0.75), -2 * math.log(0.25)]
    assert loss.prediction_adjustment.tolist() == pytest.approx(wanted)
    # Class 0 leads by 2, and class 1 gains 2 log 3 = 2.197 on it; a lead of 2.3 is kept.
    rows = torch.tensor([[2.0, 0.0], [2.3, 0.0]])
    assert rows.argmax(dim=1).tolist() == [0, 0]
    shifted = adjust(rows, loss.prediction_adjustment)
    assert shifted.argmax(dim=1).tolist() == [1, 0]
    assert shifted[0].tolist() == pytest.approx([2 + wanted[0], wanted[1]])
    maps = rows.T.view(1, 2, 1, 2)
    assert torch.equal(adjust(maps, loss.prediction_adjustment), shifted.T.view(1, 2, 1, 2))


def test_post_hoc_adds_to_predictions_what_training_subtracts_in_effect() -> None:
    """Same counts, same prior: the two shifts are each other's negative."""
    training = LogitAdjustedCrossEntropy(COUNTS, tau=1.5)
    post_hoc = LogitAdjustedCrossEntropy(COUNTS, tau=1.5, when="post_hoc")
    assert torch.equal(post_hoc.prediction_adjustment, -training.adjustment)
    assert training.prediction_adjustment is None
    assert post_hoc.adjustment is None


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_says_how_its_predictions_are_made(name: str) -> None:
    loss = build_loss(GROUPS["loss"][name](), class_counts=COUNTS)
    assert loss.prediction_adjustment is None
    logits = torch.randn(3, 2)
    assert adjust(logits, loss.prediction_adjustment) is logits


def test_the_shift_moves_with_the_module_and_is_not_saved() -> None:
    loss = LogitAdjustedCrossEntropy(COUNTS, when="post_hoc").double()
    assert loss.prediction_adjustment.dtype == torch.float64
    assert not loss.state_dict()


def test_a_class_without_pixels_counts_as_one() -> None:
    none, one = (
        LogitAdjustedCrossEntropy(torch.tensor([99, rare]), when="post_hoc").prediction_adjustment
        for rare in (0, 1)
    )
    assert torch.equal(none, one)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="when: 'never' is not one of training, post_hoc"):
        LogitAdjustedCrossEntropy(COUNTS, when="never")
    with pytest.raises(ValueError, match=r"tau: -1\.0 is outside the allowed range \[0, 10\]"):
        LogitAdjustedCrossEntropy(COUNTS, tau=-1.0)
