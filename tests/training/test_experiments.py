"""Every experiment trains two iterations with its real model on a tiny tree, at a reduced crop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sarx.config.compose import compose, experiment, experiment_names, parse_overrides
from sarx.config.errors import UserError
from sarx.regularizers import build_regularizer
from sarx.training.loop import train
from tests.data import trees

TREES: dict[str, Callable[..., Path]] = {
    "cityscapes": trees.make_cityscapes,
    "ade20k": trees.make_ade20k,
    "pascal_context": trees.make_pascal_context,
}
SMALL = [
    "training.device=cpu",
    "training.sync_bn=false",
    "training.steps=2",
    "training.eval_every=2",
    "training.batch_size=2",
    "model.pretrained=false",
    "data.crop_height=64",
    "data.crop_width=64",
    "data.resize_height=64",
    "data.resize_width=128",
    "data.window=64",
    "data.stride=40",
    "data.workers=0",
]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", experiment_names())
def test_an_experiment_trains_two_iterations_of_its_real_model(name: str, tmp_path: Path) -> None:
    data = experiment(name)["data"]
    root = TREES[data](tmp_path / data, sizes=((64, 100),))
    config = compose([f"experiment={name}", f"data.root={root}", *SMALL])
    torch.set_num_threads(2)
    (result,) = train(config)
    assert math.isfinite(result.metrics["train/loss"])
    assert 0 <= result.metrics["val/miou"] <= 1
    assert result.module.model.feature_dim == 720
    names = [name for name, value in result.module.regularizer.named_parameters() if value.requires_grad]
    assert names
    extra = sum(value.numel() for value in result.module.regularizer.parameters() if value.requires_grad)
    assert extra == 1_560_960


def test_published_numbers_stand_in_the_experiments() -> None:
    """Iterations, crop, rate, decay and scale of facts/sar.md; 1e-4 is where the rate ends."""
    table = {
        "cityscapes": (80_000, (512, 1024), 0.01, 5e-4, (1024, 2048), "whole"),
        "ade20k": (160_000, (512, 512), 0.01, 5e-4, (512, 2048), "whole"),
        "pascal_context": (40_000, (480, 480), 0.004, 1e-4, (520, 520), "slide"),
    }
    assert set(table) == set(experiment_names())
    for name, (steps, crop, rate, decay, scale, mode) in table.items():
        config = compose([f"experiment={name}"])
        assert config.training.steps == steps
        assert (config.data.crop_height, config.data.crop_width) == crop
        assert (config.optim.lr, config.optim.weight_decay) == (rate, decay)
        assert config.optim.lr * config.optim.floor == pytest.approx(1e-4)
        assert (config.optim.name, config.optim.momentum, config.optim.power) == ("sgd", 0.9, 0.9)
        assert (config.data.resize_height, config.data.resize_width) == scale
        assert config.data.evaluation == mode
        assert (config.model.backbone, config.model.decoder, config.model.feature_dim) == (
            "hrnet_w48",
            "fcn",
            None,
        )
        assert (config.data.ratio_low, config.data.ratio_high, config.data.max_class_share) == (
            0.5,
            2.0,
            0.75,
        )
        assert config.data.flip == 0.5
        assert config.data.photometric
        regularizer = build_regularizer(
            config.regularizer, num_classes=config.data.num_classes, feature_dim=720, total_steps=steps
        )
        assert sum(value.numel() for value in regularizer.parameters()) == 1_560_960


def test_what_stands_beside_an_experiment_comes_after_it() -> None:
    pairs = parse_overrides(["optim.lr=0.5", "experiment=cityscapes"])
    assert pairs["optim.lr"] == 0.5
    assert pairs["optim"] == "sgd"


def test_an_unknown_experiment_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"experiment: there is no experiment called 'cityscape'; .*cityscapes"
    ):
        parse_overrides(["experiment=cityscape"])
