"""What a sampler is told about earlier points, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sarx.search.axes import on_axis
from sarx.study.space import Parameter

Point = dict[str, Any]

FINISHED, STOPPED, DIVERGED, FAILED = "finished", "stopped", "diverged", "failed"


@dataclass(frozen=True)
class Told:
    """One earlier point of an arm and what came of it.

    Attributes:
        point: Value of every searched parameter of the arm; of index 0 the default's own values, which alone
            may lie outside the ranges.
        state: ``finished``, ``stopped`` (early, at a rung), ``diverged`` or ``failed``.
        values: One per goal, in the user's units; of a stopped trial those at its rung.
        epoch: The rung of a stopped trial.
        memory: What the sampler asked to remember with this proposal.
    """

    point: Mapping[str, Any]
    state: str
    values: tuple[float, ...] = ()
    epoch: int = 0
    memory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """A point to try.

    Attributes:
        point: Value of every searched parameter: plain int, float, str, bool or None.
        memory: JSON values that the sampler wants back in ``Told.memory``.
    """

    point: Point
    memory: Mapping[str, Any] = field(default_factory=dict)


def usable(space: Sequence[Parameter], history: Sequence[Told]) -> list[Told]:
    """Return the told points that a sampler could have proposed: without a default outside its ranges."""
    return [told for told in history if all(on_axis(p, told.point[p.key]) for p in space)]


def outcome(told: Told) -> str:
    """Return the state as samplers take it: a value that is not finite is divergence, none is failure."""
    if told.state not in (FINISHED, STOPPED):
        return told.state
    if not all(math.isfinite(value) for value in told.values):
        return DIVERGED
    return FAILED if told.state == FINISHED and not told.values else told.state


def losses(told: Told, modes: Sequence[str]) -> tuple[float, ...]:
    """Return the values with their signs turned so that less is better."""
    return tuple(-v if mode == "max" else v for v, mode in zip(told.values, modes, strict=False))


def worst(history: Sequence[Told], modes: Sequence[str]) -> tuple[float, ...] | None:
    """Return the worst finished value of each goal, in the user's units; None if nothing finished."""
    finished = [told.values for told in history if outcome(told) == FINISHED]
    if not finished:
        return None
    return tuple(
        min(column) if mode == "max" else max(column)
        for column, mode in zip(zip(*finished, strict=True), modes, strict=True)
    )
