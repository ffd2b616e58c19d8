"""Search trials with their final score: how a search got better, its best trials, winners at an edge."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.claims import ROW, SEARCH
from analysis.numbers import number, significant
from analysis.opened import Study
from analysis.results import search_trials
from analysis.table import Table, full_name
from analysis.trials import final_values

BEST = 3
"""How many of the best trials of a search show how far its optimum is known."""
Values = dict[str, Any]


@dataclass(frozen=True)
class Edge:
    """A winning value near an end of its range.

    Attributes:
        end: ``low`` or ``high``.
    """

    level: str
    arm: str
    repeat: int
    parameter: str
    value: float
    end: str


def scored_trials(events: pl.DataFrame, study: Study) -> pl.DataFrame:
    """Return the search trials of the last plan that ran to the end with a finite objective.

    Columns: level, arm, repeat, index, trial_id, parameters, value (the objective at the last epoch), in the
    order of their proposals. A point that its search had before is left out.
    """
    scores = final_values(events, study.objective).drop("epoch")
    return (
        search_trials(events)
        .filter(pl.col("state") == "finished")
        .join(scores.filter(pl.col("value").is_finite()), on="trial_id", maintain_order="left")
        .sort(*SEARCH, "index", maintain_order=True)
        .select(*SEARCH, "index", "trial_id", "parameters", "value")
    )


def course_table(study: Study, searched: pl.DataFrame, scored: pl.DataFrame) -> Table | None:
    """Return the best score of each arm after 1, 2, 4, ... proposals and after all; None for one proposal.

    With several searches of an arm the mean over those that have a score by then. Nothing stands where a
    proposal up to there is not decided yet.

    Args:
        study: the plan.
        searched: the frame of ``results.search_trials``.
        scored: that of ``scored_trials``.
    """
    if study.trials_per_arm < 2:
        return None
    counts = [2**i for i in range(study.trials_per_arm.bit_length()) if 2**i < study.trials_per_arm]
    counts.append(study.trials_per_arm)
    best = pl.Expr.max if study.mode == "max" else pl.Expr.min
    found: dict[tuple[str, str, int], float] = {}
    decided = ~pl.col("state").is_in(["running", "waiting"])
    known = searched.group_by(ROW).agg(
        ((pl.col("index") < count) & decided).sum().alias(str(count)) for count in counts
    )
    so_far = scored.group_by(SEARCH, maintain_order=True).agg(
        best(pl.col("value").filter(pl.col("index") < count)).alias(str(count)) for count in counts
    )
    means = so_far.group_by(ROW).agg(pl.exclude(SEARCH).mean())
    decided_of = {(level, arm): numbers for level, arm, *numbers in known.iter_rows()}
    for level, arm, *of_counts in means.iter_rows():
        for count, mean, number_decided in zip(counts, of_counts, decided_of[level, arm], strict=True):
            if number_decided == count * study.search.repeats and mean is not None:
                found[level, arm, count] = mean
    rows = [
        [full_name(arm.arm, arm.level), *(number(found.get((arm.level, arm.arm, n)), 4) for n in counts)]
        for arm in study.arms
        if arm.parameters and not study.is_follower(arm)
    ]
    title = f"Course of the search: best {study.objective} after so many proposals (no results)"
    return Table(
        title,
        ["arm", *(f"after {count}" for count in counts)],
        rows,
        notes=("-: not all of these proposals are decided yet, or none of them has a score.",)
        if any("-" in row for row in rows)
        else (),
    )


def best_ranges(study: Study, scored: pl.DataFrame) -> dict[tuple[str, str, int], str]:
    """Return for each search the range of every parameter over its ``BEST`` best trials, as text.

    ``optim.lr .012 .. .034, regularizer.gate all | always``. The default, of which no values are on record,
    is named if it is among them. Searches with one trial have none.
    """
    ranges: dict[tuple[str, str, int], str] = {}
    ordered = scored.sort("value", "index", descending=[study.mode == "max", False])
    best = ordered.group_by(SEARCH, maintain_order=True).head(BEST)
    found: dict[tuple[str, str, int], list[Values]] = {}
    for at, point in zip(best.select(SEARCH).iter_rows(), decoded(best["parameters"]), strict=True):
        if point is not None:
            found.setdefault(at, []).append(point)
    for at, points in found.items():
        names = dict.fromkeys(name for point in points for name in point)
        parts = [
            f"{name} {spread_text([point[name] for point in points if name in point])}" for name in names
        ]
        if len(points) > 1 and parts:
            parts += ["the default"] if {} in points else []
            ranges[at] = ", ".join(parts)
    return ranges


def spread_text(found: list[Any]) -> str:
    """Return ``low .. high`` for numbers, the different values for others; one value alone as it is."""
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in found):
        low, high = significant(min(found)), significant(max(found))
        return low if low == high else f"{low} .. {high}"
    texts = [value if isinstance(value, str) else json.dumps(value) for value in found]
    return " | ".join(sorted(set(texts)))


def edges(study: Study, winners: pl.DataFrame) -> list[Edge]:
    """Return the winning values near an end of their range; ``winners``: of ``results.winner_table``."""
    return [
        Edge(record["level"], record["arm"], record["repeat"], name, value, end)
        for record, name, value in _winning_numbers(study, winners)
        if (end := study.space[name].edge(value))
    ]


def edge_table(study: Study, found: list[Edge]) -> Table | None:
    """Return the winning values at an edge, with the cure; None without any."""
    if not found:
        return None
    several = study.search.repeats > 1
    rows = []
    for edge in found:
        searched = study.space[edge.parameter]
        scale = " (log)" if searched.log else ""
        rows.append(
            [
                full_name(edge.arm, edge.level),
                *([str(edge.repeat)] if several else []),
                edge.parameter,
                significant(edge.value),
                f"{significant(searched.low)} .. {significant(searched.high)}{scale}",
                f"widen the range: {'lower low' if edge.end == 'low' else 'raise high'}",
            ]
        )
    columns = ["arm", *(["search"] if several else []), "parameter", "winner", "range", "cure"]
    return Table("Winning values at an edge of their range", columns, rows)


def edge_statement(study: Study, winners: pl.DataFrame) -> list[str]:
    """Say how many winning values lie at an edge of their range; nothing where no range is known."""
    total = sum(1 for _ in _winning_numbers(study, winners))
    if not total:
        return []
    found = edges(study, winners)
    if not found:
        return [f"No winning value lies within 5 % of an edge of its range, of {total}."]
    names = ", ".join(dict.fromkeys(edge.parameter for edge in found))
    return [
        f"Within 5 % of an edge of their range lie {len(found)} of {total} winning values (about a tenth "
        f"would by chance): {names}. The optimum may lie outside: widen the range."
    ]


def decoded(stored: pl.Series) -> list[Values | None]:
    """Return the parameters of proposals as plain values; None where they are not recorded."""
    searched = stored.filter(stored.list.len() > 0).explode().struct
    # All at once: the decoder's call costs more than what it decodes.
    values = json.loads("[" + ",".join(searched.field("value").to_list()) + "]")
    names = searched.field("name").to_list()
    assert len(names) == len(values), "a parameter of the ledger is no JSON value"
    items = zip(names, values, strict=True)
    return [None if n is None else dict(itertools.islice(items, n)) for n in stored.list.len().to_list()]


def _winning_numbers(
    study: Study, winners: pl.DataFrame
) -> Iterator[tuple[Mapping[str, Any], str, int | float]]:
    """Yield winner, parameter and value of all winning numbers whose range is known."""
    for record in winners.iter_rows(named=True):
        for name, value in json.loads(record["parameters"] or "{}").items():
            searched = study.space.get(name)
            plain = isinstance(value, (int, float)) and not isinstance(value, bool)
            if searched is not None and searched.kind != "choice" and plain:
                yield record, name, value
