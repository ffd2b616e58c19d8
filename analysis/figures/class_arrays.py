"""What confirm trials left per class in their ``geometry.npz``, by seed.

K seeds, C classes; NaN = missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from analysis.arrays import Arrays
from analysis.consistency import read_geometry
from analysis.sources import Sources
from analysis.statistics import Array
from analysis.trials import finished, metric_values

KINDS = {"iou": "IoU", "accuracy": "accuracy"}
"""The score per class: of segmentation, of classification."""


@dataclass(frozen=True)
class PerClass:
    """One level of a study.

    Attributes:
        kind: key of ``KINDS``.
        names: of the classes, in the order of the arrays.
        unscored: whether a class is left out of the mean score (C,).
        trials: arrays by arm and seed.
    """

    kind: str
    names: list[str]
    unscored: list[bool]
    trials: dict[str, dict[int, Arrays]] = field(default_factory=dict)

    def stack(self, arm: str, name: str, seeds: Sequence[int]) -> Array:
        """Return an array of an arm for some of its seeds, (K, ...)."""
        return np.stack([np.asarray(self.trials[arm][seed][name], dtype=np.float64) for seed in seeds])

    def seeds(self, arm: str, *names: str) -> set[int]:
        """Return the seeds of an arm that have all these arrays."""
        return {seed for seed, arrays in self.trials.get(arm, {}).items() if all(n in arrays for n in names)}


def per_class(sources: Sources, level: str) -> PerClass | None:
    """Return what the finished trials of a level left; None without files.

    Files whose number of classes differs from that of most are left out. Raises what ``read_geometry`` does.
    """
    study = sources.study
    chosen = sources.trials.filter(
        (pl.col("level") == level) & (pl.col("status") == "finished") & (pl.col("index") < study.seeds)
    )
    found: dict[str, dict[int, Arrays]] = {}
    ids: dict[tuple[str, int], str] = {}
    for arm, seed, trial in chosen.select("arm", "index", "trial_id").iter_rows():
        arrays = read_geometry(sources.folder, trial, (*KINDS, "train_counts", "confusion"))
        if arrays is not None and any(kind in arrays for kind in KINDS):
            found.setdefault(arm, {})[seed] = arrays
            ids[arm, seed] = trial
    every = [(arm, seed, arrays) for arm, of_arm in found.items() for seed, arrays in of_arm.items()]
    if not every:
        return None
    kinds = [next(kind for kind in KINDS if kind in arrays) for *_, arrays in every]
    shapes = [(kind, len(arrays[kind])) for kind, (*_, arrays) in zip(kinds, every, strict=True)]
    usual = max(dict.fromkeys(shapes), key=shapes.count)
    for (arm, seed, _), shape in zip(every, shapes, strict=True):
        if shape != usual:
            del found[arm][seed]
    kind, classes = usual
    recorded = metric_values(finished(sources.events)).drop("epoch")
    for arm, of_arm in found.items():
        for seed, arrays in of_arm.items():
            scores = recorded.filter(trial_id=ids[arm, seed])
            named = class_names(scores, study.primary.partition("/")[0], kind, arrays[kind])
            if named is not None:
                return PerClass(kind, *named, found)
    return PerClass(kind, [f"class {c}" for c in range(classes)], [False] * classes, found)


def class_names(
    recorded: pl.DataFrame, prefix: str, kind: str, values_C: Array
) -> tuple[list[str], list[bool]] | None:
    """Return the names of the classes in the order of an array, and which are not scored.

    The ledger records ``test/iou/NAME`` in the data set's order. That it is the array's order is not taken on
    trust: the recorded values have to equal the array's, in this order; otherwise the answer is None.
    A class is not scored if its value is recorded as ``test/NAME_iou`` too.

    Args:
        recorded: metric and value of one trial, in the order of the ledger.
        prefix: of the report split.
        kind: ``iou`` or ``accuracy``.
        values_C: the same values as the trial's file holds them, float32.
    """
    start = f"{prefix}/{kind}/"
    scores = dict(recorded.select("metric", "value").iter_rows())
    names = [name.removeprefix(start) for name in scores if name.startswith(start)]
    mine = np.array([scores[start + name] for name in names], dtype=np.float32)
    if len(names) != len(values_C) or not np.array_equal(mine, np.float32(values_C), equal_nan=True):
        return None
    again = [scores.get(f"{prefix}/{name}_{kind}") for name in names]
    return names, [
        value is not None and value == scores[start + n] for n, value in zip(names, again, strict=True)
    ]
