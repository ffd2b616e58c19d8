"""What SemanticAnchorRegularizer keeps between steps, logs, and takes from outside."""

from __future__ import annotations

import copy

import torch
from torch.nn import functional as F

from sarx.regularizers import SemanticAnchorRegularizer, build_projector
from sarx.regularizers.sar import METRIC_KEYS
from tests.regularizers.test_sar import CLASSES, WIDTH, opened, parts


def test_eval_computes_and_changes_nothing() -> None:
    regularizer, classifier, features, labels = opened()
    trained = regularizer(features, labels, classifier)
    before = copy.deepcopy(regularizer.state_dict())
    output = regularizer.eval()(features, torch.full_like(labels, 99), classifier)
    assert output.loss == 0
    assert output.metrics.keys() == trained.metrics.keys() == set(METRIC_KEYS)
    assert output.metrics["train/first_open_step"] == 0
    assert all(torch.equal(value, before[key]) for key, value in regularizer.state_dict().items())


def test_metrics_are_detached_scalars() -> None:
    regularizer, classifier, features, labels = parts(gate="always")
    metrics = regularizer(features, labels, classifier).metrics
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
    assert all(value.dtype == torch.float32 for value in metrics.values())


def test_anchor_cosine_by_hand() -> None:
    regularizer, classifier, features, labels = parts(gate="always")
    cosine = regularizer(features, labels, classifier).metrics["train/anchor_cosine"]
    rows = regularizer.semantic_anchors
    pairs = [F.cosine_similarity(rows[i], rows[j], dim=0) for i in range(CLASSES) for j in range(i)]
    torch.testing.assert_close(cosine, torch.stack(pairs).mean())


def test_two_forwards_before_one_backward() -> None:
    regularizer, classifier, features, labels = opened(ema_decay=0.5)
    twin = copy.deepcopy(regularizer)
    other = features.detach() + 1.0
    together = regularizer(features, labels, classifier).loss + regularizer(other, labels, classifier).loss
    gradient = torch.autograd.grad(together, features)[0]
    alone = torch.autograd.grad(twin(features, labels, classifier).loss, features)[0]
    torch.testing.assert_close(gradient, alone)
    assert regularizer.steps == 2


def test_anchors_depend_on_their_own_seed_alone() -> None:
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        drawn.append(SemanticAnchorRegularizer(CLASSES, WIDTH, anchor_dim=9, anchor_seed=7))
    assert torch.equal(drawn[0].anchors, drawn[1].anchors)
    assert drawn[0].anchors.shape == (CLASSES, 9)
    assert not torch.equal(drawn[0].projector[0].weight, drawn[1].projector[0].weight)
    other = SemanticAnchorRegularizer(CLASSES, WIDTH, anchor_dim=9, anchor_seed=8)
    assert not torch.equal(drawn[0].anchors, other.anchors)


def test_anchors_take_nothing_from_the_global_generator() -> None:
    torch.manual_seed(3)
    build_projector(WIDTH, WIDTH)
    wanted = torch.rand(())
    torch.manual_seed(3)
    SemanticAnchorRegularizer(CLASSES, WIDTH)
    assert torch.equal(torch.rand(()), wanted)


def test_anchors_are_the_same_numbers_under_another_default_dtype() -> None:
    single = SemanticAnchorRegularizer(CLASSES, WIDTH).anchors
    torch.set_default_dtype(torch.float64)
    try:
        double = SemanticAnchorRegularizer(CLASSES, WIDTH).anchors
    finally:
        torch.set_default_dtype(torch.float32)
    assert double.dtype == torch.float64
    assert torch.equal(double, single.double())


def test_anchor_stream_is_untouched_by_autocast() -> None:
    regularizer, classifier, features, labels = opened()
    twin = copy.deepcopy(regularizer)
    plain = regularizer(features, labels, classifier)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = twin(features.to(torch.bfloat16), labels, classifier)
    assert twin.semantic_anchors.dtype == torch.float32
    assert output.loss.dtype == torch.float32
    assert torch.equal(twin.semantic_anchors, regularizer.semantic_anchors)
    torch.testing.assert_close(output.loss, plain.loss, rtol=2e-2, atol=0.0)


def test_state_dict_round_trip_in_the_middle_of_training() -> None:
    regularizer, classifier, features, labels = opened()
    for _ in range(3):
        regularizer(features, labels, classifier)
    torch.manual_seed(99)
    resumed = SemanticAnchorRegularizer(CLASSES, WIDTH, anchor_seed=5)
    resumed.load_state_dict(copy.deepcopy(regularizer.state_dict()))
    outputs = [module(features, labels, classifier) for module in (regularizer, resumed)]
    assert torch.equal(outputs[0].loss, outputs[1].loss)
    state = resumed.state_dict()
    assert state["steps"] == 4
    assert all(torch.equal(value, state[key]) for key, value in regularizer.state_dict().items())


def test_same_operations_whether_the_gate_is_open_or_shut() -> None:
    keys = []
    for regularizer, classifier, features, labels in (parts(), opened()):
        with torch.profiler.profile() as profile:
            regularizer(features, labels, classifier).loss.backward()
        keys.append({event.key: event.count for event in profile.key_averages() if "::" in event.key})
    assert keys[0] == keys[1]
