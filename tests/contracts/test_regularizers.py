"""What holds for loss and gradients of every regularizer, at every option set of regularizer_cases."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from regularizer_cases import (
    CASES,
    CLASSES,
    IGNORED,
    MAP,
    WIDTH,
    Parts,
    assert_same,
    batch,
    build,
    descend,
    fresh,
    gradients,
    permute_classes,
    snapshot,
    task_loss,
    train_step,
    trained,
)
from torch import Tensor

from sarx.regularizers import NoRegularizer

ROWS = (24, WIDTH)
DOUBLE = torch.float64
STAGES = pytest.mark.parametrize("start", [fresh, trained])
pytestmark = pytest.mark.parametrize("case", CASES)

Start = Callable[[str], Parts]
Found = dict[str, Tensor | None]


def assert_finite(loss: Tensor, found: Found) -> None:
    assert loss.shape == ()
    assert loss.isfinite()
    for name, tensor in found.items():
        assert tensor is None or tensor.isfinite().all(), name


def total_and_gradients(parts: Parts, features: Tensor, labels: Tensor) -> tuple[Tensor, Found]:
    """The regularizer's loss alone, and its gradients on features, classifier and itself."""
    loss = parts(features, labels).loss
    return loss.detach(), gradients(loss, parts, features=features)


def test_the_trained_stage_reaches_the_features(case: str) -> None:
    """Otherwise the tests that start from it would say little."""
    loss, found = total_and_gradients(trained(case), *batch())
    assert (loss != 0) == (case != "none-defaults")
    assert case == "none-defaults" or found["features"].any()


@STAGES
@pytest.mark.parametrize(
    ("shape", "label_shape"),
    [(ROWS, None), (MAP, None), (MAP, (2, 6, 8)), (MAP, (2, 7, 5)), (MAP, (2, 2, 2))],
)
def test_loss_and_gradients_are_finite(
    case: str, start: Start, shape: tuple[int, ...], label_shape: tuple[int, ...] | None
) -> None:
    parts = start(case)
    for seed in range(3):
        features, labels = batch(seed, shape=shape, label_shape=label_shape)
        loss, found = total_and_gradients(parts, features, labels)
        assert_finite(loss, found)
        assert loss.dtype == torch.float32


@STAGES
@pytest.mark.parametrize("shape", [MAP, (2, WIDTH, 1, 1), (1, WIDTH, 4, 1)])
def test_maps_equal_their_rows(case: str, start: Start, shape: tuple[int, ...]) -> None:
    features, labels = batch(shape=shape, dtype=DOUBLE)
    by_map, by_row = start(case).double(), start(case).double()
    flat = features.detach().movedim(1, -1).reshape(-1, WIDTH).requires_grad_()
    one, found = total_and_gradients(by_map, features, labels)
    two, wanted = total_and_gradients(by_row, flat, labels.flatten())
    if found["features"] is not None:
        found["features"] = found["features"].movedim(1, -1).reshape(-1, WIDTH)
    assert_same({"loss": one}, {"loss": two}, 1e-12)
    assert_same(found, wanted, 1e-12)
    assert_same(snapshot(by_map), snapshot(by_row), 1e-12)


@STAGES
def test_integer_types_of_labels(case: str, start: Start) -> None:
    features, labels = batch()
    wanted = total_and_gradients(start(case), features, labels)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        ours = total_and_gradients(start(case), features, labels.to(dtype))
        assert_same({"loss": ours[0], **ours[1]}, {"loss": wanted[0], **wanted[1]})


@STAGES
def test_double_precision(case: str, start: Start) -> None:
    parts = start(case).double()
    features, labels = batch(dtype=DOUBLE)
    loss, found = total_and_gradients(parts, features, labels)
    assert_finite(loss, found)
    assert loss.dtype == DOUBLE
    single, _ = total_and_gradients(start(case), features.detach().float().requires_grad_(), labels)
    torch.testing.assert_close(single.double(), loss, rtol=1e-4, atol=1e-6)


