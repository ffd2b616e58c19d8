"""Each way to predict an image against loops over windows, scales and pixels."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sarx.training.equal_sizes import equal_size_batches
from sarx.training.inference import predict_logits, window_starts

CLASSES = 5
STRIDE_OF_MODEL = 4


class Model(nn.Module):
    """Logits at stride 4, of a receptive field that notices borders; refuses sides that are no multiples."""

    def __init__(self, multiple):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 5, stride=STRIDE_OF_MODEL, padding=2)
        self.second = nn.Conv2d(6, CLASSES, 3, padding=1)
        self.multiple = multiple
        self.sizes = []

    def forward(self, images):
        self.sizes.append(tuple(images.shape[2:]))
        assert all(side % self.multiple == 0 for side in images.shape[2:])
        return 3 * self.second(self.first(images).relu())


def images_of(height, width):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def grow(maps, size):
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def literal_whole(model, images):
    height, width = images.shape[2:]
    full = [
        side if side % model.multiple == 0 else (side // model.multiple + 1) * model.multiple
        for side in (height, width)
    ]
    padded = torch.zeros(*images.shape[:2], *full)
    padded[:, :, :height, :width] = images
    return grow(model(padded), full)[:, :, :height, :width]


def literal_slide(model, images, window, stride):
    height, width = images.shape[2:]
    scores, counts = torch.zeros(len(images), CLASSES, height, width), torch.zeros(height, width)
    rows = -(-max(height - window, 0) // stride) + 1
    columns = -(-max(width - window, 0) // stride) + 1
    for row, column in itertools.product(range(rows), range(columns)):
        bottom, right = min(row * stride + window, height), min(column * stride + window, width)
        top, left = max(bottom - window, 0), max(right - window, 0)
        logits = literal_whole(model, images[:, :, top:bottom, left:right])
        for y in range(top, bottom):
            scores[:, :, y, left:right] += logits[:, :, y - top]
            counts[y, left:right] += 1
    assert counts.min() >= 1
    return scores / counts


def literal(model, images, mode, window, stride, size):
    def once(batch):
        return literal_slide(model, batch, window, stride) if "slide" in mode else literal_whole(model, batch)

    if "multi" not in mode:
        return grow(once(images), size)
    shares = []
    for factor in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75):
        scaled = grow(images, [int(side * factor + 0.5) for side in images.shape[2:]])
        shares.append(grow(once(scaled), size).softmax(1))
        mirrored = once(torch.flip(scaled, [3]))
        shares.append(torch.flip(grow(mirrored, size).softmax(1), [3]))
    return torch.stack(shares).mean(0)


@pytest.mark.parametrize("mode", ["whole", "slide", "multi_scale", "multi_scale_slide"])
@pytest.mark.parametrize(
    ("size", "window", "stride", "multiple"),
    [
        ((48, 64), 32, 16, 16),
        ((45, 71), 32, 20, 8),
        ((20, 25), 32, 32, 16),
        ((20, 70), 32, 11, 4),
        ((33, 32), 32, 21, 1),
    ],
)
@pytest.mark.parametrize("out", [None, (40, 51)])
@torch.inference_mode()
def test_scores_are_the_literal_ones(mode, size, window, stride, multiple, out):
    model, images = Model(multiple), images_of(*size)
    got = predict_logits(model, images, mode, window=window, stride=stride, multiple=multiple, size=out)
    wanted = literal(Model(multiple), images, mode, window, stride, out or size)
    assert got.shape == (2, CLASSES, *(out or size))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    if "multi" in mode:
        torch.testing.assert_close(got.sum(1), torch.ones(2, *(out or size)))


@torch.inference_mode()
def test_windows_are_seen_and_no_others():
    model = Model(1)
    predict_logits(model, images_of(40, 90), "slide", window=32, stride=20)
    assert model.sizes == [(32, 32)] * (2 * 4)
    model.sizes.clear()
    predict_logits(model, images_of(20, 90), "slide", window=32, stride=29)
    assert model.sizes == [(20, 32)] * 3


@torch.inference_mode()
def test_images_are_left_as_they_are():
    images = images_of(32, 32)
    before = images.clone()
    logits = torch.randn(2, CLASSES, 32, 32)
    kept = logits.clone()
    for mode in ("whole", "slide"):
        predict_logits(lambda _: logits, images, mode, window=32, stride=32)
    assert torch.equal(images, before)
    assert torch.equal(logits, kept)


@pytest.mark.parametrize(
    ("side", "window", "stride", "starts"),
    [
        (10, 4, 3, [0, 3, 6]),
        (11, 4, 3, [0, 3, 6, 7]),
        (4, 4, 3, [0]),
        (3, 4, 3, [0]),
        (5, 4, 4, [0, 1]),
    ],
)
def test_where_windows_start(side, window, stride, starts):
    assert window_starts(side, window, stride) == starts


def test_batches_hold_one_size_and_every_image_once():
    generator = torch.Generator().manual_seed(0)
    sizes = [(int(n) // 3, int(n) % 3) for n in torch.randint(0, 9, (200,), generator=generator)]
    for limit in (1, 2, 7, 1000):
        batches = equal_size_batches(sizes, limit)
        assert sorted(index for batch in batches for index in batch) == list(range(200))
        assert all(len({sizes[index] for index in batch}) == 1 for batch in batches)
        assert max(map(len, batches)) <= limit
        assert len(batches) == sum(-(-sizes.count(size) // limit) for size in set(sizes))
        assert [batch[0] for batch in batches] == sorted(batch[0] for batch in batches)
        assert all(batch == sorted(batch) for batch in batches)
    assert equal_size_batches([(1, 2), (2, 1), (1, 2), (1, 2)], 2) == [[0, 2], [1], [3]]
    assert equal_size_batches([], 3) == []


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="limit=0"):
        equal_size_batches([(1, 1)], 0)
