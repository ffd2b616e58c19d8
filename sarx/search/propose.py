"""Proposals as pure functions: the same arguments give the same points, whatever ran before.

Samplers keep no state here. One is made for each batch and told the arm's history; what it must remember goes
with its proposals into the ledger and comes back in the history.
"""

from __future__ import annotations

from collections.abc import Sequence

from sarx.search import (
    sampler_cmaes,
    sampler_gp,
    sampler_grid,
    sampler_qmc,
    sampler_random,
    sampler_tpe,
)
from sarx.search.confounding import confounding
from sarx.search.told import Point, Proposal, Told
from sarx.study.search_options import Sampler
from sarx.study.seeds import derive
from sarx.study.space import Parameter

__all__ = ["Point", "Proposal", "Told", "check", "common_point", "confounding", "next_batch"]


def common_point(space: Sequence[Parameter], sampler: str, *, seed: int, index: int) -> Point:
    """Return point ``index`` of the sequence that all arms share: values by dotted key.

    ``space`` is the whole space of the study; an arm takes the parameters it has from the point, so shared
    parameters are equal in all arms. Index 0 is the default, an empty point, but for a grid, whose cell 0 it
    is. For tpe, gp and cmaes these are the start-up points, those of qmc.

    Args:
        space: Searched parameters, in the order of the study.
        sampler: Name of a sampler.
        seed: The study's seed, or that of a repeat.
        index: Position in the search, from 0.

    Raises:
        ValueError: If a grid has no cell ``index``.
    """
    if sampler == "grid":
        return sampler_grid.point(space, index)
    if index == 0 or not space:
        return {}
    draw = sampler_random.point if sampler == "random" else sampler_qmc.point
    return draw(space, seed, index - 1)


def next_batch(
    space: Sequence[Parameter],
    sampler: Sampler,
    *,
    seed: int,
    start: int,
    size: int,
    history: Sequence[Told],
    modes: Sequence[str],
) -> list[Proposal]:
    """Return proposals ``start`` to ``start + size - 1`` of one arm by tpe, gp or cmaes.

    Args:
        space: Searched parameters of the arm, at least one.
        sampler: The sampler; its start-up points, from ``common_point``, are part of the history.
        seed: Seed of this search of the arm.
        start: Index of the first proposal.
        size: Number of proposals.
        history: All earlier points of the arm, in order.
        modes: ``max`` or ``min`` for each goal.

    Raises:
        ValueError: If the sampler cannot search this space; see ``check``.
    """
    check(space, sampler.name, batch=size)
    seed = derive(seed, start)
    if sampler.name == "cmaes":
        return sampler_cmaes.batch(space, seed=seed, size=size, history=history, modes=modes)
    batch = {"tpe": sampler_tpe.batch, "gp": sampler_gp.batch}[sampler.name]
    points = batch(space, seed=seed, size=size, history=history, modes=modes)
    return [Proposal(point) for point in points]


def check(space: Sequence[Parameter], sampler: str, *, batch: int) -> None:
    """Refuse what ``next_batch`` cannot do, before anything runs. Imports nothing heavy.

    Args:
        space: Searched parameters of an arm.
        sampler: Name of a sampler.
        batch: Proposals made together.

    Raises:
        ValueError: For a sampler without a model; an empty space; with cmaes a list of choices or a batch
            of one; with gp a range of too many whole numbers or steps.
    """
    if sampler not in ("tpe", "gp", "cmaes"):
        raise ValueError(f"{sampler} learns nothing from results; its points are common_point's")
    if not space:
        raise ValueError(f"{sampler} has nothing to search: the space is empty")
    if sampler == "gp":
        sampler_gp.check(space)
    if sampler == "cmaes":
        sampler_cmaes.check(space, batch)
