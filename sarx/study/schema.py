"""A study as typed values, each checked on construction. Standard library alone."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

from sarx.config.errors import UserError
from sarx.config.schema.options import check_fields, check_value, coerce, option
from sarx.study.search_options import Search

COST = "time/train_s"
"""Seconds that a trial has trained and evaluated so far, a cost that search may weigh."""


@dataclass(kw_only=True, slots=True)
class Goal:
    """One thing to maximise or minimise: a metric of the selection split, or a cost (``time/...``)."""

    metric: str
    mode: str = option("max", choices=("max", "min"))

    def __post_init__(self) -> None:
        """Check that the metric is one that search may see."""
        if not isinstance(self.metric, str) or not self.metric.startswith(("val/", "time/")):
            raise UserError(
                f"{self.metric!r} is not a metric of the selection split, such as val/miou, nor a cost, such "
                f"as {COST}",
                key="objective.also",
            )


@dataclass(kw_only=True, slots=True)
class Objective:
    """What search maximises or minimises; it sees nothing else.

    The winner of an arm is the best in ``metric``. Goals in ``also`` are seen by samplers that weigh several
    (tpe) and give a table of the trials that no other beats in everything.
    """

    metric: str = "val/miou"
    mode: str = option("max", choices=("max", "min"))
    also: list[Goal] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check that the metric is of the selection split."""
        if not isinstance(self.metric, str) or not self.metric.startswith("val/"):
            raise UserError(
                f"{self.metric!r} is not a metric of the selection split; search may only see "
                "val/... such as val/miou",
                key="objective.metric",
            )
        if len({self.metric, *(goal.metric for goal in self.also)}) < 1 + len(self.also):
            raise UserError("a metric stands twice", key="objective.also")

    @property
    def goals(self) -> list[Goal]:
        """All goals, the one that decides first."""
        return [Goal(metric=self.metric, mode=self.mode), *self.also]


@dataclass(kw_only=True, slots=True)
class Cited:
    """A value of ``report.primary`` that others published: shown apart, never tested, never run.

    Attributes:
        name: What the row is called, any printable text.
        value: In the unit of ``report.primary``.
        source: Where it is printed, such as ``Chen et al. 2018, table 5``.
        setting: How it was obtained, as far as it differs from the study's own.
    """

    name: str
    value: float
    source: str
    setting: str = ""


@dataclass(kw_only=True, slots=True)
class Report:
    """What the table reports, and the smallest difference that would matter.

    ``orientation`` says for arms what others reach on ``primary`` with the same settings. These arms run
    first, and the table warns where one stays more than a point (.01) below: then the training is to be
    looked at before anything is compared. ``cited`` are rows of others, printed in a table of their own.
    """

    primary: str = "test/miou"
    smallest_effect: float = option(0.005, above=0.0, high=1e6)
    secondary: list[str] = field(default_factory=list)
    orientation: dict[str, float] = field(default_factory=dict)
    cited: list[Cited] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check that the metrics are of the report split."""
        for key, names in (("primary", [self.primary]), ("secondary", self.secondary)):
            for name in names:
                if not name.startswith("test/"):
                    raise UserError(
                        f"{name!r} is not a metric of the report split, such as test/miou",
                        key=f"report.{key}",
                    )


DESIGNS = ("explicit", "one_factor_at_a_time", "leave_one_out", "factorial", "fractional")


@dataclass(kw_only=True, slots=True)
class Ablation:
    """The rows of the table: arms by name, each for every level of the factors.

    Attributes:
        reference: Name of the arm that all others are compared with.
        arms: Arm name -> overrides. Of a design other than ``explicit`` they come from ``components``, and
            arms that the file names beside them are added.
        factors: Option -> levels; every arm exists at every level.
        design: How arms come from components.
        components: Component -> level name -> overrides, the first level being the component present.
        cells: Cells of the design by name, each with the level of every component; its own reference first.
        excluded: Cells of the design that were left out, each with its reason.
    """

    reference: str
    arms: dict[str, dict[str, Any]]
    factors: dict[str, list[Any]] = field(default_factory=dict)
    design: str = option("explicit", choices=DESIGNS)
    components: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    cells: dict[str, dict[str, str]] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class Confirm:
    """How often the winner of each arm is trained again, on fresh seeds shared by all arms.

    ``looks`` are numbers of seeds at which the results may be looked at, said up front: p-values are
    multiplied by how many there are, and going from one to the next is no change of the plan (protocol 11).
    """

    seeds: int = option(5, low=1, high=1000)
    looks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check every field."""
        (seeds,) = (item for item in fields(self) if item.name == "seeds")
        self.seeds = coerce(self.seeds, (int,), "confirm.seeds")
        check_value(self.seeds, seeds.metadata, "confirm.seeds")
        if not isinstance(self.looks, (list, tuple)):
            raise UserError(
                f"expected numbers of seeds such as [5, 10], found {self.looks!r}", key="confirm.looks"
            )
        self.looks = tuple(coerce(look, (int,), "confirm.looks") for look in self.looks)
        ascending = all(one < other for one, other in pairwise((1, *self.looks)))
        if self.looks and not (ascending and self.seeds in self.looks):
            raise UserError(
                f"expected rising numbers of seeds from 2 on, confirm.seeds={self.seeds} one of them, found "
                f"{list(self.looks)}",
                key="confirm.looks",
            )


