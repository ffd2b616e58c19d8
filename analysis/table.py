"""The tables as text cells: per level the claims, then how SAR's gate behaved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.comparison import DIAGNOSTICS, OTHER_WORKERS, Comparison, Row
from analysis.numbers import decimals_for, interval, number, p_value
from analysis.opened import Arm, Study
from analysis.results import NO_WINNER
from analysis.statistics import MOST_SEEDS
from analysis.verdict import ALPHA

Record = dict[str, float | None]
_KINDS = ("head", "body", "tail", "many", "medium", "few")
_BAD = ("diverged", "failed", "not finite", NO_WINNER)


@dataclass(frozen=True)
class Table:
    """Cells as plain text, not yet escaped for any format.

    Attributes:
        title: the level, or what the table shows; '' for none.
        columns: headings; the first column names the row.
        rows: one list of cells per row.
        bold: (row, column) of the cells that the tests single out.
        notes: sentences below it, without which it would mislead.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    bold: frozenset[tuple[int, int]] = frozenset()
    notes: tuple[str, ...] = ()


def level_table(study: Study, comparison: Comparison, searches: pl.DataFrame, level: str) -> Table:
    """Return the table of one factor level: every arm against the reference."""
    cells = {
        (record["arm"], record["metric"]): record
        for record in comparison.tidy.filter(pl.col("level") == level).iter_rows(named=True)
    }
    metrics = set(comparison.tidy["metric"])
    kinds = _kind_metrics(study.primary, metrics)
    decimals = {
        name: decimals_for(_half_widths(comparison.tidy.filter(pl.col("metric") == name)))
        for name in (study.primary, *kinds)
    }
    searched = {(row["level"], row["arm"]): row for row in searches.iter_rows(named=True)}
    plan = {arm.arm: arm for arm in study.arms if arm.level == level}
    columns = ["arm", study.primary, "difference", "p (Holm)", "verdict", "seeds", *kinds, "tuned", "trials"]
    rows: list[list[str]] = []
    bold: set[tuple[int, int]] = set()
    for position, row in enumerate(comparison.rows):
        if row.level != level:
            continue
        main = cells[row.arm, study.primary]
        if verdict_text(comparison, position).startswith("better") and not doubted(comparison, position):
            bold |= {(len(rows), columns.index("difference")), (len(rows), columns.index("verdict"))}
        if position in comparison.best:
            bold.add((len(rows), columns.index(study.primary)))
        rows.append(
            [
                row.arm,
                _mean(main, decimals[study.primary]),
                _difference(main, row, study, decimals[study.primary]),
                p_value(main["p_holm"]),
                verdict_text(comparison, position),
                seeds_text(row, study.seeds),
                *(
                    _mean(cells[row.arm, name], decimals[name]) + _star(cells[row.arm, name], row)
                    for name in kinds
                ),
                tuned_text(study, plan[row.arm]),
                trials_text(searched[level, row.arm], study.trials_of(plan[row.arm])),
            ]
        )
    return Table(level, columns, rows, frozenset(bold))


def diagnostics_table(comparison: Comparison) -> Table | None:
    """Return the means of SAR's diagnostics over confirm seeds; None where no trial recorded any."""
    known = comparison.tidy.filter(pl.col("metric").is_in(DIAGNOSTICS) & pl.col("mean").is_not_null())
    found = [name for name in DIAGNOSTICS if name in set(known["metric"])]
    if not found:
        return None
    means = {(level, arm, name): mean for level, arm, name, mean in known[_MEAN_COLUMNS].iter_rows()}
    rows = [
        [
            full_name(row.arm, row.level),
            *(_diagnostic(name, means.get((row.level, row.arm, name))) for name in found),
        ]
        for row in comparison.rows
    ]
    return Table("Gate of SAR (mean over confirm seeds)", ["arm", *found], rows)


_MEAN_COLUMNS = ["level", "arm", "metric", "mean"]


