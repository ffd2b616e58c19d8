"""The fixed classifier: its geometry, that nothing moves it, and who can use it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from sarx.config.errors import UserError
from sarx.config.schema.model import ModelConfig
from sarx.models import build_model
from sarx.models.simplex_etf import random_frame, simplex_etf, simplex_vertices
from sarx.regularizers import SemanticAnchorRegularizer


def config(decoder: str = "fcn", **options: object) -> ModelConfig:
    return ModelConfig(backbone="test_convnext", decoder=decoder, classifier="simplex_etf", **options)


def test_vertices_by_hand() -> None:
    root = math.sqrt(3.0) / 2.0
    wanted = torch.tensor([[root, 0.5], [-root, 0.5], [0.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(simplex_vertices(3), wanted)
    wanted = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    torch.testing.assert_close(simplex_vertices(2), wanted)


@pytest.mark.parametrize(("classes", "width"), [(2, 1), (3, 2), (5, 4), (5, 5), (11, 64), (150, 256)])
def test_rows_are_a_simplex_equiangular_tight_frame(classes: int, width: int) -> None:
    torch.manual_seed(0)
    rows = random_frame(classes, width)
    gram = torch.full((classes, classes), -1.0 / (classes - 1), dtype=torch.float64).fill_diagonal_(1.0)
    torch.testing.assert_close(rows @ rows.T, gram)
    # tight: all C-1 directions that the rows span are covered equally
    spread = torch.linalg.svdvals(rows)[: classes - 1]
    torch.testing.assert_close(spread, torch.full_like(spread, math.sqrt(classes / (classes - 1))))


def test_the_orientation_comes_from_the_global_generator() -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(random_frame(4, 6))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])


@pytest.mark.parametrize(("decoder", "kind"), [("fcn", nn.Conv2d), ("pool", nn.Linear)])
def test_models_are_trained_around_it(decoder: str, kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = build_model(config(decoder, feature_dim=12, dropout=0.5), in_channels=1, num_classes=4)
    assert isinstance(model.classifier, kind)
    assert model.classifier.bias is None
    assert not any(p.requires_grad for p in model.classifier.parameters())
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    output = model(torch.randn(3, 1, 32, 32))
    output.logits.square().mean().backward()
    optimizer.step()
    same = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    assert "classifier.weight" in same
    assert {"mix.weight", "project.0.weight"} & (before.keys() - same)
    output = model.train()(torch.randn(3, 1, 32, 32))
    assert (output.features < 0).any()  # BatchNorm after the decoder's ReLU
    output = model.eval()(torch.randn(3, 1, 32, 32))
    assert torch.equal(model.classifier(output.features), output.logits)


def test_sar_can_judge_its_anchors_by_it() -> None:
    torch.manual_seed(0)
    classifier = simplex_etf(6, 4, maps=True)
    regularizer = SemanticAnchorRegularizer(4, 6)
    output = regularizer(torch.randn(2, 6, 4, 4), torch.randint(0, 4, (2, 4, 4)), classifier)
    output.loss.backward()
    assert output.loss > 0
    assert classifier.weight.grad is None
    assert all(p.grad is not None for p in regularizer.projector.parameters())


def test_shapes_without_values() -> None:
    with torch.device("meta"):
        model = build_model(config(feature_dim=12), in_channels=1, num_classes=4)
        assert model(torch.zeros(2, 1, 64, 64)).logits.shape == (2, 4, 16, 16)


def test_too_few_channels_are_refused() -> None:
    message = (
        "model.classifier: simplex_etf needs at least 65 feature channels for 66 classes.* gives 64; set"
    )
    with pytest.raises(UserError, match=message):  # the width of the backbone's last branch
        build_model(config("pool"), in_channels=1, num_classes=66)
    assert build_model(config("pool"), in_channels=1, num_classes=65).classifier.weight.shape == (65, 64)
    with pytest.raises(UserError, match="needs at least 2 classes, not 1"):
        simplex_etf(4, 1, maps=False)