@dataclass(kw_only=True, slots=True)
class Resources:
    """What one trial occupies.

    Attributes:
        num_workers: Processes that train a trial together; more than one go through Ray Train.
        min_workers: With fewer than ``num_workers`` at hand a trial goes on with as many as there are, but
            not fewer than these; 0: always ``num_workers``.
        placement: Whether the workers of a trial rather share nodes (pack) or have one each (spread).
        session: ``warm``: the workers of a trial serve the next one too; ``cold``: each has its own.
        collective_timeout_s: Seconds after which a worker that waits for the others gives up.
    """

    num_workers: int = option(1, low=1, high=100_000)
    min_workers: int = option(0, low=0, high=100_000)
    cpus_per_worker: int = option(1, low=1, high=1024)
    gpus_per_worker: float = option(0.0, low=0.0, high=16.0)
    placement: str = option("pack", choices=("pack", "spread"))
    session: str = option("warm", choices=("warm", "cold"))
    collective_timeout_s: float = option(600.0, low=1.0, high=1e6)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "resources")
        if self.min_workers > self.num_workers:
            raise UserError(
                f"{self.min_workers} is more than resources.num_workers = {self.num_workers}",
                key="resources.min_workers",
            )
        if self.num_workers > 1 and 0 < self.gpus_per_worker < 1:
            raise UserError(
                f"workers that train together cannot share a GPU, found {self.gpus_per_worker:g}; give each "
                "a whole one, or take one worker",
                key="resources.gpus_per_worker",
            )

    @property
    def fewest_workers(self) -> int:
        """Workers that a trial needs at least."""
        return self.min_workers or self.num_workers


@dataclass(kw_only=True, slots=True)
class Limits:
    """Where a run of the study stops by itself; the same command goes on from there. 0: no limit.

    Attributes:
        max_hours: Wall-clock hours of one start of the driver.
        max_trials: Trials that the study may decide, over all starts.
        max_gpu_hours: GPU hours of all attempts, over all starts.
        trial_minutes: Minutes that one attempt may take; longer is a failure called ``timed_out``.
    """

    max_hours: float = option(0.0, low=0.0, high=1e6)
    max_trials: int = option(0, low=0, high=10**9)
    max_gpu_hours: float = option(0.0, low=0.0, high=1e9)
    trial_minutes: float = option(0.0, low=0.0, high=1e6)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "limits")


@dataclass(kw_only=True, slots=True)
class Study:
    """One YAML file, one results folder."""

    study: str
    base: list[str]
    ablation: Ablation
    objective: Objective = field(default_factory=Objective)
    report: Report = field(default_factory=Report)
    search: Search = field(default_factory=Search)
    confirm: Confirm = field(default_factory=Confirm)
    resources: Resources = field(default_factory=Resources)
    limits: Limits = field(default_factory=Limits)
    seed: int = option(0, low=0, high=2**63 - 1)
    max_failures: int = option(1, low=0, high=1000)
    budget: str = ""
    question: str = ""
    file: str = ""
