"""What holds for every regularizer in the registry, and what importing them needs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import nn

from sarx.config.schema.regularizers import REGULARIZERS, PrototypeEmaConfig, SarConfig
from sarx.models.prototypes import PrototypeClassifier
from sarx.regularizers import RegularizerOutput, build_regularizer

SIZES = {"num_classes": 3, "feature_dim": 4, "total_steps": 100}

ALONE = """
import sys

REFUSED = {"ray", "optuna", "hydra", "omegaconf", "timm", "polars", "sklearn", "torchvision", "yaml", "scipy"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in REFUSED:
            raise ImportError(f"{name} is refused here")
        return None

import torch
before = set(sys.modules)
sys.meta_path.insert(0, Refuse())
import sarx.losses
import sarx.regularizers
new = {name.split(".")[0] for name in set(sys.modules) - before}
assert new - set(sys.stdlib_module_names) == {"sarx"}, new
regularizer = sarx.regularizers.SemanticAnchorRegularizer(3, 4)
classifier = torch.nn.Linear(4, 3)
print(float(regularizer(torch.zeros(2, 4), torch.tensor([0, 255]), classifier).loss) > 0)
"""


@pytest.mark.parametrize("name", sorted(REGULARIZERS))
def test_every_regularizer_trains_and_rests(name: str) -> None:
    regularizer = build_regularizer(REGULARIZERS[name](), **SIZES)
    wanted = getattr(REGULARIZERS[name], "classifier", "linear")
    classifier = PrototypeClassifier(4, 3) if wanted == "prototypes" else nn.Linear(4, 3)
    keys = []
    for training in (True, True, False):
        features = torch.randn(5, 4, requires_grad=True)
        output = regularizer.train(training)(features, torch.tensor([0, 1, 2, 255, 0]), classifier)
        assert isinstance(output, RegularizerOutput)
        assert output.loss.shape == ()
        assert output.loss.isfinite()
        (output.loss + classifier(features).sum()).backward()
        keys.append(list(output.metrics))
    assert keys[0] == keys[1] == keys[2]


def test_options_arrive() -> None:
    config = SarConfig(
        anchor_dim=7,
        anchor_init="simplex",
        projector_depth=2,
        aux_weighting="detached",
        pull_target="current",
        distance="cosine",
        pull_reduction="class_balanced",
        feature_norm="layer",
        anchor_classifier="separate",
        gate="always",
        aux_weight=2.0,
        pull_weight=3.0,
        ema_decay=None,
        ema_half_life=0.1,
        filter_confidence=0.5,
        update_confidence=0.4,
    )
    built = build_regularizer(config, **SIZES, ignore_index=9, anchor_seed=1)
    assert built.anchors.shape == (3, 7)
    assert built.separate_classifier is not None
    assert built.ignore_index == 9
    assert built.options.ema_decay**10 == pytest.approx(0.5)
    wanted = dataclasses.replace(config, ema_decay=built.options.ema_decay, ema_half_life=None)
    assert built.options == wanted
    other = build_regularizer(config, **SIZES, anchor_seed=2)
    assert not torch.equal(built.anchors, other.anchors)
    assert build_regularizer(SarConfig(), **SIZES).anchors.shape == (3, 4)
    prototype = build_regularizer(PrototypeEmaConfig(pull_weight=3.0, ema_decay=0.5), **SIZES, ignore_index=9)
    assert (prototype.pull_weight, prototype.ema_decay, prototype.ignore_index) == (3.0, 0.5, 9)


def test_none_is_a_constant_zero() -> None:
    output = build_regularizer(REGULARIZERS["none"](), **SIZES)(
        torch.ones(2, 4, requires_grad=True), torch.tensor([0, 1]), nn.Linear(4, 3)
    )
    assert output.loss == 0
    assert not output.loss.requires_grad
    assert output.metrics == {}


def test_import_needs_torch_alone() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
