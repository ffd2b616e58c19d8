"""One batch from an Optuna sampler: a study made for it, told the history, asked, and dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sarx.search.axes import axes, decode, encode
from sarx.search.told import Point
from sarx.study.space import Parameter

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Known:
    """One trial of the history in Optuna's terms.

    Attributes:
        point: The point, all of it on its axes.
        state: Name of one of Optuna's trial states.
        values: One per goal, of a complete trial.
        rung: Value of a pruned trial by its epoch.
    """

    point: Mapping[str, Any]
    state: str
    values: Sequence[float] | None = None
    rung: Mapping[int, float] = field(default_factory=dict)


def ask(
    space: Sequence[Parameter],
    sampler: optuna.samplers.BaseSampler,
    history: Sequence[Known],
    *,
    size: int,
    modes: Sequence[str],
) -> list[Point]:
    """Return ``size`` points; those asked before stay running, so that the sampler sees them.

    Args:
        space: Parameters of the arm.
        sampler: A sampler that has seen no other study.
        history: Earlier trials in order.
        size: Points to ask for.
        modes: ``max`` or ``min`` for each goal.
    """
    import numpy as np
    import optuna

    searched = axes(space)
    trials = [
        optuna.create_trial(
            state=optuna.trial.TrialState[known.state],
            values=known.values,
            params=encode(space, known.point),
            distributions=searched,
            intermediate_values=dict(known.rung),
        )
        for known in history
    ]
    with _quiet(), np.errstate(all="ignore"):
        study = optuna.create_study(
            sampler=sampler, directions=["maximize" if mode == "max" else "minimize" for mode in modes]
        )
        study.add_trials(trials)
        return [decode(space, study.ask(searched).params) for _ in range(size)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's log lines."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
