"""Scores of images larger than training crops: whole, by sliding windows, at several scales.

As in mmsegmentation: overlapping windows average logits, scales and mirror images average probabilities. A
window is never moved off the image: the last one ends with it, and one that is larger is cut to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

Forward = Callable[[Tensor], Tensor]
"""From normalised images (B, 3, H, W) to logits (B, C, h, w) at any stride."""

FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def predict_logits(
    forward: Forward,
    images: Tensor,
    mode: str,
    *,
    window: int = 0,
    stride: int = 0,
    multiple: int = 1,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Return scores (B, C, H', W') of images; their argmax predicts.

    Args:
        forward: The model; what is to be added to its logits before they predict belongs in here.
        images: Normalised, (B, 3, H, W), all of one size.
        mode: ``whole`` or ``slide``: logits. ``multi_scale`` or ``multi_scale_slide``: mean probabilities of
            the images scaled by ``FACTORS``, as they are and mirrored.
        window: Side of the windows of the sliding modes, in pixels.
        stride: From one window to the next.
        multiple: What the model wants its input sides to be multiples of; inputs are padded at the bottom
            and right with 0, which is the mean colour, and the logits cut back.
        size: (H', W') to which each map of scores is resized; the images' own if not given.
    """
    once = partial(_slide, window=window, stride=stride) if mode.endswith("slide") else _whole
    predict = partial(once, partial(_padded, forward, multiple))
    wanted = size or (images.shape[2], images.shape[3])
    if mode in ("whole", "slide"):
        return resized(predict(images), wanted)
    assert mode in ("multi_scale", "multi_scale_slide"), mode
    return _multi_scale(predict, images, wanted)


def _multi_scale(predict: Forward, images: Tensor, size: tuple[int, int]) -> Tensor:
    total: Tensor | None = None
    for factor in FACTORS:
        scaled = resized(images, (_times(images.shape[2], factor), _times(images.shape[3], factor)))
        for flip in (False, True):
            share = resized(predict(scaled.flip(3) if flip else scaled), size).softmax(dim=1)
            share = share.flip(3) if flip else share
            total = share if total is None else total.add_(share)
    assert total is not None
    return total.div_(2 * len(FACTORS))


def _times(side: int, factor: float) -> int:
    return max(1, int(side * factor + 0.5))


def _whole(forward: Forward, images: Tensor) -> Tensor:
    return forward(images)


def _slide(forward: Forward, images: Tensor, window: int, stride: int) -> Tensor:
    height, width = images.shape[2:]
    tops, lefts = window_starts(height, window, stride), window_starts(width, window, stride)
    scores: Tensor | None = None
    for top in tops:
        for left in lefts:
            logits = forward(images[:, :, top : top + window, left : left + window])
            if scores is None:
                scores = logits.new_zeros(*logits.shape[:2], height, width)
            scores[:, :, top : top + window, left : left + window] += logits
    assert scores is not None
    scores /= _coverage(tops, height, window).to(scores).view(-1, 1)
    scores /= _coverage(lefts, width, window).to(scores)
    return scores


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Return where windows start along a side: ``stride`` apart, the last one flush with the end."""
    last = max(side - window, 0)
    return [*range(0, last, stride), last]


def _coverage(starts: list[int], side: int, window: int) -> Tensor:
    """Return in how many windows each place of a side is, (side,)."""
    counts = torch.zeros(side)
    for start in starts:
        counts[start : start + window] += 1
    return counts


def _padded(forward: Forward, multiple: int, images: Tensor) -> Tensor:
    """Return logits at the size of images whose sides need not be multiples."""
    height, width = images.shape[2:]
    right, bottom = -width % multiple, -height % multiple
    padded = pad(images, (0, right, 0, bottom)) if right or bottom else images
    logits = resized(forward(padded), (padded.shape[2], padded.shape[3]))
    return logits[:, :, :height, :width]


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (B, C, h, w) resized bilinearly, corners not aligned; the same if they fit."""
    if maps.shape[2:] == size:
        return maps
    return interpolate(maps, size=size, mode="bilinear", align_corners=False)
