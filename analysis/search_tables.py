"""What the search did and what every row cost, as tables: scores, costs, winners, trade-offs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from analysis.numbers import number, significant
from analysis.opened import Arm, Study
from analysis.scored import BEST
from analysis.table import Table, full_name

_DEFAULT = ", the default"
"""What is said of the first proposal, with which every search but a grid starts."""


def search_table(study: Study, searches: pl.DataFrame) -> Table:
    """Return what the search of every row tuned and reached: scores that choose winners, no results."""
    arms = {(arm.level, arm.arm): arm for arm in study.arms}
    finalists = bool(int(searches["claimed"].sum()))
    columns = [
        "arm",
        f"best {study.objective}",
        *(["finalist runs"] if finalists else []),
        "tuned parameters",
    ]
    rows = []
    for record in searches.iter_rows(named=True):
        cells = [full_name(record["arm"], record["level"]), number(record["best"], 4)]
        if finalists:
            lost = f", {record['lost']} lost" if record["lost"] else ""
            cells.append(f"{record['runs']} of {record['claimed']}{lost}" if record["claimed"] else "-")
        rows.append([*cells, _parameters(study, arms[record["level"], record["arm"]])])
    return Table("Search (its scores choose the winners; they are not results)", columns, rows)


def cost_table(study: Study, searches: pl.DataFrame) -> Table:
    """Return trials, steps and hours of every row before confirm and in confirm, and the hours of devices.

    ``searches`` is the frame of ``results.search_summary``. GPU-hours where trials occupy GPUs, else
    CPU-hours; hours of workers where the ledger says neither.
    """
    plan = study.search
    devices, per_worker = (
        ("GPU-hours", plan.gpus / plan.workers)
        if plan.gpus
        else ("worker-hours", 1.0)
        if plan.cpus is None
        else ("CPU-hours", plan.cpus / plan.workers)
    )
    columns = ["arm", "search trials", "search steps", "search hours"]
    columns += ["confirm trials", "confirm steps", "confirm hours", devices]
    rows = []
    for record in searches.iter_rows(named=True):
        before = record["trials"] + record["stopped"] + record["diverged"] + record["failed"]
        cells = [full_name(record["arm"], record["level"]), str(before + record["claimed"])]
        cells += [str(record["steps"]), number(record["search_hours"], 2), str(record["confirm_trials"])]
        cells += [str(record["confirm_steps"]), number(record["confirm_hours"], 2)]
        worker_hours = record["worker_hours"]
        rows.append([*cells, number(None if worker_hours is None else worker_hours * per_worker, 2)])
    unit = {
        "GPU-hours": f"times the GPUs in use ({plan.gpus:g} a trial as planned)",
        "CPU-hours": f"times the CPU cores in use ({plan.cpus or 0:g} a trial as planned)",
        "worker-hours": f"times the workers in use ({plan.workers} a trial as planned)",
    }[devices]
    note = (
        "Hours of training and evaluation, of all attempts; steps that were trained again count once. "
        f"{devices}: all hours {unit}. A trial that serves several arms counts for each."
        + (" Search includes the finalist runs." if plan.finalists else "")
    )
    return Table("Cost of each arm", columns, rows, notes=(note,))


def winners_table(
    study: Study, winners: pl.DataFrame, ranges: Mapping[tuple[str, str, int], str]
) -> Table | None:
    """Return the winner of each search, whether it is the default, its parameters and their spread.

    None before any was chosen. With finalists the spread is of the best search scores, not of the runs.

    Args:
        study: the plan.
        winners: the frame of ``results.winner_table``.
        ranges: of ``scored.best_ranges``.
    """
    if winners.is_empty():
        return None
    several = study.search.repeats > 1
    score = f"mean {study.objective} of its runs" if study.search.finalists else study.objective
    columns = ["arm", *(["search"] if several else []), "winner", "proposal", score, "parameters"]
    rows = []
    for record in winners.iter_rows(named=True):
        rows.append(
            [
                full_name(record["arm"], record["level"]),
                *([str(record["repeat"])] if several else []),
                record["trial_id"],
                _proposal(study, record),
                number(record["value"], 4),
                parameters_text(record["parameters"]),
                ranges.get((record["level"], record["arm"], record["repeat"]), "-"),
            ]
        )
    columns.append(f"range over the best {BEST} trials")
    defaults = sum(row[columns.index("proposal")].endswith(_DEFAULT) for row in rows)
    notes = (f"The default won in {defaults} of {len(rows)} searches: tuning changed nothing there.",)
    title = "Winners (trial_id of the search trial)"
    return Table(title, columns, rows, notes=notes if defaults else ())


def _proposal(study: Study, record: Mapping[str, Any]) -> str:
    """Return the number of the winner's proposal, and whether it is the arm's default."""
    index = record["index"]
    if index is None:
        return "-"
    tuned = any(
        arm.parameters for arm in study.arms if (arm.level, arm.arm) == (record["level"], record["arm"])
    )
    return f"0{_DEFAULT}" if index == 0 and tuned and study.search.sampler != "grid" else str(index)


def trade_off_table(study: Study, found: pl.DataFrame) -> Table:
    """Return the search trials that no other of their level beats; ``found`` is that of ``trade_offs``."""
    goals = [goal.metric for goal in study.goals]
    rows = [
        [
            full_name(record["arm"], record["level"]),
            *(significant(record[name]) for name in goals),
            record["trial_id"],
            parameters_text(record["parameters"]),
        ]
        for record in found.iter_rows(named=True)
    ]
    title = (
        "Trade-offs (finished search trials; no other of the level is as good in every goal and better in "
        "one; not results)"
    )
    columns = [f"{goal.metric} ({goal.mode})" for goal in study.goals]
    return Table(title, ["arm", *columns, "trial_id", "parameters"], rows)


def parameters_text(stored: str | None) -> str:
    """Return parameters, given as JSON, as ``optim.lr .0316, data.crop 64``; ``defaults`` for none."""
    if stored is None:
        return "-"
    values = json.loads(stored)
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items()) or "defaults"


def _value(value: object) -> str:
    """Return a number with 4 significant digits, anything else as text or JSON."""
    if isinstance(value, float):
        return significant(value)
    return value if isinstance(value, str) else json.dumps(value)


def _parameters(study: Study, arm: Arm) -> str:
    """Return the names of what an arm tuned, or took from the arm that was tuned for it."""
    if not study.is_follower(arm):
        return ", ".join(arm.parameters) or "nothing"
    names = ", ".join(arm.takes or arm.parameters) or "nothing"
    return f"{names} (from {study.search.shared})"
