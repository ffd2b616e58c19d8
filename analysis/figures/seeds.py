"""Every confirm seed of every arm, joined to the same seed of the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from analysis.comparison import Row
from analysis.figures.drawing import Drawing
from analysis.figures.panels import small_multiples
from analysis.figures.style import BLUE, GREY, INK, VERMILLION, Mark, at_level, legend, listing, short
from analysis.numbers import significant
from analysis.opened import Study
from analysis.sources import Sources
from analysis.statistics import Array
from analysis.table import seeds_text

ROW = 0.4
"""Inches of one arm."""
OFFSET = 0.2
"""Of the reference above, and of the arm below, the middle of a row."""
REFERENCE = Mark("reference", INK, "o", filled=False)
ARM = Mark("arm", INK, "o")
ALONE = Mark("seed without its partner", GREY, "s", filled=False)
MEAN = Mark("mean of its finished seeds", INK, "|")
BETTER = Line2D([], [], color=BLUE, linewidth=0.9, label="arm better on this seed")
WORSE = Line2D([], [], color=VERMILLION, linewidth=0.9, linestyle="--", label="arm worse")


def seed_plot(sources: Sources) -> list[Drawing]:
    """Return the figure of the primary metric by arm and seed; none while no confirm trial has finished."""
    study = sources.study
    scores = _scores(sources)
    if not any(np.isfinite(values).any() for values in scores.values()):
        return []
    rows = {level: [row for row in sources.comparison.rows if row.level == level] for level in study.levels}
    others = {level: [row for row in found if not row.is_reference] or found for level, found in rows.items()}
    most = max(map(len, others.values()))
    found = []
    width = 3.3 if len(study.levels) > 1 else 4.4
    for page in small_multiples(
        study.levels, (width, 0.45 + ROW * most), columns=3, margins=(0.7, 0.85), sharey=False
    ):
        for panel, level in zip(page.panels, page.items, strict=True):
            _panel(panel, study, others[level], scores)
            panel.set_title(short(level, 44))
        page.figure.supxlabel(f"{short(study.primary, 40)} of confirm seeds")
        legend(
            page.figure, [REFERENCE.handle(4), ARM.handle(4), ALONE.handle(4), MEAN.handle(9), BETTER, WORSE]
        )
        found.append(
            Drawing(
                f"seeds{page.suffix}",
                f"Confirm seeds{page.part}",
                _alt(study, scores),
                page.figure,
                f"{study.primary} of every confirm seed at its last step. Upper dots of a row: "
                f"{study.reference}; lower dots: the arm; a line joins the two trials of one seed, which "
                "share training sample, batch order, augmentation and initial weights.",
            )
        )
    return found


def _scores(sources: Sources) -> dict[tuple[str, str], Array]:
    """Return the primary metric by level and arm: (K,), NaN for a seed without a finite one."""
    study = sources.study
    scores = {(arm.level, arm.arm): np.full(study.seeds, np.nan) for arm in study.arms}
    found = sources.metrics.filter(metric=study.primary).select("level", "arm", "index", "value")
    for level, arm, seed, value in found.iter_rows():
        if (level, arm) in scores and 0 <= seed < study.seeds and value is not None and np.isfinite(value):
            scores[level, arm][seed] = value
    return scores


def _panel(panel: Axes, study: Study, rows: list[Row], scores: Mapping[tuple[str, str], Array]) -> None:
    """Draw one level: per arm the reference's seeds above its own."""
    dots: dict[Mark, list[tuple[float, float]]] = {mark: [] for mark in (ALONE, REFERENCE, ARM, MEAN)}
    gains: list[float] = []
    ends: list[list[tuple[float, float]]] = []
    for place, row in enumerate(rows):
        mine = scores[row.level, row.arm]
        theirs = scores.get((row.level, study.reference), np.full(study.seeds, np.nan))
        if not row.is_reference:
            both = np.isfinite(theirs) & np.isfinite(mine)
            gains += (mine - theirs)[both].tolist()
            pairs = zip(theirs[both].tolist(), mine[both].tolist(), strict=True)
            ends += [[(first, place - OFFSET), (second, place + OFFSET)] for first, second in pairs]
            _gather(dots, theirs, mine, place - OFFSET, REFERENCE)
        _gather(dots, mine, mine if row.is_reference else theirs, place + OFFSET, ARM)
    _join(panel, np.array(gains) * (1 if study.higher_is_better else -1), ends)
    for mark, places in dots.items():
        size = 10 if mark is MEAN else 3.2
        mark.draw(panel, [x for x, _ in places], [y for _, y in places], size)
    panel.hlines(
        np.arange(1, len(rows)) - 0.5, 0, 1, transform=panel.get_yaxis_transform(), color=GREY, linewidth=0.3
    )
    panel.set_yticks(range(len(rows)), [_label(row, study) for row in rows])
    panel.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.locator_params(axis="x", nbins=5)


def _gather(
    dots: Mapping[Mark, list[tuple[float, float]]],
    values_K: Array,
    others_K: Array,
    height: float,
    mark: Mark,
) -> None:
    """Collect the seeds of one arm, those without a partner apart, and their mean."""
    known = np.isfinite(values_K)
    for value, partner in zip(values_K[known].tolist(), np.isfinite(others_K[known]).tolist(), strict=True):
        dots[mark if partner else ALONE].append((value, height))
    if known.any():
        dots[MEAN].append((float(values_K[known].mean()), height))


def _join(panel: Axes, gains: Array, ends: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Join the two trials of every seed."""
    for chosen, line in ((gains > 0, BETTER), (gains < 0, WORSE), (gains == 0, None)):
        found = [ends[at] for at in np.flatnonzero(chosen).tolist()]
        if found:
            colour, style = (line.get_color(), line.get_linestyle()) if line else (GREY, ":")
            panel.add_collection(LineCollection(found, colors=[colour], linestyles=style, linewidths=0.7))


def _label(row: Row, study: Study) -> str:
    """Return the name of an arm, and what became of its seeds if not all finished."""
    complete = row.counts["finished"] == study.seeds
    name = short(row.arm, 26)
    return name if complete else f"{name}\n{short(seeds_text(row, study.seeds), 34)}"


def _alt(study: Study, scores: Mapping[tuple[str, str], Array]) -> str:
    """Return the range of every arm."""
    parts = []
    for (level, arm), values in scores.items():
        known = values[np.isfinite(values)]
        if len(known):
            low, high = significant(float(known.min()), 3), significant(float(known.max()), 3)
            parts.append(f"{at_level(arm, level)} {low} to {high}, {len(known)} of {study.seeds} seeds")
    return f"{study.primary} by arm and confirm seed, lowest to highest: {listing(parts)}."
