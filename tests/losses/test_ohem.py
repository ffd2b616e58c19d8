"""Online hard example mining against hand-computed numbers and a literal twin."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sarx.config.schema import build
from sarx.config.schema.loss import OhemConfig
from sarx.losses import OhemCrossEntropy, build_loss
from sarx.losses.ohem import hard_pixels


def with_probabilities(*values: float) -> tuple[Tensor, Tensor]:
    """Logits (N, 2) whose class 1 has these probabilities, and labels that are all 1."""
    logits = torch.tensor([[0.0, math.log(p / (1.0 - p))] for p in values], dtype=torch.float64)
    return logits.requires_grad_(), torch.ones(len(values), dtype=torch.int64)


def literal(logits: Tensor, labels: Tensor, threshold: float, min_kept_share: float) -> Tensor:
    """The definition in a loop over pixels."""
    probabilities = logits.movedim(1, -1).reshape(-1, logits.shape[1]).softmax(dim=1)
    valid = [
        (float(probabilities[i, y].detach()), i, y)
        for i, y in enumerate(labels.flatten().tolist())
        if y != 255
    ]
    hardest = sorted(valid)[: max(1, round(min_kept_share * len(valid)))]
    kept = [entry for entry in valid if entry[0] < threshold or entry in hardest]
    return torch.stack([-probabilities[i, y].log() for _, i, y in kept]).mean()


@pytest.mark.parametrize(
    ("threshold", "share", "kept"),
    [
        (0.7, 0.0, [0.5, 0.6]),
        (0.7, 0.25, [0.5, 0.6]),
        (0.7, 0.75, [0.5, 0.6, 0.9]),  # three of four valid pixels
        (0.7, 1.0, [0.5, 0.6, 0.9, 0.95]),
        (0.05, 0.0, [0.5]),  # never fewer than one
        (0.05, 0.5, [0.5, 0.6]),
        (0.55, 0.25, [0.5]),
        (1.0, 0.0, [0.5, 0.6, 0.9, 0.95]),
    ],
)
def test_by_hand(threshold: float, share: float, kept: list[float]) -> None:
    logits, labels = with_probabilities(0.9, 0.5, 0.1, 0.6, 0.95)
    labels[2] = 255  # the hardest pixel of all does not count
    loss = OhemCrossEntropy(threshold=threshold, min_kept_share=share)(logits, labels)
    assert float(loss.detach()) == pytest.approx(-sum(map(math.log, kept)) / len(kept))
    loss.backward()
    moved = {p for p, row in zip((0.9, 0.5, 0.1, 0.6, 0.95), logits.grad, strict=True) if row.any()}
    assert moved == set(kept)
    # d(-log p)/dz = p - 1 for the own logit, divided by the number of kept pixels
    assert float(logits.grad[1, 1]) == pytest.approx((0.5 - 1.0) / len(kept))


def test_of_equal_pixels_the_earlier_ones_are_kept() -> None:
    logits, labels = with_probabilities(0.8, 0.8, 0.8, 0.8)
    OhemCrossEntropy(threshold=0.5, min_kept_share=0.5)(logits, labels).backward()
    assert logits.grad.any(dim=1).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("threshold", "share"), [(0.7, 0.1), (0.2, 0.3), (0.05, 0.9), (0.4, 0.0)])
def test_equals_the_literal_twin(threshold: float, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, 9, generator=generator, dtype=torch.float64) * 2
    labels = torch.randint(0, 6, (2, 7, 9), generator=generator)
    labels[labels == 5] = 255
    loss = OhemCrossEntropy(threshold=threshold, min_kept_share=share)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    value, wanted = loss(ours, labels), literal(theirs, labels, threshold, share)
    torch.testing.assert_close(value, wanted)
    value.backward()
    wanted.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_keeping_all_is_cross_entropy() -> None:
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    labels[0, 0] = 255
    value = OhemCrossEntropy(min_kept_share=1.0)(logits, labels)
    torch.testing.assert_close(value, F.cross_entropy(logits, labels, ignore_index=255))


def test_a_loss_that_is_not_a_number_is_never_mined_away() -> None:
    logits, labels = with_probabilities(0.9, 0.99, 0.98)
    broken = logits.detach().clone()
    broken[2] = math.nan
    assert OhemCrossEntropy(threshold=0.5, min_kept_share=0.0)(broken, labels).isnan()


def test_the_number_kept_is_rounded_not_cut() -> None:
    losses = torch.linspace(1.0, 2.0, 100)
    none = torch.zeros(100, dtype=torch.bool)
    for share, count in ((0.29, 29), (0.07, 7), (0.004, 1), (0.006, 1), (0.016, 2)):
        assert hard_pixels(losses, none, threshold=1e-9, min_kept_share=share).sum() == count


def test_nothing_is_read_from_the_device() -> None:
    """A meta tensor has no values: reading one, or an index that depends on one, is an error."""
    value = OhemCrossEntropy()(
        torch.zeros(2, 3, 4, 5, device="meta"), torch.zeros(2, 4, 5, dtype=torch.int64, device="meta")
    )
    assert value.shape == ()


def test_options_arrive_and_mistakes_are_named() -> None:
    loss = build_loss(
        OhemConfig(threshold=0.5, min_kept_share=0.25), class_counts=torch.ones(2), ignore_index=9
    )
    assert (loss.threshold, loss.min_kept_share, loss.ignore_index) == (0.5, 0.25, 9)
    assert build({"loss": {"name": "ohem"}}).loss == OhemConfig(threshold=0.7, min_kept_share=0.1)
    with pytest.raises(ValueError, match=r"threshold: 0\.0 is outside the allowed range \(0, 1\]"):
        OhemCrossEntropy(threshold=0.0)
    with pytest.raises(ValueError, match=r"min_kept_share: 1\.5 is outside the allowed range \[0, 1\]"):
        OhemCrossEntropy(min_kept_share=1.5)
