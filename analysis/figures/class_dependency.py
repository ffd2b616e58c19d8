"""How classes depend on each other: cosines of class vectors per arm, and whether seeds agree on them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.arrays import Arrays
from analysis.class_ranks import by_rank
from analysis.consistency import Estimate, jackknife, layout_pairs, read_geometry
from analysis.consistency_claim import ANCHORS, claims, plain_arm, sentence
from analysis.figures.confirmed import class_names, drawing_name, finished_trials, in_groups
from analysis.figures.drawing import Drawing, new_figure
from analysis.sources import Sources
from analysis.statistics import Array

MATRICES = ("class_means", ANCHORS)
KINDS = {
    "class_means": ("o", "class means", "#0072b2"),
    ANCHORS: ("*", "semantic anchors", "#d55e00"),
    "prototypes": ("D", "prototypes", "#009e73"),
    "centres": ("s", "centres", "#cc79a7"),
    "classifier_rows": ("^", "classifier rows", "#555555"),
}
NAMED = 20
"""At most so many classes have their names at the axes."""

CAPTION = (
    "Matrices (class means, below them semantic anchors): cosine of the vectors of two classes, mean over "
    "the confirm seeds that have them; classes from frequent to rare by the mean log number of training "
    "labels over seeds, or in the data set's order where each seed draws anew which class is frequent. Dots: "
    "correlation of the off-diagonal cosines of two seeds, mean over pairs of seeds, with the 95 % interval "
    "of the delete-one-seed jackknife (from 3 seeds). Differences are paired by seed, of class means, and "
    "SAR's alone is tested."
)

Seeds = dict[str, list[Arrays | None]]


def mean_cosines(vectors: list[Array]) -> Array:
    """Return the cosines between classes (C, C), mean over seeds; NaN where no seed has both classes.

    Args:
        vectors: Of each seed (C, D), D of any size; a row that is 0 or not finite is a class without vector.
    """
    size = len(vectors[0])
    total, count = np.zeros((size, size)), np.zeros((size, size))
    for rows in vectors:
        norms = np.linalg.norm(np.asarray(rows, dtype=np.float64), axis=1, keepdims=True)
        usable = np.isfinite(norms) & (norms > 0)
        directions = np.where(usable, rows, 0.0) / np.where(usable, norms, 1.0)
        total = total + directions @ directions.T
        count = count + (usable & usable.T)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def frequency_order(counts: list[Array]) -> NDArray[np.intp]:
    """Return the classes from frequent to rare, by the mean over seeds of log(1 + training labels), (C,)."""
    mean = np.mean([np.log1p(np.asarray(row, dtype=np.float64)) for row in counts], axis=0)
    return np.argsort(-mean, kind="stable")


def class_dependency(sources: Sources) -> list[Drawing]:
    """Return a drawing per level and group of arms; none where no trial left its class vectors."""
    plain = plain_arm(sources.events)
    found = {level: _seeds(sources, level) for level in sources.study.levels}
    made = claims(found, sources.study.reference, plain)
    groups: list[tuple[str, Seeds]] = []
    for level, seeds in found.items():
        arms = sorted(seeds, key=lambda arm: arm != plain)  # each drawing shows what it is compared with
        groups += [(level, {arm: seeds[arm] for arm in part}) for part in in_groups(arms) if part]
    drawings = []
    for number, (level, seeds) in enumerate(groups, start=1):
        said = f" {sentence(made[level], level)}" if level in made else ""
        name = drawing_name("class_dependency", number, len(groups))
        drawings.append(_drawing(sources, name, level, seeds, plain, said))
    return drawings


def _seeds(sources: Sources, level: str) -> Seeds:
    """Return what each seed of the arms of a level left, of the arms of which any left something."""
    found = {
        arm: [
            _class_vectors(sources, of_arm[seed]) if seed in of_arm else None
            for seed in range(sources.study.seeds)
        ]
        for arm, of_arm in finished_trials(sources, level).items()
    }
    return {arm: seeds for arm, seeds in found.items() if any(arrays is not None for arrays in seeds)}


def _class_vectors(sources: Sources, trial: str) -> Arrays | None:
    """Return what the figure needs of a trial's file; its features, which are most of it, are let go."""
    arrays = read_geometry(sources.folder, trial)
    if arrays is None or "class_means" not in arrays:
        return None
    return {name: arrays[name] for name in (*KINDS, "train_counts") if name in arrays}


def _drawing(sources: Sources, name: str, level: str, seeds: Seeds, plain: str | None, said: str) -> Drawing:
    """Draw matrices above, agreement of seeds below."""
    known = {arm: [arrays for arrays in of_arm if arrays is not None] for arm, of_arm in seeds.items()}
    rows = [kind for kind in MATRICES if any(kind in arrays for found in known.values() for arrays in found)]
    width = max(6.5, 1.75 * len(seeds) + 1.7)
    tall = min(2.7, (width - 1.7) / len(seeds)) * len(rows) + 0.5
    low = 1.4 + 0.14 * len(KINDS) * len(seeds) / 2
    figure = new_figure(width, tall + low)
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[tall, low])
    upper, lower = parts[0, 0], parts[1, 0]
    _matrices(sources, upper, level, known, rows)
    pairs = {kind: {arm: layout_pairs(of_arm, kind) for arm, of_arm in seeds.items()} for kind in KINDS}
    left, right = lower.subplots(1, 2, sharey=True)
    _agreement(left, pairs)
    _differences(right, pairs["class_means"], plain)
    where = f", {level}" if level else ""
    return Drawing(
        name,
        f"Dependency of classes{where}",
        f"Matrices of cosines between classes for the arms {', '.join(seeds)}; below, how alike these are "
        "over seeds and the difference to plain cross-entropy, with intervals; the same numbers stand in the "
        "table on consistency.",
        figure,
        CAPTION + said,
    )


