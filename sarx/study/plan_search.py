"""How the arms of a study are tuned, in words: sampler, scheduler and what goes with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from sarx.config.schema import as_dict
from sarx.study.arm import Arm
from sarx.study.schema import Study
from sarx.study.search_checks import search_config
from sarx.study.search_options import COMMON, TIMED
from sarx.study.space import cells, contains, levels

FEW_TRIALS = 12
"""Below this many trials per arm a scheduler may stop the best before it shows (protocol 7)."""
SHOWN = 12
"""Arms that one line of the plan names."""
BUSY = 2
"""Proposals alive per slot from which on slots seldom wait for the end of a batch."""


def describe_sampler(study: Study) -> str:
    """Return the sampler and its options in words."""
    search, name = study.search, study.search.sampler.name
    if search.scope == "none":
        return "none (every arm runs its default)"
    if name == "grid":
        return f"grid of {search.trials_per_arm} cells in batches of {search.batch}"
    after = "" if name in COMMON else f" after {search.sampler.startup} common points"
    return f"{name}{after} in batches of {search.batch}"


def describe_scheduler(study: Study) -> str:
    """Return in words who is stopped early, and when first; empty without a scheduler."""
    scheduler = study.search.scheduler
    if scheduler.name == "none" or study.search.scope == "none":
        return ""
    first = f"first judged after {share_of(scheduler.min_fraction)} of training"
    timed = ", by what reached the rung before it" if scheduler.name in TIMED else ""
    if scheduler.name == "median":
        ends = f"what is below the median ends, once {scheduler.min_trials} have reached the rung"
        return f"median: {ends}, {first}{timed}"
    return f"{scheduler.name}: one of {scheduler.reduction_factor} goes on, {first}{timed}"


def share_of(value: float) -> str:
    """Write a share as a simple fraction, or in per cent."""
    simple = Fraction(value).limit_denominator(10)
    return str(simple) if math.isclose(simple, value, rel_tol=1e-9) else f"{100 * value:g} %"


def describe_search(study: Study) -> list[str]:
    """Return one line for each way in which the search departs from one plain search per arm."""
    search = study.search
    if search.scope == "none":
        return []
    lines = []
    if text := describe_scheduler(study):
        lines.append(f"    scheduler {text}")
    if search.repeats > 1:
        lines.append(
            f"    {search.repeats} independent searches per arm; confirm seed k goes to the winner of search "
            f"k % {search.repeats}"
        )
    if search.scope == "shared":
        lines.append(f"    the search tunes {search.tune_on}; all other arms use its winner's values")
    if search.overrides:
        given = ", ".join(f"{key}={value}" for key, value in search.overrides.items())
        lines.append(f"    search trials differ from confirm trials: {given}")
    if len(goals := study.objective.goals) > 1:
        given = ", ".join(f"{goal.metric} ({goal.mode})" for goal in goals[1:])
        seen = "the sampler weighs" if search.sampler.name == "tpe" else "the table of trade-offs shows"
        lines.append(f"    {seen} beside the score: {given}")
    if not search.reproducible:
        lines.append("    reproducible: false: a second run may propose and stop other trials")
    return lines


def search_warnings(study: Study, arms: Sequence[Arm]) -> list[str]:
    """Return what the reader must know about the terms of the search."""
    search, lines = study.search, []
    if search.scope == "none":
        return []
    if search.scheduler.name != "none":
        if search.trials_per_arm < FEW_TRIALS:
            lines.append(
                f"  warning: {search.scheduler.name} under {FEW_TRIALS} trials per arm may stop the best "
                "before it shows; take more trials_per_arm, or scheduler: none"
            )
        idle = [arm for arm in arms if arm.space and not judged(study, arm)]
        if idle:
            lines.append(
                f"  warning: the scheduler judges nothing in {names_of(idle)}: no epoch lies between "
                "min_fraction of training and its end; evaluate more often (training.eval_every)"
            )
    if search.repeats > study.confirm.seeds:
        lines.append(
            f"  warning: {search.repeats} searches and {study.confirm.seeds} confirm seeds: the winners of "
            f"{search.repeats - study.confirm.seeds} searches are never confirmed; take more confirm.seeds"
        )
    return lines + describe_grid(study, arms)


def describe_grid(study: Study, arms: Sequence[Arm]) -> list[str]:
    """Return the arms whose default the grid does not have, and those that have fewer cells than others."""
    if study.search.sampler.name != "grid":
        return []
    lines = []
    without = [arm for arm in arms if arm.space and not all(default_in_grid(arm, p.key) for p in arm.space)]
    if without:
        lines.append(
            f"  note: the grid does not contain the default of {names_of(without)}, which is then not tried"
        )
    for count in sorted({cells(arm.space) for arm in arms if arm.space} - {study.search.trials_per_arm}):
        fewer = names_of([arm for arm in arms if arm.space and cells(arm.space) == count])
        lines.append(
            f"  note: {fewer}: {count} different cells of {study.search.trials_per_arm}; the others repeat "
            "them and cost nothing"
        )
    return lines


def judged(study: Study, arm: Arm) -> bool:
    """Return whether a search trial of an arm has an epoch at which a scheduler may judge it."""
    epochs = search_config(study, arm).training.epochs
    return math.ceil(study.search.scheduler.min_fraction * epochs - 1e-9) < epochs


def default_in_grid(arm: Arm, key: str) -> bool:
    """Return whether the grid has an arm's default of one parameter."""
    group, name = key.split(".")
    default = as_dict(arm.config)[group][name]
    (parameter,) = (parameter for parameter in arm.space if parameter.key == key)
    if not contains(parameter, default):
        return False
    return parameter.kind == "choice" or any(math.isclose(default, value) for value in levels(parameter))


def names_of(arms: Sequence[Arm]) -> str:
    """Return the names of arms, each once; of many the first ones and the number of the others."""
    names = list(dict.fromkeys(arm.name for arm in arms))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def describe_batch(study: Study, arms: Sequence[Arm], slots: int) -> list[str]:
    """Return a warning when slots will wait for the end of batches, and the batch that would keep them busy.

    Args:
        study: The study.
        arms: Its arms.
        slots: Trials that run at once.
    """
    search = study.search
    searches = sum(bool(arm.space) for arm in arms) * search.repeats
    most = search.trials_per_arm
    live = searches * min(search.batch, most)
    waits = search.waits or search.scheduler.name == "successive_halving"
    if search.scope == "none" or not waits or not searches or live >= BUSY * slots:
        return []
    startup = most if search.sampler.name in COMMON else search.sampler.startup
    fitting = [b for b in range(1, most + 1) if most % b == 0 and startup % b == 0]
    enough = [b for b in fitting if searches * b >= BUSY * slots]
    cure = (
        f"batch: {enough[0]} would keep them busy"
        if enough
        else "more trials_per_arm would allow a larger batch"
    )
    return [
        "  warning: the proposals of a batch wait for each other, and only "
        f"{live} proposals are live at a time for {slots} slots; {cure}"
    ]
