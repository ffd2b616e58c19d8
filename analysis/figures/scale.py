"""Where values of a searched option lie on its axis: 0 and 1 are the ends of the range that is searched."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.figures.search_points import Point
from analysis.sources import Sources
from analysis.space import Range

OUTSIDE = 0.07
"""How far beyond its end a value outside the range is drawn."""


@dataclass(frozen=True)
class Scale:
    """The axis of one option.

    Attributes:
        low: lower end, of a range of numbers.
        high: upper end.
        log: whether the range is searched in logarithms.
        choices: what else is chosen from, as text; empty for a range of numbers.
        known: whether the ends are those of the space; else they are those of the values that were tried.
    """

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[str, ...] = ()
    known: bool = True

    def place(self, value: Any) -> float | None:
        """Return where a value lies: in [0, 1] within the range, just beyond an end outside; None nowhere."""
        if self.choices:
            if str(value) not in self.choices:
                return None
            return (self.choices.index(str(value)) + 0.5) / len(self.choices)
        if not _is_number(value):
            return None
        if self.low == self.high and value == self.low:
            return 0.5
        if value < self.low or value > self.high or self.low == self.high:
            return -OUTSIDE if value < self.low else 1 + OUTSIDE
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def ticks(self) -> list[tuple[float, str]]:
        """Return places and labels of the ends, or of the choices."""
        if self.choices:
            return [((at + 0.5) / len(self.choices), text) for at, text in enumerate(self.choices)]
        if self.low == self.high:
            return [(0.5, f"{self.low:g}")]
        return [(0.0, f"{self.low:g}"), (1.0, f"{self.high:g}")]


def scales(sources: Sources, points: Iterable[Point]) -> dict[str, Scale]:
    """Return the scale of every option that was searched, in the order of the space.

    The range is that of the last start; where the ledger does not say, that of the values that were tried.
    """
    space = sources.study.space
    tried: dict[str, list[Any]] = {}
    for point in points:
        for name, value in (point.parameters or {}).items():
            tried.setdefault(name, []).append(value)
    order = [name for name in space if name in tried] + sorted(set(tried) - set(space))
    return {name: scale_of(space.get(name), tried[name]) for name in order}


def scale_of(found: Range | None, tried: Sequence[Any]) -> Scale:
    """Return the scale of a range; None: not known."""
    if found is not None and found.kind == "choice":
        choices = [*map(str, found.choices)]
        return Scale(choices=(*choices, *_others(tried, choices)))
    if found is not None:
        return Scale(found.low, found.high, found.log)
    numbers = [float(value) for value in tried if _is_number(value)]
    if numbers and len(numbers) == len(tried):
        return Scale(min(numbers), max(numbers), known=False)
    return Scale(choices=tuple(_others(tried, ())), known=False)


def _others(tried: Sequence[Any], known: Sequence[str]) -> list[str]:
    """Return the values that were tried besides the known ones, as text, each once, in their order."""
    return [text for text in dict.fromkeys(map(str, tried)) if text not in known]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
