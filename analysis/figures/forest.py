"""Forest plot: paired differences to the reference with 95 % intervals, one panel per level."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import polars as pl
from matplotlib.axes import Axes

from analysis.figures.drawing import Drawing
from analysis.figures.panels import small_multiples
from analysis.figures.style import FAINT, GREY, INK, SMALL, VERDICTS, Mark, at_level, legend, listing, short
from analysis.numbers import decimals_for, interval
from analysis.opened import Study
from analysis.sources import Sources
from analysis.table import doubted

ROW = 0.25
"""Inches of one arm."""


def forest_plot(sources: Sources) -> list[Drawing]:
    """Return the figure of the primary metric; none while there is no difference yet."""
    study, tidy = sources.study, sources.comparison.tidy
    rows = tidy.filter((pl.col("metric") == study.primary) & (pl.col("verdict") != "reference"))
    known = rows.filter(pl.col("diff").is_not_null())
    if known.is_empty():
        return []
    comparison = sources.comparison
    unsure = {(row.level, row.arm) for place, row in enumerate(comparison.rows) if doubted(comparison, place)}
    arms = {level: rows.filter(level=level)["arm"].to_list() for level in study.levels}
    most = max(map(len, arms.values()))
    alike = len({tuple(names) for names in arms.values()}) == 1
    found, width = [], 3.0 if len(study.levels) > 1 else 3.8
    for page in small_multiples(
        study.levels, (width, 0.45 + ROW * most), columns=3, margins=(1.7, 0.85), sharey=alike
    ):
        for panel, level in zip(page.panels, page.items, strict=True):
            _panel(panel, study, level, rows.filter(level=level), unsure)
        better = "right" if study.higher_is_better else "left"
        page.figure.supxlabel(
            f"{short(study.primary, 40)}: arm minus {short(study.reference)} ({better} is better)"
        )
        shown = {_kind(word) for word in known.filter(pl.col("level").is_in(page.items))["verdict"]}
        legend(page.figure, [mark.handle() for kind, mark in VERDICTS.items() if kind in shown])
        found.append(
            Drawing(
                f"forest{page.suffix}",
                f"Differences to {study.reference}{page.part}",
                _alt(study, known),
                page.figure,
                _caption(study, bool(unsure)),
            )
        )
    return found


def _panel(
    panel: Axes, study: Study, level: str, rows: pl.DataFrame, unsure: AbstractSet[tuple[str, str]]
) -> None:
    """Draw one level: a line per arm, the reference at 0, the range of no effect shaded."""
    if study.smallest_effect:
        panel.axvspan(-study.smallest_effect, study.smallest_effect, color=FAINT, alpha=0.5, linewidth=0)
    panel.axvline(0, color=INK, linewidth=0.8)
    for place, record in enumerate(rows.iter_rows(named=True)):
        if record["diff"] is not None:
            _arm(panel, place, record, VERDICTS[_kind(record["verdict"])])
        remarks = ["flips ?"] if (level, record["arm"]) in unsure else []
        if record["diff"] is None or record["n_pairs"] < study.seeds:
            remarks.insert(0, f"{record['n_pairs']} of {study.seeds}")
        if remarks:
            panel.annotate(
                ", ".join(remarks),
                (1, place),
                (2, 0),
                xycoords=panel.get_yaxis_transform(),
                textcoords="offset points",
                va="center",
                fontsize=SMALL,
                color=GREY,
            )
    panel.set_yticks(range(rows.height), [short(arm) for arm in rows["arm"]])
    panel.set_ylim(max(rows.height, 1) - 0.5, -0.5)
    panel.set_title(short(level, 44))
    panel.tick_params(axis="y", length=0)
    panel.locator_params(axis="x", nbins=5)


def _arm(panel: Axes, place: int, record: Mapping[str, Any], mark: Mark) -> None:
    """Draw the interval and the mean of one arm."""
    if record["diff_lo"] is not None:
        ends = [record["diff_lo"], record["diff_hi"]]
        panel.plot(ends, [place, place], color=mark.colour, linewidth=1.4, solid_capstyle="butt")
        panel.plot(ends, [place, place], color=mark.colour, linestyle="", marker="|", markersize=5)
    mark.draw(panel, [record["diff"]], [place])


def _kind(verdict: str) -> str:
    """Return the key of ``VERDICTS``."""
    return "identical" if verdict.startswith("identical to ") else verdict


def _alt(study: Study, known: pl.DataFrame) -> str:
    """Return every difference in words."""
    half = ((known["diff_hi"] - known["diff_lo"]) / 2).drop_nulls().to_numpy()
    decimals = decimals_for(half)
    parts = []
    for record in known.iter_rows(named=True):
        bounds = record["diff_lo"], record["diff_hi"]
        number = interval(record["diff"], *bounds, decimals, signed=True)
        verdict = record["verdict"] or "not tested yet"
        parts.append(f"{at_level(record['arm'], record['level'])} {number}, {verdict}")
    return (
        f"Paired differences of {study.primary} to {study.reference}, with 95 % intervals: {listing(parts)}."
    )


def _caption(study: Study, unsure: bool) -> str:
    """Return how the figure was computed; ``unsure``: whether sign flips leave some verdict in doubt."""
    shaded = (
        f" Shaded: differences below the smallest effect that matters, {study.smallest_effect:g}."
        if study.smallest_effect
        else ""
    )
    return (
        f"Mean paired difference of {study.primary} over the confirm seeds that arm and reference finished, "
        "with its 95 % t interval, which is not corrected for the number of rows; the verdict, by colour and "
        f"shape, is.{shaded} At the right: pairs of seeds, where some are missing"
        + ("; flips ?: significant by t, but not by joint sign flips, which could reject." if unsure else ".")
    )
