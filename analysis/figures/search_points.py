"""What every search proposal came to: the rows behind the figures of the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.claims import PLACE
from analysis.opened import Study
from analysis.results import search_trials, winner_table
from analysis.scored import decoded
from analysis.sources import Sources
from analysis.trials import BEFORE_CONFIRM, finished, values

SHOWN = ("finished", "stopped", "diverged", "failed", "duplicate")
"""The states of a proposal that has come to something."""


@dataclass(frozen=True)
class Point:
    """A proposal.

    Attributes:
        state: one of ``SHOWN``.
        value: the objective: at the end, or at the rung for one that was stopped; None for one that has
            none or not a finite one. A duplicate has the value of what it repeats.
        winner: its search chose it.
        parameters: the searched values by option; None where the ledger does not say, empty for defaults.
    """

    repeat: int
    index: int
    state: str
    value: float | None
    winner: bool
    parameters: Mapping[str, Any] | None


def search_points(sources: Sources) -> dict[tuple[str, str], list[Point]]:
    """Return the proposals that came to something by (level, arm), in plan and proposal order."""
    events, study = sources.events, sources.study
    if not study.objective:
        return {}
    scores = values(events, study.objective)
    ends = finished(events, BEFORE_CONFIRM).select("trial_id", "epoch").join(scores, on=["trial_id", "epoch"])
    at_end = dict(ends.select("trial_id", "value").iter_rows())
    at_epoch = {(trial, epoch): value for trial, epoch, value in scores.iter_rows()}
    chosen = set(winner_table(events, study).select(PLACE).iter_rows())
    found: dict[tuple[str, str], list[Point]] = {(arm.level, arm.arm): [] for arm in study.arms}
    searched = search_trials(events).sort(PLACE)
    for record, point in zip(searched.iter_rows(named=True), decoded(searched["parameters"]), strict=True):
        row = record["level"], record["arm"]
        if row not in found or record["state"] not in SHOWN:
            continue
        stopped = record["state"] == "stopped"
        trial = record["trial_id"]
        value = at_epoch.get((trial, record["rung"])) if stopped else at_end.get(trial)
        found[row].append(
            Point(
                record["repeat"],
                record["index"],
                record["state"],
                value if value is not None and abs(value) < float("inf") else None,
                (*row, record["repeat"], record["index"]) in chosen,
                point,
            )
        )
    return {row: points for row, points in found.items() if points}


def scored(points: Sequence[Point]) -> list[Point]:
    """Return the proposals that ran to the end with a score, duplicates left out."""
    return [point for point in points if point.state == "finished" and point.value is not None]


def best(study: Study, points: Sequence[Point]) -> float | None:
    """Return the best score of those that ran to the end."""
    found = [point.value for point in scored(points) if point.value is not None]
    return (max(found) if study.mode == "max" else min(found)) if found else None


def selection_label(study: Study) -> str:
    """Return the objective with the split that it is computed on."""
    return f"{study.objective} ({study.selection} split)" if study.selection else study.objective
