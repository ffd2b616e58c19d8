"""What the search did, as tables: cost per row, winners, and trade-offs between goals."""

from __future__ import annotations

import json

import polars as pl

from analysis.numbers import number, significant
from analysis.opened import Arm, Study
from analysis.table import Table, full_name


def search_table(study: Study, searches: pl.DataFrame) -> Table:
    """Return what the search of every row tuned, cost and reached: scores that choose winners, no results.

    Where trials occupy GPUs the hours are GPU hours.
    """
    arms = {(arm.level, arm.arm): arm for arm in study.arms}
    finalists = bool(int(searches["claimed"].sum()))
    columns = ["arm", f"best {study.objective}"]
    columns += ["finalist runs"] if finalists else []
    gpus = study.search.gpus
    columns += [
        "steps before confirm",
        f"{'GPU hours' if gpus else 'hours'} with confirm",
        "tuned parameters",
    ]
    rows = []
    for record in searches.with_columns(pl.col("hours") * (gpus or 1.0)).iter_rows(named=True):
        cells = [full_name(record["arm"], record["level"]), number(record["best"], 4)]
        if finalists:
            lost = f", {record['lost']} lost" if record["lost"] else ""
            cells.append(f"{record['runs']} of {record['claimed']}{lost}" if record["claimed"] else "-")
        cells += [str(record["steps"]), number(record["hours"], 2)]
        rows.append([*cells, _parameters(study, arms[record["level"], record["arm"]])])
    return Table("Search (its scores choose the winners; they are not results)", columns, rows)


def winners_table(study: Study, winners: pl.DataFrame) -> Table | None:
    """Return the winner of each search with its trial and parameters; None before any was chosen.

    ``winners`` is the frame of ``results.winner_table``.
    """
    if winners.is_empty():
        return None
    several = study.search.repeats > 1
    score = f"mean {study.objective} of its runs" if study.search.finalists else study.objective
    columns = ["arm", *(["search"] if several else []), "winner", score, "parameters"]
    rows = [
        [
            full_name(record["arm"], record["level"]),
            *([str(record["repeat"])] if several else []),
            record["trial_id"],
            number(record["value"], 4),
            parameters_text(record["parameters"]),
        ]
        for record in winners.iter_rows(named=True)
    ]
    return Table("Winners (trial_id of the search trial)", columns, rows)


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
