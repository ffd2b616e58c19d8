"""Gate, moving average, gradients and edge cases of SemanticAnchorRegularizer, beyond the fixtures."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sarx.regularizers import SemanticAnchorRegularizer, build_projector

CLASSES, WIDTH = 4, 6


def parts(seed: int = 0, **options: Any) -> tuple[SemanticAnchorRegularizer, nn.Linear, Tensor, Tensor]:
    """Regularizer, classifier, features (12, D) with gradient and labels (12,) with one ignored."""
    torch.manual_seed(seed)
    regularizer = SemanticAnchorRegularizer(CLASSES, WIDTH, **options)
    classifier = nn.Linear(WIDTH, CLASSES)
    labels = torch.arange(12) % CLASSES
    labels[3] = 255
    return regularizer, classifier, torch.randn(12, WIDTH, requires_grad=True), labels


def opened(seed: int = 0, **options: Any) -> tuple[SemanticAnchorRegularizer, nn.Linear, Tensor, Tensor]:
    """The same, with a classifier that tells the embedded anchors apart, so that the gate opens."""
    regularizer, classifier, features, labels = parts(seed, **options)
    with torch.no_grad():
        embedded = copy.deepcopy(regularizer.projector)(regularizer.anchors)
        centred = embedded - embedded.mean(dim=0)
        classifier.weight.copy_(200.0 * torch.linalg.pinv(centred).T)
        classifier.bias.copy_(-classifier.weight @ embedded.mean(dim=0))
    return regularizer, classifier, features, labels


def grads(loss: Tensor, *owners: nn.Module | Tensor) -> list[float]:
    """Largest absolute gradient in each owner; -1 where nothing is connected."""
    loss.backward()
    result = []
    for owner in owners:
        tensors = [owner] if isinstance(owner, Tensor) else list(owner.parameters())
        found = [float(tensor.grad.abs().max()) for tensor in tensors if tensor.grad is not None]
        result.append(max(found) if found else -1.0)
    return result


def test_extra_parameters_at_published_widths() -> None:
    for width, wanted in {720: 1_560_960, 512: 790_528, 256: 198_656}.items():
        projector = build_projector(width, width)
        assert sum(parameter.numel() for parameter in projector.parameters()) == wanted


def test_projector_layers() -> None:
    kinds = [type(layer) for layer in build_projector(3, 5)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 3
    assert build_projector(3, 5)[0].weight.shape == (5, 3)
    assert [build_projector(3, 5)[index].bias is None for index in (0, 3, 6)] == [False, False, True]
    assert len(build_projector(5, 5, depth=0)) == 0
    with pytest.raises(ValueError, match="needs anchor_dim = feature_dim"):
        build_projector(3, 5, depth=0)


def test_shut_gate_rests() -> None:
    regularizer, classifier, features, labels = parts()
    for _ in range(2):
        output = regularizer(features, labels, classifier)
    assert output.metrics["train/gate_open"] == 0
    assert output.metrics["train/pull_loss"] == 0
    assert output.metrics["train/first_open_step"] == -1
    assert not regularizer.semantic_anchors.any()
    assert not regularizer.initialized.any()
    assert regularizer.steps == 2
    on_features, on_projector, on_classifier = grads(output.loss, features, regularizer.projector, classifier)
    assert on_features == 0
    assert on_projector > 0
    assert on_classifier > 0


def test_first_opening_copies_and_later_openings_blend_before_the_pull() -> None:
    regularizer, classifier, features, labels = opened(ema_decay=0.75)
    embedded: list[Tensor] = []
    regularizer.projector.register_forward_hook(lambda _, __, out: embedded.append(out.detach()))
    first = regularizer(features, labels, classifier)
    assert first.metrics["train/gate_open"] == 1
    assert torch.equal(regularizer.semantic_anchors, embedded[0])
    with torch.no_grad():
        regularizer.projector[7].bias.add_(1.0)
        classifier.bias.sub_(classifier.weight.sum(dim=1))
    second = regularizer(features, labels, classifier)
    assert second.metrics["train/gate_open"] == 1
    assert second.metrics["train/first_open_step"] == 0
    blended = 0.75 * embedded[0] + 0.25 * embedded[1]
    torch.testing.assert_close(regularizer.semantic_anchors, blended)
    valid = labels != 255
    wanted = (features[valid] - blended[labels[valid]]).square().mean()
    torch.testing.assert_close(second.metrics["train/pull_loss"], wanted.detach())


def test_gate_that_shuts_again_stops_pull_and_average() -> None:
    regularizer, classifier, features, labels = opened()
    regularizer(features, labels, classifier)
    before = regularizer.semantic_anchors
    with torch.no_grad():
        classifier.bias[0] -= 1e4
    output = regularizer(features, labels, classifier)
    assert output.metrics["train/gate_open"] == 0
    assert output.metrics["train/pull_loss"] == 0
    assert torch.equal(regularizer.semantic_anchors, before)
    assert regularizer.initialized.all()


def test_gate_needs_confidence_and_argmax() -> None:
    regularizer, classifier, features, labels = opened(update_confidence=0.0)
    with torch.no_grad():
        classifier.weight.neg_()
        classifier.bias.neg_()
    assert regularizer(features, labels, classifier).metrics["train/gate_open"] == 0
    regularizer, classifier, features, labels = opened(update_confidence=0.999)
    with torch.no_grad():
        classifier.weight.mul_(1e-3)
        classifier.bias.mul_(1e-3)
    assert regularizer(features, labels, classifier).metrics["train/gate_open"] == 0


def test_gate_always_starts_at_the_first_embedding() -> None:
    regularizer, classifier, features, labels = parts(gate="always")
    embedded: list[Tensor] = []
    regularizer.projector.register_forward_hook(lambda _, __, out: embedded.append(out.detach()))
    output = regularizer(features, labels, classifier)
    assert torch.equal(regularizer.semantic_anchors, embedded[0])
    assert output.metrics["train/gate_open"] == 1
    assert output.metrics["train/pull_loss"] > 0


def test_gradients_reach_only_their_parts() -> None:
    regularizer, classifier, features, labels = opened(aux_weight=0.0, filter_confidence=1.0)
    on_features, *others = grads(
        regularizer(features, labels, classifier).loss, features, regularizer.projector, classifier
    )
    assert on_features > 0
    assert others == [-1, 0]  # the projector is frozen: weight decay must not move what nothing trains
    regularizer, classifier, features, labels = parts(pull_weight=0.0, gate="always")
    on_features, *others = grads(
        regularizer(features, labels, classifier).loss, features, regularizer.projector, classifier
    )
    assert on_features == 0
    assert min(others) > 0


def test_ignored_pixels_get_no_gradient() -> None:
    regularizer, classifier, features, labels = parts(gate="always")
    regularizer(features, labels, classifier).loss.backward()
    assert features.grad is not None
    assert not features.grad[labels == 255].any()
    assert features.grad[labels != 255].abs().sum(dim=1).min() > 0


def test_separate_classifier_judges_and_learns_in_place_of_the_shared_one() -> None:
    regularizer, classifier, features, labels = parts(anchor_classifier="separate")
    with torch.no_grad():
        classifier.weight.fill_(torch.nan)
    output = regularizer(features, labels, classifier)
    assert output.loss.isfinite()
    assert regularizer.separate_classifier is not None
    on_own, on_shared = grads(output.loss, regularizer.separate_classifier, classifier)
    assert on_own > 0
    assert on_shared == -1


def test_aux_weight_0_is_cross_entropy_bit_for_bit_while_the_gate_is_shut() -> None:
    regularizer, classifier, features, labels = parts(aux_weight=0.0)
    ce = F.cross_entropy(classifier(features), labels, ignore_index=255)
    wanted = torch.autograd.grad(ce, [features, *classifier.parameters()], retain_graph=True)
    output = regularizer(features, labels, classifier)
    total = ce + output.loss
    assert torch.equal(total, ce)
    assert output.metrics["train/aux_loss"] > 0
    total.backward()
    for tensor, gradient in zip([features, *classifier.parameters()], wanted, strict=True):
        assert torch.equal(tensor.grad, gradient)
    assert all(parameter.grad is None for parameter in regularizer.parameters())


def test_weight_0_stays_exact_beside_an_infinite_loss() -> None:
    regularizer, classifier, features, labels = parts(pull_weight=0.0, gate="always")
    output = regularizer(features.detach() * 1e30, labels, classifier)
    assert output.metrics["train/pull_loss"].isinf()
    assert output.loss == output.metrics["train/aux_loss"]


def test_all_anchors_filtered() -> None:
    regularizer, classifier, features, labels = opened(pull_weight=0.0)
    output = regularizer(features, labels, classifier)
    assert output.metrics["train/anchor_confidence_min"] > 0.9
    assert output.loss == 0
    assert output.metrics["train/aux_zero"] == 1
    assert grads(output.loss, regularizer.projector, classifier) == [0, 0]


@pytest.mark.parametrize("gap", [1000.0, 1e30])
def test_underflow_gives_no_nan(gap: float) -> None:
    regularizer, classifier, features, labels = opened()
    with torch.no_grad():
        classifier.bias[0] += gap
    output = regularizer(features, labels, classifier)
    assert output.metrics["train/anchor_confidence_min"] == 0
    assert output.loss.isfinite()
    assert output.loss > 0.7 * gap
    assert all(torch.tensor(grads(output.loss, regularizer.projector, classifier)).isfinite())


def test_all_pixels_ignored() -> None:
    regularizer, classifier, features, labels = opened()
    output = regularizer(features, torch.full_like(labels, 255), classifier)
    assert output.metrics["train/gate_open"] == 1
    assert output.metrics["train/pull_loss"] == 0
    assert grads(output.loss, features) == [0]


@pytest.mark.parametrize("wrong", [CLASSES, -1, 254])
def test_label_out_of_range_is_named(wrong: int) -> None:
    regularizer, classifier, features, labels = parts()
    labels[5] = wrong
    with pytest.raises(ValueError, match=rf"label {wrong} is outside .* {CLASSES} classes"):
        regularizer(features, labels, classifier)
    assert regularizer.steps == 0


def test_a_wrong_label_is_found_even_where_downsampling_drops_it() -> None:
    regularizer, classifier, _, _ = parts()
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, 1, 1] = 9
    with pytest.raises(ValueError, match="label 9"):
        regularizer(torch.zeros(1, WIDTH, 4, 4), labels, classifier)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.zeros(3, WIDTH + 1), torch.zeros(3, dtype=torch.int64), r"features: shape \(3, 7\)"),
        (torch.zeros(3, WIDTH, 2), torch.zeros(3, 2, dtype=torch.int64), "features: shape"),
        (torch.zeros(3, WIDTH), torch.zeros(4, dtype=torch.int64), "labels: shape"),
        (torch.zeros(1, WIDTH, 2, 2), torch.zeros(1, dtype=torch.int64), "labels: shape"),
        (torch.zeros(3, WIDTH), torch.zeros(3), r"labels: dtype torch\.float32"),
    ],
)
def test_batches_that_do_not_fit(features: Tensor, labels: Tensor, message: str) -> None:
    regularizer, classifier, _, _ = parts()
    with pytest.raises(ValueError, match=message):
        regularizer(features, labels, classifier)


@pytest.mark.parametrize(
    "classifier", [nn.Conv2d(WIDTH, CLASSES, 3), nn.Linear(WIDTH, CLASSES + 1), nn.Identity()]
)
def test_classifiers_that_do_not_fit(classifier: nn.Module) -> None:
    regularizer, _, features, labels = parts()
    with pytest.raises(ValueError, match="classifier: "):
        regularizer(features, labels, classifier)


def test_linear_and_pointwise_convolution_agree() -> None:
    regularizer, linear, features, labels = parts(gate="always")
    twin = copy.deepcopy(regularizer)
    convolution = nn.Conv2d(WIDTH, CLASSES, 1)
    with torch.no_grad():
        convolution.weight.copy_(linear.weight[:, :, None, None])
        convolution.bias.copy_(linear.bias)
    flat = regularizer(features, labels, linear)
    maps = features.detach().view(1, 3, 4, WIDTH).permute(0, 3, 1, 2)
    spatial = twin(maps, labels.view(1, 3, 4).to(torch.uint8), convolution)
    torch.testing.assert_close(flat.loss, spatial.loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aux_weight": -1.0}, r"aux_weight: -1\.0 is outside the allowed range \[0, 1000\]"),
        ({"pull_weight": float("nan")}, "pull_weight: nan"),
        ({"ema_decay": 1.0}, r"ema_decay: 1\.0 is outside the allowed range \[0, 1\)"),
        ({"ema_decay": None}, "give exactly one of ema_decay and ema_half_life"),
        ({"filter_confidence": 0.0}, r"filter_confidence: 0\.0 .* \(0, 1\]"),
        ({"update_confidence": 1.0}, r"update_confidence: 1\.0 .* \[0, 1\)"),
        ({"gate": "some"}, "gate: 'some' is not one of all, per_class, always"),
        ({"anchor_classifier": "own"}, "anchor_classifier: 'own' is not one of shared, shared_frozen"),
        ({"anchor_dim": 1}, "anchor_dim: 1 is outside"),
        ({"projector_depth": -1}, "projector_depth: -1"),
        ({"num_classes": 1}, "num_classes: 1 .* one row has no variance"),
        ({"num_classes": 0}, "num_classes: 0 is outside"),
        ({"feature_dim": 0}, "feature_dim: 0 is outside"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemanticAnchorRegularizer(**{"num_classes": CLASSES, "feature_dim": WIDTH, **options})
