"""Tree-structured Parzen estimator: Optuna's, over all parameters jointly, one fresh study for each batch."""

from __future__ import annotations

from collections.abc import Sequence

from sarx.search.fresh_study import Known, ask
from sarx.search.told import DIVERGED, FAILED, FINISHED, Point, Told, outcome, usable, worst
from sarx.study.space import Parameter


def batch(
    space: Sequence[Parameter], *, seed: int, size: int, history: Sequence[Told], modes: Sequence[str]
) -> list[Point]:
    """Return the next points; the points of a batch count as bad ones for those after them.

    A diverged trial is told the worst finished value of each goal, or nothing while nothing finished; a
    failed one teaches nothing. A stopped trial ranks behind all finished ones: with one goal by its epoch
    and its value there; with several goals, for which Optuna compares no rung values, without an order.
    With nothing to learn from, points are uniform draws.

    Args:
        space: Parameters of the arm.
        seed: Seed of this batch.
        size: Points to propose.
        history: All earlier points in order.
        modes: ``max`` or ``min`` for each goal.
    """
    import optuna

    bad = worst(history, modes)
    known = [_known(told, bad, len(modes)) for told in usable(space, history)]
    sampler = optuna.samplers.TPESampler(
        seed=seed % 2**32, multivariate=True, constant_liar=True, n_startup_trials=0
    )
    return ask(space, sampler, [each for each in known if each], size=size, modes=modes)


def _known(told: Told, bad: tuple[float, ...] | None, goals: int) -> Known | None:
    state = outcome(told)
    if state == FINISHED:
        return Known(told.point, "COMPLETE", told.values)
    if state == DIVERGED:
        return Known(told.point, "COMPLETE", bad) if bad else None
    if state == FAILED:
        return Known(told.point, "FAIL")
    rung = {told.epoch: told.values[0]} if told.values and goals == 1 else {}
    return Known(told.point, "PRUNED", rung=rung)
