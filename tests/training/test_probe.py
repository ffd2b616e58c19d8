"""The probe: what it learns, what it does not depend on, and which pixels it sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sarx.data import Split, describe
from sarx.models.output import ModelOutput
from sarx.training import probe
from sarx.training.evaluation import normalise
from sarx.training.grid import Grid
from sarx.training.probe import (
    Probe,
    balanced_sample,
    choose_images,
    features_at,
    fit_linear,
    fit_probe,
)


def blobs(counts, distance=6.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((count,), c) for c, count in enumerate(counts)])
    centres = distance * torch.eye(len(counts), 4)
    return centres[labels] + torch.randn(len(labels), 4, generator=generator), labels


def predictions(fitted, features):
    return fitted.classes[fitted.logits(features.double()).argmax(1)]


def test_a_separable_problem_is_recovered():
    features, labels = blobs([50, 50, 50], distance=12)
    fitted = fit_linear(features, labels)
    assert torch.equal(predictions(fitted, features), labels)
    assert fitted.weight.shape == (3, 4)


def test_class_imbalance_changes_nothing():
    features, labels = blobs([40, 40, 40], distance=2)
    repeats = torch.tensor([1, 10, 100])[labels]
    balanced = fit_linear(features, labels)
    imbalanced = fit_linear(features.repeat_interleave(repeats, 0), labels.repeat_interleave(repeats))
    torch.testing.assert_close(imbalanced.weight, balanced.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(imbalanced.bias, balanced.bias, rtol=1e-3, atol=1e-4)


def test_rare_classes_are_predicted_as_often_as_they_deserve():
    train, train_labels = blobs([2000, 20], distance=2)
    test, test_labels = blobs([1000, 1000], distance=2, seed=1)
    found = predictions(fit_linear(train, train_labels), test)
    recalls = [(found[test_labels == c] == c).double().mean() for c in (0, 1)]
    assert abs(recalls[0] - recalls[1]) < 0.1  # with equal weights per sample: .999 and .194
    assert min(recalls) > 0.85


def test_the_scale_of_features_changes_no_prediction():
    features, labels = blobs([60, 60, 60], distance=2)
    moved = features * torch.tensor([1e-3, 1.0, 1e3, 5.0]) + 100
    first, second = fit_linear(features, labels), fit_linear(moved.double(), labels)
    agree = predictions(first, features) == predictions(second, moved)
    assert agree.double().mean() > 0.99


def test_the_fit_is_at_its_minimum():
    features, labels = blobs([60, 30, 60], distance=2)
    fitted = fit_linear(features, labels)
    share = (1 / torch.bincount(labels).double() / 3)[labels]
    x = features.double()
    mean = share @ x
    scale = (share @ (x - mean) ** 2).sqrt()
    weight = (fitted.weight * scale).requires_grad_()
    bias = (fitted.bias + fitted.weight @ mean).requires_grad_()
    logits = (x - mean) / scale @ weight.T + bias
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    value = share @ losses + probe.L2 / 2 * weight.square().sum()
    for gradient in torch.autograd.grad(value, [weight, bias]):
        assert gradient.abs().max() < 1e-5


def test_absent_classes_and_constant_features_do_no_harm():
    features, labels = blobs([30, 30, 30])
    fitted = fit_linear(torch.cat([features, torch.ones(90, 1)], 1), labels * 2 + 1)
    assert fitted.classes.tolist() == [1, 3, 5]
    assert torch.equal(fitted.weight[:, 4], torch.zeros(3).double())
    assert torch.isfinite(fitted.weight).all()


def test_features_that_are_not_finite_give_a_probe_that_is_not():
    features, labels = blobs([30, 30])
    features[5] = torch.inf
    assert fit_linear(features, labels).weight.isnan().all()


def test_logits_of_maps_and_of_rows_agree():
    fitted = Probe(torch.arange(3), torch.randn(3, 4).double(), torch.randn(3).double())
    maps = torch.randn(2, 4, 5, 6)
    found = fitted.logits(maps)
    assert found.shape == (2, 3, 5, 6)
    assert found.dtype == maps.dtype
    rows = fitted.logits(maps.permute(0, 2, 3, 1).reshape(-1, 4))
    torch.testing.assert_close(found.permute(0, 2, 3, 1).reshape(-1, 3), rows)
    torch.testing.assert_close(rows[0], (fitted.weight @ maps[0, :, 0, 0].double() + fitted.bias).float())


def test_a_balanced_sample_takes_as_many_as_there_are():
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 20 + [255] * 9)
    positions = balanced_sample(labels, 4, 10)
    assert torch.bincount(labels[positions]).tolist() == [10, 3, 10]
    assert positions.tolist() == sorted(set(positions.tolist()))


def test_images_are_chosen_until_every_class_has_enough():
    labels = torch.zeros(40, 2, 2, dtype=torch.uint8)
    labels[:20, 0, 0] = 1
    labels[38:, 1, 1] = 2
    chosen = choose_images(labels, 3, 5)
    maps = labels[chosen]
    assert (maps == 1).flatten(1).any(1).sum() == 5
    assert (maps == 2).flatten(1).any(1).sum() == 2
    assert len(chosen) <= 5 + 5 + 2
    assert choose_images(torch.tensor([0] * 9 + [1]), 2, 3).tolist()[-1] == 9


class Pixels(torch.nn.Module):
    """The features of a pixel are its two normalised channels, halved in size; no parameters but one."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.modes = []

    def forward(self, images):
        self.modes.append(self.training)
        features = self.scale * images[:, :, ::2, ::2]
        return ModelOutput(features, features)


