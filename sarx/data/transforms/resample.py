"""A box of a resized image, computed from the source pixels that the box needs and from no others.

The pixels are those of resizing the whole image and cutting the box out: bilinear between pixel centres
without antialiasing for images, and floor(place * source / target) for labels, which is what OpenCV's
INTER_LINEAR and INTER_NEAREST do. torch and torchvision resize whole tensors from their first pixel on and
Pillow antialiases, so neither can give a box at any offset.

Legend: (H, W) = source, (h, w) = box, n = rows of a block, W' = source columns that the box needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sarx.data.dataset import Bytes

Places = npt.NDArray[np.intp]

BLOCK = 64
"""Rows of the box that are made at a time, so that they stay in the cache."""


@dataclass(frozen=True)
class Box:
    """A rectangle of the resized image: its upper left corner and size."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Taps:
    """Along one axis: the two source pixels of each pixel of the box, and how much the second one counts."""

    low: Places
    high: Places
    weight: Tensor


def nearest_places(source: int, target: int, start: int, length: int) -> Places:
    """Return the source pixel of pixels ``start`` to ``start + length`` of an axis, in whole numbers."""
    return (np.arange(start, start + length) * source) // target


def bilinear_taps(source: int, target: int, start: int, length: int) -> Taps:
    """Return the taps of pixels ``start`` to ``start + length`` of an axis; edge pixels reach outwards."""
    places = (np.arange(start, start + length) + 0.5) * (source / target) - 0.5
    places = np.clip(places, 0, source - 1)
    low = np.floor(places).astype(np.intp)
    high = np.minimum(low + 1, source - 1)
    return Taps(low, high, torch.from_numpy((places - low).astype(np.float32)))


def nearest_box(label: Bytes, size: tuple[int, int], box: Box) -> Bytes:
    """Return a box of a label map (H, W) resized to ``size``: uint8 (h, w)."""
    rows = nearest_places(label.shape[0], size[0], box.top, box.height)
    columns = nearest_places(label.shape[1], size[1], box.left, box.width)
    first = columns[0]
    boxed: Bytes = np.take(label[rows, first : columns[-1] + 1], columns - first, axis=1)
    return boxed


def bilinear_box(
    image: Bytes,
    size: tuple[int, int],
    box: Box,
    flip: bool = False,
    change: Callable[[Tensor], Tensor] | None = None,
) -> Bytes:
    """Return a box of an image (C, H, W) resized to ``size``: uint8 (C, h, w), rounded to the nearest.

    Args:
        image: Of any memory layout.
        size: (height, width) of the whole resized image.
        box: What to return of it.
        flip: Mirror the box left to right.
        change: From rounded pixels (n, C, w) of some rows of the box to new whole numbers in [0, 255].
    """
    rows = bilinear_taps(image.shape[1], size[0], box.top, box.height)
    columns = bilinear_taps(image.shape[2], size[1], box.left, box.width)
    first, last = columns.low[0], columns.high[-1] + 1
    columns = Taps(columns.low - first, columns.high - first, columns.weight)
    if flip:
        columns = Taps(columns.low[::-1], columns.high[::-1], columns.weight.flip(0))
    lines = image.transpose(1, 0, 2)[:, :, first:last]
    result = np.empty((image.shape[0], box.height, box.width), np.uint8)
    for start in range(0, box.height, BLOCK):
        part = slice(start, start + BLOCK)
        block = _block(lines, Taps(rows.low[part], rows.high[part], rows.weight[part]), columns).round_()
        result[:, part] = (block if change is None else change(block)).numpy().transpose(1, 0, 2)
    return result


def _block(lines: Bytes, rows: Taps, columns: Taps) -> Tensor:
    """Interpolate some rows of lines (H, C, W'): float32 (n, C, w); the cheaper axis goes first."""
    needed = np.unique(np.concatenate([rows.low, rows.high]))
    source = np.ascontiguousarray(lines[needed]).astype(np.float32)
    low, high = np.searchsorted(needed, rows.low), np.searchsorted(needed, rows.high)
    rows = Taps(low, high, rows.weight.view(-1, 1, 1))
    if len(needed) < len(low):
        return _between(_between(source, columns, axis=2).numpy(), rows, axis=0)
    return _between(_between(source, rows, axis=0).numpy(), columns, axis=2)


def _between(values: npt.NDArray[np.float32], taps: Taps, axis: int) -> Tensor:
    # numpy gathers several times faster along the last axis, torch computes faster
    low, high = np.take(values, taps.low, axis=axis), np.take(values, taps.high, axis=axis)
    return torch.lerp(torch.from_numpy(low), torch.from_numpy(high), taps.weight)
