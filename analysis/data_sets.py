"""Arms over several data sets: the scores to rank, the table of average ranks, or the reason against it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.comparison import Comparison
from analysis.numbers import number, p_value
from analysis.opened import Study
from analysis.ranks import ALPHA, FEWEST_ARMS, FEWEST_DATA_SETS, Ranking, rank_arms
from analysis.statistics import Array
from analysis.table import Table

FACTOR = "data"


@dataclass(frozen=True)
class Ranked:
    """The arms that have a score on every data set, and how they rank.

    Attributes:
        arms: in plan order.
        sets: names of the data sets, in plan order.
        ranking: of the arms over the data sets.
    """

    arms: list[str]
    sets: list[str]
    ranking: Ranking


def data_set_of(level: str) -> str:
    """Return the data set of a level, ``voc`` for ``data=voc,model=small``; '' for none."""
    pairs = (part.partition("=") for part in level.split(","))
    return next((value for key, _, value in pairs if key == FACTOR), "")


def data_sets(study: Study) -> list[str]:
    """Return the data sets of a study's levels, in plan order."""
    return list(dict.fromkeys(name for level in study.levels if (name := data_set_of(level))))


def ranked(study: Study, comparison: Comparison) -> Ranked | None:
    """Return how the arms rank over the data sets of the study; None where ``refusal`` says why not.

    A score is the mean over confirm seeds, and over the levels of other factors. Arms that are identical to
    another at all levels are left out, and so are arms without a score somewhere.
    """
    if refusal(study, comparison):
        return None
    sets, (arms, scores_RN) = data_sets(study), _scores(study, comparison)
    if len(sets) < FEWEST_DATA_SETS:
        return None
    return Ranked(arms, sets, rank_arms(scores_RN, study.higher_is_better))


def refusal(study: Study, comparison: Comparison) -> list[str]:
    """Return the sentence that says why arms are not ranked; none where they are, or for one data set."""
    sets = data_sets(study)
    if len(sets) < 2:
        return []
    if len(sets) < FEWEST_DATA_SETS:
        return [
            f"No average ranks over the {len(sets)} data sets, no Friedman test and no critical-difference "
            f"diagram: data sets are the sample there, and fewer than {FEWEST_DATA_SETS} hardly ever decide "
            "anything. Read the tables one by one."
        ]
    arms, _ = _scores(study, comparison)
    if len(arms) < FEWEST_ARMS:
        return [
            f"No average ranks over the {len(sets)} data sets: they need {FEWEST_ARMS} different arms with "
            f"a score on every data set, and there are {len(arms)}."
        ]
    return []


def ranks_table(study: Study, comparison: Comparison) -> list[Table]:
    """Return the table of average ranks; none where there is nothing to rank."""
    found = ranked(study, comparison)
    if found is None:
        return []
    ranking = found.ranking
    order = np.argsort(ranking.average, kind="stable")
    rows = [
        [
            found.arms[row],
            number(float(ranking.average[row]), 2),
            *(f"{rank:g}" for rank in ranking.ranks[row]),
        ]
        for row in order
    ]
    left_out = {arm.arm for arm in study.arms} - set(found.arms)
    notes = [
        f"Ranks by mean {study.primary} on {len(found.sets)} data sets, 1 is the best. Friedman: chi-square "
        f"{number(ranking.statistic, 2)} with {len(found.arms) - 1} degrees of freedom, p "
        f"{p_value(ranking.p)}.",
        f"Average ranks that differ by {number(ranking.critical, 2)} or more differ significantly (Nemenyi, "
        ".05 over all pairs)."
        if ranking.p <= ALPHA
        else "Friedman's test does not reject at .05: the ranks do not show that any two arms differ.",
    ]
    if left_out:
        names = ", ".join(sorted(left_out))
        notes.append(f"Without a score on every data set, or identical to another arm: {names}.")
    title = f"Average ranks over data sets ({study.primary})"
    return [Table(title, ["arm", "average", *found.sets], rows, notes=tuple(notes))]


def _scores(study: Study, comparison: Comparison) -> tuple[list[str], Array]:
    """Return the arms with a score on every data set, and their scores (R, N)."""
    sets = data_sets(study)
    primary = comparison.tidy.filter(pl.col("metric") == study.primary)
    means = {(arm, level): mean for arm, level, mean in primary.select("arm", "level", "mean").iter_rows()}
    alone = {row.arm for row in comparison.rows if not row.identical_to}
    names, scores = [], []
    for name in dict.fromkeys(arm.arm for arm in study.arms):
        of_sets = []
        for of_set in sets:
            levels = [level for level in study.levels if data_set_of(level) == of_set]
            values = [mean for level in levels if (mean := means.get((name, level))) is not None]
            of_sets.append(float(np.mean(values)) if len(values) == len(levels) else np.nan)
        if name in alone and np.isfinite(of_sets).all():
            names.append(name)
            scores.append(of_sets)
    return names, np.array(scores).reshape(len(names), len(sets))
