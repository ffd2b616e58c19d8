"""What events say of trials, against a slow reading of the same ledgers event by event."""

from __future__ import annotations

import gc
import json
import math
import random
import weakref
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analysis.ledger import read_ledger
from analysis.remember import once_per_ledger
from analysis.trials import (
    epochs,
    final_values,
    finished,
    live,
    metric_values,
    of_kind,
    other_workers,
    train_seconds,
    trial_status,
    values,
)
from sarx.study.ledger import Ledger, pack_metrics, read_events, unpack_metrics

Event = dict[str, Any]
ENDS = ("epoch", "rung", "trial_finished")
PHASES = ("search", "finalist", "confirm")


def write_history(study: Path, seed: int) -> list[Event]:
    """Write a ledger of trials that are repeated, forgotten, retried and broken at random; return events."""
    rng = random.Random(seed)
    (study / "ledger").mkdir()
    with Ledger(study / "ledger") as ledger:
        for _ in range(rng.randrange(20, 120)):
            number = rng.randrange(6)
            trial = {"trial_id": f"t{number}"}
            attempt = {**trial, "attempt": rng.randrange(1, 4), "phase": PHASES[number % 3]}
            act = rng.random()
            if act < 0.55:
                metrics = {"val/miou": rng.choice([rng.random(), math.nan, -math.inf]), "b": rng.random()}
                metrics = metrics if rng.random() < 0.8 else {"b": 1.0}
                end: Event = {"epoch": rng.randrange(1, 5), "step": rng.randrange(500)}
                end |= {"duration_s": rng.random()} if rng.random() < 0.9 else {}
                end |= {"workers": rng.randrange(1, 3)} if rng.random() < 0.2 else {}
                ledger.append(rng.choice(ENDS), **attempt, **end, metrics=pack_metrics(metrics))
            elif act < 0.7:
                ledger.append("trial_started", **attempt, epoch=0, payload="{}")
            elif act < 0.85:
                kind = rng.choice(["crashed", "preempted"])
                ledger.append("failed", **attempt, payload=json.dumps({"reason": "", "kind": kind}))
            else:
                ledger.append(rng.choice(["diverged", "forgotten", "retried"]), **attempt, payload="{}")
    return read_events(study / "ledger")


def still_counts(event: Event, events: list[Event]) -> bool:
    gone = [e["seq"] for e in events if e["event"] == "forgotten" and e["trial_id"] == event["trial_id"]]
    return event["seq"] > max(gone, default=-1)


def rank(event: Event) -> tuple[int, int]:
    return event["attempt"], event["seq"]


def last_epochs(events: list[Event]) -> dict[tuple[str, int], Event]:
    found: dict[tuple[str, int], Event] = {}
    for event in sorted((e for e in events if e["event"] in ENDS and still_counts(e, events)), key=rank):
        found[event["trial_id"], event["epoch"]] = event
    return found


def finished_of(events: list[Event], phases: tuple[str, ...]) -> dict[str, Event]:
    ended = [e for e in events if e["event"] == "trial_finished" and e["phase"] in phases]
    return {e["trial_id"]: e for e in sorted((e for e in ended if still_counts(e, events)), key=rank)}


def status_of(events: list[Event], phases: tuple[str, ...], most: int | None) -> dict[str, str]:
    found = dict.fromkeys(finished_of(events, phases), "finished")
    kinds = {"trial_started": "running", "epoch": "running", "rung": "waiting"}
    kinds |= {"diverged": "diverged", "failed": "failed"}
    last: dict[str, Event] = {}
    for event in sorted((e for e in events if e["event"] in kinds and e["phase"] in phases), key=rank):
        if still_counts(event, events):
            last[event["trial_id"]] = event
    for trial, event in last.items():
        status = kinds[event["event"]]
        retried = max(
            (e["seq"] for e in events if e["event"] == "retried" and e["trial_id"] == trial), default=-1
        )
        broken = [
            e
            for e in events
            if e["event"] == "failed"
            and e["trial_id"] == trial
            and still_counts(e, events)
            and e["seq"] > retried
            and json.loads(e["payload"])["kind"] != "preempted"
        ]
        if status == "failed":
            kind = json.loads(event["payload"])["kind"]
            free = kind == "preempted" if most is None else len(broken) <= most
            status = "waiting" if free or event["seq"] < retried else status
        found.setdefault(trial, status)
    return found


