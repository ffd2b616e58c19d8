"""A study as typed values, each checked on construction. Standard library alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sarx.config.errors import UserError
from sarx.config.schema.options import check_fields, option
from sarx.study.space import Parameter


@dataclass(kw_only=True, slots=True)
class Objective:
    """What search maximises or minimises; it sees nothing else."""

    metric: str = "val/miou"
    mode: str = option("max", choices=("max", "min"))

    def __post_init__(self) -> None:
        """Check that the metric is of the selection split."""
        check_fields(self, "objective")
        if not self.metric.startswith("val/"):
            raise UserError(
                f"{self.metric!r} is not a metric of the selection split; search may only see "
                "val/... such as val/miou",
                key="objective.metric",
            )


@dataclass(kw_only=True, slots=True)
class Report:
    """What the table reports, and the smallest difference that would matter."""

    primary: str = "test/miou"
    smallest_effect: float = option(0.005, above=0.0, high=1e6)
    secondary: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check that the metrics are of the report split."""
        for key, names in (("primary", [self.primary]), ("secondary", self.secondary)):
            for name in names:
                if not name.startswith("test/"):
                    raise UserError(
                        f"{name!r} is not a metric of the report split, such as test/miou",
                        key=f"report.{key}",
                    )


@dataclass(kw_only=True, slots=True)
class Ablation:
    """The rows of the table: arms by name, each for every level of the factors."""

    reference: str
    arms: dict[str, dict[str, Any]]
    factors: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Search:
    """How every arm is tuned."""

    scope: str = option("per_arm", choices=("per_arm", "none"))
    parameters: dict[str, Parameter] = field(default_factory=dict)
    trials_per_arm: int = option(8, low=1, high=100_000)
    batch: int = option(4, low=1, high=10_000)
    sampler: str = option("qmc", choices=("qmc", "random"))
    scheduler: str = option("none", choices=("none",))

    def __post_init__(self) -> None:
        """Check that the batch divides the trials."""
        if self.scope == "per_arm" and self.trials_per_arm % self.batch:
            raise UserError(
                f"{self.trials_per_arm} is not a multiple of search.batch = {self.batch}",
                key="search.trials_per_arm",
            )


@dataclass(kw_only=True, slots=True)
class Confirm:
    """How often the winner of each arm is trained again, on fresh seeds shared by all arms."""

    seeds: int = option(5, low=1, high=1000)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "confirm")


@dataclass(kw_only=True, slots=True)
class Resources:
    """What one trial occupies."""

    num_workers: int = option(1, low=1, high=1)
    cpus_per_worker: int = option(1, low=1, high=1024)
    gpus_per_worker: float = option(0.0, low=0.0, high=16.0)

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "resources")


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
    seed: int = option(0, low=0, high=2**63 - 1)
    max_failures: int = option(1, low=0, high=1000)
    budget: str = ""
    question: str = ""
    file: str = ""
