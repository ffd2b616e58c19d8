"""The published behaviour: whole training trajectories of the released loss, to float64 round-off."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sarx.losses import cross_entropy
from sarx.regularizers import SemanticAnchorRegularizer
from sarx.regularizers.functional import anchor_statistics

FIXTURES = Path(__file__).parents[1] / "fixtures"
LAYERS = {"linear1": 0, "bn1": 1, "linear2": 3, "bn2": 4, "conv": 6, "bn3": 7}
RELATIVE = 1e-10


def load(name: str) -> dict[str, Tensor]:
    with np.load(FIXTURES / f"{name}.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def named_tensors(regularizer: SemanticAnchorRegularizer, classifier: nn.Conv2d) -> dict[str, Tensor]:
    """Parameters and BN statistics under the names of the fixtures; classifier weight (C, D)."""
    named: dict[str, Tensor] = {
        f"{layer}.{key}": value
        for layer, index in LAYERS.items()
        for key, value in {
            **dict(regularizer.projector[index].named_parameters()),
            **dict(regularizer.projector[index].named_buffers()),
        }.items()
    }
    named["classifier.weight"], named["classifier.bias"] = classifier.weight, classifier.bias
    return named


def build(data: dict[str, Tensor]) -> tuple[SemanticAnchorRegularizer, nn.Conv2d]:
    classes, width = data["meta"][:2].tolist()
    keys = ("aux_weight", "pull_weight", "filter_confidence", "update_confidence", "ema_decay")
    options = dict(zip(keys, data["hyper"][2:].tolist(), strict=True))
    regularizer = SemanticAnchorRegularizer(classes, width, **options).double()
    classifier = nn.Conv2d(width, classes, 1).double()
    with torch.no_grad():
        regularizer.anchors.copy_(data["anchors"])
        for name, tensor in named_tensors(regularizer, classifier).items():
            if f"init/{name}" in data:
                tensor.copy_(data[f"init/{name}"].view(tensor.shape))
    return regularizer, classifier


def train(data: dict[str, Tensor]) -> SimpleNamespace:
    """Replay the fixture; every recorded quantity as a list over steps."""
    regularizer, classifier = build(data)
    lr, momentum = data["hyper"][:2].tolist()
    optimizer = torch.optim.SGD(
        [*regularizer.parameters(), *classifier.parameters()], lr=lr, momentum=momentum
    )
    seen: dict[str, list[Any]] = {
        key: [] for key in ("ce", "aux", "pull", "gate", "embedded", "anchor_prob", "ema", "grad_features")
    }
    regularizer.projector.register_forward_hook(lambda _, __, out: seen["embedded"].append(out.detach()))
    first_open_step = -1
    for step, (stored, labels) in enumerate(zip(data["features"], data["labels"], strict=True)):
        features = stored.clone().requires_grad_()
        output = regularizer(features, labels, classifier)
        if step == 0:
            named = named_tensors(regularizer, classifier)
            trained = {name: tensor for name, tensor in named.items() if tensor.requires_grad}
            grads = torch.autograd.grad(output.loss, list(trained.values()), retain_graph=True)
            grad_aux = dict(zip(trained, grads, strict=True))
        logits = F.linear(
            seen["embedded"][-1], classifier.weight.detach().flatten(1), classifier.bias.detach()
        )
        seen["anchor_prob"].append(anchor_statistics(logits).confidence)
        ce = cross_entropy(classifier(features), labels, 255)
        seen["ce"].append(ce.detach())
        seen["aux"].append(output.metrics["train/aux_loss"] * regularizer.options.aux_weight)
        seen["pull"].append(output.metrics["train/pull_loss"] * regularizer.options.pull_weight)
        seen["gate"].append(output.metrics["train/gate_open"].bool())
        seen["ema"].append(regularizer.semantic_anchors)
        first_open_step = int(output.metrics["train/first_open_step"])
        optimizer.zero_grad()
        (ce + output.loss).backward()
        seen["grad_features"].append(features.grad)
        optimizer.step()
    final = {name: tensor.detach() for name, tensor in named_tensors(regularizer, classifier).items()}
    return SimpleNamespace(
        data=data, seen=seen, grad_aux=grad_aux, final=final, first_open_step=first_open_step
    )


@pytest.fixture(scope="module", params=["sar_trajectory_a", "sar_trajectory_b"])
def run(request: pytest.FixtureRequest) -> SimpleNamespace:
    return train(load(request.param))


def assert_close(ours: Tensor, stored: Tensor, scale: float | None = None) -> None:
    """Agreement to ``RELATIVE`` of the largest stored entry, or of ``scale``."""
    largest = float(stored.abs().max()) if scale is None else scale
    assert float((ours.view(stored.shape) - stored).abs().max()) <= RELATIVE * largest


@pytest.mark.parametrize("key", ["ce", "aux", "pull", "embedded", "anchor_prob", "ema", "grad_features"])
def test_every_step_agrees(run: SimpleNamespace, key: str) -> None:
    assert len(run.seen[key]) == len(run.data[key])
    for ours, stored in zip(run.seen[key], run.data[key], strict=True):
        assert_close(ours, stored)


def test_gate_opens_at_the_same_steps(run: SimpleNamespace) -> None:
    assert torch.equal(torch.stack(run.seen["gate"]), run.data["gate"])
    assert run.data["gate"].any()
    assert not run.data["gate"][0]
    assert run.first_open_step == int(run.data["gate"].long().argmax())


def test_gradient_of_the_anchor_loss_at_step_0(run: SimpleNamespace) -> None:
    stored = {
        key.split("/")[1]: value for key, value in run.data.items() if key.startswith("grad_aux_step0/")
    }
    assert stored.keys() == run.grad_aux.keys()
    # A bias in front of a batch normalisation has no gradient but round-off: it is held to its layer's scale.
    scales = {name: float(stored[name.replace("bias", "weight")].abs().max()) for name in stored}
    for name, value in stored.items():
        scale = scales[name] if name in ("linear1.bias", "linear2.bias") else None
        assert_close(run.grad_aux[name], value, scale)


def test_final_weights_and_running_statistics(run: SimpleNamespace) -> None:
    stored = {key.split("/")[1]: value for key, value in run.data.items() if key.startswith("final/")}
    assert sum("running" in name for name in stored) == 6
    for name, value in stored.items():
        assert_close(run.final[name], value)
