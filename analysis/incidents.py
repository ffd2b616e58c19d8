"""What went wrong on the way: failed attempts by name, and results that were declared void."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import polars as pl

from analysis.trials import of_kind
from sarx.study.ledger_schema import CONFIRM

UNNAMED = "of no recorded kind"


@dataclass(frozen=True)
class Forgotten:
    """A trial whose results were declared void, and why.

    Attributes:
        results: they included a finished confirm trial.
    """

    trial_id: str
    reason: str
    results: bool


def failures_by_kind(events: pl.DataFrame) -> Counter[str]:
    """Return how many attempts failed, by kind."""
    failed = of_kind(events, "failed")
    return Counter(failed["payload"].str.json_path_match("$.kind").fill_null(UNNAMED).to_list())


def last_failure(events: pl.DataFrame) -> dict[str, str]:
    """Return the kind of the last failed attempt of each trial."""
    failed = of_kind(events, "failed").sort("seq")
    kinds = failed["payload"].str.json_path_match("$.kind").fill_null(UNNAMED)
    return dict(zip(failed["trial_id"].to_list(), kinds.to_list(), strict=True))


def forgotten(events: pl.DataFrame) -> tuple[Forgotten, ...]:
    """Return the trials that were declared void, in order."""
    ended = of_kind(events, "trial_finished").filter(pl.col("phase") == CONFIRM)
    first = dict(ended.group_by("trial_id").agg(pl.col("seq").min()).iter_rows())
    found = []
    gone = of_kind(events, "forgotten").sort("seq")
    for seq, trial, payload in gone.select("seq", "trial_id", "payload").iter_rows():
        reason = str(json.loads(payload or "{}").get("reason") or "")
        found.append(Forgotten(trial, reason, first.get(trial, seq) < seq))
    return tuple(found)


def counted(kinds: Counter[str]) -> str:
    """Return ``2 out_of_memory, 1 crashed``, the most frequent first."""
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {kind}" for kind, count in ordered)