@STAGES
@pytest.mark.parametrize(
    ("low", "dtype"),
    [
        (torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.bfloat16, DOUBLE),
    ],
)
def test_autocast(case: str, start: Start, low: torch.dtype, dtype: torch.dtype) -> None:
    """Features of any type; state and loss stay float32 and close to full precision.

    Only without any state of its own may a regularizer give float64 features a float64 loss.
    """
    parts, twin = start(case), start(case)
    features, labels = batch()
    features = features.detach().to(low).to(dtype).requires_grad_()
    before = snapshot(parts)
    with torch.autocast("cpu", dtype=low):
        loss = parts(features, labels).loss
    found = gradients(loss, parts, features=features)
    assert_finite(loss, found)
    stateless = not any(tensor.is_floating_point() for tensor in snapshot(parts.regularizer).values())
    assert loss.dtype == torch.float32 or (stateless and dtype == loss.dtype == DOUBLE)
    assert {k: t.dtype for k, t in snapshot(parts).items()} == {k: t.dtype for k, t in before.items()}
    wanted = twin(features.detach().float(), labels).loss
    torch.testing.assert_close(loss.float(), wanted, rtol=2e-2, atol=1e-3)


def strided(features: Tensor, layout: str) -> Tensor:
    """The same numbers with other strides."""
    if layout == "channels_last":
        return features.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return features.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "cropped":
        return torch.nn.functional.pad(features, (1, 2, 2, 1))[:, :, 2:-1, 1:-2]
    return features[:, :, :1, :1].expand_as(features)


@STAGES
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "cropped", "expanded"])
def test_strides_do_not_matter(case: str, start: Start, layout: str) -> None:
    plain, labels = batch(dtype=DOUBLE)
    other = strided(plain.detach(), layout).requires_grad_()
    plain = other.detach().contiguous().requires_grad_()
    wanted = total_and_gradients(start(case).double(), plain, labels)
    ours = total_and_gradients(start(case).double(), other, labels)
    assert_same({"loss": ours[0], **ours[1]}, {"loss": wanted[0], **wanted[1]}, 1e-12)


@pytest.mark.parametrize("width", [2, 720])
def test_strides_of_rows_do_not_matter(case: str, width: int) -> None:
    """Rows as the transpose of a contiguous (D, N)."""
    parts = build(wide(case, CLASSES, width), feature_dim=width).double()
    plain, labels = batch(shape=(24, width), dtype=DOUBLE)
    other = plain.detach().T.contiguous().T.requires_grad_()
    wanted = total_and_gradients(copy.deepcopy(parts), plain, labels)
    ours = total_and_gradients(parts, other, labels)
    assert_same({"loss": ours[0], **ours[1]}, {"loss": wanted[0], **wanted[1]}, 1e-12)


@STAGES
def test_weight_0_is_the_task_loss_bit_for_bit(case: str, start: Start) -> None:
    """The classifier does not move either, unless it is one that only this regularizer moves."""
    weights = [f.name for f in dataclasses.fields(CASES[case]) if f.name.endswith("_weight")]
    parts = build(dataclasses.replace(CASES[case], **dict.fromkeys(weights, 0.0)))
    parts.load_state_dict(start(case).state_dict())
    alone = copy.deepcopy(parts.classifier)
    for seed in range(3):
        features, labels = batch(seed)
        task = task_loss(Parts(parts.regularizer, alone, IGNORED), features, labels)
        wanted = gradients(task, alone, features=features)
        total = task_loss(parts, features, labels) + parts(features, labels).loss
        assert torch.equal(total, task)
        assert_same(gradients(total, parts.classifier, features=features), wanted)
        loss = parts(features, labels, advance=False).loss
        assert loss == 0
        found = gradients(loss, parts)
        assert not any(tensor.any() for tensor in found.values() if tensor is not None)
        descend(total, parts.classifier)
        descend(task, alone)
        if hasattr(CASES[case], "classifier"):
            alone.load_state_dict(parts.classifier.state_dict())
        assert_same(snapshot(parts.classifier), snapshot(alone))


@STAGES
def test_relabelling_the_classes_changes_nothing(case: str, start: Start) -> None:
    order = torch.tensor([2, 0, 4, 1, 3])
    parts, renamed = start(case).double(), start(case).double()
    permute_classes(renamed, order)
    for seed in range(4):
        features, labels = batch(seed, dtype=DOUBLE)
        moved = order[labels.where(labels != IGNORED, 0)].where(labels != IGNORED, IGNORED)
        losses = train_step(parts, features, labels), train_step(renamed, features, moved)
        torch.testing.assert_close(*losses, rtol=1e-10, atol=0.0)
    permute_classes(parts, order)
    assert_same(snapshot(renamed), snapshot(parts), 1e-9)


