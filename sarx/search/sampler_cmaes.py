"""CMA-ES on the unit cube: a batch is a generation, and the optimizer is rebuilt from its earlier ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sarx.search.axes import to_unit, unit_point
from sarx.search.told import FINISHED, STOPPED, Proposal, Told, losses, outcome, usable
from sarx.study.space import Parameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SIGMA = 1 / 6
"""First step size, in widths of a range."""
UNKNOWN = (2, 0.0, 0.0)
"""Rank of a trial without a value: last."""


def check(space: Sequence[Parameter], population: int) -> None:
    """Refuse a space or a population that the sampler cannot search with.

    Raises:
        ValueError: For a list of choices, or fewer than two points in a batch.
    """
    for parameter in space:
        if parameter.kind == "choice":
            raise ValueError(
                f"cmaes moves along numbers and {parameter.key} is a list of choices; use tpe or qmc"
            )
    if population < 2:
        raise ValueError(f"cmaes compares the points of a batch; a batch of {population} is too small")


def batch(
    space: Sequence[Parameter],
    *,
    seed: int,
    size: int,
    history: Sequence[Told],
    modes: Sequence[str],
) -> list[Proposal]:
    """Return the next generation of ``size`` points; only the first goal counts.

    Points are ranked within their generation: finished trials by value, then stopped ones by epoch and
    value there, then diverged and failed ones. A generation of which nothing is known changes nothing. The
    search starts at the best finished point before its first generation, or in the middle of the space;
    it starts again like this when ``size`` or the number of parameters changes.

    Args:
        space: Parameters of the arm, numbers all.
        seed: Seed of this batch.
        size: Points to propose, at least 2.
        history: All earlier points in order.
        modes: ``max`` or ``min`` for each goal.

    Raises:
        ValueError: For a list of choices, fewer than two points in a batch, or a history whose memories are
            not those of its generations.
    """
    import numpy as np
    from cmaes import CMA  # type: ignore[import-untyped]

    check(space, size)
    before, generations = _split(history, len(space), size)
    with np.errstate(divide="ignore"):  # of populations 2 and 3, which have one parent, inside cmaes
        optimizer = CMA(
            mean=_start(space, before, modes),
            sigma=SIGMA,
            bounds=np.array([[0.0, 1.0]] * len(space)),
            population_size=size,
            seed=seed % 2**32,  # telling draws nothing, so this seeds the asking alone
        )
        for generation in generations:
            if solutions := _ranked(generation, modes):
                optimizer.tell(solutions)
        asked = [optimizer.ask().tolist() for _ in range(size)]
    return [
        Proposal(unit_point(space, x), {"generation": len(generations), "population": size, "x": x})
        for x in asked
    ]


def _split(
    history: Sequence[Told], dimensions: int, population: int
) -> tuple[Sequence[Told], list[Sequence[Told]]]:
    """Return what came before the latest search, and its generations in order."""
    last = history[-1].memory if history else {}
    if last.get("population") != population or len(last["x"]) != dimensions:
        return history, []
    first = len(history) - (last["generation"] + 1) * population
    latest = history[max(first, 0) :]
    found = [(told.memory.get("generation"), told.memory.get("population")) for told in latest]
    if first < 0 or found != [(i // population, population) for i in range(len(latest))]:
        return history, []  # proposed under other terms, such as another startup
    return history[:first], [latest[i : i + population] for i in range(0, len(latest), population)]


def _start(
    space: Sequence[Parameter], history: Sequence[Told], modes: Sequence[str]
) -> npt.NDArray[np.float64]:
    import numpy as np

    finished = [told for told in usable(space, history) if outcome(told) == FINISHED]
    if not finished:
        return np.full(len(space), 0.5)
    best = min(finished, key=lambda told: losses(told, modes)[0])
    return np.array([to_unit(p, best.point[p.key]) for p in space])


def _ranked(generation: Sequence[Told], modes: Sequence[str]) -> list[tuple[Any, float]]:
    """Return (x, rank) of a generation; nothing if it has no value at all."""
    import numpy as np

    keys = [_key(told, modes) for told in generation]
    order = sorted(set(keys))
    if order == [UNKNOWN]:
        return []
    return [
        (np.array(told.memory["x"]), float(order.index(key)))
        for told, key in zip(generation, keys, strict=True)
    ]


def _key(told: Told, modes: Sequence[str]) -> tuple[int, float, float]:
    state = outcome(told)
    if state == FINISHED:
        return 0, 0.0, losses(told, modes)[0]
    if state == STOPPED:
        return 1, -float(told.epoch), losses(told, modes)[0] if told.values else math.inf
    return UNKNOWN
