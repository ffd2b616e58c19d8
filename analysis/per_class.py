"""Scores of every class, head to tail: a description, not a test. C classes.

How often a class occurs in training is known from ``train_counts`` (C,) of a confirm trial's
``geometry.npz``, which names no classes. The order of the classes is that in which the trial's result lists
its per-class metrics; it is used only where those values equal the file's own per-class scores, one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from analysis.comparison import Comparison
from analysis.consistency import read_geometry
from analysis.numbers import decimals_for, number, significant
from analysis.opened import Study
from analysis.table import Table
from analysis.trials import finished, metric_values

KINDS = ("iou", "accuracy")
"""Per-class metrics: ``test/iou/NAME`` in segmentation, ``test/accuracy/NAME`` in classification."""
SHOWN = 60
"""Classes of a table; of more the most and the least frequent are shown, and the file has all."""
FILE = "per_class.csv"


def class_counts(
    study: Study, folder: Path, events: pl.DataFrame, trials: pl.DataFrame
) -> dict[tuple[str, str], float]:
    """Return how often each class occurs in training, by level and class: means over the reference's seeds.

    Pixels in segmentation, images in classification. Nothing for a level where no trial left a file whose
    per-class scores agree with its result.

    Args:
        study: the plan.
        folder: of the study.
        events: of the ledger.
        trials: the frame of ``results.confirm_trials``.
    """
    ended = trials.filter((pl.col("status") == "finished") & (pl.col("index") < study.seeds))
    counts: dict[tuple[str, str], float] = {}
    for level in study.levels:
        names = ended.filter(level=level, arm=study.reference)["trial_id"].to_list()
        of_level = _counts(study, folder, events.filter(pl.col("trial_id").is_in(names)))
        counts |= {(level, name): count for name, count in of_level.items()}
    return counts


def _counts(study: Study, folder: Path, events: pl.DataFrame) -> dict[str, float]:
    """Return the mean count of each class over the finished trials of some events."""
    found: list[Mapping[str, float]] = []
    results = metric_values(finished(events))
    for _, of_trial in results.group_by("trial_id", maintain_order=True):
        scores = class_scores(study, dict(of_trial.select("metric", "value").iter_rows()))
        arrays = read_geometry(folder, of_trial["trial_id"][0]) if scores else None
        if arrays is None or "train_counts" not in arrays:
            continue
        kept = next((arrays[kind] for kind in KINDS if kind in arrays), None)
        listed = np.array([*scores.values()], dtype=np.float32)
        if kept is not None and np.array_equal(listed, kept.astype(np.float32), equal_nan=True):
            found.append(dict(zip(scores, arrays["train_counts"].tolist(), strict=True)))
    same = [counts for counts in found if counts.keys() == found[0].keys()]
    return {name: float(np.mean([counts[name] for counts in same])) for name in (same[0] if same else ())}


def class_scores(study: Study, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the per-class scores of the report split by class, in the order of ``metrics``."""
    split = study.primary.partition("/")[0]
    for kind in KINDS:
        prefix = f"{split}/{kind}/"
        found = {name[len(prefix) :]: value for name, value in metrics.items() if name.startswith(prefix)}
        if found:
            return found
    return {}


def per_class_frame(
    study: Study, comparison: Comparison, counts: Mapping[tuple[str, str], float]
) -> pl.DataFrame:
    """Return the per-class scores of every row: head to tail, else by name; empty without any.

    Columns: level, arm, class, train_count (null: not known), n, mean, sd, n_pairs, diff (to the reference,
    paired by seed).
    """
    split = study.primary.partition("/")[0]
    prefix = next(
        (p for kind in KINDS if comparison.tidy["metric"].str.starts_with(p := f"{split}/{kind}/").any()),
        None,
    )
    tidy = comparison.tidy.filter(pl.col("metric").str.starts_with(prefix) if prefix else pl.lit(False))
    known = pl.DataFrame(
        [(*at, count) for at, count in counts.items()],
        schema={"level": pl.String, "class": pl.String, "train_count": pl.Float64},
        orient="row",
    )
    return (
        tidy.with_columns(pl.col("metric").str.slice(len(prefix or "")).alias("class"))
        .join(known, on=["level", "class"], how="left", maintain_order="left")
        .with_row_index("order")
        .with_columns(pl.col("order").min().over("level", "arm"))
        .sort(
            ["order", "train_count", "class"],
            descending=[False, True, False],
            nulls_last=True,
            maintain_order=True,
        )
        .select("level", "arm", "class", "train_count", "n", "mean", "sd", "n_pairs", "diff")
    )


def per_class_tables(study: Study, frame: pl.DataFrame) -> list[Table]:
    """Return one table per level: classes in rows, arms in columns; none without per-class scores.

    ``frame`` is that of ``per_class_frame``.
    """
    tables = []
    for level in study.levels:
        of_level = frame.filter(level=level, arm=study.reference)
        classes = of_level["class"].to_list()
        if classes:
            counts = dict(of_level.select("class", "train_count").iter_rows())
            tables.append(_table(study, frame.filter(level=level), level, classes, counts))
    return tables


def _table(
    study: Study, frame: pl.DataFrame, level: str, classes: list[str], counts: Mapping[str, float | None]
) -> Table:
    """Return the table of one level."""
    arms = [arm.arm for arm in study.arms if arm.level == level]
    cells = {
        (arm, name): (mean, diff)
        for arm, name, mean, diff in frame.select("arm", "class", "mean", "diff").iter_rows()
    }
    spread = frame.filter(pl.col("n") > 1)
    decimals = min(4, decimals_for((spread["sd"] / spread["n"].sqrt()).to_numpy().astype(np.float64)))
    known = {name: count for name, count in counts.items() if count is not None}
    total = sum(known.values())
    shown = classes if len(classes) <= SHOWN else [*classes[: SHOWN // 2], *classes[-SHOWN // 2 :]]
    rows = []
    for name in shown:
        share = f"{significant(100 * known[name] / total, 3)} %" if name in known and total else "-"
        row = [name, *([share] if known else [])]
        for arm in arms:
            mean, diff = cells.get((arm, name), (None, None))
            change = "" if arm == study.reference else f" ({number(diff, decimals, signed=True)})"
            row.append(number(mean, decimals) + change)
        rows.append(row)
    columns = ["class", *(["of training"] if known else []), *arms]
    title = "Per class, a description without tests" + (f" ({level})" if level else "")
    return Table(title, columns, rows, notes=_notes(study, classes, shown, bool(known)))


def _notes(study: Study, classes: list[str], shown: list[str], known: bool) -> tuple[str, ...]:
    """Say what the cells are, how classes are ordered, and that nothing is claimed."""
    lines = [
        f"Mean per-class score over confirm seeds; in brackets the mean difference to {study.reference}, "
        "paired by seed. No class is tested: with so many, some differ by chance."
    ]
    if known:
        lines.append(
            "Most frequent class first: labelled training pixels (images in classification) as the confirm "
            f"trials of {study.reference} counted them (train_counts in geometry.npz), assigned to classes "
            "in the order in which results list them, which is checked against the scores in the same file."
        )
    else:
        lines.append("By name: how often a class occurs in training is not on record (geometry.npz).")
    if len(shown) < len(classes):
        lines.append(f"{len(shown)} of {len(classes)} classes, from both ends; {FILE} has all.")
    return tuple(lines)
