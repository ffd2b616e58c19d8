"""Tables of what went wrong: failed attempts, diverged trials, results declared void."""

from __future__ import annotations

import json

import polars as pl

from analysis.provenance import utc
from analysis.table import Table
from analysis.trials import of_kind

MOST = 100
"""Rows of a table; of more the last ones are shown."""
LONGEST = 300
"""Characters of a reason."""


def failure_table(events: pl.DataFrame) -> Table | None:
    """Return failed attempts and diverged trials, the last ``MOST`` of them; None without any."""
    bad = of_kind(events, "failed", "diverged").sort("seq")
    if bad.is_empty():
        return None
    of_trial = _names(events)
    rows = []
    shown = bad.select("event", "trial_id", "time", "phase", "attempt", "payload").tail(MOST)
    for event in shown.iter_rows(named=True):
        payload = json.loads(event["payload"] or "{}")
        kind = "diverged" if event["event"] == "diverged" else str(payload.get("kind") or "failed")
        rows.append(
            [
                str(event["trial_id"]),
                utc(event["time"]),
                of_trial.get(event["trial_id"], "-"),
                str(event["phase"] or "-"),
                str(event["attempt"] or "-"),
                kind,
                _short(str(payload.get("reason") or "-")),
            ]
        )
    title = "Failed attempts and diverged trials"
    if bad.height > MOST:
        title += f", the last {MOST} of {bad.height}"
    return Table(title, ["trial_id", "time (UTC)", "arm", "phase", "attempt", "what", "reason"], rows)


def void_table(events: pl.DataFrame) -> Table | None:
    """Return the results that were declared void, with their reasons; None without any."""
    gone = of_kind(events, "forgotten").sort("seq")
    if gone.is_empty():
        return None
    rows = [
        [str(trial), utc(time), _short(str(json.loads(payload or "{}").get("reason") or "-"))]
        for time, trial, payload in gone.select("time", "trial_id", "payload").iter_rows()
    ]
    return Table("Results declared void", ["trial_id", "time (UTC)", "reason"], rows)


def _names(events: pl.DataFrame) -> dict[str, str]:
    """Return trial_id -> the rows that it was proposed or claimed for."""
    claims = of_kind(events, "proposed", "claimed").filter(pl.col("arm").is_not_null())
    names: dict[str, list[str]] = {}
    for trial, arm, level in (
        claims.select("trial_id", "arm", "level").unique(maintain_order=True).iter_rows()
    ):
        names.setdefault(trial, []).append(f"{arm} ({level})" if level else arm)
    return {trial: ", ".join(found) for trial, found in names.items()}


def _short(text: str) -> str:
    """Return a reason on one line, cut in the middle where it is very long: the end says what happened."""
    line = " ".join(text.split())
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"
