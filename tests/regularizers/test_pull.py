"""The chunked pull against literal twins: values, gradients, memory layouts, options, edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sarx.regularizers import pull
from sarx.regularizers.pull import DISTANCES, NORMS, pull_loss
from tests.regularizers.oracle import gathered_pull, one_hot_pull

CLASSES, WIDTH = 7, 5
LAYOUTS = {
    "contiguous": lambda maps: maps.contiguous(),
    "channels_last": lambda maps: maps.contiguous(memory_format=torch.channels_last),
    "neither": lambda maps: maps.transpose(2, 3).contiguous().transpose(2, 3),
}


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features (2, 5, 6, 8) float64, labels with some ignored, targets (7, 5)."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, WIDTH, 6, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES + 1, (2, 6, 8), generator=generator)
    labels[labels == CLASSES] = 255
    return features, labels, torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64)


def mean_weights(labels: Tensor) -> Tensor:
    return torch.full((CLASSES,), 1.0 / int((labels != 255).sum()), dtype=torch.float64)


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of a few pixels, so that every batch is cut many times and unevenly."""
    monkeypatch.setattr(pull, "CHUNK", 7 * WIDTH)
    cut = []
    chunks = pull._chunks
    monkeypatch.setattr(
        pull, "_chunks", lambda *arguments: cut.append(len(list(chunks(*arguments)))) or chunks(*arguments)
    )
    yield
    assert min(cut) > 5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(3))
def test_equals_its_one_hot_twin(small_chunks, layout, seed):
    features, labels, targets = batch(seed)
    results = []
    for function in (one_hot_pull, gathered_pull):
        leaf = features.clone().requires_grad_()
        value = function(leaf, labels, targets, 255)
        results.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
    leaf = features.clone().requires_grad_()
    value = pull_loss(LAYOUTS[layout](leaf), labels, targets, mean_weights(labels), ignore_index=255)
    ours = (value.detach(), torch.autograd.grad(value, leaf)[0])
    for twin in results:
        torch.testing.assert_close(ours, twin, rtol=1e-13, atol=1e-16)
    flat = features.movedim(1, -1).reshape(-1, WIDTH)
    again = pull_loss(flat, labels.flatten(), targets, mean_weights(labels), ignore_index=255)
    torch.testing.assert_close(again, ours[0], rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("norm", NORMS)
def test_every_distance_equals_plain_autograd_in_features_and_targets(small_chunks, layout, distance, norm):
    features, labels, targets = batch()
    weights = torch.rand(CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights[2] = 0.0
    results = []
    for chunked in (True, False):
        leaf, centres = features.clone().requires_grad_(), targets.clone().requires_grad_()
        if chunked:
            value = pull_loss(
                LAYOUTS[layout](leaf),
                labels,
                centres,
                weights,
                ignore_index=255,
                distance=distance,
                feature_norm=norm,
            )
        else:
            value = literal(leaf, labels, centres, weights, distance, norm)
        results.append((value.detach(), *torch.autograd.grad(3.0 * value, (leaf, centres))))
    torch.testing.assert_close(results[0], results[1], rtol=1e-11, atol=1e-15)


def literal(
    features: Tensor, labels: Tensor, targets: Tensor, weights: Tensor, distance: str, norm: str
) -> Tensor:
    """Pixel by pixel, with torch's own distances and norms."""
    total = features.new_zeros(())
    for pixel, label in zip(features.movedim(1, -1).reshape(-1, WIDTH), labels.flatten(), strict=True):
        if int(label) == 255:
            continue
        target = targets[label]
        if norm == "l2":
            pixel, target = (WIDTH**0.5 * vector / vector.norm() for vector in (pixel, target))
        elif norm == "layer":
            pixel, target = (F.layer_norm(vector, (WIDTH,)) for vector in (pixel, target))
        if distance == "cosine":
            value = 1.0 - F.cosine_similarity(pixel, target, dim=0)
        elif distance == "smooth_l1":
            value = F.smooth_l1_loss(pixel, target)
        else:
            value = F.mse_loss(pixel, target)
        total = total + weights[label] * value
    return total


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_features_that_do_not_count_have_no_effect(distance, norm, bad):
    features, labels, targets = batch()
    weights = mean_weights(labels)
    weights[0] = 0.0
    unused = ((labels == 255) | (labels == 0)).unsqueeze(1)
    options = {"ignore_index": 255, "distance": distance, "feature_norm": norm}
    clean = features.clone().requires_grad_()
    wanted = pull_loss(clean, labels, targets, weights, **options)
    wanted.backward()
    spoilt = features.masked_fill(unused, bad).requires_grad_()
    value = pull_loss(spoilt, labels, targets, weights, **options)
    value.backward()
    assert torch.equal(value, wanted)
    assert torch.equal(spoilt.grad, clean.grad)
    assert not spoilt.grad.masked_select(unused).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_are_computed_in_the_precision_of_the_targets(dtype):
    features, labels, targets = batch()
    leaf = features.to(dtype).requires_grad_()
    value = pull_loss(leaf, labels, targets.float(), mean_weights(labels), ignore_index=255)
    value.backward()
    assert value.dtype == torch.float32
    assert leaf.grad.dtype == dtype
    wanted = gathered_pull(leaf.detach().double(), labels, targets, 255)
    torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("shape", [(0, WIDTH), (0, WIDTH, 4, 4), (2, WIDTH, 0, 3)])
def test_nothing_gives_zero(shape):
    features = torch.zeros(shape, requires_grad=True)
    labels = torch.zeros((shape[0], *shape[2:]), dtype=torch.int64)
    value = pull_loss(features, labels, torch.ones(3, WIDTH), torch.ones(3), ignore_index=255)
    assert value == 0
    value.backward()
    assert features.grad.shape == shape


@pytest.mark.parametrize(("distance", "norm"), [("cosine", "none"), ("squared_euclidean", "l2")])
def test_gradients_on_zero_features_are_bounded(distance, norm):
    features = torch.zeros(4, WIDTH, dtype=torch.float16, requires_grad=True)
    targets = torch.ones(CLASSES, WIDTH)
    value = pull_loss(
        features,
        torch.zeros(4, dtype=torch.int64),
        targets,
        torch.full((CLASSES,), 0.25),
        ignore_index=255,
        distance=distance,
        feature_norm=norm,
    )
    value.backward()
    assert features.grad.isfinite().all()


def test_compiled_expression_equals_the_chunks():
    features, labels, targets = batch()
    compiled = torch.compile(pull_loss, backend="aot_eager", fullgraph=True)
    results = []
    for function in (pull_loss, compiled):
        leaf = features.clone().requires_grad_()
        value = function(leaf, labels, targets, mean_weights(labels), ignore_index=255)
        results.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-13, atol=1e-16)


def test_a_second_derivative_is_refused():
    features, labels, targets = batch()
    features.requires_grad_()
    value = pull_loss(features, labels, targets, mean_weights(labels), ignore_index=255)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, features, create_graph=True)
