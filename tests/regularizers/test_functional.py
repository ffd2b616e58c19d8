"""The pure functions against literal twins and hand-computed numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sarx.regularizers.functional import (
    AnchorStatistics,
    anchor_loss,
    anchor_statistics,
    class_counts,
    class_sums,
    decay_from_half_life,
    downsample_labels,
    ema_update,
    open_gates,
    pull_weights,
)


def test_anchor_loss_weights_carry_gradient_as_published() -> None:
    """The worked example of the published behaviour: cross-entropies .2, .5, 1, 3."""
    losses = torch.tensor([0.2, 0.5, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    value = anchor_loss(-losses, 0.9)
    assert float(value.detach()) == pytest.approx((0.04 + 0.25 + 1 + 9) / 4.7, rel=1e-8)
    gradient = torch.autograd.grad(value, losses)[0]
    wanted = (2 * losses - value) / losses.sum()
    torch.testing.assert_close(gradient, wanted.detach(), rtol=1e-8, atol=1e-8)
    assert [round(entry, 3) for entry in gradient.tolist()] == [-0.381, -0.253, -0.040, 0.811]


def test_detached_and_uniform_weighting_by_hand() -> None:
    losses = torch.tensor([0.2, 0.5, 1.0, 3.0, 0.05], dtype=torch.float64, requires_grad=True)
    detached = anchor_loss(-losses, 0.9, "detached")
    assert detached.detach() == anchor_loss(-losses, 0.9).detach()
    gradient = torch.autograd.grad(detached, losses)[0]
    assert [round(entry, 2) for entry in gradient.tolist()] == [0.04, 0.11, 0.21, 0.64, 0.0]
    uniform = anchor_loss(-losses, 0.9, "uniform")
    assert float(uniform.detach()) == pytest.approx(4.7 / 4)
    assert torch.autograd.grad(uniform, losses)[0].tolist() == [0.25] * 4 + [0.0]
    empty = anchor_loss(-losses * 1e-3, 0.9, "uniform")
    assert empty == 0
    assert not torch.autograd.grad(empty, losses)[0].any()


def test_anchor_loss_filters_confident_classes() -> None:
    losses = torch.tensor([0.05, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    value = anchor_loss(-losses, 0.9)
    assert float(value.detach()) == pytest.approx(1.25 / 1.5, rel=1e-8)
    assert torch.autograd.grad(value, losses)[0][0] == 0
    assert float(anchor_loss(-losses.detach(), 1.0)) == pytest.approx(1.2525 / 1.55, rel=1e-8)


@pytest.mark.parametrize("total", [0.0, 1e-12, 0.9e-9, 1e-9, 1.1e-9, 2e-9, 1e-6])
def test_anchor_loss_has_no_pole_when_nothing_is_filtered(total: float) -> None:
    losses = torch.tensor([total, 0.0], dtype=torch.float64, requires_grad=True)
    value = anchor_loss(-losses, 1.0)
    assert 0.0 <= float(value.detach()) <= 2.0 * total
    assert torch.autograd.grad(value, losses)[0].abs().max() <= 4.0


def test_anchor_statistics_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    statistics = anchor_statistics(logits)
    assert float(statistics.confidence[0]) == pytest.approx(1 / (1 + math.exp(-2)))
    assert float(statistics.log_confidence[1]) == pytest.approx(-3 - math.log1p(math.exp(-3)))
    assert statistics.correct.tolist() == [True, False]


def test_ema_update_is_out_of_place() -> None:
    average, value = torch.ones(2, 1), torch.tensor([[3.0], [5.0]])
    moved = ema_update(average, value, torch.tensor([[True], [False]]), 0.5)
    assert moved.tolist() == [[2.0], [5.0]]
    assert average.tolist() == [[1.0], [1.0]]


def test_decay_from_half_life() -> None:
    decay = decay_from_half_life(0.1, 1000)
    assert decay**100 == pytest.approx(0.5)
    assert decay_from_half_life(1e-9, 1) == 0.0
    with pytest.raises(ValueError, match="half_life_share: 0"):
        decay_from_half_life(0.0, 10)
    with pytest.raises(ValueError, match="total_steps: 0"):
        decay_from_half_life(0.1, 0)


def test_class_sums_and_counts_by_hand() -> None:
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0], [5.0, 6.0]])
    labels = torch.tensor([0, 0, 255, 2])
    assert class_sums(features, labels, 3, 255).tolist() == [[4.0, 6.0], [0.0, 0.0], [5.0, 6.0]]
    counts = class_counts(labels, 3, 255)
    assert counts.tolist() == [2, 0, 1]
    assert counts.dtype == torch.int64
    maps = features.T.reshape(1, 2, 2, 2)
    assert torch.equal(class_sums(maps, labels.view(1, 2, 2), 3, 255), class_sums(features, labels, 3, 255))


def test_pull_weights_by_hand() -> None:
    counts, is_open = torch.tensor([6, 0, 2]), torch.tensor([True, True, False])
    pixel = pull_weights(counts, is_open, "pixel", dtype=torch.float64)
    assert pixel.tolist() == [1 / 8, 1 / 8, 0.0]
    balanced = pull_weights(counts, torch.ones_like(is_open), "class_balanced", ranks=3, dtype=torch.float64)
    assert balanced.tolist() == [3 / 12, 3 / 2, 3 / 4]  # class 1 has no pixel that could use its weight
    nothing = pull_weights(counts * 0, is_open, "class_balanced", dtype=torch.float64)
    assert nothing.isfinite().all()


@pytest.mark.parametrize(
    ("gate", "wanted"),
    [("all", [False] * 3), ("per_class", [True, False, False]), ("always", [True] * 3)],
)
def test_open_gates_by_hand(gate: str, wanted: list[bool]) -> None:
    confidence = torch.tensor([0.9, 0.9, 0.8])
    statistics = AnchorStatistics(confidence.log(), confidence, torch.tensor([True, False, True]))
    assert open_gates(statistics, 0.8, gate).tolist() == wanted
    passing = AnchorStatistics(confidence.log(), confidence, torch.ones(3, dtype=torch.bool))
    assert open_gates(passing, 0.7, gate).all()


@pytest.mark.parametrize("source", [(8, 8), (7, 13), (512, 481), (3, 2)])
@pytest.mark.parametrize("wanted", [(4, 4), (5, 3), (128, 121), (3, 2)])
def test_downsampling_equals_interpolate(source: tuple[int, int], wanted: tuple[int, int]) -> None:
    labels = torch.randint(0, 256, (2, *source), generator=torch.Generator().manual_seed(0))
    reference = F.interpolate(labels[:, None].float(), size=wanted, mode="nearest")[:, 0].long()
    assert torch.equal(downsample_labels(labels, wanted), reference)
