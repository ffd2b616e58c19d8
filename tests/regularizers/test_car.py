"""Class-Aware Regularization, by hand and against a literal version."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sarx.regularizers.car import ClassAwareRegularization

CLASSIFIER = nn.Linear(4, 3)
TERMS = ("intra", "inter_centre", "inter_pixel")


def test_by_hand() -> None:
    """Centres (1, 0, 0, 0) and (0, 2, 0, 0); class 2 is absent; sqrt(D) is 2, so affinities are halved."""
    first = torch.tensor([0.5, 1.5, 0.0, 9.0])
    features = torch.stack([first, torch.tensor([0.0, 0.0, 2.0, 9.0]), *torch.full((2, 4), 0.0)], dim=1)
    features[3, 2:] = 9.0
    output = ClassAwareRegularization(3, 4)(features, torch.tensor([0, 0, 1, 255]), CLASSIFIER)
    # Logits 1 / 2 and 0 for centre 0 and both its pixels; 4 / 2 and 0, below the thresholds, for class 1.
    share = 1 / (1 + math.exp(0.5))
    assert 1 / (1 + math.exp(2.0)) < 0.25 / 2
    wanted = {
        "train/intra_loss": ((0.5 + 0.5 + 0.0) / 4 / 3) ** 2,
        "train/inter_centre_loss": ((share - 0.5 / 2) / 2) ** 2,
        "train/inter_pixel_loss": (2 * (share - 0.25 / 2) / 3) ** 2,
    }
    assert {key: float(value) for key, value in output.metrics.items()} == pytest.approx(wanted)
    assert float(output.loss) == pytest.approx(sum(wanted.values()))


def literal(features: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
    """The three terms of (N, D) features, one pixel and one class at a time."""
    width = features.shape[1]
    valid = [i for i in range(len(labels)) if labels[i] != 255]
    centres = {}
    for c in sorted({int(labels[i]) for i in valid}):
        centres[c] = torch.stack([features[i] for i in valid if labels[i] == c]).mean(dim=0)
    stopped = {c: centre.detach() for c, centre in centres.items()}

    def excess(logits: dict[int, Tensor], own: int, threshold: float) -> Tensor:
        total = sum(value.exp() for value in logits.values())
        parts = [value.exp() / total - threshold / (classes - 1) for c, value in logits.items() if c != own]
        return sum((part.clamp(min=0) for part in parts), start=torch.zeros((), dtype=features.dtype))

    deviations = [(stopped[int(labels[i])] - features[i]).abs().mean() for i in valid]
    between = [
        excess({k: mu @ stopped[k] / width**0.5 for k in centres}, c, 0.5) for c, mu in centres.items()
    ]
    pixels = []
    for i in valid:
        own = int(labels[i])
        logits = {c: (stopped[c] if c == own else features[i]) @ stopped[c] / width**0.5 for c in centres}
        pixels.append(excess(logits, own, 0.25))
    means = (torch.stack(values).mean() for values in (deviations, between, pixels))
    return {name: mean**2 for name, mean in zip(TERMS, means, strict=True)}


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("kept", [(0, 1, 2, 3, 4), (1, 4), (2,)])
def test_values_and_gradients_equal_the_literal_version(term: str, kept: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(kept)[torch.arange(30).view(2, 3, 5) % len(kept)]
    labels[:, 0, :2] = 255
    weights = {f"{name}_weight": 0.5 * (name == term) for name in TERMS}
    regularizer = ClassAwareRegularization(5, 4, **weights).double()
    output = regularizer(features, labels, CLASSIFIER)
    (found,) = torch.autograd.grad(output.loss, features)
    wanted = literal(features.permute(0, 2, 3, 1).reshape(-1, 4), labels.flatten(), 5)
    torch.testing.assert_close(output.loss, 0.5 * wanted[term], rtol=1e-12, atol=1e-14)
    for name in TERMS:
        torch.testing.assert_close(output.metrics[f"train/{name}_loss"], wanted[name].detach())
    expected = torch.zeros_like(features)
    if wanted[term].requires_grad:
        (expected,) = torch.autograd.grad(0.5 * wanted[term], features)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-14)


def test_one_class_alone_has_no_other() -> None:
    features = torch.randn(6, 4, requires_grad=True)
    output = ClassAwareRegularization(1, 4)(features, torch.tensor([0, 0, 0, 255, 0, 0]), nn.Linear(4, 1))
    assert output.metrics["train/intra_loss"] > 0
    assert output.metrics["train/inter_centre_loss"] == output.metrics["train/inter_pixel_loss"] == 0
    output.loss.backward()
    assert features.grad.isfinite().all()


def test_nothing_is_kept() -> None:
    regularizer = ClassAwareRegularization(3, 4)
    features, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    first = regularizer(features, labels, CLASSIFIER)
    assert torch.equal(regularizer(features, labels, CLASSIFIER, advance=False).loss, first.loss)
    assert not regularizer.state_dict()
    resting = regularizer.eval()(features, labels, CLASSIFIER)
    assert resting.loss == 0
    assert resting.metrics.keys() == first.metrics.keys()


@pytest.mark.parametrize("name", TERMS)
def test_mistakes_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}_weight: -1"):
        ClassAwareRegularization(3, 4, **{f"{name}_weight": -1.0})
