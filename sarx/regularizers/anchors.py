"""Fixed class anchors, drawn from a generator of their own.

Legend: C classes, A anchor dimension. All but ``gaussian`` have rows of length sqrt(A), the root mean square
length of a gaussian row, so that comparing initialisations compares directions and not scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor


def gaussian(classes: int, dim: int, generator: Generator) -> Tensor:
    """Return independent N(0, 1) entries, as published."""
    return torch.randn(classes, dim, generator=generator, dtype=torch.float32, device="cpu")


def orthogonal(classes: int, dim: int, generator: Generator) -> Tensor:
    """Return mutually orthogonal rows in random directions; needs A >= C."""
    return torch.mul(_random_frame(dim, classes, generator).T, math.sqrt(dim))


def simplex(classes: int, dim: int, generator: Generator) -> Tensor:
    """Return the vertices of a regular simplex in a random orientation; needs A >= C - 1.

    Every two rows have cosine -1 / (C - 1), the smallest that C vectors can have in common.
    """
    centring = torch.eye(classes, dtype=torch.float64) - 1.0 / classes
    basis = torch.linalg.svd(centring).U[:, : classes - 1]
    length = math.sqrt(dim * classes / (classes - 1))
    return torch.mul(basis @ _random_frame(dim, classes - 1, generator).T, length)


def one_hot(classes: int, dim: int, generator: Generator) -> Tensor:
    """Return sqrt(A) times the first C unit vectors; needs A >= C."""
    return torch.eye(classes, dim, dtype=torch.float64) * math.sqrt(dim)


ANCHOR_INITS: dict[str, Callable[[int, int, Generator], Tensor]] = {
    "gaussian": gaussian,
    "orthogonal": orthogonal,
    "simplex": simplex,
    "one_hot": one_hot,
}


def draw_anchors(name: str, classes: int, dim: int, seed: int) -> Tensor:
    """Return (C, A) float32 anchors on the CPU; the same for every seed-alike rank, whatever the defaults.

    Args:
        name: A key of ``ANCHOR_INITS``.
        classes: C.
        dim: A.
        seed: Seed of the generator.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    with torch.device("cpu"):
        return ANCHOR_INITS[name](classes, dim, generator).to(torch.float32)


def _random_frame(rows: int, columns: int, generator: Generator) -> Tensor:
    """Return (rows, columns) float64 with orthonormal columns, uniform over all such frames."""
    drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    frame, triangle = torch.linalg.qr(drawn)
    return torch.mul(frame, triangle.diagonal().sign())
