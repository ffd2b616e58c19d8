"""Report images, their labels and what each arm predicts, from the files of ``python -m sarx.probe``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from analysis.arrays import Arrays, read_images, read_predictions
from analysis.figures.confirmed import drawing_name, finished_trials, in_groups, on_common_seed
from analysis.figures.drawing import Drawing, new_figure
from analysis.figures.palette import IGNORED, OTHER, colours_of, painted
from analysis.sources import Sources

MOST_IMAGES = 6
WRONG, RIGHT = "#d55e00", "#0072b2"
CAPTION = (
    "Chosen by labels alone, before any prediction: each next image shows most classes that are not shown "
    "yet, rare ones counting more. They are the same for every arm and seed, and too few to compare arms by."
)


class Part(NamedTuple):
    """What one drawing shows: a level, a seed, images by index, and the predictions of its arms."""

    level: str
    seed: int
    shown: Arrays
    indices: list[int]
    predictions: dict[str, Arrays]


def qualitative(sources: Sources) -> list[Drawing]:
    """Return a drawing per level, group of arms and six images; none where nothing was probed."""
    parts: list[Part] = []
    for level in sources.study.levels:
        found: dict[str, dict[int, Arrays]] = {}
        for arm, of_arm in finished_trials(sources, level).items():
            read = {seed: read_predictions(sources.folder, trial) for seed, trial in of_arm.items()}
            found[arm] = {seed: arrays for seed, arrays in read.items() if arrays is not None}
        seed, chosen = on_common_seed(found)
        parts += _parts(sources, level, seed, chosen)
    return [
        _drawing(drawing_name("qualitative", number, len(parts)), part)
        for number, part in enumerate(parts, start=1)
    ]


def _parts(sources: Sources, level: str, seed: int, chosen: dict[str, Arrays]) -> list[Part]:
    """Divide the arms that were shown the same images as the first into drawings."""
    if not chosen:
        return []
    images = str(next(iter(chosen.values()))["images"])
    same = {arm: arrays for arm, arrays in chosen.items() if str(arrays["images"]) == images}
    shown = read_images(sources.folder, images)
    if shown is None:
        return []
    indices = shown["indices"].tolist()
    return [
        Part(level, seed, shown, indices[start : start + MOST_IMAGES], {arm: same[arm] for arm in arms})
        for arms in in_groups([*same])
        for start in range(0, len(indices), MOST_IMAGES)
    ]


def _drawing(name: str, part: Part) -> Drawing:
    """Draw a grid of images (rows) by label and arms (columns)."""
    draw = _label_maps if str(part.shown["task"]) == "segmentation" else _classes
    figure = draw(part)
    where = f", {part.level}" if part.level else ""
    named = ", ".join(str(part.shown["names"][part.shown["indices"] == i][0]) for i in part.indices)
    return Drawing(
        name,
        f"Predictions on report images, confirm seed {part.seed}{where}",
        f"{len(part.indices)} report images with their labels and the predictions of the arms "
        f"{', '.join(part.predictions)}.",
        figure,
        f"{CAPTION} Images: {named}.",
    )


def _label_maps(part: Part) -> Figure:
    """Draw label maps and predicted maps in the colours of their classes."""
    ignored = int(part.shown["ignore_index"])
    labels = [part.shown[f"label_{i}"] for i in part.indices]
    maps = [("label", labels)]
    for arm, found in part.predictions.items():
        maps.append((arm, [found[f"prediction_{i}"] for i in part.indices]))
    everything = np.concatenate([one.ravel() for _, of_column in maps for one in of_column])
    classes, counts = np.unique(everything[everything != ignored], return_counts=True)
    colours = colours_of(classes[np.argsort(-counts, kind="stable")].tolist())
    height, width = labels[0].shape
    figure, panels = _grid(part, 1 + len(maps), max(0.4, min(1.4, height / width)))
    for column, (title, of_column) in enumerate(maps, start=1):
        for panel, one in zip(panels[:, column], of_column, strict=True):
            panel.imshow(painted(one, colours, ignored), interpolation="nearest")
        _title(panels[0, column], title)
    names = part.shown["class_names"].tolist()
    named = sorted(c for c in colours if colours[c] != OTHER)
    entries = [Patch(color=colours[c], label=names[c]) for c in named]
    if len(classes) > len(named):
        entries.append(Patch(color=OTHER, label="other classes"))
    if any((one == ignored).any() for one in labels):
        entries.append(
            Patch(facecolor=IGNORED[0], edgecolor=IGNORED[1], hatch="//////", label="does not count")
        )
    wide = 0.5 + 0.08 * max(len(str(entry.get_label())) for entry in entries)
    columns = max(1, min(len(entries), int(figure.get_figwidth() / wide)))
    legend = figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
        handlelength=1.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _classes(part: Part) -> Figure:
    """Draw images beside the names of their class and of the predicted ones; a wrong one is marked."""
    names = part.shown["class_names"].tolist()
    first = part.shown[f"image_{part.indices[0]}"]
    figure, panels = _grid(part, 2 + len(part.predictions), first.shape[0] / first.shape[1])
    for row, index in enumerate(part.indices):
        label = int(part.shown[f"label_{index}"])
        _word(panels[row, 1], names[label], "black")
        for panel, found in zip(panels[row, 2:], part.predictions.values(), strict=True):
            predicted = int(found[f"prediction_{index}"])
            right = predicted == label
            _word(panel, names[predicted] if right else f"x {names[predicted]}", RIGHT if right else WRONG)
    for panel, title in zip(panels[0, 1:], ["label", *part.predictions], strict=True):
        _title(panel, title)
    return figure


def _title(panel: Axes, text: str) -> None:
    """Write the heading of a column, smaller if it is long."""
    panel.set_title(text, fontsize=max(5.0, min(9.0, 9.0 * 16 / max(1, len(text)))), parse_math=False)


def _word(panel: Axes, text: str, colour: str) -> None:
    """Write the name of a class into an empty panel."""
    panel.text(
        *(0.5, 0.5, text), color=colour, ha="center", va="center", fontsize=8, wrap=True, parse_math=False
    )
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _grid(part: Part, columns: int, aspect: float) -> tuple[Figure, NDArray[Any]]:
    """Return a figure with empty panels (images x columns), the first column holding the images."""
    side = 1.35
    figure = new_figure(side * columns + 0.2, side * aspect * len(part.indices) + 0.9)
    panels: NDArray[Any] = figure.subplots(len(part.indices), columns, squeeze=False)
    for panel in panels.ravel():
        panel.set_xticks([])
        panel.set_yticks([])
        for spine in panel.spines.values():
            spine.set_linewidth(0.4)
    for panel, index in zip(panels[:, 0], part.indices, strict=True):
        image = part.shown[f"image_{index}"]
        panel.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
    panels[0, 0].set_title("image", fontsize=9)
    return figure, panels
