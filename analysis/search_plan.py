"""How a study searches, as its ``study_opened`` says: read defensively, since older starts say less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COST = "time/train_s"
"""A goal that no trial records: the summed duration of its epochs."""
COMMON = frozenset({"qmc", "random", "grid"})
"""Samplers whose points depend on their index alone, so that all arms get the same."""
TIMED = frozenset({"asha", "median"})
"""Schedulers that judge a trial by those that ended before it."""


@dataclass(frozen=True)
class Goal:
    """A metric, or a cost, and its better direction (``max`` or ``min``)."""

    metric: str
    mode: str


@dataclass(frozen=True)
class SearchPlan:
    """How every arm is tuned.

    Attributes:
        scheduler: what stops search trials early; ``none`` otherwise.
        rungs: epochs at which it judges; None if the ledger does not say.
        finalists: the best trials of a search that run again before one is chosen; 0: none; None if the
            ledger does not say.
        finalist_seeds: how often each of them runs again.
        repeats: independent searches of each arm.
        scope: ``per_arm``, ``shared`` or ``none``.
        tune_on: the arm that is tuned for all others under ``shared``; '' otherwise.
        overrides: what makes search trials a cheaper proxy.
        reproducible: whether equal results must give equal decisions.
        max_failures: failed attempts after which a trial is given up; None if the ledger does not say.
        gpus: GPUs that a trial occupies.
        workers: processes that train a trial together.
        cpus: CPU cores that a trial occupies; None if the ledger does not say.
    """

    sampler: str = "qmc"
    scheduler: str = "none"
    rungs: tuple[int, ...] | None = None
    finalists: int | None = None
    finalist_seeds: int = 1
    repeats: int = 1
    scope: str = "per_arm"
    tune_on: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    reproducible: bool = True
    max_failures: int | None = None
    gpus: float = 0.0
    workers: int = 1
    cpus: float | None = None

    @property
    def shared(self) -> str:
        """Return the arm whose optimum all arms use; '' where every arm has its own."""
        return self.tune_on if self.scope == "shared" else ""


def read_search_plan(opening: Mapping[str, Any], repeats: int = 1) -> SearchPlan:
    """Return how a study searches.

    Args:
        opening: payload of a ``study_opened``.
        repeats: independent searches that the ledger shows, for openings that do not say.
    """
    plan = opening.get("plan") or {}
    finalists = plan.get("finalists")
    top = finalists.get("top") if isinstance(finalists, dict) else finalists
    seeds = finalists.get("seeds") if isinstance(finalists, dict) else None
    scheduler = plan.get("scheduler")
    rungs = plan.get("rungs", scheduler.get("rungs") if isinstance(scheduler, dict) else None)
    failures = plan.get("max_failures")
    reproducible = plan.get("reproducible")
    workers, cpus = int(plan.get("num_workers") or 1), plan.get("cpus_per_worker")
    return SearchPlan(
        sampler=name_of(plan.get("sampler"), "qmc"),
        scheduler=name_of(scheduler, "none"),
        rungs=None if rungs is None else tuple(rungs),
        finalists=None if top is None else int(top),
        finalist_seeds=int(seeds or 1),
        repeats=int(plan.get("repeats") or repeats),
        scope=plan.get("scope") or "per_arm",
        tune_on=plan.get("tune_on") or (opening.get("reference") or ""),
        overrides=plan.get("overrides") or {},
        reproducible=name_of(scheduler, "none") not in TIMED if reproducible is None else bool(reproducible),
        max_failures=None if failures is None else int(failures),
        gpus=float(plan.get("gpus_per_worker") or 0.0) * workers,
        workers=workers,
        cpus=None if cpus is None else float(cpus) * workers,
    )


def read_goals(opening: Mapping[str, Any]) -> tuple[Goal, ...]:
    """Return what search maximises or minimises, the goal that decides first; empty if it is not said."""
    objective = opening.get("objective") or {}
    found = [objective, *(objective.get("also") or ())]
    return tuple(Goal(goal["metric"], goal.get("mode") or "max") for goal in found if goal.get("metric"))


def without_defaults(opening: Mapping[str, Any]) -> dict[str, Any]:
    """Return an opening without entries that say nothing, so that a start that does not have them is equal.

    They came with version 2 of the ledger, and what could not be said before was at its default.
    """
    found = dict(opening)
    if isinstance(found.get("objective"), dict) and not found["objective"].get("also"):
        found["objective"] = {key: value for key, value in found["objective"].items() if key != "also"}
    if isinstance(found.get("plan"), dict):
        found["plan"] = _plan_without_defaults(found["plan"])
    return found


def _plan_without_defaults(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a plan that decide anything."""
    sampler, scheduler = name_of(plan.get("sampler"), "qmc"), name_of(plan.get("scheduler"), "none")
    finalists = plan.get("finalists")
    idle = {
        "gpus_per_worker": True,
        "max_failures": True,
        "scheduler": scheduler == "none",
        "rungs": True,  # they follow from scheduler and steps
        "ranges": True,  # space says the same
        "finalists": not (finalists.get("top") if isinstance(finalists, dict) else finalists),
        "repeats": plan.get("repeats") in (None, 1),
        "scope": plan.get("scope") in (None, "per_arm"),
        "tune_on": plan.get("scope") != "shared",
        "overrides": not plan.get("overrides"),
        "reproducible": plan.get("reproducible") in (None, True),
        "batch": sampler in COMMON and scheduler != "successive_halving",
    }
    kept = {key: value for key, value in plan.items() if not idle.get(key)}
    if sampler in COMMON and "sampler" in kept:
        kept["sampler"] = sampler  # startup does nothing without a model
    return kept


def name_of(value: object, default: str) -> str:
    """Return the name of a sampler or scheduler, which stands alone or among its options."""
    if isinstance(value, dict):
        value = value.get("name")
    return str(value) if value else default