def values_in(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Return the rows, sorted, NaN as text."""
    return sorted(
        tuple("nan" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row)
        for row in frame.iter_rows()
    )


@pytest.mark.parametrize("seed", range(25))
def test_equal_to_a_slow_reading(tmp_path: Path, seed: int) -> None:
    told = write_history(tmp_path, seed)
    events = read_ledger(tmp_path).events
    assert live(events)["seq"].to_list() == [
        e["seq"] for e in told if "trial_id" not in e or still_counts(e, told)
    ]
    assert of_kind(events, "epoch", "failed")["seq"].to_list() == [
        e["seq"] for e in told if e["event"] in ("epoch", "failed")
    ]
    last = last_epochs(told)
    expected = [
        (trial, epoch, unpack_metrics(e["metrics"])["val/miou"])
        for (trial, epoch), e in last.items()
        if "val/miou" in unpack_metrics(e["metrics"])
    ]
    schema = ["trial_id", "epoch", "value"]
    assert values_in(values(events, "val/miou")) == values_in(pl.DataFrame(expected, schema, orient="row"))
    for phases in (("confirm",), ("search", "finalist")):
        ends = finished_of(told, phases)
        assert dict(finished(events, phases).select("trial_id", "seq").iter_rows()) == {
            trial: e["seq"] for trial, e in ends.items()
        }
        at_end = [row for row in expected if row[0] in ends and ends[row[0]]["epoch"] == row[1]]
        assert values_in(final_values(events, "val/miou", phases)) == values_in(
            pl.DataFrame(at_end, schema, orient="row")
        )
        every = [
            (trial, e["epoch"], name, value)
            for trial, e in ends.items()
            for name, value in unpack_metrics(e["metrics"]).items()
        ]
        assert values_in(metric_values(finished(events, phases))) == values_in(
            pl.DataFrame(every, ["trial_id", "epoch", "metric", "value"], orient="row")
        )
        for most in (None, 0, 1, 2):
            assert dict(trial_status(events, phases, most).iter_rows()) == status_of(told, phases, most)
    seconds: dict[str, float] = {}
    workers: dict[str, int] = {}
    for (trial, _), e in last.items():
        seconds[trial] = seconds.get(trial, 0.0) + e.get("duration_s", 0.0)
        if "workers" in e:
            workers[trial] = min(workers.get(trial, 9), e["workers"])
    assert dict(train_seconds(events).iter_rows()) == pytest.approx(seconds)
    assert dict(other_workers(events).iter_rows()) == workers
    longest: dict[tuple[str, int, int], float] = {}
    for e in told:
        if e["event"] in ENDS and "duration_s" in e:
            key = (e["trial_id"], e["attempt"], e["epoch"])
            longest[key] = max(longest.get(key, 0.0), e["duration_s"] / 3600)
    found = epochs(events).select("trial_id", "attempt", "epoch", "hours").iter_rows()
    assert {tuple(key): hours for *key, hours in found} == pytest.approx(longest)


def test_what_is_made_once_lives_as_long_as_the_ledger() -> None:
    made = []

    @once_per_ledger
    def heights(events: pl.DataFrame, *factors: Any, factor: int = 1) -> list[int]:
        made.append(factor)
        return [events.height * factor, *factors]

    events, others = pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [1, 2]})
    assert heights(events) is heights(events)
    assert heights(events, factor=3) == [6]
    assert heights(others, factor=3) == [6]
    assert heights(events, ["x"]) is heights(events, ["x"])
    assert heights(events, ["y"]) == [2, ["y"]]
    assert made == [1, 3, 3, 1, 1]
    gone = weakref.ref(events)
    del events
    gc.collect()
    assert gone() is None
    again = pl.DataFrame({"a": [1, 2, 3]})  # may have the place in memory that the other had
    assert heights(again) == [3]
