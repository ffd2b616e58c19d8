"""Cells of a grid by index, each exactly once."""

from __future__ import annotations

from collections.abc import Sequence

from sarx.search.told import Point
from sarx.study.space import Parameter, levels


def point(space: Sequence[Parameter], index: int) -> Point:
    """Return cell ``index``, from 0, of the product of all levels; the first parameter changes slowest.

    Raises:
        ValueError: If the grid has no such cell, or a parameter no finite list of values.
    """
    cell: Point = {}
    rest = index
    for parameter in reversed(space):
        values = levels(parameter)
        rest, at = divmod(rest, len(values))
        cell[parameter.key] = values[at]
    if rest:
        raise ValueError(f"the grid has no cell {index}")
    return {parameter.key: cell[parameter.key] for parameter in space}
