"""Classes by rank: how often they occur in a trial's own training set, where that differs from seed to seed.

Long-tailed data may draw anew for each seed which class is frequent. A mean over seeds by name is then one
over frequent and rare alike. K seeds, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.statistics import Array

UNEQUAL = 1.5
"""Classes whose mean counts differ by a smaller factor count as equally frequent: their order is chance."""


def by_rank(counts_KC: Array) -> NDArray[np.intp] | None:
    """Return for each seed the classes from frequent to rare (K, C).

    None where all seeds agree on the order, and where the classes that change places are about equally
    frequent.
    """
    order = np.argsort(-counts_KC, axis=1, kind="stable")
    moving = (order != order[0]).any(axis=0)
    if not moving.any():
        return None
    counts = np.take_along_axis(counts_KC, order, axis=1).mean(axis=0)[moving]
    return None if equally_frequent(counts) else order


def equally_frequent(counts: Array) -> bool:
    """Return whether no class is much more frequent than another."""
    return len(counts) == 0 or float(counts.max()) < UNEQUAL * float(max(counts.min(), 1e-12))


def ranked(values_KC: Array, order_KC: NDArray[np.intp]) -> Array:
    """Return the values of each seed in its own order of classes (K, C)."""
    return np.take_along_axis(values_KC, order_KC, axis=1)


def rank_names(names: Sequence[str], order_KC: NDArray[np.intp]) -> list[str]:
    """Return what stands for each rank: its number, and the class where it is the same one for every seed."""
    same = (order_KC == order_KC[0]).all(axis=0)
    return [
        f"rank {rank + 1} ({names[order_KC[0, rank]]})" if same[rank] else f"rank {rank + 1}"
        for rank in range(order_KC.shape[1])
    ]
