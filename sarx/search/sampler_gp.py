"""Gaussian process with expected improvement: Optuna's, one fresh study for each batch. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from sarx.search.axes import levels_of
from sarx.search.fresh_study import Known, ask
from sarx.search.told import DIVERGED, FINISHED, STOPPED, Point, Told, outcome, usable, worst
from sarx.study.space import Parameter

MAX_LEVELS = 100_000


def check(space: Sequence[Parameter]) -> None:
    """Refuse a space that the sampler cannot search.

    Raises:
        ValueError: For a range with more values than ``MAX_LEVELS``: Optuna makes a list of them.
    """
    for parameter in space:
        if (count := levels_of(parameter) or 0) > MAX_LEVELS:
            raise ValueError(
                f"{parameter.key} has {count} values; gp lists them all and takes at most {MAX_LEVELS}: "
                "give a larger step, or use tpe or qmc"
            )


def batch(
    space: Sequence[Parameter], *, seed: int, size: int, history: Sequence[Told], modes: Sequence[str]
) -> list[Point]:
    """Return the next points; each takes those before it in the batch as running, of unknown value.

    Noise is estimated. With several goals points are chosen by expected gain in hypervolume. A diverged
    trial is told the worst finished value of each goal, or nothing while nothing finished; a failed one
    teaches nothing. A stopped trial is told its value at the rung, moved to between the median and the worst
    finished value. With nothing to learn from, points are uniform draws.

    Args:
        space: Parameters of the arm.
        seed: Seed of this batch.
        size: Points to propose.
        history: All earlier points in order.
        modes: ``max`` or ``min`` for each goal.

    Raises:
        ValueError: For a range of too many whole numbers or steps.
    """
    import optuna
    from optuna._gp.thread_limiting import limit_threads_in_optimization

    check(space)
    bad, middle = worst(history, modes), _medians(history)
    values = [(told.point, _values(told, bad, middle)) for told in usable(space, history)]
    trials = [Known(point, "COMPLETE", known) for point, known in values if known]
    sampler = optuna.samplers.GPSampler(
        seed=seed % 2**32, n_startup_trials=1, deterministic_objective=False, warn_independent_sampling=False
    )
    with limit_threads_in_optimization():  # last digits depend on the threads, and one is ~10 times faster
        return ask(space, sampler, trials, size=size, modes=modes)


def _medians(history: Sequence[Told]) -> tuple[float, ...]:
    finished = [told.values for told in history if outcome(told) == FINISHED]
    return tuple(median(column) for column in zip(*finished, strict=True))


def _values(told: Told, bad: tuple[float, ...] | None, middle: tuple[float, ...]) -> tuple[float, ...] | None:
    state = outcome(told)
    if state == FINISHED:
        return told.values
    if state == DIVERGED:
        return bad
    if state == STOPPED and told.values:
        if not bad:
            return told.values
        return tuple(sorted(three)[1] for three in zip(told.values, middle, bad, strict=True))
    return None