def verdict_text(comparison: Comparison, position: int) -> str:
    """Return the verdict of a row as the table prints it."""
    row = comparison.rows[position]
    tested = comparison.verdict_of(position)
    if row.is_reference:
        return "reference"
    if row.identical_to:
        return f"identical to {row.identical_to}"
    if tested is None:
        return "not yet"
    verdicts = comparison.verdicts
    word, seeds = verdicts.words[tested], verdicts.seeds[tested]
    if row.unmarked:
        return f"no mark ({'' if row.unmarked_here else 'reference '}lost seeds)"
    if not word:
        return "not yet"
    word += ", within the smallest effect" if verdicts.within[tested] else ""
    if verdicts.doubted[tested]:
        return f"{word}, flips {p_value(float(verdicts.p_flip[tested]))}"
    many = f">{MOST_SEEDS}" if seeds and seeds > MOST_SEEDS else f"~{seeds}"
    return f"{word} ({many} seeds)" if seeds else word


def doubted(comparison: Comparison, position: int) -> bool:
    """Return whether the sign flips do not bear out the verdict of a row."""
    tested = comparison.verdict_of(position)
    return tested is not None and comparison.verdicts.doubted[tested]


def seeds_text(row: Row, planned: int) -> str:
    """Return ``8 of 8`` or ``6 of 8, 1 diverged, 1 on other workers, 1 to come``."""
    to_come = planned - row.counts["finished"] - sum(row.counts[word] for word in _BAD)
    parts = [f"{row.counts['finished']} of {planned}"]
    parts += [f"{row.counts[word]} {word}" for word in (*_BAD, OTHER_WORKERS) if row.counts[word]]
    return ", ".join(parts + ([f"{to_come} to come"] if to_come else []))


def tuned_text(study: Study, arm: Arm) -> str:
    """Return the number of parameters that an arm's search tunes, or whose values it uses."""
    return f"as {study.search.shared}" if study.is_follower(arm) else str(len(arm.parameters))


def trials_text(searched: Mapping[str, int], planned: int) -> str:
    """Return ``8 of 8`` or ``10 of 12, 6 stopped early, 1 duplicate, 1 failed``; stopped ones have run."""
    run = searched["trials"] + searched["stopped"]
    if not (planned or run):
        return "-"
    parts = [f"{run} of {planned}"]
    parts += [f"{searched['stopped']} stopped early"] if searched["stopped"] else []
    parts += [_counted(searched["duplicates"], "duplicate")] if searched["duplicates"] else []
    parts += [f"{searched[word]} {word}" for word in ("diverged", "failed") if searched[word]]
    return ", ".join(parts)


def _counted(count: int, word: str) -> str:
    """Return ``1 duplicate`` or ``2 duplicates``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _kind_metrics(primary: str, metrics: set[str]) -> list[str]:
    """Return the head, body and tail metrics of the report split, in this order."""
    prefix = primary.partition("/")[0] + "/"
    return [
        name
        for kind in _KINDS
        for name in sorted(metrics)
        if name.startswith((f"{prefix}{kind}_", f"{prefix}{kind}/"))
    ]


def _half_widths(tidy: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the half widths of the intervals of means."""
    return ((tidy["hi"] - tidy["lo"]) / 2).drop_nulls().to_numpy().astype(np.float64)


def _mean(record: Record, decimals: int) -> str:
    """Return mean and interval."""
    return interval(record["mean"], record["lo"], record["hi"], decimals)


def _difference(record: Record, row: Row, study: Study, decimals: int) -> str:
    """Return the difference and its interval; nothing for the reference and what is identical to it."""
    if study.reference in (row.arm, row.identical_to):
        return "-"
    return interval(record["diff"], record["diff_lo"], record["diff_hi"], decimals, signed=True)


def _star(record: Record, row: Row) -> str:
    """Return a star for a secondary metric whose corrected test is significant, in a row that has marks."""
    p = record["p_holm"]
    return " *" if p is not None and p <= ALPHA and not row.unmarked else ""


def _diagnostic(name: str, mean: float | None) -> str:
    """Return a share with 3 decimals, a step with one."""
    return number(mean, 3 if name.endswith("_share") else 1)


def full_name(arm: str, level: str) -> str:
    """Return arm and level as one name."""
    return f"{arm} ({level})" if level else arm
