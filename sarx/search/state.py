"""What the ledger says about every trial, kept up to date as events are written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
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


@dataclass
class Record:
    """One trial: where it stands, how often it was started, how often it failed, what it gave.

    Attributes:
        since: First attempt whose checkpoints count; those before were forgotten.
        epoch: Last epoch that is recorded.
        goals: The study's goals by epoch, in its order; NaN where a metric is missing.
        closed: Epochs after which the regularizer's gate had never opened.
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
    goals: dict[int, tuple[float, ...]] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
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
    """

    def __init__(self, goals: Sequence[str], max_failures: int) -> None:
        """Start empty."""
        self.goals = tuple(goals)
        self.max_failures = max_failures
        self.by_id: dict[str, Record] = {}

    def of(self, trial_id: str) -> Record:
        """Return the record of a trial, a new one if there is none."""
        found = self.by_id.get(trial_id)
        if found is None:
            found = self.by_id[trial_id] = Record(trial_id)
        return found

    def apply(self, event: Event) -> None:
        """Bring the record of an event's trial up to date; other events change nothing."""
        kind = event["event"]
        if kind not in MOVES:
            return
        record = self.of(event["trial_id"])
        if kind == "trial_started":
            record.status = RUNNING
            record.mark = event.get("time") or 0.0
            record.attempts = max(record.attempts, event["attempt"])
        elif kind == "forgotten":
            attempts, seconds = record.attempts, record.seconds
            self.by_id[record.trial_id] = Record(
                record.trial_id, attempts=attempts, since=attempts + 1, seconds=seconds
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

    def _epoch(self, record: Record, event: Event) -> None:
        duration = event.get("duration_s") or 0.0
        epoch = event["epoch"]
        found = dict.fromkeys(self.goals, math.nan)
        for item in event.get("metrics") or ():
            name = item["name"]
            if name in found:
                found[name] = float(item["nonfinite"] if "nonfinite" in item else item["value"])
            elif name == GATE and "value" in item and item["value"] < 0:
                record.closed.add(epoch)
        if COST in found:
            at = self.goals.index(COST)
            found[COST] = duration + (record.goals[epoch - 1][at] if epoch - 1 in record.goals else 0.0)
        record.goals[epoch] = tuple(found.values())
        record.seconds += duration
        record.epoch = epoch

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
