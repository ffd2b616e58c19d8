"""Whether cheap scores rank trials as full ones do: rungs against ends, and a proxy against finalists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.claims import SEARCH, finalist_claims
from analysis.opened import Study
from analysis.rank_correlation import kendall_tau, spearman_rho
from analysis.results import search_trials
from analysis.statistics import Array
from analysis.trials import final_values, of_kind, still_true, values

FEWEST = 5
"""A rank correlation of fewer trials says nothing."""


@dataclass(frozen=True)
class Agreement:
    """A rank correlation; None where it was not computed, for the reason given."""

    value: float | None
    trials: int
    reason: str = ""


def kendall(first_N: Array, second_N: Array) -> Agreement:
    """Return Kendall's tau-b of two scores of the same trials."""
    return _correlated(first_N, second_N, kendall_tau)


def spearman(first_N: Array, second_N: Array) -> Agreement:
    """Return Spearman's rank correlation of two scores of the same trials."""
    return _correlated(first_N, second_N, spearman_rho)


def rung_agreement(events: pl.DataFrame, study: Study) -> Agreement:
    """Return Kendall's tau of the first rung's against the final objective of trials that ran to the end.

    All arms together; a trial that serves two arms counts once.
    """
    judged = still_true(of_kind(events, "promoted", "stopped"), events)
    first = judged.group_by("trial_id").agg(pl.col("epoch").min())
    ended = search_trials(events).filter(pl.col("state") == "finished").select("trial_id").unique()
    scores = values(events, study.objective, first)
    at_rung = first.join(scores, on=["trial_id", "epoch"]).rename({"value": "rung"}).drop("epoch")
    at_end = _final(events, study).rename({"value": "end"})
    found = ended.join(at_rung, on="trial_id").join(at_end, on="trial_id").sort("trial_id")
    return kendall(found["rung"].to_numpy(), found["end"].to_numpy())


def proxy_agreement(events: pl.DataFrame, study: Study) -> Agreement:
    """Return Spearman's correlation of proxy and full objective over the finalists of all searches.

    The proxy score is that of the search trial, the full one the mean over its finalist runs. Finalists
    without all of their runs are left out.
    """
    final = _final(events, study)
    proxy = (
        search_trials(events)
        .filter(pl.col("state") == "finished")
        .join(final, on="trial_id")
        .select(*SEARCH, pl.col("index").alias("proposal"), pl.col("value").alias("proxy"))
    )
    place = [*SEARCH, "proposal"]
    full = (
        finalist_claims(events)
        .join(final, on="trial_id", how="left")
        .group_by(place)
        .agg(pl.col("value").mean().alias("full"), pl.col("value").is_null().any().alias("lacks"))
        .filter(~pl.col("lacks"))
    )
    found = proxy.join(full, on=place).sort(place)
    return spearman(found["proxy"].to_numpy(), found["full"].to_numpy())


def _final(events: pl.DataFrame, study: Study) -> pl.DataFrame:
    """Return trial_id and value: the objective at the end of every trial before confirm."""
    return final_values(events, study.objective).drop("epoch")


def _correlated(first_N: Array, second_N: Array, measure: Callable[[Array, Array], float]) -> Agreement:
    """Return a rank correlation over the trials that have two finite scores."""
    both = np.isfinite(first_N) & np.isfinite(second_N)
    first, second = first_N[both], second_N[both]
    if len(first) < FEWEST:
        return Agreement(None, len(first), f"fewer than {FEWEST}")
    if len(np.unique(first)) == 1 or len(np.unique(second)) == 1:
        return Agreement(None, len(first), "all scores are equal")
    return Agreement(measure(first, second), len(first))
