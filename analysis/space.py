"""What a study searched: ranges and choices, as its opening says, and where in a range a value lies."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EDGE = 0.05
"""A value so near to an end of its range, as a share of the range, calls for a wider one."""
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BRACKETS = re.compile(rf"\[({_NUMBER}), ({_NUMBER})\](?: (log)| step ({_NUMBER}))?")
_DOTS = re.compile(rf"({_NUMBER}) \.\. ({_NUMBER})(?:, (log)|, step ({_NUMBER}))?")


@dataclass(frozen=True)
class Range:
    """One searched parameter.

    Attributes:
        kind: ``float``, ``int`` or ``choice``.
        low: smallest value; 0 for choices.
        high: largest value; 0 for choices.
        log: values are spread evenly in their logarithm.
        step: distance of neighbouring values; None for all of them.
        choices: the values of a ``choice``.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def position(self, value: float) -> float:
        """Return where a value lies, 0 at the low and 1 at the high end, on the scale that is searched."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(value) - low) / (high - low) if value > 0 else -math.inf
        return (value - self.low) / (self.high - self.low)

    def holds(self, value: object) -> bool:
        """Return whether a value is one that the search can propose; choices are compared as text."""
        if self.kind == "choice":
            return str(value) in map(str, self.choices)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        step = self.step or (1.0 if self.kind == "int" else None)
        if step is None or not self.low <= value <= self.high:
            return self.low <= value <= self.high
        steps = (value - self.low) / step
        return abs(steps - round(steps)) < 1e-6

    def edge(self, value: object) -> str:
        """Return ``low`` or ``high`` for a number within ``EDGE`` of that end, or beyond it; else ''."""
        if self.kind == "choice" or isinstance(value, bool) or not isinstance(value, (int, float)):
            return ""
        at = self.position(value)
        return "low" if at <= EDGE else "high" if at >= 1 - EDGE else ""


def read_space(opening: Mapping[str, Any]) -> dict[str, Range]:
    """Return the searched parameters by name; of older openings, which have text alone, what can be read.

    The text rounds bounds to six digits and does not tell whole numbers from others; choices are its words.

    Args:
        opening: payload of a ``study_opened``.
    """
    plan = opening.get("plan") or {}
    if plan.get("ranges") is not None:
        return {key: _structured(found) for key, found in plan["ranges"].items()}
    read = {key: _from_text(text) for key, text in (plan.get("space") or {}).items() if isinstance(text, str)}
    return {key: found for key, found in read.items() if found is not None}


def _structured(found: Mapping[str, Any]) -> Range:
    """Return a range from its parts."""
    if found["kind"] == "choice":
        return Range("choice", choices=tuple(found["choices"]))
    step = found.get("step")
    return Range(
        found["kind"], float(found["low"]), float(found["high"]), bool(found.get("log")), step and float(step)
    )


def _from_text(text: str) -> Range | None:
    """Return a range from ``[0.001, 0.1] log``, ``0 .. 3, step 1`` or ``{a, b}``; None for anything else."""
    if text.startswith("{") and text.endswith("}"):
        return Range("choice", choices=tuple(text[1:-1].split(", ")))
    found = _BRACKETS.fullmatch(text) or _DOTS.fullmatch(text)
    if found is None:
        return None
    low, high, log, step = found.groups()
    if not float(low) < float(high) or (log and float(low) <= 0):
        return None
    return Range("float", float(low), float(high), bool(log), float(step) if step else None)
