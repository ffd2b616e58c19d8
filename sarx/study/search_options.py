"""The ``search`` section of a study as typed values, each checked on construction. Standard library alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sarx.config.errors import UserError
from sarx.config.schema.options import check_fields, option
from sarx.study.space import Parameter, cells

SAMPLERS = ("qmc", "random", "grid", "tpe", "gp", "cmaes")
COMMON = frozenset({"qmc", "random", "grid"})
"""Samplers whose points depend on their index alone, so that all arms get the same."""
SCHEDULERS = ("none", "successive_halving", "asha", "median")
TIMED = frozenset({"asha", "median"})
"""Schedulers that judge a trial by those that happened to be there before it."""


@dataclass(kw_only=True, slots=True)
class Sampler:
    """Who proposes points.

    ``startup``: points of the common sequence before a model takes over (tpe, gp, cmaes); the default at
    index 0 counts as one of them.
    """

    name: str = option("qmc", choices=SAMPLERS)
    startup: int = option(8, low=1, high=100_000)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "search.sampler")


@dataclass(kw_only=True, slots=True)
class Scheduler:
    """When a search trial is stopped early.

    ``min_fraction``: share of training before the first judgement. ``reduction_factor``: of this many trials
    one goes on (successive_halving, asha). ``min_trials``: values at a rung before anything is stopped there
    (median).
    """

    name: str = option("none", choices=SCHEDULERS)
    min_fraction: float = option(1 / 3, above=0.0, below=1.0)
    reduction_factor: int = option(3, low=2, high=1000)
    min_trials: int = option(4, low=2, high=100_000)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "search.scheduler")


@dataclass(kw_only=True, slots=True)
class Finalists:
    """The best ``top`` trials of each arm run again on ``seeds`` seeds before one is chosen; 0: none."""

    top: int = option(0, low=0, high=1000)
    seeds: int = option(2, low=1, high=1000)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "search.finalists")


@dataclass(kw_only=True, slots=True)
class Search:
    """How every arm is tuned.

    Attributes:
        scope: ``per_arm``: every arm is tuned; ``shared``: the arm ``tune_on`` is tuned and its winner's
            values are used by all arms that have the option; ``none``: defaults only.
        trials_per_arm: Proposals of each arm; of a grid its cells.
        batch: Proposals that are made, and judged at a rung, together.
        repeats: Independent searches of each arm; confirm seed k goes to the winner of search k % repeats.
        overrides: Options of search trials alone, such as fewer steps; finalists and confirm never see them.
        reproducible: Whether equal recorded results must give equal proposals and rung decisions.
    """

    scope: str = option("per_arm", choices=("per_arm", "shared", "none"))
    tune_on: str = ""
    parameters: dict[str, Parameter] = field(default_factory=dict)
    trials_per_arm: int = option(8, low=1, high=100_000)
    batch: int = option(4, low=1, high=10_000)
    sampler: Sampler = field(default_factory=Sampler)
    scheduler: Scheduler = field(default_factory=Scheduler)
    finalists: Finalists = field(default_factory=Finalists)
    repeats: int = option(1, low=1, high=1000)
    overrides: dict[str, Any] = field(default_factory=dict)
    reproducible: bool = True

    def __post_init__(self) -> None:
        """Check what must go together.

        Raises:
            UserError: Naming the key that does not go with the others.
        """
        if self.scope == "none":
            if self.tune_on or self.repeats > 1 or self.finalists.top:
                key = "tune_on" if self.tune_on else "repeats" if self.repeats > 1 else "finalists"
                raise UserError("has no effect where nothing is searched; remove it", key=f"search.{key}")
            return
        self._check_trials()
        self._check_sampler()
        if self.scheduler.name in TIMED and self.reproducible:
            raise UserError(
                f"{self.scheduler.name} judges a trial by those that ended before it, which is timing; take "
                "successive_halving, or write search.reproducible: false",
                key="search.scheduler",
            )
        if self.scope != "shared" and self.tune_on:
            raise UserError("goes with 'scope: shared' only", key="search.tune_on")
        if self.finalists.top > self.trials_per_arm:
            raise UserError(
                f"{self.finalists.top} finalists of {self.trials_per_arm} trials", key="search.finalists.top"
            )

    @property
    def waits(self) -> bool:
        """Whether a batch must wait for the results of the batch before."""
        return self.sampler.name not in COMMON

    def _check_trials(self) -> None:
        if self.sampler.name == "grid":
            self.trials_per_arm = cells(tuple(self.parameters.values()))
        elif self.trials_per_arm % self.batch:
            raise UserError(
                f"{self.trials_per_arm} is not a multiple of search.batch = {self.batch}",
                key="search.trials_per_arm",
            )

    def _check_sampler(self) -> None:
        name, startup = self.sampler.name, self.sampler.startup
        if name in COMMON:
            return
        if startup >= self.trials_per_arm:
            raise UserError(
                f"{name} starts after {startup} trials of {self.trials_per_arm}: this is random search; "
                f"use qmc, more trials_per_arm, or {{name: {name}, startup: {self.trials_per_arm // 2}}}",
                key="search.sampler",
            )
        if startup % self.batch:
            raise UserError(
                f"startup = {startup} is not a multiple of search.batch = {self.batch}",
                key="search.sampler.startup" if startup != 8 else "search.sampler",
            )
        choices = [p.key for p in self.parameters.values() if p.kind == "choice"]
        if name == "cmaes" and choices:
            raise UserError(
                f"cmaes moves along numbers and {choices[0]} is a list of choices; use tpe or qmc",
                key="search.sampler",
            )
