"""What each option of SAR changes in the equations, against hand-written ones."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sarx.config.schema.regularizers import REGULARIZERS
from sarx.regularizers import SemanticAnchorRegularizer, build_regularizer
from tests.regularizers.test_sar import CLASSES, WIDTH, grads, opened, parts


def test_frozen_shared_classifier_trains_the_projector_only():
    regularizer, classifier, features, labels = parts(anchor_classifier="shared_frozen")
    twin = copy.deepcopy(regularizer)
    twin.options.anchor_classifier = "shared"
    output = regularizer(features, labels, classifier)
    assert torch.equal(output.loss, twin(features, labels, classifier).loss)
    on_projector, on_classifier = grads(output.loss, regularizer.projector, classifier)
    assert on_projector > 0
    assert on_classifier == -1


@pytest.mark.parametrize("target", ["ema", "ema_undetached", "current", "current_undetached"])
def test_pull_targets(target):
    regularizer, classifier, features, labels = opened(
        pull_target=target, ema_decay=0.5, aux_weight=0.0, pull_weight=1.0
    )
    embedded = []
    regularizer.projector.register_forward_hook(lambda _, __, out: embedded.append(out))
    regularizer(features, labels, classifier)
    with torch.no_grad():
        regularizer.projector[7].bias.add_(1.0)
        classifier.bias.sub_(classifier.weight.sum(dim=1))
    output = regularizer(features, labels, classifier)
    assert output.metrics["train/gate_open"] == 1
    first, second = (value.detach() for value in embedded)
    value = 0.5 * (first + second) if target.startswith("ema") else second
    torch.testing.assert_close(regularizer.semantic_anchors, 0.5 * (first + second))
    valid = labels != 255
    torch.testing.assert_close(output.loss, (features[valid] - value[labels[valid]]).square().mean())
    output.loss.backward(retain_graph=True)
    on_projector = [parameter.grad for parameter in regularizer.projector.parameters()]
    if target.endswith("undetached"):
        # d/dE of the pull at the value it has: the gradient that E itself would get, unscaled by the decay
        leaf = value.clone().requires_grad_()
        (features.detach()[valid] - leaf[labels[valid]]).square().mean().backward()
        wanted = torch.autograd.grad(embedded[1], list(regularizer.projector.parameters()), leaf.grad)
        torch.testing.assert_close(on_projector, list(wanted))
        assert max(float(gradient.abs().max()) for gradient in wanted) > 0
    else:
        assert on_projector == [None] * len(on_projector)


def test_gate_per_class_moves_and_pulls_its_own_class_only():
    regularizer, classifier, features, labels = opened(gate="per_class", pull_weight=1.0, aux_weight=0.0)
    with torch.no_grad():
        classifier.bias[1] -= 1e4  # class 1 is never the argmax
    output = regularizer(features, labels, classifier)
    passing = [0, 2, 3]
    assert float(output.metrics["train/gate_open"]) == pytest.approx(3 / 4)
    assert regularizer.initialized.tolist() == [True, False, True, True]
    assert not regularizer.semantic_anchors[1].any()
    assert regularizer.semantic_anchors[passing].abs().sum(dim=1).min() > 0
    valid = labels != 255
    pulled = valid & (labels != 1)
    errors = (features - regularizer.semantic_anchors[labels.where(valid, 0)]).square().mean(dim=1)
    torch.testing.assert_close(
        output.loss, errors[pulled].sum() / valid.sum()
    )  # the mean stays over all of V
    output.loss.backward()
    assert not features.grad[~pulled].any()
    with torch.no_grad():
        classifier.bias[1] += 1e4
    later = regularizer(features, labels, classifier)
    assert later.metrics["train/gate_open"] == 1
    assert regularizer.initialized.all()  # class 1 opened for the first time, at its E(A)


def test_class_balanced_reduction():
    regularizer, classifier, features, labels = opened(
        pull_reduction="class_balanced", pull_weight=1.0, aux_weight=0.0
    )
    labels = torch.tensor([0] * 8 + [1] * 2 + [255] * 2)  # classes 2 and 3 are absent
    output = regularizer(features, labels, classifier)
    errors = (features - regularizer.semantic_anchors[labels.where(labels != 255, 0)]).square().mean(dim=1)
    torch.testing.assert_close(output.loss, (errors[:8].mean() + errors[8:10].mean()) / 2)


@pytest.mark.parametrize("weighting", ["detached", "uniform"])
def test_aux_weightings_differ_from_the_published_one(weighting):
    regularizer, classifier, features, labels = parts(aux_weighting=weighting)
    logits = F.linear(
        copy.deepcopy(regularizer.projector)(regularizer.anchors), classifier.weight, classifier.bias
    )
    losses = F.cross_entropy(logits, torch.arange(CLASSES), reduction="none")
    weights = losses.detach() / losses.detach().sum() if weighting == "detached" else torch.full((4,), 0.25)
    wanted = (weights * losses).sum()
    output = regularizer(features, labels, classifier)
    torch.testing.assert_close(output.loss, wanted)
    gradients = [
        torch.autograd.grad(value, classifier.weight, retain_graph=True)[0] for value in (output.loss, wanted)
    ]
    torch.testing.assert_close(*gradients)


def test_no_projector_pulls_to_the_anchors_themselves():
    regularizer, classifier, features, labels = parts(projector_depth=0, gate="always")
    regularizer(features, labels, classifier)
    assert torch.equal(regularizer.semantic_anchors, regularizer.anchors)
    assert list(regularizer.parameters()) == []


def test_further_micro_batches_see_the_state_and_move_nothing():
    regularizer, classifier, features, labels = opened(ema_decay=0.5)
    regularizer(features, labels, classifier)
    with torch.no_grad():
        regularizer.projector[7].bias.add_(0.5)
        classifier.bias.sub_(0.5 * classifier.weight.sum(dim=1))
    first = regularizer(features, labels, classifier)
    before = copy.deepcopy(regularizer.state_dict())
    second = regularizer(features, labels, classifier, advance=False)
    assert all(torch.equal(value, before[key]) for key, value in regularizer.state_dict().items())
    assert torch.equal(first.loss, second.loss)
    assert regularizer.steps == 2


def test_a_micro_batch_before_any_opening_is_not_pulled_to_zero():
    regularizer, classifier, features, labels = parts(gate="always", aux_weight=0.0, pull_weight=1.0)
    output = regularizer(features, labels, classifier, advance=False)
    assert output.loss == 0
    assert grads(output.loss, features) == [0]
    assert not regularizer.initialized.any()


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_moves_the_state_once(reentrant):
    regularizer, classifier, features, labels = opened(ema_decay=0.5)
    twin = copy.deepcopy(regularizer)
    plain = twin(features, labels, classifier).loss
    wanted = torch.autograd.grad(plain, [features, *classifier.parameters()])
    loss = checkpoint(
        lambda inputs: regularizer(inputs, labels, classifier).loss, features, use_reentrant=reentrant
    )
    loss.backward()
    assert torch.equal(loss, plain)
    found = [features.grad, *(parameter.grad for parameter in classifier.parameters())]
    torch.testing.assert_close(found, list(wanted), rtol=0.0, atol=0.0)
    state = twin.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in regularizer.state_dict().items())


def test_convert_sync_batchnorm_changes_nothing():
    regularizer, classifier, features, labels = opened()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(regularizer))
    outputs = [module(features, labels, classifier) for module in (regularizer, converted)]
    assert torch.equal(outputs[0].loss, outputs[1].loss)
    state = regularizer.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in converted.state_dict().items())


@pytest.mark.parametrize("classes", [2, 1000])
def test_few_and_many_classes(classes):
    torch.manual_seed(0)
    regularizer = SemanticAnchorRegularizer(classes, WIDTH, gate="always", ignore_index=-1)
    features = torch.randn(8, WIDTH, requires_grad=True)
    labels = torch.arange(8) * (classes - 1) // 7  # the last class too
    output = regularizer(features, labels, nn.Linear(WIDTH, classes))
    output.loss.backward()
    assert output.loss.isfinite()
    assert features.grad.isfinite().all()
    assert features.grad.abs().sum(dim=1).min() > 0


@pytest.mark.parametrize("name", sorted(REGULARIZERS.keys() - {"none"}))
def test_a_class_that_would_be_ignored_is_refused(name):
    with pytest.raises(ValueError, match="ignore_index: 255 is one of the 256 classes"):
        build_regularizer(REGULARIZERS[name](), num_classes=256, feature_dim=WIDTH, total_steps=10)
    build_regularizer(REGULARIZERS[name](), num_classes=255, feature_dim=WIDTH, total_steps=10)


@pytest.mark.parametrize("name", ["sar", "prototype_ema", "center_loss", "pixel_prototype_contrast"])
def test_places_where_state_is_lost_are_refused(name):
    regularizer = build_regularizer(REGULARIZERS[name](), num_classes=4, feature_dim=WIDTH, total_steps=10)
    batch = (torch.randn(4, WIDTH), torch.arange(4), nn.Linear(WIDTH, 4))
    with pytest.raises(RuntimeError, match="DistributedDataParallel"):
        regularizer._replicate_for_data_parallel()(*batch)  # what nn.DataParallel runs
    with pytest.raises(ValueError, match="too coarse for a moving average"):
        regularizer.half()(*batch)


class Scaled(nn.Linear):
    """Computes something else than its weight says."""

    def forward(self, inputs):
        return 2.0 * super().forward(inputs)


@pytest.mark.parametrize("classifier", [Scaled(WIDTH, 4), nn.Conv2d(WIDTH, 4, 1, stride=2)])
def test_a_classifier_that_computes_something_else_is_refused(classifier):
    regularizer, _, features, labels = parts()
    with pytest.raises(ValueError, match="classifier: "):
        regularizer(features, labels, classifier)


def test_a_classifier_of_another_precision_and_with_weight_normalisation_is_taken():
    regularizer, classifier, features, labels = parts()
    twin = copy.deepcopy(regularizer)
    wanted = regularizer(features, labels, classifier).loss
    normalised = nn.utils.parametrizations.weight_norm(copy.deepcopy(classifier)).double()
    loss = twin(features, labels, normalised).loss
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert all(parameter.grad is not None for parameter in normalised.parameters())


def test_words_of_the_studies_are_taken():
    assert SemanticAnchorRegularizer(4, 32, anchor_dim="feature_dim").anchors.shape == (4, 32)
    assert SemanticAnchorRegularizer(4, 1, anchor_dim=8.0).anchors.shape == (4, 8)
    assert SemanticAnchorRegularizer(4, 9000, projector_depth=0).anchors.shape == (4, 9000)
    with pytest.raises(ValueError, match=r"num_classes: 5\.0 is not an integer"):
        SemanticAnchorRegularizer(5.0, 32)


@pytest.mark.parametrize("gate", ["all", "per_class"])
@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
def test_nothing_is_read_from_the_device_in_a_step(gate, distance, monkeypatch):
    """Meta tensors have no values: reading one, or branching on one, raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no meta device
    regularizer = SemanticAnchorRegularizer(CLASSES, WIDTH, gate=gate, distance=distance).to("meta")
    classifier = nn.Conv2d(WIDTH, CLASSES, 1, device="meta")
    features = torch.empty(2, WIDTH, 4, 6, device="meta", requires_grad=True)
    labels = torch.empty(2, 16, 24, dtype=torch.int64, device="meta")
    for advance in (True, False):
        output = regularizer(features, labels, classifier, advance=advance)
        (F.cross_entropy(classifier(features), labels[:, ::4, ::4]) + output.loss).backward()
    assert features.grad.shape == features.shape
    with pytest.raises(RuntimeError):
        bool(output.loss > 0)  # what the test relies on
