"""Every decoder trains, is averaged, scored and saved as the first one is."""

from __future__ import annotations

import math

import pytest

from sarx.training.loop import train

MODELS = (
    "nonlocal_test_resnet",
    "deeplabv3_test_resnet",
    "deeplabv3plus_test_resnet",
    "pspnet_test_resnet",
    "fpn_test_resnet",
    "upernet_test_convnext",
    "upernet_test_vit",
    "segformer_test_convnext",
    "linear_test_vit",
)
"""For ocr see test_auxiliary."""


@pytest.mark.parametrize("model", MODELS)
def test_a_decoder_trains(tiny, tmp_path, model) -> None:
    config = tiny(model=model, training__steps=2, training__eval_every=1, regularizer__gate="always")
    results = list(train(config, folder=tmp_path))
    assert len(results) == 2
    for result in results:
        assert math.isfinite(result.metrics["train/loss"])
        assert result.metrics["train/pull_loss"] > 0
        assert 0 <= result.metrics["val/miou"] <= 1
        assert not result.diverged
    assert any(tmp_path.iterdir())


def test_classification_with_the_small_resnet(tiny) -> None:
    pairs = {"data": "digits_lt", "model": "pool_resnet32", "training__steps": 2, "training__eval_every": 2}
    (result,) = train(tiny(**pairs))
    assert math.isfinite(result.metrics["train/loss"])
    assert not result.diverged