@STAGES
@pytest.mark.parametrize("filling", [0.0, 1e4, torch.inf, torch.nan])
def test_ignored_pixels_do_not_matter(case: str, start: Start, filling: float) -> None:
    """Neither for loss nor state nor any gradient; their own gradient is exactly 0."""
    features, labels = batch()
    ignored = (labels == IGNORED).unsqueeze(1)
    filled = features.detach().masked_fill(ignored, filling).requires_grad_()
    plain, other = start(case), start(case)
    wanted = total_and_gradients(plain, features, labels)
    ours = total_and_gradients(other, filled, labels)
    if ours[1]["features"] is not None:
        assert not ours[1]["features"].movedim(1, -1)[labels == IGNORED].any()
    assert_same({"loss": ours[0], **ours[1]}, {"loss": wanted[0], **wanted[1]})
    assert_same(snapshot(other), snapshot(plain))


@pytest.mark.parametrize("ignored", [-100, CLASSES])
def test_another_ignore_index(case: str, ignored: int) -> None:
    plain, other = fresh(case), fresh(case, ignore_index=ignored)
    for seed in range(3):
        features, labels = batch(seed)
        moved = labels.where(labels != IGNORED, ignored)
        wanted = total_and_gradients(plain, features, labels)
        ours = total_and_gradients(other, features, moved)
        assert_same({"loss": ours[0], **ours[1]}, {"loss": wanted[0], **wanted[1]})
    assert_same(snapshot(other), snapshot(plain))


@STAGES
@pytest.mark.parametrize("shape", [MAP, ROWS, (0, *MAP[1:]), (0, WIDTH)])
def test_no_valid_pixel(case: str, start: Start, shape: tuple[int, ...]) -> None:
    """All ignored, or an empty batch: finite, and connected to what a batch with valid pixels is."""
    parts = start(case)
    wanted = total_and_gradients(start(case), *batch())[1]
    features, labels = batch(shape=shape)
    loss, found = total_and_gradients(parts, features, torch.full_like(labels, IGNORED))
    assert_finite(loss, found)
    assert {name for name, tensor in found.items() if tensor is not None} == {
        name for name, tensor in wanted.items() if tensor is not None
    }
    assert found["features"] is None or not found["features"].any()
    assert_finite(*total_and_gradients(parts, *batch()))
    assert_finite(loss, snapshot(parts))


@STAGES
def test_absent_classes(case: str, start: Start) -> None:
    parts = start(case)
    for seed, present in enumerate([(0,), (4,), (1, 3)]):
        features, labels = batch(seed)
        chosen = torch.tensor(present)[labels % len(present)].where(labels != IGNORED, IGNORED)
        assert_finite(*total_and_gradients(parts, features, chosen))
    assert_finite(*total_and_gradients(parts, *batch()))


def wide(case: str, classes: int, width: int = WIDTH) -> Any:
    """The case's options, with anchors wide enough for so many classes where only wide ones exist."""
    config = CASES[case]
    if getattr(config, "anchor_init", "gaussian") != "gaussian" and width < classes:
        return dataclasses.replace(config, anchor_dim=classes)
    return config


@pytest.mark.parametrize("classes", [2, 1000])
def test_few_and_many_classes(case: str, classes: int) -> None:
    parts = build(wide(case, classes), num_classes=classes, ignore_index=-1)
    for seed in range(2):
        features, labels = batch(seed, classes=classes, ignored=-1)
        loss, found = total_and_gradients(parts, features, labels)
        assert_finite(loss, found)
        assert_finite(task_loss(parts, features, labels), {})


@STAGES
@pytest.mark.parametrize("wrong", [CLASSES, 254, -1])
def test_a_label_out_of_range_is_named(case: str, start: Start, wrong: int) -> None:
    parts = start(case)
    if isinstance(parts.regularizer, NoRegularizer):
        pytest.skip("looks at no label; the task loss refuses it")
    before = snapshot(parts)
    for shape in (MAP, ROWS):
        features, labels = batch(shape=shape)
        labels.view(-1)[7] = wrong
        with pytest.raises(ValueError, match=rf"label {wrong}\b.*\b{CLASSES}\b"):
            parts(features, labels)
    assert_same(snapshot(parts), before)


@STAGES
def test_two_forwards_before_one_backward(case: str, start: Start) -> None:
    together, apart = start(case).double(), start(case).double()
    first, second = batch(0, dtype=DOUBLE), batch(1, dtype=DOUBLE)
    one, two = together(*first).loss, together(*second).loss
    found = gradients(one + two, together, first=first[0], second=second[0])
    wanted = gradients(apart(*first).loss, apart, first=first[0], second=second[0])
    after = gradients(apart(*second).loss, apart, first=first[0], second=second[0])
    for name, tensor in after.items():
        earlier = wanted[name]
        wanted[name] = earlier if tensor is None else tensor if earlier is None else earlier + tensor
    assert_same(found, wanted, 1e-12)
    assert_same(snapshot(together), snapshot(apart))
