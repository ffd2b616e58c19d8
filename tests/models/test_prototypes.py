"""The classifier of the nearest prototype and the projection in front of it."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from sarx.config.schema.model import ModelConfig
from sarx.config.schema.regularizers.protoseg import ProtoSegConfig
from sarx.losses import cross_entropy
from sarx.models import build_model
from sarx.models.head import CLASSIFIERS
from sarx.models.prototypes import Projection, PrototypeClassifier
from sarx.regularizers import build_regularizer


def config(decoder: str, **options: object) -> ModelConfig:
    return ModelConfig(backbone="test_convnext", decoder=decoder, classifier="prototypes", **options)


def test_registry_matches_the_schema() -> None:
    choices = next(f.metadata["choices"] for f in dataclasses.fields(ModelConfig) if f.name == "classifier")
    assert CLASSIFIERS.keys() == set(choices)


def test_logits_by_hand() -> None:
    classifier = PrototypeClassifier(2, 2, 2)
    classifier.prototypes = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.6, -0.8]]])
    features = torch.tensor([[0.0, 1.0], [0.6, -0.8]])
    wanted = torch.tensor([[[0.0, 1.0], [0.0, -0.8]], [[0.6, -0.8], [-0.6, 1.0]]])
    torch.testing.assert_close(classifier.cosines(features), wanted)
    # The best cosines are (1, 0) and (.6, 1); LayerNorm of (a, b) is +-d / sqrt(d^2 + eps), d = |a - b| / 2.
    first, second = 0.5 / math.sqrt(0.25 + 1e-5), 0.2 / math.sqrt(0.04 + 1e-5)
    torch.testing.assert_close(
        classifier(features), torch.tensor([[first, -first], [-second, second]]), atol=1e-6, rtol=0
    )


def test_maps_equal_rows() -> None:
    torch.manual_seed(0)
    classifier = PrototypeClassifier(6, 3, 4)
    features = nn.functional.normalize(torch.randn(2, 6, 4, 5), dim=1)
    rows = classifier(features.permute(0, 2, 3, 1).reshape(-1, 6))
    torch.testing.assert_close(classifier(features), rows.view(2, 4, 5, 3).permute(0, 3, 1, 2))


def test_prototypes_have_length_1_and_no_gradient() -> None:
    torch.manual_seed(0)
    classifier = PrototypeClassifier(6, 3)
    assert classifier.prototypes.shape == (3, 10, 6)
    torch.testing.assert_close(classifier.prototypes.norm(dim=-1), torch.ones(3, 10))
    assert {name for name, _ in classifier.named_parameters()} == {"norm.weight", "norm.bias"}
    assert "prototypes" in classifier.state_dict()


@pytest.mark.parametrize("maps", [True, False])
def test_projected_features_have_length_1(maps: bool) -> None:
    torch.manual_seed(0)
    projection = Projection(6, nn.Identity(), maps=maps)
    shape = (2, 6, 4, 5) if maps else (7, 6)
    projected = projection(torch.randn(shape))
    assert projected.shape == shape
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(shape[:1] + shape[2:]))


def test_projection_by_hand() -> None:
    projection = Projection(3, nn.Identity(), maps=False).eval()
    for layer in (projection.mix[0], projection.mix[3]):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    # BatchNorm at rest and ReLU leave (4, 0, 2); LayerNorm gives (2, -2, 0) / std; the length is 2 sqrt(2).
    root = math.sqrt(0.5)
    wanted = torch.tensor([[root, -root, 0.0]])
    torch.testing.assert_close(projection(torch.tensor([[4.0, -1.0, 2.0]])), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("decoder", ["fcn", "pool"])
def test_models(decoder: str) -> None:
    torch.manual_seed(0)
    options = {"feature_dim": 12, "dropout": 0.5, "prototypes_per_class": 3}
    model = build_model(config(decoder, **options), in_channels=1, num_classes=4)
    assert model.classifier.prototypes.shape == (4, 3, 12)
    images = torch.randn(3, 1, 32, 32)
    output = model(images)
    place = (8, 8) if decoder == "fcn" else ()
    assert output.logits.shape == (3, 4, *place)
    torch.testing.assert_close(output.features.norm(dim=1), torch.ones(3, *place))  # nothing dropped after
    assert torch.equal(model.classifier(output.features), output.logits)
    assert not torch.equal(model(images).features, output.features)  # but before
    before = copy.deepcopy(model.classifier.prototypes)
    output.logits.square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(model.classifier.prototypes, before)


def test_shapes_without_values() -> None:
    with torch.device("meta"):
        model = build_model(config("fcn", feature_dim=12), in_channels=1, num_classes=4)
        assert model(torch.zeros(2, 1, 64, 64)).logits.shape == (2, 4, 16, 16)


def test_the_backbone_has_the_weights_of_every_other_arm() -> None:
    states = []
    for kind in ("linear", "simplex_etf", "prototypes"):
        torch.manual_seed(3)
        options = ModelConfig(backbone="test_convnext", feature_dim=8, classifier=kind)
        model = build_model(options, in_channels=1, num_classes=4)
        states.append({**model.backbone.state_dict(), "mix": model.mix.weight})
    for other in states[1:]:
        assert all(torch.equal(value, other[key]) for key, value in states[0].items())


def test_a_model_learns_with_it() -> None:
    torch.manual_seed(0)
    options = ModelConfig(
        backbone="test_convnext", feature_dim=8, classifier="prototypes", prototypes_per_class=2
    )
    model = build_model(options, in_channels=1, num_classes=2)
    regularizer = build_regularizer(
        ProtoSegConfig(ema_decay=0.9), num_classes=2, feature_dim=model.feature_dim, total_steps=10
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    images = torch.randn(4, 1, 32, 32)
    images[:, :, :, 16:] += 2.0
    labels = torch.zeros(4, 8, 8, dtype=torch.int64)
    labels[:, :, 4:] = 1
    losses = []
    for _ in range(12):
        output = model(images)
        loss = cross_entropy(output.logits, labels, 255)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        (loss + regularizer(output.features, labels, model.classifier).loss).backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
