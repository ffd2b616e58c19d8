"""Batches for a model that predicts images of different sizes without padding them."""

from __future__ import annotations

from collections.abc import Sequence


def equal_size_batches(sizes: Sequence[tuple[int, int]], limit: int) -> list[list[int]]:
    """Return the indices of all images in batches of one size each, in the order of their first images.

    Args:
        sizes: (height, width) of each image.
        limit: Largest number of images in a batch.

    Raises:
        ValueError: If ``limit`` is below 1.
    """
    if limit < 1:
        raise ValueError(f"limit={limit} is below 1")
    batches: list[list[int]] = []
    filling: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        if len(filling.get(size, [])) % limit == 0:
            filling[size] = []
            batches.append(filling[size])
        filling[size].append(index)
    return batches
