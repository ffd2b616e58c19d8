"""Differences over images and seeds, from what every confirm trial left about every report image.

``images.parquet`` of a trial has one row per image and class that the image shows or is said to show, with
the columns image, class, intersection, predicted and true: pixels, or 0 and 1 in classification.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.comparison import Comparison, seed_values
from analysis.errors import UserError
from analysis.images import Counts, ImageInterval, influence, score, two_way_interval
from analysis.numbers import decimals_for, interval, number
from analysis.opened import Study
from analysis.statistics import Array, mean_interval
from analysis.table import Table, full_name

FILE = "images.parquet"
METRICS = ("miou", "mean_accuracy", "pixel_accuracy", "accuracy")
"""Names of the scores that follow from the counts."""
AGREES = 1e-9
NOTES = (
    "The same differences twice. Over seeds: the report images as they are, the interval of the tests. Over "
    "images x seeds: the images as a sample too, from the counts per image and class, to first order in the "
    "weight of an image (two-way clustered variance, t quantile).",
    "The second interval says whether other images would show the difference; it decides no verdict. Last "
    "column: variance of the first interval as part of that of the second; 1: other images add nothing.",
)


@dataclass(frozen=True)
class Scored:
    """The score of a trial, and what each image adds to it.

    Attributes:
        value: the score.
        images: numbers of the images, ascending (N,).
        influence: of every image (N,).
    """

    value: float
    images: NDArray[np.int64]
    influence: Array


class NotComputable(Exception):
    """Why the score of the ledger does not follow from the counts."""


def image_tables(
    study: Study, folder: Path, trials: pl.DataFrame, metrics: pl.DataFrame, comparison: Comparison
) -> tuple[list[Table], list[str]]:
    """Return a table of the differences over images and seeds, and sentences on what it lacks.

    Args:
        study: The plan.
        folder: Folder of the study, with the files of its trials.
        trials: Frame of ``results.confirm_trials``.
        metrics: Frame of ``results.confirm_metrics``.
        comparison: Of the arms.
    """
    done = trials.filter((pl.col("status") == "finished") & (pl.col("index") < study.seeds))
    files = image_files(folder, set(done["trial_id"]))
    if not files:
        text = "Counts per report image were not stored: intervals are over seeds alone."
        return [], [text] if done.height else []
    if study.primary.rpartition("/")[2] not in METRICS:
        text = f"No interval over images x seeds: {study.primary} does not follow from counts per image."
        return [], [text]
    values = seed_values(study, metrics, [study.primary])[study.primary]
    found: dict[tuple[str, str], dict[int, Scored]] = {}
    ledger = {(arm.level, arm.arm): values[row] for row, arm in enumerate(study.arms)}
    try:
        for level, arm, seed, trial in done.select("level", "arm", "index", "trial_id").iter_rows():
            if trial in files and (level, arm) in ledger and np.isfinite(ledger[level, arm][seed]):
                classes = scored_classes(files[trial])
                if classes is None:
                    classes = scored_by_name(metrics, study.primary, trial)
                scored = read_scored(files[trial], study.primary, classes)
                check(trial, scored.value, float(ledger[level, arm][seed]), study.primary)
                found.setdefault((level, arm), {})[seed] = scored
        return _table(study, comparison, found), _without(study, done, files)
    except NotComputable as reason:
        return [], [f"No interval over images x seeds: {reason}."]


def image_files(folder: Path, trials: Set[str]) -> dict[str, Path]:
    """Return the counts of the highest attempt of each trial that left some."""
    found = {}
    for trial in (folder / "trials").iterdir() if (folder / "trials").is_dir() else ():
        files = [*trial.glob(f"attempt-*/{FILE}")] if trial.name in trials else []
        if files:
            found[trial.name] = max(files, key=_attempt)
    return found


def read_scored(file: Path, metric: str, classes: NDArray[np.int64]) -> Scored:
    """Return the score of a trial from its counts.

    Args:
        file: Its ``images.parquet``.
        metric: Which score.
        classes: Those that a mean over classes averages over.

    Raises:
        UserError: The file is damaged.
    """
    try:
        frame = pl.read_parquet(io.BytesIO(file.read_bytes()))
        columns = [frame[name].to_numpy().astype(np.int64) for name in ("image", "class")]
        right, predicted, true = (
            frame[name].to_numpy().astype(np.float64) for name in ("intersection", "predicted", "true")
        )
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise UserError(f"{file} is damaged ({problem}); delete it to leave its trial out") from None
    images, place = np.unique(columns[0], return_inverse=True)
    kind = metric.rpartition("/")[2]
    if kind in ("accuracy", "pixel_accuracy"):
        columns[1], classes = np.zeros_like(columns[1]), np.array([0])
    size = 1 + int(max(columns[1].max(initial=0), classes.max(initial=0)))

    def spread(counts: Array) -> Array:
        flat = np.bincount(place * size + columns[1], counts, len(images) * size)
        return np.asarray(flat.reshape(len(images), size)[:, classes], dtype=np.float64)

    whole = predicted + true - right if kind == "miou" else true
    counts = Counts(spread(right), spread(whole))
    return Scored(score(counts), images, influence(counts))


def scored_classes(file: Path) -> NDArray[np.int64] | None:
    """Return the classes that a score averages over, from ``geometry.npz`` beside; None without it."""
    try:
        with np.load(file.with_name("geometry.npz"), allow_pickle=False) as arrays:
            if "score_classes" in arrays:
                return np.asarray(arrays["score_classes"], dtype=np.int64)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        pass  # names of metrics say it as well, and the value is compared with the ledger's
    return None


def scored_by_name(metrics: pl.DataFrame, metric: str, trial_id: str) -> NDArray[np.int64]:
    """Return the classes that a score averages over, from the names of a trial's metrics, in their order.

    A class apart has its IoU twice, as ``test/iou/background`` and ``test/background_iou``.

    Raises:
        NotComputable: The trial has no metrics by class.
    """
    split, _, kind = metric.rpartition("/")
    part = "iou" if kind == "miou" else "accuracy"
    names = metrics.filter(pl.col("trial_id") == trial_id)["metric"].unique(maintain_order=True).to_list()
    stem = f"{split}/{part}/"
    classes = [name.removeprefix(stem) for name in names if name.startswith(stem)]
    if not classes and kind in ("miou", "mean_accuracy"):
        raise NotComputable("nothing says which classes the score averages over")
    scored = [c for c, name in enumerate(classes) if f"{split}/{name}_{part}" not in names]
    return np.array(scored, dtype=np.int64)


def check(trial_id: str, computed: float, recorded: float, metric: str) -> None:
    """Refuse counts that do not give the score of the ledger."""
    if abs(computed - recorded) > AGREES:
        raise NotComputable(
            f"the counts of trial {trial_id} give a {metric} of {computed:.6f}, the ledger has {recorded:.6f}"
        )


def _table(
    study: Study, comparison: Comparison, found: dict[tuple[str, str], dict[int, Scored]]
) -> list[Table]:
    """Return the table of the rows that have a difference; none without any."""
    rows: list[tuple[str, ImageInterval, tuple[float, float]]] = []
    for row in comparison.rows:
        own, reference = found.get((row.level, row.arm), {}), found.get((row.level, study.reference), {})
        seeds = sorted(own.keys() & reference.keys())
        if row.is_reference or row.identical_to or not seeds:
            continue
        pairs = [(own[seed], reference[seed]) for seed in seeds]
        images = pairs[0][0].images
        if any(not np.array_equal(one.images, images) for pair in pairs for one in pair):
            raise NotComputable(
                f"{full_name(row.arm, row.level)} and {study.reference} did not see the same images"
            )
        values = np.array([a.value - b.value for a, b in pairs])
        over_images = two_way_interval(values, np.column_stack([a.influence - b.influence for a, b in pairs]))
        over_seeds = mean_interval(values[None])
        bounds = (float(over_seeds.low[0]), float(over_seeds.high[0]))
        rows.append((full_name(row.arm, row.level), over_images, bounds))
    if not rows:
        return []
    decimals = decimals_for(np.array([(both.high - both.low) / 2 for _, both, _ in rows]))
    cells = [
        [
            name,
            number(both.value, decimals, signed=True),
            _bounds(both.value, low, high, decimals),
            _bounds(both.value, both.low, both.high, decimals),
            str(both.images),
            str(both.seeds),
            number(both.seed_share, 2),
        ]
        for name, both, (low, high) in rows
    ]
    columns = [
        "arm",
        "difference",
        "95 % over seeds",
        "95 % over images x seeds",
        "images",
        "seeds",
        "part of seeds",
    ]
    title = f"{study.primary}: difference to {study.reference} over images x seeds"
    return [Table(title, columns, cells, notes=NOTES)]


def _bounds(value: float, low: float, high: float, decimals: int) -> str:
    """Return the bounds of an interval alone; ``-`` where there are none."""
    text = interval(value, low, high, decimals, signed=True)
    return text.partition(" ")[2] or "-"


def _without(study: Study, done: pl.DataFrame, files: dict[str, Path]) -> list[str]:
    """Say how many finished trials left no counts."""
    missing = sum(trial not in files for trial in done["trial_id"])
    return (
        [f"Without counts per image, so not in the intervals over images: {missing} trials."]
        if missing
        else []
    )


def _attempt(file: Path) -> int:
    """Return the number of the attempt that wrote a file."""
    found = re.search(r"\d+$", file.parent.name)
    return int(found.group()) if found else 0
