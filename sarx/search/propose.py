"""Proposals as pure functions: the same arguments give the same points, whatever ran before.

The only place that imports Optuna. Optuna's samplers keep state; here a fresh one is made for every call.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sarx.study.seeds import derive
from sarx.study.space import Parameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import optuna

SCRAMBLINGS = 64

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
    """Return point ``index`` of a scrambled Halton sequence.

    Choices are positions on an integer axis, since Optuna's QMC sampler would draw categories at random.
    """
    import optuna

    with _quiet():
        sampler = optuna.samplers.QMCSampler(
            qmc_type="halton",
            scramble=True,
            seed=scrambling(len(space), seed),
            warn_independent_sampling=False,
            warn_asynchronous_seeding=False,
        )
        study = optuna.create_study(sampler=sampler)
        axes = {parameter.key: _axis(parameter) for parameter in space}
        study.add_trial(optuna.create_trial(params=_low(axes), distributions=axes, value=0.0))
        for _ in range(index):
            study.ask(axes)
        return _point(space, study.ask(axes).params)


@cache
def scrambling(dimensions: int, seed: int) -> int:
    """Return the scrambling, among ``SCRAMBLINGS`` drawn from the seed, that mixes parameters best.

    Few points in many dimensions confound parameters: over 7 points in 6 dimensions the largest correlation
    between two of them is about .8 for a random scrambling, Sobol or Halton, and about .5 for
    the best of these. The choice looks at the first 7 and 15 points, whatever number is used.
    """
    from scipy.stats import qmc as sequences

    def confounding_of(candidate: int) -> float:
        points = sequences.Halton(dimensions, scramble=True, seed=candidate).random(15)
        return max(largest_correlation(points[:7]), largest_correlation(points))

    candidates = [derive(seed, "qmc", i) % 2**32 for i in range(SCRAMBLINGS)]
    return min(candidates, key=confounding_of) if dimensions > 1 else candidates[0]


def largest_correlation(points: npt.NDArray[np.float64]) -> float:
    """Return the largest absolute correlation between two columns of (n, d) points; 0 for one column."""
    import numpy as np

    if points.shape[1] < 2:
        return 0.0
    correlation = np.atleast_2d(np.corrcoef(points.T))
    np.fill_diagonal(correlation, 0.0)
    return float(np.abs(correlation).max())


def confounding(
    space: Sequence[Parameter], own: Sequence[Parameter], sampler: str, *, seed: int, trials: int
) -> tuple[float, str, str]:
    """Return the largest correlation between two parameters of an arm over its proposals, and which two.

    Each parameter is taken on the axis it is drawn on (log or linear; choices by position).

    Args:
        space: Space of the study, which the proposals come from.
        own: The parameters of the arm.
        sampler: A key of ``SAMPLERS``.
        seed: The study's seed.
        trials: Proposals of the arm, the default at index 0 included; of fewer than 6 nothing is said.
    """
    import numpy as np

    if len(own) < 2 or trials < 6:
        return 0.0, "", ""
    points = [propose(space, sampler, seed=seed, index=i) for i in range(1, trials)]
    columns = np.array([[_position(p, point[p.key]) for p in own] for point in points])
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.nan_to_num(np.abs(np.corrcoef(columns.T)))
    np.fill_diagonal(correlation, 0.0)
    first, second = np.unravel_index(correlation.argmax(), correlation.shape)
    return float(correlation.max()), own[int(first)].key, own[int(second)].key


def _position(parameter: Parameter, value: Any) -> float:
    if parameter.kind == "choice":
        return float(parameter.choices.index(value))
    return math.log(value) if parameter.log else float(value)


def random(space: Sequence[Parameter], seed: int, index: int) -> Point:
    """Return an independent uniform (or log-uniform) draw."""
    import optuna

    with _quiet():
        sampler = optuna.samplers.RandomSampler(seed=derive(seed, "random", index) % 2**32)
        axes = {parameter.key: _axis(parameter) for parameter in space}
        return _point(space, optuna.create_study(sampler=sampler).ask(axes).params)


SAMPLERS: dict[str, Callable[[Sequence[Parameter], int, int], Point]] = {"qmc": qmc, "random": random}


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
