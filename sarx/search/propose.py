"""Proposals as pure functions: the same arguments give the same points, whatever ran before.

The only place that imports Optuna. Optuna's samplers keep state; here a fresh one is made for every call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sarx.study.seeds import derive
from sarx.study.space import Parameter

if TYPE_CHECKING:
    import optuna

Point = dict[str, Any]


def propose(space: Sequence[Parameter], sampler: str, *, seed: int, index: int) -> Point:
    """Return proposal ``index`` of a search: values by dotted key.

    The first proposal is always the default, an empty point. ``space`` is the whole space of the study; an
    arm takes the parameters it has from the point, so shared parameters are equal in all arms.

    Args:
        space: Searched parameters, in the order of the study.
        sampler: A key of ``SAMPLERS``.
        seed: The study's seed.
        index: Position in the search, from 0.
    """
    if index == 0 or not space:
        return {}
    return SAMPLERS[sampler](space, seed, index - 1)


def qmc(space: Sequence[Parameter], seed: int, index: int) -> Point:
    """Return point ``index`` of a scrambled Sobol sequence.

    Choices are positions on an integer axis, since Optuna's QMC sampler would draw categories at random.
    """
    import optuna

    with _quiet():
        sampler = optuna.samplers.QMCSampler(
            qmc_type="sobol",
            scramble=True,
            seed=derive(seed, "qmc") % 2**32,
            warn_independent_sampling=False,
            warn_asynchronous_seeding=False,
        )
        study = optuna.create_study(sampler=sampler)
        axes = {parameter.key: _axis(parameter) for parameter in space}
        study.add_trial(optuna.create_trial(params=_low(axes), distributions=axes, value=0.0))
        for _ in range(index):
            study.ask(axes)
        return _point(space, study.ask(axes).params)


def random(space: Sequence[Parameter], seed: int, index: int) -> Point:
    """Return an independent uniform (or log-uniform) draw."""
    import optuna

    with _quiet():
        sampler = optuna.samplers.RandomSampler(seed=derive(seed, "random", index) % 2**32)
        axes = {parameter.key: _axis(parameter) for parameter in space}
        return _point(space, optuna.create_study(sampler=sampler).ask(axes).params)


SAMPLERS: dict[str, Callable[[Sequence[Parameter], int, int], Point]] = {"qmc": qmc, "random": random}
HISTORY_FREE = frozenset({"qmc", "random"})
"""Samplers whose points do not depend on results, so that a batch need not wait for the one before."""


def _axis(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    import optuna

    if parameter.kind == "choice":
        return optuna.distributions.IntDistribution(0, len(parameter.choices) - 1)
    if parameter.kind == "int":
        step = int(parameter.step or 1)
        return optuna.distributions.IntDistribution(
            int(parameter.low), int(parameter.high), log=parameter.log, step=step
        )
    return optuna.distributions.FloatDistribution(
        parameter.low, parameter.high, log=parameter.log, step=parameter.step
    )


def _low(axes: dict[str, optuna.distributions.BaseDistribution]) -> Point:
    return {key: axis.low for key, axis in axes.items()}  # type: ignore[attr-defined]


def _point(space: Sequence[Parameter], params: Point) -> Point:
    return {p.key: p.choices[params[p.key]] if p.kind == "choice" else params[p.key] for p in space}


class _quiet:
    """Silences Optuna's log lines and its notices about experimental samplers."""

    def __enter__(self) -> None:
        import optuna

        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self.verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    def __exit__(self, *_: object) -> None:
        import optuna

        optuna.logging.set_verbosity(self.verbosity)
        self.caught.__exit__(None, None, None)
