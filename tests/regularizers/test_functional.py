"""The pure functions against literal twins and hand-computed numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sarx.regularizers.functional import (
    anchor_loss,
    anchor_statistics,
    class_means,
    decay_from_half_life,
    downsample_labels,
    ema_update,
    pull_loss,
)


def slow_pull(features: Tensor, labels: Tensor, centres: Tensor, ignore_index: int) -> Tensor:
    """One-hot twin: dense targets by a product with (B, H, W, C), errors masked, divided by valid pixels."""
    count = centres.shape[0]
    valid = (labels != ignore_index).to(features.dtype)
    one_hot = F.one_hot(torch.where(labels == ignore_index, count, labels), count + 1)[..., :count]
    targets = torch.einsum("bhwc,cd->bdhw", one_hot.to(features.dtype), centres)
    errors = ((features - targets) ** 2).sum(dim=1) / features.shape[1]
    return (errors * valid).sum() / valid.sum()


@pytest.mark.parametrize("seed", range(4))
def test_pull_equals_its_one_hot_twin(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    centres = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 8, (2, 3, 4), generator=generator)
    labels[labels == 7] = 255
    results = []
    for function in (pull_loss, slow_pull):
        value = function(features, labels, centres, 255)
        results.append((value, torch.autograd.grad(value, features)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-13, atol=1e-15)
    flat = pull_loss(features.permute(0, 2, 3, 1).reshape(-1, 5), labels.flatten(), centres, 255)
    torch.testing.assert_close(flat, results[0][0], rtol=1e-13, atol=0.0)


def test_anchor_loss_weights_carry_gradient_as_published() -> None:
    """The worked example of the published behaviour: cross-entropies .2, .5, 1, 3."""
    losses = torch.tensor([0.2, 0.5, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    value = anchor_loss(-losses, 0.9)
    assert float(value.detach()) == pytest.approx((0.04 + 0.25 + 1 + 9) / 4.7, rel=1e-8)
    gradient = torch.autograd.grad(value, losses)[0]
    wanted = (2 * losses - value) / losses.sum()
    torch.testing.assert_close(gradient, wanted.detach(), rtol=1e-8, atol=1e-8)
    assert [round(entry, 3) for entry in gradient.tolist()] == [-0.381, -0.253, -0.040, 0.811]


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


def test_class_means_by_hand() -> None:
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0], [5.0, 6.0]])
    means, counts = class_means(features, torch.tensor([0, 0, 255, 2]), 3, 255)
    assert means.tolist() == [[2.0, 3.0], [0.0, 0.0], [5.0, 6.0]]
    assert counts.tolist() == [2.0, 0.0, 1.0]


@pytest.mark.parametrize("source", [(8, 8), (7, 13), (512, 481), (3, 2)])
@pytest.mark.parametrize("wanted", [(4, 4), (5, 3), (128, 121), (3, 2)])
def test_downsampling_equals_interpolate(source: tuple[int, int], wanted: tuple[int, int]) -> None:
    labels = torch.randint(0, 256, (2, *source), generator=torch.Generator().manual_seed(0))
    reference = F.interpolate(labels[:, None].float(), size=wanted, mode="nearest")[:, 0].long()
    assert torch.equal(downsample_labels(labels, wanted), reference)
