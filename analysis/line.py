"""One line of the checklist."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

YES, NO, NOT_APPLICABLE, NOT_KNOWN = "yes", "no", "not applicable", "not known"


class Line(NamedTuple):
    """A question, one of the four answers, and the evidence in one sentence."""

    question: str
    answer: str
    evidence: str


def answered(question: str, good: bool | None, evidence: str) -> Line:
    """Return a line whose answer is yes or no; for None not known."""
    return Line(question, NOT_KNOWN if good is None else YES if good else NO, evidence)


def shortened(names: Sequence[str], most: int = 6) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def between(numbers: Collection[int]) -> str:
    """Return ``4`` or ``2 to 5``."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
