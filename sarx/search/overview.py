"""How far a study is, arm by arm, for those who show it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from sarx.search.arm_search import Seat
from sarx.search.engine import Engine
from sarx.search.state import DIVERGED, FAILED, RUNNING
from sarx.study.design import Arm
from sarx.study.ledger_schema import CONFIRM, FINALIST, SEARCH


@dataclass
class Count:
    """Trials of a phase: settled, planned, stopped early, told from an equal point."""

    done: int = 0
    total: int = 0
    stopped: int = 0
    duplicates: int = 0


@dataclass
class ArmOverview:
    """How far one arm is.

    Attributes:
        key: Arm with its factor levels.
        phases: Counts by phase, search, finalist (if the study has any), confirm.
        running: Trials that run now.
        best: Best objective of a finished search trial, in the user's units; NaN without any.
        failures: Attempts that failed, by kind, and trials that diverged.
        seconds: Recorded time of its trials.
    """

    key: str
    phases: dict[str, Count]
    running: int = 0
    best: float = math.nan
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def overview(engine: Engine) -> list[ArmOverview]:
    """Return how far each arm is; a trial that serves several arms shows in each."""
    return [_of_arm(engine, arm) for arm in engine.arms]


def totals(arms: list[ArmOverview]) -> dict[str, Count]:
    """Return the counts over all arms, by phase."""
    found: dict[str, Count] = {}
    for arm in arms:
        for phase, count in arm.phases.items():
            total = found.setdefault(phase, Count())
            total.done += count.done
            total.total += count.total
            total.stopped += count.stopped
            total.duplicates += count.duplicates
    return found


def _of_arm(engine: Engine, arm: Arm) -> ArmOverview:
    study, repeats = engine.study, engine.repeats_of(arm)
    finalists = study.search.finalists
    phases = {SEARCH: Count(total=repeats * engine.trials_of(arm))}
    if finalists.top and arm.space:
        phases[FINALIST] = Count(total=repeats * finalists.top * finalists.seeds)
    phases[CONFIRM] = Count(total=study.confirm.seeds)
    found = ArmOverview(arm.key, phases)
    seats: list[Seat] = list(engine.confirm[arm.key])
    for repeat in range(repeats):
        search = engine.searches[arm.key, repeat]
        seats += search.seats
        choice = engine.choices.get((arm.key, repeat))
        if choice is not None:
            if FINALIST in phases:
                phases[FINALIST].total -= finalists.top * finalists.seeds - len(choice.seats)
            seats += choice.seats
        ranked = search.ranking()
        if ranked:
            value = ranked[0][0] if study.objective.mode == "max" else -ranked[0][0]
            better = max if study.objective.mode == "max" else min
            found.best = value if math.isnan(found.best) else better(found.best, value)
    for seat in seats:
        _count(engine, found, seat)
    return found


def _count(engine: Engine, found: ArmOverview, seat: Seat) -> None:
    count = found.phases[seat.claim.phase]
    count.done += seat.settled
    count.stopped += seat.stopped is not None
    count.duplicates += seat.same_as is not None
    if seat.same_as is not None:
        return
    record = engine.record(seat.claim)
    found.running += record.status == RUNNING
    found.seconds += record.seconds
    found.failures.update(record.failures_by_kind)
    found.failures[DIVERGED] += record.status == DIVERGED
    found.failures[FAILED] += record.status == FAILED
