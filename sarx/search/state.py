"""What the ledger says about every trial, kept up to date as events are written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sarx.study.ledger import Event
from sarx.study.schema import COST

NEW, RUNNING, FINISHED, DIVERGED, FAILED = "new", "running", "finished", "diverged", "failed"
DECIDED = frozenset({FINISHED, DIVERGED, FAILED})
FREE_OF_CHARGE = frozenset({"preempted"})
"""Kinds of failure that do not count against ``max_failures``."""
GATE = "train/first_open_step"
MOVES = frozenset(
    {"trial_started", "epoch", "rung", "trial_finished", "diverged", "failed", "forgotten", "retried"}
)


class Course(Mapping[int, tuple[float, ...]]):
    """The study's goals by epoch, in its order; NaN where a metric is missing.

    Taken out of the recorded events when they are asked for: a search asks at its rungs and at the end.

    Args:
        names: Metrics of the goals; ``time/train_s`` is the recorded time of the epochs so far.
    """

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        """Start without epochs."""
        self._names = names
        self._events: dict[int, Event] = {}

    def note(self, event: Event) -> None:
        """Take the event of an epoch, in place of an earlier one of the same epoch."""
        self._events[event["epoch"]] = event

    def __getitem__(self, epoch: int) -> tuple[float, ...]:
        """Return the goals after an epoch."""
        found = self._metrics(epoch, self._names)
        if COST in found:
            found[COST] = sum(
                event.get("duration_s") or 0.0 for at, event in self._events.items() if at <= epoch
            )
        return tuple(found.values())

    def __iter__(self) -> Iterator[int]:
        """Iterate over the recorded epochs."""
        return iter(self._events)

    def __len__(self) -> int:
        """Return the number of recorded epochs."""
        return len(self._events)

    def __contains__(self, epoch: object) -> bool:
        """Return whether an epoch is recorded."""
        return epoch in self._events

    def metric(self, epoch: int, name: str) -> float:
        """Return any metric after an epoch; NaN where it is missing."""
        return self._metrics(epoch, (name,))[name]

    def _metrics(self, epoch: int, names: tuple[str, ...]) -> dict[str, float]:
        found = dict.fromkeys(names, math.nan)
        metrics = self._events[epoch].get("metrics")
        for item in () if metrics is None else metrics:
            if item["name"] in found:
                found[item["name"]] = float(item["nonfinite"] if "nonfinite" in item else item["value"])
        return found

    def gate_closed(self, epoch: int) -> bool:
        """Return whether the regularizer's gate had never opened up to an epoch."""
        metrics = self._events[epoch].get("metrics") or () if epoch in self._events else ()
        return any(item["name"] == GATE and (item.get("value") or 0.0) < 0 for item in metrics)


@dataclass
class Record:
    """One trial: where it stands, how often it was started, how often it failed, what it gave.

    Attributes:
        since: First attempt whose checkpoints count; those before were forgotten.
        epoch: Last epoch that is recorded.
        goals: The study's goals by epoch.
        seconds: Time of all attempts; of those that a killed driver left, the recorded epochs.
        mark: When the attempt started, or its last recorded epoch ended.
        failures_by_kind: How often it failed, by name; with those that do not count.
    """

    trial_id: str
    status: str = NEW
    attempts: int = 0
    since: int = 1
    failures: int = 0
    epoch: int = 0
    reason: str = ""
    kind: str = ""
    seconds: float = 0.0
    mark: float = 0.0
    goals: Course = field(default_factory=Course)
    failures_by_kind: dict[str, int] = field(default_factory=dict)

    @property
    def final(self) -> tuple[float, ...]:
        """The goals after the last epoch of a finished trial."""
        return self.goals.get(self.epoch, ()) if self.status == FINISHED else ()


class Records:
    """All trials of a ledger.

    Args:
        goals: Metrics that decide anything, in order; ``time/train_s`` is the recorded time of the epochs.
        max_failures: Failed attempts after which a trial is given up.

    Attributes:
        decided: Trials that are finished, diverged or given up.
        seconds: Time of all trials.
    """

    def __init__(self, goals: Sequence[str], max_failures: int) -> None:
        """Start empty."""
        self.goals = tuple(goals)
        self.max_failures = max_failures
        self.by_id: dict[str, Record] = {}
        self.decided = 0
        self.seconds = 0.0

    def of(self, trial_id: str) -> Record:
        """Return the record of a trial, a new one if there is none."""
        found = self.by_id.get(trial_id)
        if found is None:
            found = self.by_id[trial_id] = Record(trial_id, goals=Course(self.goals))
        return found

    def apply(self, event: Event) -> None:
        """Bring the record of an event's trial up to date; other events change nothing."""
        kind = event["event"]
        if kind not in MOVES:
            return
        record = self.of(event["trial_id"])
        if kind == "epoch" and event["attempt"] == record.attempts:  # most events are
            record.mark = event.get("time") or 0.0
            self.seconds += self._epoch(record, event)
            return
        before = record.status in DECIDED, record.seconds
        self._move(record, kind, event)
        after = self.by_id[record.trial_id]
        self.decided += (after.status in DECIDED) - before[0]
        self.seconds += after.seconds - before[1]

    def _move(self, record: Record, kind: str, event: Event) -> None:
        if kind == "trial_started":
            record.status = RUNNING
            record.mark = event.get("time") or 0.0
            record.attempts = max(record.attempts, event["attempt"])
        elif kind == "forgotten":
            attempts, seconds = record.attempts, record.seconds
            self.by_id[record.trial_id] = Record(
                record.trial_id,
                attempts=attempts,
                since=attempts + 1,
                seconds=seconds,
                goals=Course(self.goals),
            )
        elif kind == "retried":
            record.failures = 0
            if record.status == FAILED:
                record.status = NEW
        elif event["attempt"] == record.attempts:
            self._outcome(record, kind, event)

    def _outcome(self, record: Record, kind: str, event: Event) -> None:
        if kind in ("diverged", "failed"):  # what was trained since the last epoch that is recorded
            record.seconds += max(0.0, (event.get("time") or 0.0) - record.mark)
        record.mark = event.get("time") or 0.0
        if kind == "diverged":
            record.status, record.kind = DIVERGED, DIVERGED
            record.reason = str(_payload(event).get("reason", ""))
        elif kind == "failed":
            self._failed(record, _payload(event))
        else:
            self._epoch(record, event)
            if kind == "trial_finished":
                record.status = FINISHED
            elif kind == "rung":
                record.status = NEW

    def _failed(self, record: Record, payload: dict[str, Any]) -> None:
        record.kind, record.reason = str(payload.get("kind", "crashed")), str(payload.get("reason", ""))
        record.failures_by_kind[record.kind] = record.failures_by_kind.get(record.kind, 0) + 1
        record.failures += record.kind not in FREE_OF_CHARGE
        record.status = FAILED if record.failures > self.max_failures else NEW

    def _epoch(self, record: Record, event: Event) -> float:
        """Take an epoch that was trained; return its seconds."""
        record.goals.note(event)
        seconds: float = event.get("duration_s") or 0.0
        record.seconds += seconds
        record.epoch = event["epoch"]
        return seconds

    def settle(self) -> None:
        """After a replay: what the last driver left running is free to continue."""
        for record in self.by_id.values():
            if record.status == RUNNING:
                record.status = NEW


def _payload(event: Event) -> dict[str, Any]:
    try:
        found = json.loads(event.get("payload") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
