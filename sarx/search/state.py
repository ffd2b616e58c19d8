"""What the ledger says about every trial, kept up to date as events are written."""

from __future__ import annotations

from dataclasses import dataclass, field

from sarx.study.ledger import Event, unpack_metrics

NEW, RUNNING, FINISHED, DIVERGED, FAILED = "new", "running", "finished", "diverged", "failed"
DECIDED = frozenset({FINISHED, DIVERGED, FAILED})


@dataclass
class Record:
    """One trial: where it stands, how often it was started, how often it failed."""

    trial_id: str
    status: str = NEW
    attempts: int = 0
    failures: int = 0
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""


def apply(records: dict[str, Record], event: Event, max_failures: int) -> None:
    """Bring the record of an event's trial up to date; other events change nothing.

    A trial that the last driver left running is ``new`` again: what is on disk decides where it continues.
    """
    kind = event["event"]
    if kind not in ("trial_started", "epoch", "trial_finished", "diverged", "failed"):
        return
    record = records.setdefault(event["trial_id"], Record(event["trial_id"]))
    if kind == "trial_started":
        record.status = RUNNING
        record.attempts = max(record.attempts, event["attempt"])
        return
    if event["attempt"] != record.attempts:
        return
    if kind == "epoch":
        record.epoch = event["epoch"]
    elif kind == "trial_finished":
        record.status, record.epoch = FINISHED, event["epoch"]
        record.metrics = unpack_metrics(event["metrics"])
    elif kind == "diverged":
        record.status, record.reason = DIVERGED, str(event.get("payload", ""))
    else:
        record.failures += 1
        record.reason = str(event.get("payload", ""))
        record.status = FAILED if record.failures > max_failures else NEW


def replay(events: list[Event], max_failures: int) -> dict[str, Record]:
    """Return the records after all events; trials that were running are free to continue."""
    records: dict[str, Record] = {}
    for event in events:
        apply(records, event, max_failures)
    for record in records.values():
        if record.status == RUNNING:
            record.status = NEW
    return records
