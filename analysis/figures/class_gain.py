"""Gain of every class over the reference, against how often the class occurs in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.class_ranks import by_rank, equally_frequent, rank_names, ranked
from analysis.figures.class_arrays import KINDS, PerClass, per_class
from analysis.figures.drawing import Drawing
from analysis.figures.strips import Cell, strips
from analysis.figures.style import BLUE, GREY, INK, Mark, at_level, file_names, legend, listing, short
from analysis.numbers import number
from analysis.opened import Study
from analysis.sources import Sources
from analysis.statistics import Array, mean_interval

SCORED = Mark("class, with 95 % t interval", BLUE, "o")
UNSCORED = Mark("class that the mean score leaves out", GREY, "s", filled=False)
NEVER = 0.5
"""Decades left of the rarest class, for those that do not occur in training."""

MANY = 40
"""Classes beyond which dots and intervals are drawn finer."""


class Gains(NamedTuple):
    """Of one arm: names (C), train frequency (C,), mean gain and its 95 % t interval (C,), pairs of seeds."""

    names: Sequence[str]
    unscored: NDArray[np.bool_]
    counts: Array
    mean: Array
    low: Array
    high: Array
    pairs: int


class Decades(NamedTuple):
    """A logarithmic axis: decades at its ends, and whether 0 stands left of them."""

    low: float
    high: float
    zero: bool

    @staticmethod
    def of(counts: Array) -> Decades:
        """Return the axis that holds all counts."""
        seen = counts[counts > 0]
        low, high = (float(np.log10(seen.min())), float(np.log10(seen.max()))) if len(seen) else (0.0, 1.0)
        zero = bool((counts <= 0).any())
        return Decades(low - NEVER * zero, max(high, low + 0.5), zero)

    def shares(self, counts: Array) -> Array:
        """Return where counts lie between the ends of the axis, which are 0 and 1."""
        decades = np.where(counts > 0, np.log10(np.where(counts > 0, counts, 1.0)), self.low)
        return np.asarray((decades - self.low) / (self.high - self.low))

    def ticks(self) -> list[tuple[float, str]]:
        """Return the share and label of at most 4 round numbers, and of 0 if some count is.

        Powers of ten, or where there is but one of them 1, 2 and 5 times these.
        """
        low = self.low + NEVER * self.zero
        powers = range(int(np.floor(low)), int(np.floor(self.high)) + 1)
        for steps in ((1,), (1, 2, 5)):
            values = [step * 10.0**power for power in powers for step in steps]
            inside = [value for value in values if low - 1e-9 <= np.log10(value) <= self.high + 1e-9]
            if len(inside) > 1:
                break
        inside = inside[:: max(1, -(-len(inside) // 4))]
        labels = [f"{value:,.0f}" if value < 1e4 else f"{value:.0e}".replace("e+0", "e") for value in inside]
        shares = self.shares(np.array(inside)).tolist()
        return [(0.0, "0")] * self.zero + list(zip(shares, labels, strict=True))


def class_gain(sources: Sources) -> list[Drawing]:
    """Return a figure per level with a cell per arm; none without ``geometry.npz`` of both of a pair."""
    study = sources.study
    names = file_names("class_gain", study.levels)
    drawings: list[Drawing] = []
    for level in study.levels:
        found = per_class(sources, level)
        if found is None:
            continue
        rows = [row for row in sources.comparison.rows if row.level == level and not row.is_reference]
        gains = {row.arm: gains_of(found, row.arm, study.reference) for row in rows if not row.identical_to}
        known = {arm: gain for arm, gain in gains.items() if gain is not None}
        if known and not all(_flat(gain) for gain in known.values()):
            drawings += _level(study, level, found, known, names[level])
    return drawings


def gains_of(found: PerClass, arm: str, reference: str) -> Gains | None:
    """Return the gains of an arm over the seeds that it and the reference have; None without any.

    Of ranks instead of classes where each seed has frequencies of its own.
    """
    needed = (found.kind, "train_counts")
    seeds = sorted(found.seeds(arm, *needed) & found.seeds(reference, *needed))
    if not seeds:
        return None
    gain_KC = found.stack(arm, found.kind, seeds) - found.stack(reference, found.kind, seeds)
    counts_KC = found.stack(arm, "train_counts", seeds)
    names, unscored = found.names, np.array(found.unscored)
    if (order := by_rank(counts_KC)) is not None:
        names, unscored = rank_names(names, order), np.asarray(unscored[order].all(axis=0))
        gain_KC, counts_KC = ranked(gain_KC, order), ranked(counts_KC, order)
    mean, _, _, low, high = mean_interval(gain_KC.T)
    return Gains(names, unscored, counts_KC.mean(axis=0), mean, low, high, len(seeds))


def _flat(gain: Gains) -> bool:
    """Return whether the classes that count are about equally frequent: nothing stands against frequency."""
    counts = gain.counts[~gain.unscored]
    return len(counts) > 1 and equally_frequent(counts)


def _level(study: Study, level: str, found: PerClass, gains: dict[str, Gains], name: str) -> list[Drawing]:
    """Return the figures of one level."""
    drawings = []
    kind = KINDS[found.kind]
    for page in strips(list(gains), (2.6, 1.75)):
        decades = Decades.of(np.concatenate([gain.counts for gain in gains.values()]))
        for cell, arm in zip(page.cells, page.items, strict=True):
            _cell(cell, gains[arm], decades)
            cell.title(f"{short(arm, 34)}\n{_extremes(gains[arm], 13)}")
        for strip in page.axes:
            strip.hlines(0, 0, strip.spines.bottom.get_bounds()[1], color=INK, linewidth=0.8)
        page.axes[0].locator_params(axis="y", nbins=5)
        unit = "training pixels" if found.kind == "iou" else "training images"
        page.figure.supxlabel(f"{unit} of the class (logarithmic)")
        page.figure.supylabel(f"gain in {kind}: arm minus {short(study.reference)}")
        marks = [SCORED, UNSCORED] if any(gain.unscored.any() for gain in gains.values()) else [SCORED]
        legend(page.figure, [mark.handle() for mark in marks])
        parts = [f"{arm} {_extremes(gain, 40)}, {gain.pairs} pairs" for arm, gain in gains.items()]
        where = f" at {level}" if level else ""
        drawings.append(
            Drawing(
                name + page.suffix,
                at_level(f"Gain per class over {study.reference}", level) + page.part,
                f"Gain in {kind} of each class over {study.reference} against its frequency in training"
                f"{where}; highest and lowest: {listing(parts)}.",
                page.figure,
                f"Mean paired difference in {kind} of each class on the report split over the confirm seeds "
                "that arm and reference finished, with its 95 % t interval, which is not corrected for the "
                "number of classes. Frequency: mean over seeds of the trial's own training set; where "
                "seeds draw anew which class is frequent, a class is a rank in that set. Above each "
                "panel: the classes with the highest and the lowest gain. Arms identical to another are left "
                "out.",
            )
        )
    return drawings


def _cell(cell: Cell, gain: Gains, decades: Decades) -> None:
    """Draw the classes of one arm."""
    x, many = cell.place(decades.shares(gain.counts)), len(gain.counts) > MANY
    for chosen, mark in ((~gain.unscored, SCORED), (gain.unscored, UNSCORED)):
        known = chosen & np.isfinite(gain.mean)
        if known.any():
            low, high = (np.where(np.isfinite(b), b, gain.mean)[known] for b in (gain.low, gain.high))
            cell.axes.vlines(x[known], low, high, color=mark.colour, linewidth=0.4 if many else 0.9)
            mark.draw(cell.axes, x[known].tolist(), gain.mean[known].tolist(), 1.8 if many else 3.5)
    if cell.lowest:
        cell.labels(decades.ticks())


def _extremes(gain: Gains, most: int) -> str:
    """Return the classes with the highest and the lowest gain, of those that the mean score averages over."""
    counted = np.where(gain.unscored, np.nan, gain.mean)
    if not np.isfinite(counted).any():
        return "no finite gain"
    best, worst = int(np.nanargmax(counted)), int(np.nanargmin(counted))
    return ", ".join(
        f"{short(gain.names[c], most)} {number(float(gain.mean[c]), 3, signed=True)}"
        for c in dict.fromkeys((best, worst))
    )
