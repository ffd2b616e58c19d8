"""The task losses against hand-computed numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sarx.config.schema import GROUPS
from sarx.config.schema.loss import ClassBalancedConfig, CrossEntropyConfig, LogitAdjustedConfig
from sarx.losses import LOSSES, build_loss, class_weights

COUNTS = torch.tensor([900, 90, 10])


def make(name: str) -> nn.Module:
    return build_loss(GROUPS["loss"][name](), class_counts=COUNTS)


def batch() -> tuple[Tensor, Tensor]:
    """Logits (2, 3, 4, 5) and labels (2, 4, 5) with ignored pixels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 4, 5), generator=generator)
    labels[labels == 3] = 255
    return torch.randn(2, 3, 4, 5, generator=generator), labels


def test_registry_matches_the_schema() -> None:
    assert LOSSES.keys() == GROUPS["loss"].keys()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_maps_equal_rows(name: str) -> None:
    logits, labels = batch()
    loss = make(name)
    rows = loss(logits.permute(0, 2, 3, 1).reshape(-1, 3), labels.flatten())
    torch.testing.assert_close(loss(logits, labels), rows)
    assert rows.shape == ()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_all_ignored_is_zero_with_zero_gradient(name: str) -> None:
    logits, labels = batch()
    logits.requires_grad_()
    value = make(name)(logits, torch.full_like(labels, 255))
    value.backward()
    assert value == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_nothing_to_train_or_to_save(name: str) -> None:
    loss = make(name)
    assert not list(loss.parameters())
    assert not loss.state_dict()


def test_cross_entropy_is_the_mean_over_valid_pixels() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0], [5.0, 5.0]])
    loss = build_loss(CrossEntropyConfig(), class_counts=torch.ones(2))
    assert float(loss(logits, torch.tensor([1, 0, 255]))) == pytest.approx(
        (math.log(4 / 3) + math.log(2)) / 2
    )
    scores, labels = batch()
    torch.testing.assert_close(loss(scores, labels), F.cross_entropy(scores, labels, ignore_index=255))


def test_logit_adjustment_by_hand() -> None:
    loss = build_loss(LogitAdjustedConfig(tau=2.0), class_counts=torch.tensor([3, 1]))
    value = loss(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    shifted = (2 * math.log(0.75), 1 + 2 * math.log(0.25))
    assert float(value) == pytest.approx(-shifted[1] + math.log(sum(math.exp(entry) for entry in shifted)))


def test_logit_adjustment_with_tau_0_is_cross_entropy() -> None:
    logits, labels = batch()
    adjusted = build_loss(LogitAdjustedConfig(tau=0.0), class_counts=COUNTS)(logits, labels)
    assert torch.equal(adjusted, make("cross_entropy")(logits, labels))


def test_a_class_without_pixels_counts_as_one() -> None:
    logits = torch.tensor([[0.0, 0.0]])
    for config in (LogitAdjustedConfig(), ClassBalancedConfig(), ClassBalancedConfig(weighting="inverse")):
        values = [
            build_loss(config, class_counts=torch.tensor([99, rare]))(logits, torch.tensor([0]))
            for rare in (0, 1)
        ]
        assert torch.equal(values[0], values[1])
        assert values[0].isfinite()


def test_inverse_weights_by_hand() -> None:
    weights = class_weights(COUNTS, weighting="inverse", beta=0.0)
    raw = [1 / 900, 1 / 90, 1 / 10]
    assert weights.tolist() == pytest.approx([3 * value / sum(raw) for value in raw])


def test_effective_number_weights_by_hand() -> None:
    weights = class_weights(torch.tensor([1, 2, 3]), weighting="effective", beta=0.5)
    raw = [0.5 / 0.5, 0.5 / 0.75, 0.5 / 0.875]
    assert weights.tolist() == pytest.approx([3 * value / sum(raw) for value in raw])


def test_effective_number_limits() -> None:
    equal = class_weights(COUNTS, weighting="effective", beta=0.0)
    assert equal.tolist() == pytest.approx([1.0, 1.0, 1.0])
    near_one = class_weights(COUNTS, weighting="effective", beta=1.0 - 1e-12)
    inverse = class_weights(COUNTS, weighting="inverse", beta=0.0)
    torch.testing.assert_close(near_one, inverse, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("weighting", ["inverse", "effective"])
def test_class_balanced_is_the_weighted_mean(weighting: str) -> None:
    logits, labels = batch()
    config = ClassBalancedConfig(weighting=weighting, beta=0.99)
    weights = class_weights(COUNTS, weighting=weighting, beta=0.99).float()
    wanted = F.cross_entropy(logits, labels, weight=weights, ignore_index=255)
    torch.testing.assert_close(build_loss(config, class_counts=COUNTS)(logits, labels), wanted)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="weighting: 'both' is not one of effective, inverse"):
        class_weights(COUNTS, weighting="both", beta=0.5)
    with pytest.raises(ValueError, match=r"beta: 1\.0 is outside"):
        class_weights(COUNTS, weighting="effective", beta=1.0)
    for counts in (
        torch.tensor([-1, 2]),
        torch.zeros(2),
        torch.ones(2, 2),
        torch.tensor([float("nan"), 1.0]),
    ):
        with pytest.raises(ValueError, match="class_counts: "):
            class_weights(counts, weighting="inverse", beta=0.5)
    config = CrossEntropyConfig()
    config.name = "nothing"
    with pytest.raises(ValueError, match="loss: 'nothing' is not one of cross_entropy"):
        build_loss(config, class_counts=COUNTS)
