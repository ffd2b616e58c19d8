"""What the table said before a start that counts as a look at it (protocol 11)."""

from __future__ import annotations

import numpy as np
import polars as pl

from analysis.comparison import compare
from analysis.looks import at_look
from analysis.numbers import decimals_for, number
from analysis.opened import Study, read_study
from analysis.results import confirm_metrics, confirm_trials, searches_without_winner, seeds_without_winner
from analysis.table import full_name

_ORDER = ("better", "worse", "equivalent", "undecided", "unmarked")


def said_before(events: pl.DataFrame, study: Study) -> list[str]:
    """Return for each look what the plan and the results up to then gave, by verdict."""
    return [
        f"Before start {start} the table said: {_verdicts(events.filter(pl.col('seq') < seq))}."
        for start, seq in study.look_starts.items()
    ]


def _verdicts(events: pl.DataFrame) -> str:
    """Return ``better: no_pull +.051; undecided: no_ema``, on the primary metric of that time."""
    plan, trials = read_study(events), confirm_trials(events)
    seeds = seeds_without_winner(plan, searches_without_winner(events, plan), trials)
    study = at_look(plan, seeds)
    tidy = compare(study, seeds, confirm_metrics(events, trials)).tidy
    rows = tidy.filter(pl.col("metric") == study.primary)
    half = ((rows["diff_hi"] - rows["diff_lo"]) / 2).drop_nulls().to_numpy().astype(np.float64)
    decimals = decimals_for(half)
    groups: dict[str, list[str]] = {}
    for level, arm, word, difference in rows.select("level", "arm", "verdict", "diff").iter_rows():
        if word in _ORDER and difference is not None:
            name = f"{full_name(arm, level)} {number(difference, decimals, signed=True)}"
            groups.setdefault(word, []).append(name)
    parts = [f"{word}: {', '.join(groups[word])}" for word in _ORDER if word in groups]
    return f"{'; '.join(parts)} ({study.primary})" if parts else "nothing yet, no row had two pairs"
