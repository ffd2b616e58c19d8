"""The contrast of pixels against class prototypes, by hand and against a literal version."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sarx.regularizers.pixel_prototype_contrast import PixelPrototypeContrast

CLASSIFIER = nn.Linear(2, 3)


def test_two_steps_by_hand() -> None:
    regularizer = PixelPrototypeContrast(3, 2, contrast_weight=0.5, temperature=2.0, ema_decay=0.75)
    features = torch.tensor([[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]])
    output = regularizer(features, torch.tensor([0, 1, 255]), CLASSIFIER)
    assert regularizer.prototypes.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    # Cosines 1 and 0 for both pixels; class 2 has not been seen and is not in the denominator.
    alone = math.log(1 + math.exp(-1 / 2))
    assert float(output.metrics["train/contrast_loss"]) == pytest.approx(alone)
    assert float(output.loss) == pytest.approx(0.5 * alone)
    assert float(output.metrics["train/prototypes_seen"]) == pytest.approx(2 / 3)

    output = regularizer(torch.tensor([[0.0, 7.0], [-1.0, 0.0]]), torch.tensor([0, 2]), CLASSIFIER)
    # Class 0 moves by a quarter from (1, 0) to (0, 1), class 1 is absent, class 2 starts.
    assert regularizer.prototypes.tolist() == [[0.75, 0.25], [0.0, 1.0], [-1.0, 0.0]]
    length = math.hypot(0.75, 0.25)
    logits = [[0.25 / length / 2, 1 / 2, 0.0], [-0.75 / length / 2, 0.0, 1 / 2]]  # of classes 0 and 2
    losses = [math.log(sum(map(math.exp, row))) - row[own] for row, own in zip(logits, (0, 2), strict=True)]
    assert float(output.metrics["train/contrast_loss"]) == pytest.approx(sum(losses) / 2)
    assert output.metrics["train/prototypes_seen"] == 1


def test_values_and_gradients_equal_the_literal_version() -> None:
    torch.manual_seed(0)
    regularizer = PixelPrototypeContrast(5, 4, contrast_weight=1.0, ema_decay=0.5).double()
    prototypes: dict[int, torch.Tensor] = {}
    for step in range(3):
        features = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
        labels = torch.randint(0, 2 + step, (2, 3, 5))
        labels[:, step] = 255
        rows, flat = F.normalize(features.permute(0, 2, 3, 1).reshape(-1, 4), dim=1), labels.flatten()
        for c in range(2 + step):
            mean = rows[flat == c].detach().mean(dim=0)
            prototypes[c] = 0.5 * (prototypes[c] + mean) if c in prototypes else mean
        known = F.normalize(torch.stack(list(prototypes.values())), dim=1)
        wanted = F.cross_entropy(rows @ known.T / 0.1, flat, ignore_index=255)
        loss = regularizer(features, labels, nn.Linear(4, 5)).loss
        torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0.0)
        found, expected = (torch.autograd.grad(value, features)[0] for value in (loss, wanted))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_further_micro_batches_leave_out_pixels_of_unseen_classes() -> None:
    regularizer = PixelPrototypeContrast(3, 2, contrast_weight=1.0, temperature=1.0)
    features = torch.tensor([[3.0, 0.0], [0.0, 4.0], [2.0, 2.0]], requires_grad=True)
    labels = torch.tensor([0, 1, 2])
    loss = regularizer(features, labels, CLASSIFIER, advance=False).loss
    loss.backward()
    assert loss == 0
    assert not features.grad.any()
    regularizer(features[:2], labels[:2], CLASSIFIER)
    before = copy.deepcopy(regularizer.state_dict())
    features.grad = None
    loss = regularizer(features, labels, CLASSIFIER, advance=False).loss
    loss.backward()
    # The third pixel counts among the valid ones and is contrasted with nothing.
    assert float(loss.detach()) == pytest.approx(2 / 3 * math.log(1 + math.exp(-1)))
    assert not features.grad[2].any()
    assert features.grad[:2].any()
    assert all(torch.equal(value, before[key]) for key, value in regularizer.state_dict().items())


def test_a_feature_without_direction_has_no_gradient() -> None:
    regularizer = PixelPrototypeContrast(3, 2, contrast_weight=1.0)
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], requires_grad=True)
    regularizer(features, torch.tensor([0, 1, 1]), CLASSIFIER).loss.backward()
    assert features.grad.isfinite().all()
    assert not features.grad[2].any()
    assert regularizer.prototypes[1].tolist() == [0.0, 0.5]


def test_lengths_do_not_matter() -> None:
    one, two = PixelPrototypeContrast(3, 2), PixelPrototypeContrast(3, 2)
    features, labels = torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    lengths = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])[:, None]
    first = one(features, labels, CLASSIFIER).loss
    torch.testing.assert_close(two(lengths * features, labels, CLASSIFIER).loss, first)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="contrast_weight: -1"):
        PixelPrototypeContrast(3, 2, contrast_weight=-1.0)
    with pytest.raises(ValueError, match="temperature: 0"):
        PixelPrototypeContrast(3, 2, temperature=0.0)
    with pytest.raises(ValueError, match="ema_decay: 1"):
        PixelPrototypeContrast(3, 2, ema_decay=1.0)