@pytest.fixture
def scenes(tiny):
    """Two-channel images whose pixels are 200 in the channel of their class, and labels at half the size."""
    import dataclasses

    data = dataclasses.replace(
        describe(tiny().data, 0), num_classes=2, in_channels=2, mean=(0.5, 0.5), std=(0.5, 0.5)
    )
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 4, 4)) < 0.05).astype(np.uint8)
    images = np.stack([200 * (1 - labels), 200 * labels], axis=1).astype(np.uint8)
    return Split(images, labels), torch.tensor(labels[:, ::2, ::2]), data


def test_the_features_are_those_of_the_chosen_pixels(scenes):
    split, _, data = scenes
    model = Pixels()
    images = torch.arange(0, 300, 2)
    chosen = torch.tensor([0, 3, 4, 401, 599])
    found = features_at(model, split, images, chosen, [4] * 150, data, torch.device("cpu"))
    maps = normalise(torch.tensor(split.images[::2]), data, torch.device("cpu"))[:, :, ::2, ::2]
    torch.testing.assert_close(found, maps.permute(0, 2, 3, 1).reshape(-1, 2)[chosen])
    assert model.modes == [False, False]
    assert model.training


def test_a_probe_of_a_model_separates_its_pixels_and_draws_from_its_own_stream(scenes):
    split, labels, data = scenes
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fitted = fit_probe(Pixels(), split, data, Grid(1, 2), torch.device("cpu"), 5)
    assert torch.equal(torch.rand(3), expected)
    torch.rand(7)
    again = fit_probe(Pixels(), split, data, Grid(1, 2), torch.device("cpu"), 5)
    assert torch.equal(fitted.weight, again.weight)
    features = normalise(torch.tensor(split.images), data, torch.device("cpu"))[:, :, ::2, ::2]
    assert torch.equal(fitted.logits(features).argmax(1), labels.long())


def test_the_sample_depends_on_the_seed_and_on_no_weight(scenes, monkeypatch):
    split, _, data = scenes
    seen = []

    def recorded(model, split, images, chosen, *rest):
        seen.append((images, chosen))
        return features_at(model, split, images, chosen, *rest)

    monkeypatch.setattr(probe, "features_at", recorded)
    other = Pixels()
    other.scale.data.fill_(3.0)
    for model, seed in ((Pixels(), 1), (other, 1), (Pixels(), 2)):
        fit_probe(model, split, data, Grid(1, 2), torch.device("cpu"), seed)
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert not torch.equal(seen[0][0], seen[2][0])
