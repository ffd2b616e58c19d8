"""When a study will be done, from the recorded durations of its trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sarx.search.arm_search import Seat
from sarx.search.engine import Engine
from sarx.search.overview import ArmOverview
from sarx.study.arm import Arm
from sarx.study.ledger_schema import CONFIRM, FINALIST, SEARCH

PHASES = (SEARCH, FINALIST, CONFIRM)


@dataclass
class Tally:
    """What is settled of a phase, and what was spent on that which is not.

    Attributes:
        decided: Settled trials, those told from an equal point included.
        seconds: Their recorded time.
        steps: Steps that they trained.
        open_s: Recorded time of trials that are not settled.
    """

    decided: int = 0
    seconds: float = 0.0
    steps: int = 0
    open_s: float = 0.0


@dataclass
class Work:
    """All that a study has done so far, by phase, and the recorded time of all trials."""

    phases: dict[str, Tally] = field(default_factory=lambda: {phase: Tally() for phase in PHASES})
    seconds: float = 0.0

    @property
    def decided(self) -> int:
        """Settled trials of all phases."""
        return sum(tally.decided for tally in self.phases.values())


class Pace:
    """How long the rest will take: by phase, remaining trials x mean seconds of a decided one / busy slots.

    The busy slots are the seconds that trials recorded since this start, for each second of it. A phase of
    which this start has decided nothing takes its mean from earlier starts, else from the seconds that a
    step takes in other phases.

    Args:
        engine: The study as this start finds it.
    """

    def __init__(self, engine: Engine) -> None:
        """Take note of what was there before."""
        self.before = work(engine)

    def left(self, engine: Engine, remaining: Mapping[str, int], now: Work, elapsed: float) -> float | None:
        """Return the seconds that are left, None before this start has decided anything.

        Args:
            engine: The study.
            remaining: Trials left, by phase.
            now: What is done.
            elapsed: Seconds since this start.
        """
        busy = (now.seconds - self.before.seconds) / elapsed if elapsed > 0 else 0.0
        if now.decided == self.before.decided or busy <= 0:
            return None
        new = {phase: self._since(now, phase) for phase in remaining}
        steps = sum(tally.steps for tally in new.values())
        per_step = sum(tally.seconds for tally in new.values()) / steps if steps else 0.0
        left = 0.0
        for phase, count in remaining.items():
            known = next((t for t in (new[phase], self.before.phases[phase]) if t.seconds > 0), None)
            mean = known.seconds / known.decided if known else per_step * _steps(engine, phase)
            if count and mean <= 0:
                return None
            left += max(0.0, count * mean - now.phases[phase].open_s)
        return left / busy

    def _since(self, now: Work, phase: str) -> Tally:
        new, old = now.phases[phase], self.before.phases[phase]
        return Tally(new.decided - old.decided, new.seconds - old.seconds, new.steps - old.steps)


def work(engine: Engine) -> Work:
    """Return what a study has done so far."""
    found = Work(seconds=sum(record.seconds for record in engine.records.values()))
    for seat in _seats(engine):
        tally = found.phases[seat.claim.phase]
        tally.decided += seat.settled
        if seat.same_as is not None:
            continue
        record = engine.record(seat.claim)
        if seat.settled:
            tally.seconds += record.seconds
            tally.steps += record.epoch * seat.claim.training.eval_every
        elif may_run(engine, seat.claim.arm, seat.claim.phase):
            tally.open_s += record.seconds
    return found


def remaining(engine: Engine, arms: list[ArmOverview]) -> dict[str, int]:
    """Return the trials left to this start, by phase: of its arms and its phase, and with a winner yet."""
    found: Counter[str] = Counter()
    for arm, how in zip(engine.arms, arms, strict=True):
        searches = [(arm.key, repeat) for repeat in range(engine.repeats_of(arm))]
        lost = searches and all(key in engine.winners and engine.winners[key] is None for key in searches)
        for phase, count in how.phases.items():
            if may_run(engine, arm, phase) and not (lost and phase == CONFIRM):
                found[phase] += count.total - count.done
    return found


def may_run(engine: Engine, arm: Arm, phase: str) -> bool:
    """Whether this start runs a phase of an arm."""
    wanted = SEARCH if phase == FINALIST else phase
    return engine.only_phase in (None, wanted) and (engine.only_arms is None or arm.name in engine.only_arms)


def _seats(engine: Engine) -> Iterator[Seat]:
    for search in engine.searches.values():
        yield from search.seats
    for choice in engine.choices.values():
        yield from choice.seats
    for seats in engine.confirm.values():
        yield from seats


def _steps(engine: Engine, phase: str) -> float:
    """Return the mean steps of a trial of a phase; only search trials may differ from their arm."""
    seats = [search.seats[0] for search in engine.searches.values() if search.seats]
    configs = [seat.claim.config for seat in seats] if phase == SEARCH else [a.config for a in engine.arms]
    return sum(config.training.steps for config in configs) / max(1, len(configs))