def _matrices(
    sources: Sources, figure: SubFigure, level: str, known: dict[str, list[Arrays]], rows: list[str]
) -> None:
    """Draw the mean cosines of each kind of vectors (rows) and arm (columns)."""
    everything = [arrays for found in known.values() for arrays in found]
    size = len(everything[0]["class_means"])
    counts = [arrays["train_counts"] for arrays in everything if "train_counts" in arrays]
    common = bool(counts) and by_rank(np.array(counts, dtype=np.float64)) is None
    order = frequency_order(counts) if common else np.arange(size)
    trial = sources.trials.filter(level=level, status="finished")["trial_id"][0]
    names = [class_names(sources, trial, size)[c] for c in order]
    panels = figure.subplots(len(rows), len(known), squeeze=False)
    lowest = {arm: [k for k in rows if any(k in arrays for arrays in of)][-1] for arm, of in known.items()}
    drawn: AxesImage | None = None
    for line, kind in zip(panels, rows, strict=True):
        first = True
        for panel, (arm, found) in zip(line, known.items(), strict=True):
            vectors = [arrays[kind] for arrays in found if kind in arrays]
            if not vectors:
                panel.set_visible(False)
                continue
            matrix = mean_cosines(vectors)[np.ix_(order, order)]
            panel.set_facecolor("#dddddd")
            drawn = panel.imshow(matrix, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
            panel.set_title(arm if kind == rows[0] else f"{arm}: anchors", fontsize=9, parse_math=False)
            _class_axes(panel, names, left=first, below=lowest[arm] == kind)
            first = False
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=panels.ravel().tolist(), shrink=0.7, aspect=18)
        bar.set_label("cosine", fontsize=8)
        bar.ax.tick_params(labelsize=7)


def _class_axes(panel: Axes, names: list[str], left: bool, below: bool) -> None:
    """Name the classes at the axes if there are few, each axis where it is the outermost."""
    if len(names) > NAMED:
        panel.set_xticks([])
        panel.set_yticks([])
        return
    blank = [""] * len(names)
    panel.set_xticks(range(len(names)), names if below else blank, rotation=90, fontsize=6, parse_math=False)
    panel.set_yticks(range(len(names)), names if left else blank, fontsize=6, parse_math=False)
    panel.tick_params(length=0)


def _agreement(panel: Axes, pairs: dict[str, dict[str, Array]]) -> None:
    """Draw for each arm how alike the cosines of two seeds are, for each kind of vectors."""
    kinds = [kind for kind in KINDS if any(np.isfinite(found).any() for found in pairs[kind].values())]
    arms = list(pairs["class_means"])
    for place, kind in enumerate(kinds):
        mark, label, colour = KINDS[kind]
        for row, arm in enumerate(arms):
            shift = 0.16 * (place - (len(kinds) - 1) / 2)
            _interval(panel, jackknife(pairs[kind][arm]), row + shift, mark, colour)
        panel.plot([], [], mark, color=colour, label=label)
    panel.set_yticks(range(len(arms)), arms, fontsize=8, parse_math=False)
    panel.set_ylim(len(arms) - 0.5, -0.5)
    panel.set_xlabel("consistency over seeds", fontsize=8)
    if not kinds:
        panel.text(0.5, 0.5, "takes two seeds", transform=panel.transAxes, ha="center", fontsize=8)
        panel.set_xticks([])
        return
    panel.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    _tidy(panel)


def _differences(panel: Axes, pairs: dict[str, Array], plain: str | None) -> None:
    """Draw the paired difference of each arm to plain cross-entropy."""
    if plain not in pairs:
        panel.set_visible(False)
        return
    for row, (arm, found) in enumerate(pairs.items()):
        if arm != plain:
            _interval(panel, jackknife(found - pairs[plain]), row, *KINDS["class_means"][::2])
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_xlabel(f"class means: minus {plain}", fontsize=8, parse_math=False)
    _tidy(panel)


def _interval(panel: Axes, found: Estimate, height: float, mark: str, colour: str) -> None:
    """Draw an estimate with its interval."""
    if np.isfinite(found.low):
        panel.plot([found.low, found.high], [height, height], color=colour, linewidth=1.4)
    if np.isfinite(found.value):
        panel.plot(found.value, height, mark, color=colour, markersize=8 if mark == "*" else 5)


def _tidy(panel: Axes) -> None:
    panel.tick_params(labelsize=7)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.grid(axis="x", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
