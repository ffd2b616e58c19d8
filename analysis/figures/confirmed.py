"""Which confirm trials a figure shows: arms of a level in plan order, one seed that they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import polars as pl

from analysis.sources import Sources
from analysis.trials import finished, metric_values

T = TypeVar("T")

MOST_ARMS = 6
"""Arms side by side in one drawing."""


def finished_trials(sources: Sources, level: str) -> dict[str, dict[int, str]]:
    """Return arm -> confirm seed number -> identity of the finished trials of a level, in plan order."""
    found = sources.trials.filter(level=level, status="finished").filter(
        pl.col("index") < sources.study.seeds
    )
    rows = found.sort("index").select("arm", "index", "trial_id").rows()
    arms = [arm.arm for arm in sources.study.arms if arm.level == level]
    return {arm: {index: trial for name, index, trial in rows if name == arm} for arm in arms}


def on_common_seed(found: Mapping[str, Mapping[int, T]]) -> tuple[int, dict[str, T]]:
    """Return the seed that most arms have, the first of equals, and what each arm has of it.

    Args:
        found: Arm -> seed -> anything; arms without that seed are left out.
    """
    seeds = sorted({seed for of_arm in found.values() for seed in of_arm})
    if not seeds:
        return 0, {}
    best = max(seeds, key=lambda seed: (sum(seed in of_arm for of_arm in found.values()), -seed))
    return best, {arm: of_arm[best] for arm, of_arm in found.items() if best in of_arm}


def in_groups(names: list[str], most: int = MOST_ARMS) -> Iterator[list[str]]:
    """Yield names a few at a time, groups as even as they can be, the first name in each: the reference."""
    first, others = names[:1], names[1:]
    groups = max(1, -(-len(others) // (most - 1)))
    size = -(-len(others) // groups)
    for group in range(groups):
        yield first + others[group * size : (group + 1) * size]


def drawing_name(stem: str, number: int, of: int) -> str:
    """Return the name of one of several drawings; a single one has no number."""
    return stem if of == 1 else f"{stem}_{number}"


def class_names(sources: Sources, trial_id: str, count: int) -> list[str]:
    """Return the names of the classes, as the per-class scores of a trial have them; numbers if not so."""
    split = sources.study.primary.partition("/")[0]
    metrics = metric_values(finished(sources.events).filter(trial_id=trial_id))["metric"]
    for kind in ("iou", "accuracy"):
        start = f"{split}/{kind}/"
        names = [name.removeprefix(start) for name in metrics if name.startswith(start)]
        if len(names) == count:
            return names
    return [f"class {c}" for c in range(count)]
