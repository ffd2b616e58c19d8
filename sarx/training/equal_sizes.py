"""Batches for a model that predicts images of different sizes without padding them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Size = tuple[int, int]


def area(size: Size) -> int:
    """Return the pixels of an image of this height and width."""
    return size[0] * size[1]


def equal_size_batches(
    sizes: Sequence[Size], pixels: int, seen: Callable[[Size], int] = area
) -> list[list[int]]:
    """Return the indices of all images in batches of one size each, in the order of their first images.

    Args:
        sizes: (height, width) of each image.
        pixels: Of a batch at most; an image that has more is a batch of its own.
        seen: From the size of an image to the pixels that the model sees of it.
    """
    batches: list[list[int]] = []
    filling: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        limit = max(1, pixels // seen(size))
        if len(filling.get(size, [])) % limit == 0:
            filling[size] = []
            batches.append(filling[size])
        filling[size].append(index)
    return batches
