"""The features of report pixels in the plane, with what the trial holds one vector per class of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy import linalg

from analysis.arrays import Arrays
from analysis.consistency import read_geometry
from analysis.figures.confirmed import class_names, drawing_name, finished_trials, in_groups, on_common_seed
from analysis.figures.drawing import Drawing, new_figure
from analysis.figures.palette import COLOURS, colours_of
from analysis.sources import Sources
from analysis.statistics import Array

MARKS = {
    "class_means": ("o", "class mean"),
    "semantic_anchors": ("*", "semantic anchor"),
    "prototypes": ("D", "prototype"),
    "centres": ("s", "centre"),
    "classifier_rows": ("^", "classifier row"),
}
SIZES = {"*": 150.0, "o": 60.0, "D": 45.0, "s": 45.0, "^": 55.0}
OTHER = "#bdbdbd"
"""Dots of classes beyond the first 20."""

DOTS = 220
"""Per inch, of the features in vector files, where they are a picture."""

CAPTION = (
    "Principal components of the sampled report features of one trial per arm (centred, not scaled): a "
    "linear map, the same for features and class vectors of a panel. Every panel has its own, so axes and "
    "signs cannot be compared between panels. In brackets: share of the variance of the features that an "
    "axis holds; what lies in other directions is not seen. Equally many pixels of each class are sampled "
    "where there are enough. Classifier rows are scaled to the mean length of class means: their "
    "direction counts, their length is another unit."
)


class Plane(NamedTuple):
    """A linear map to two dimensions: x -> (x - mean) @ axes, and the share of variance of each axis."""

    mean: Array
    axes: Array
    shares: Array

    def place(self, vectors: Array) -> Array:
        """Return vectors (N, D) in the plane, (N, 2)."""
        return np.asarray((vectors - self.mean) @ self.axes)


def principal_plane(features_PD: Array) -> Plane | None:
    """Return the plane of the two largest principal components of features (P, D); None if there is none.

    The sign of an axis makes its entry of largest size positive, so that it does not depend on the machine.
    """
    features = np.asarray(features_PD, dtype=np.float64)
    if len(features) < 3 or features.shape[1] < 2 or not np.isfinite(features).all():
        return None
    mean = features.mean(axis=0)
    scatter = (features - mean).T @ (features - mean)
    total, width = float(np.trace(scatter)), len(scatter)
    if not total > 0:
        return None
    values, columns = linalg.eigh(scatter, subset_by_index=(width - 2, width - 1))
    axes = columns[:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return Plane(mean, axes, values[::-1] / total)


def embedding(sources: Sources) -> list[Drawing]:
    """Return a drawing per level and group of arms; none where no trial left its features."""
    groups: list[tuple[str, int, dict[str, Placed]]] = []
    for level in sources.study.levels:
        found: dict[str, dict[int, str]] = {
            arm: {seed: trial for seed, trial in of_arm.items() if _has_file(sources, trial)}
            for arm, of_arm in finished_trials(sources, level).items()
        }
        seed, chosen = on_common_seed(found)
        placed = {arm: _placed(sources, trial) for arm, trial in chosen.items()}
        usable = {arm: found for arm, found in placed.items() if found is not None}
        groups += [(level, seed, {arm: usable[arm] for arm in part}) for part in in_groups([*usable]) if part]
    return [
        _drawing(sources, drawing_name("embedding", number, len(groups)), *group)
        for number, group in enumerate(groups, start=1)
    ]


class Placed(NamedTuple):
    """A trial, the arrays that it left, and the plane of its features."""

    trial: str
    arrays: Arrays
    plane: Plane


def _placed(sources: Sources, trial: str) -> Placed | None:
    """Return what a trial shows; None if its features have no plane."""
    arrays = read_geometry(sources.folder, trial)
    plane = principal_plane(arrays["features"]) if arrays and "features" in arrays else None
    return Placed(trial, arrays, plane) if arrays and plane else None


def _has_file(sources: Sources, trial: str) -> bool:
    """Return whether a trial left its geometry."""
    return any((sources.folder / "trials" / trial).glob("attempt-*/geometry.npz"))


def _drawing(sources: Sources, name: str, level: str, seed: int, panels: dict[str, Placed]) -> Drawing:
    """Draw the arms of one figure side by side."""
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    first = next(iter(panels.values()))
    entries = len(MARKS) + min(len(COLOURS), len(first.arrays["class_means"])) + 1
    figure = new_figure(3.3 * columns + 1.9, max(3.3 * lines, 0.18 * entries) + 0.2)
    figure.set_dpi(DOTS)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    names = class_names(sources, first.trial, len(first.arrays["class_means"]))
    shown = _shown(first.arrays)
    colours = colours_of(shown)
    for panel, (arm, placed) in zip(axes, panels.items(), strict=False):
        _panel(panel, arm, placed, colours)
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    kinds = [kind for kind in MARKS if any(kind in one.arrays for one in panels.values())]
    marks = [_key(MARKS[kind][0], "white", MARKS[kind][1], edge="black") for kind in kinds]
    classes = [_key("o", colours[c], names[c]) for c in shown]
    classes += [_key("o", OTHER, "other classes")] if len(shown) < len(names) else []
    legend = figure.legend(handles=marks + classes, loc="outside right upper", frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    where = f", {level}" if level else ""
    return Drawing(
        name,
        f"Features of report pixels, confirm seed {seed}{where}",
        f"Scatter plots of report features on two principal components for the arms {', '.join(panels)}, "
        f"coloured by class, with {', '.join(MARKS[kind][1] + 's' for kind in kinds)} on top.",
        figure,
        CAPTION,
    )


def _shown(arrays: Arrays) -> list[int]:
    """Return the classes with a colour of their own: all, or of more than 20 the most and least frequent."""
    count = len(arrays["class_means"])
    if count <= len(COLOURS):
        return [*range(count)]
    order = np.argsort(-np.asarray(arrays.get("train_counts", np.zeros(count))), kind="stable").tolist()
    half = len(COLOURS) // 2
    return sorted(order[:half] + order[-half:])


def _panel(panel: Axes, arm: str, placed: Placed, colours: dict[int, str]) -> None:
    """Draw features as dots and class vectors as larger marks."""
    _, arrays, plane = placed
    places, labels = plane.place(arrays["features"]), arrays["labels"]
    order = np.argsort(np.isin(labels, [*colours]), kind="stable")  # classes without a colour below
    shades = [colours.get(c, OTHER) for c in labels[order].tolist()]
    x, y = places[order].T
    panel.scatter(x, y, s=6, c=shades, alpha=0.45, linewidths=0, rasterized=True)
    lengths = np.linalg.norm(arrays["class_means"], axis=1)
    for layer, kind in enumerate(reversed(MARKS), start=3):
        if kind in arrays and arrays[kind].shape[1] == len(plane.mean):
            vectors = np.asarray(arrays[kind], dtype=np.float64)
            if kind == "classifier_rows":
                vectors = vectors * (np.nanmean(lengths) / max(1e-12, np.linalg.norm(vectors, axis=1).mean()))
            _marks(panel, plane.place(vectors), MARKS[kind][0], colours, layer)
    panel.set_title(arm, fontsize=10, parse_math=False)
    for set_label, number in ((panel.set_xlabel, 0), (panel.set_ylabel, 1)):
        set_label(f"component {number + 1} ({100 * plane.shares[number]:.0f} %)", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.set_aspect("equal", adjustable="datalim")
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _marks(panel: Axes, places: Array, mark: str, colours: dict[int, str], order: int) -> None:
    """Draw one vector per class, those that a class lacks left out."""
    shown = [c for c in colours if c < len(places) and np.isfinite(places[c]).all()]
    panel.scatter(
        places[shown, 0],
        places[shown, 1],
        s=SIZES[mark],
        marker=mark,
        c=[colours[c] for c in shown],
        edgecolors="black",
        linewidths=0.8,
        zorder=order,
    )


def _key(mark: str, colour: str, text: str, edge: str = "none") -> Line2D:
    """Return an entry of the legend."""
    return Line2D(
        [], [], linestyle="", marker=mark, color=colour, markeredgecolor=edge, markersize=7, label=text
    )
