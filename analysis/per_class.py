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
from numpy.typing import NDArray

from analysis.class_ranks import by_rank, rank_names, ranked
from analysis.comparison import Comparison, seed_values
from analysis.consistency import read_geometry
from analysis.numbers import decimals_for, number, significant
from analysis.opened import Study
from analysis.statistics import mean_interval
from analysis.table import Table

KINDS = ("iou", "accuracy")
"""Per-class metrics: ``test/iou/NAME`` in segmentation, ``test/accuracy/NAME`` in classification."""
SHOWN = 60
"""Classes of a table; of more the most and the least frequent are shown, and the file has all."""
FILE = "per_class.csv"


Counts = dict[str, dict[int, dict[str, float]]]
"""Level -> seed -> class -> labels in training."""


def class_counts(study: Study, folder: Path, metrics: pl.DataFrame) -> Counts:
    """Return how often each class occurs in training, by level, seed and class: in the reference's trials.

    Pixels in segmentation, images in classification. Nothing for a trial that left no file, or one whose
    per-class scores do not agree with its result.

    Args:
        study: the plan.
        folder: of the study.
        metrics: the frame of ``results.confirm_metrics``.
    """
    found: dict[tuple[str, int], tuple[str, dict[str, float]]] = {}
    own = metrics.filter((pl.col("arm") == study.reference) & (pl.col("index") < study.seeds))
    for level, seed, trial, name, value in own.select(
        "level", "index", "trial_id", "metric", "value"
    ).iter_rows():
        found.setdefault((level, seed), (trial, {}))[1][name] = value
    counts: Counts = {level: {} for level in study.levels}
    for (level, seed), (trial, of_trial) in found.items():
        known = _counts(folder, trial, class_scores(study, of_trial)) if level in counts else None
        if known is not None:
            counts[level][seed] = known
    for level, of_seeds in counts.items():
        names = next(iter(of_seeds.values()), {}).keys()
        counts[level] = {seed: known for seed, known in of_seeds.items() if known.keys() == names}
    return counts


def _counts(folder: Path, trial: str, scores: Mapping[str, float]) -> dict[str, float] | None:
    """Return the counts of each class in a finished trial; None where they are not known."""
    arrays = read_geometry(folder, trial) if scores else None
    if arrays is None or "train_counts" not in arrays:
        return None
    kept = next((arrays[kind] for kind in KINDS if kind in arrays), None)
    listed = np.array([*scores.values()], dtype=np.float32)
    if kept is None or not np.array_equal(listed, kept.astype(np.float32), equal_nan=True):
        return None
    return dict(zip(scores, arrays["train_counts"].tolist(), strict=True))


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
    study: Study, comparison: Comparison, metrics: pl.DataFrame, counts: Counts
) -> pl.DataFrame:
    """Return the per-class scores of every row: head to tail, else by name; empty without any.

    Where each seed has frequencies of its own, a class is a rank in them (``class_ranks``).
    Columns: level, arm, class, train_count (mean over seeds; null: not known), n, mean, sd, n_pairs, diff (to
    the reference, paired by seed).

    Args:
        study: the plan.
        comparison: of the study.
        metrics: frame of ``results.confirm_metrics``.
        counts: of ``class_counts``.
    """
    split = study.primary.partition("/")[0]
    prefix = next(
        (p for kind in KINDS if comparison.tidy["metric"].str.starts_with(p := f"{split}/{kind}/").any()),
        None,
    )
    orders = {level: found for level in study.levels if (found := _order(counts.get(level, {}))) is not None}
    tidy = comparison.tidy.filter(pl.col("metric").str.starts_with(prefix) if prefix else pl.lit(False))
    known = pl.DataFrame(
        [
            (level, name, float(np.mean([of_seed[name] for of_seed in of_level.values()])))
            for level, of_level in counts.items()
            for name in next(iter(of_level.values()), {})
        ],
        schema={"level": pl.String, "class": pl.String, "train_count": pl.Float64},
        orient="row",
    )
    by_name = (
        tidy.filter(~pl.col("level").is_in([*orders]))
        .with_columns(pl.col("metric").str.slice(len(prefix or "")).alias("class"))
        .join(known, on=["level", "class"], how="left", maintain_order="left")
        .select("level", "arm", "class", "train_count", "n", "mean", "sd", "n_pairs", "diff")
    )
    frames = [_by_rank(study, metrics, prefix or "", level, counts[level], orders[level]) for level in orders]
    place = {(arm.level, arm.arm): number for number, arm in enumerate(study.arms)}
    rows = pl.DataFrame(
        [(*at, number) for at, number in place.items()],
        schema={"level": pl.String, "arm": pl.String, "order": pl.Int64},
        orient="row",
    )
    return (
        pl.concat([by_name, *frames])
        .join(rows, on=["level", "arm"], how="left", maintain_order="left")
        .sort(
            ["order", "train_count", "class"],
            descending=[False, True, False],
            nulls_last=True,
            maintain_order=True,
        )
        .drop("order")
    )


def _order(counts: Mapping[int, Mapping[str, float]]) -> NDArray[np.intp] | None:
    """Return the order of the classes of each seed, where it is not the same for all."""
    return by_rank(np.array([[*of_seed.values()] for of_seed in counts.values()])) if counts else None


def _by_rank(
    study: Study,
    metrics: pl.DataFrame,
    prefix: str,
    level: str,
    counts: Mapping[int, Mapping[str, float]],
    order_KC: NDArray[np.intp],
) -> pl.DataFrame:
    """Return the rows of a level whose classes are ranks, as ``per_class_frame`` does."""
    seeds, names = [*counts], [*next(iter(counts.values()))]
    values = seed_values(study, metrics, [prefix + name for name in names])
    count_C = ranked(np.array([[*of_seed.values()] for of_seed in counts.values()]), order_KC).mean(axis=0)
    rows = {arm.arm: number for number, arm in enumerate(study.arms) if arm.level == level}
    scores = {
        arm: ranked(np.array([values[prefix + name][row, seeds] for name in names]).T, order_KC).T
        for arm, row in rows.items()
    }
    frames = []
    for arm, score_CK in scores.items():
        with np.errstate(invalid="ignore"):  # infinite in both
            difference_CK = score_CK - scores[study.reference]
        own, pair = mean_interval(score_CK), mean_interval(difference_CK)
        frames.append(
            pl.DataFrame(
                {
                    "level": [level] * len(names),
                    "arm": [arm] * len(names),
                    "class": rank_names(names, order_KC),
                    "train_count": count_C,
                    "n": own.n,
                    "mean": own.mean,
                    "sd": own.sd,
                    "n_pairs": pair.n,
                    "diff": pair.mean if arm != study.reference else np.full(len(names), np.nan),
                }
            )
        )
    return pl.concat(frames).with_columns(pl.col("n", "n_pairs").cast(pl.Int64)).fill_nan(None)


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
    if any(name.startswith("rank ") for name in classes):
        lines.append(
            "Each seed draws anew which class is frequent, so a class here is a rank in its trial's own "
            "training set; shares are means over seeds."
        )
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
