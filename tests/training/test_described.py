"""Images are normalised as published weights want them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sarx.config.compose import compose
from sarx.data import describe
from sarx.training import described
from sarx.training.described import data_of


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits in colour, for weights that are published for three channels."""
    coloured = replace(describe(compose([]).data, 0), in_channels=3, mean=(0.1,) * 3, std=(0.2,) * 3)
    monkeypatch.setattr(described, "describe", lambda config, seed: coloured)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("backbone", "mean"),
    [
        ("resnet50", (0.485, 0.456, 0.406)),
        ("vit_small_patch16_224", (0.5, 0.5, 0.5)),
        ("mit_b0", (0.485, 0.456, 0.406)),
    ],
)
def test_published_weights_bring_their_normalisation(backbone: str, mean: tuple[float, ...]) -> None:
    config = compose({"model.backbone": backbone})
    assert data_of(config).mean == (0.1,) * 3
    config.model.pretrained = True
    assert data_of(config).mean == pytest.approx(mean)
    assert data_of(config).std != (0.2,) * 3


def test_grey_images_keep_their_own() -> None:
    config = compose({"model.backbone": "resnet50", "model.pretrained": True})
    assert data_of(config) == describe(config.data, 0)
