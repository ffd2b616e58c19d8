"""What openings say of the search: old ones, new ones, and one after the other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.agreement import kendall, spearman
from analysis.ledger import read_ledger
from analysis.opened import read_study
from analysis.report import make_report
from analysis.results import confirm_trials, search_summary, winner_counts, winner_table
from analysis.search_plan import SearchPlan, read_search_plan

Begin = Callable[..., Any]
OLD = {
    "seed": 0,
    "sampler": "qmc",
    "space": {"optim.lr": "0.001 .. 0.1, log"},
    "base": ["training.steps=600"],
    "cpus_per_worker": 1,
}
DEFAULTS = {
    "scheduler": {"name": "none", "min_fraction": 0.3333, "reduction_factor": 3, "min_trials": 4},
    "finalists": {"top": 0, "seeds": 2},
    "repeats": 1,
    "scope": "per_arm",
    "tune_on": "",
    "overrides": {},
    "reproducible": True,
    "batch": 4,
    "max_failures": 1,
}


def test_an_opening_that_says_nothing_is_at_its_defaults() -> None:
    assert read_search_plan({}) == SearchPlan()
    assert read_search_plan({"plan": OLD}) == SearchPlan(cpus=1.0)
    assert read_search_plan({"plan": OLD}, repeats=3).repeats == 3


def test_names_stand_alone_or_among_options() -> None:
    plan = {"sampler": {"name": "tpe", "startup": 8}, "scheduler": {"name": "asha"}, "finalists": {"top": 3}}
    found = read_search_plan({"plan": plan})
    assert (found.sampler, found.scheduler, found.finalists, found.reproducible) == ("tpe", "asha", 3, False)
    found = read_search_plan({"plan": {"sampler": "gp", "scheduler": "median", "finalists": 2}})
    assert (found.sampler, found.scheduler, found.finalists, found.reproducible) == ("gp", "median", 2, False)


@pytest.mark.parametrize("first", [OLD, {**OLD, **DEFAULTS}])
def test_entries_at_their_default_are_no_change(new_ledger: Begin, first: dict[str, Any]) -> None:
    writer = new_ledger()
    writer.open(plan=first)
    writer.finish("t", {"test/miou": 0.1})
    goals = {"metric": "val/miou", "mode": "max", "also": []}
    for plan in ({**OLD, **DEFAULTS}, {**OLD, **DEFAULTS, "batch": 8, "max_failures": 3}, OLD):
        writer.open(plan=plan, objective=goals)
    writer.open(plan={**OLD, "sampler": {"name": "qmc", "startup": 8}})
    study = read_study(read_ledger(writer.study).events)
    assert (study.changes, study.looks) == ((), 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"repeats": 2}, "repeats: added 2"),
        ({"scope": "shared", "tune_on": "sar"}, "scope: added shared; tune_on: added sar"),
        ({"overrides": {"training.steps": 100}}, 'overrides: added {"training.steps": 100}'),
        ({"sampler": "tpe"}, "batch: added 4"),
        ({"finalists": {"top": 2, "seeds": 1}}, "finalists: added"),
    ],
)
def test_what_is_not_at_its_default_is_a_change(
    new_ledger: Begin, change: dict[str, Any], sentence: str
) -> None:
    writer = new_ledger()
    writer.open(plan=OLD)
    writer.finish("t", {"test/miou": 0.1})
    writer.open(plan={**OLD, **DEFAULTS, **change})
    study = read_study(read_ledger(writer.study).events)
    assert sentence in " ".join(study.changes)
    assert study.looks == 2


def two_searches(writer: Any, plan: dict[str, Any]) -> None:
    """Write two searches of one arm, their winners, and four confirm claims, with hand-written events."""
    writer.open(arms=("sar",), levels=("",), seeds=4, plan=plan)
    for repeat in range(2):
        writer.search("sar", "", tag=f"{repeat}-", repeat=repeat or None)
    for index in range(4):
        writer.claim("sar", "", index, f"c-{index}", repeat=index % 2 or None)


@pytest.mark.parametrize("plan", [{**OLD, "repeats": 2}, OLD])
def test_claims_belong_to_the_winner_of_their_search(new_ledger: Begin, plan: dict[str, Any]) -> None:
    writer = new_ledger()
    two_searches(writer, plan)
    events = read_ledger(writer.study).events
    assert confirm_trials(events)["trial_id"].to_list() == [f"c-{k}" for k in range(4)]
    assert winner_counts(events) == {("", "sar"): (2, 2)}
    writer.add("selected", arm="sar", level="", repeat=1, trial_id="s-1--sar-1", index=1)
    events = read_ledger(writer.study).events
    assert confirm_trials(events)["trial_id"].to_list() == ["c-0", "c-2"]
    chosen = winner_table(events, read_study(events))
    assert chosen.select("repeat", "trial_id").rows() == [(0, "s-0--sar-0"), (1, "s-1--sar-1")]
    row = search_summary(events, read_study(events)).row(0, named=True)
    assert row["trials"] == 4
    assert row["hours"] == pytest.approx(0.04)


def test_a_claim_of_another_search_than_the_plan_gives_its_seed_to_waits(new_ledger: Begin) -> None:
    writer = new_ledger()
    two_searches(writer, {**OLD, "repeats": 2})
    writer.claim("sar", "", 1, "of-search-0")
    events = read_ledger(writer.study).events
    assert confirm_trials(events)["trial_id"].to_list() == [f"c-{k}" for k in range(4)]
    writer.open(arms=("sar",), levels=("",), seeds=4, plan={**OLD, "repeats": 1})
    events = read_ledger(writer.study).events
    assert confirm_trials(events)["trial_id"].to_list() == ["c-0", "of-search-0", "c-2"]
    assert winner_counts(events) == {("", "sar"): (1, 1)}


def test_a_search_that_waits_is_counted_by_searches(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(arms=("sar",), levels=("",), plan={**OLD, "repeats": 3})
    writer.search("sar", "", tag="0-")
    missing = make_report(writer.study).missing
    assert "No winner selected yet: sar (1 of 3 searches)." in missing
    assert "Search: 2 of 6 trials have ended." in missing


def test_rank_correlations_need_enough_that_differ() -> None:
    first, second = np.array([1.0, 2.0, 3.0, 5.0, 4.0]), np.array([0.1, 0.3, 0.2, 0.9, 0.4])
    assert kendall(first, second).value == pytest.approx(stats.kendalltau(first, second).statistic)
    assert spearman(first, second).value == pytest.approx(stats.spearmanr(first, second).statistic)
    for correlated in (kendall, spearman):
        assert correlated(first, -first).value == pytest.approx(-1)
        assert correlated(first[:4], second[:4]).reason == "fewer than 5"
        lost = np.array([np.nan, 0.3, np.inf, 0.9, 0.4])
        assert (correlated(first, lost).value, correlated(first, lost).trials) == (None, 3)
        constant = correlated(first, np.ones(5))
        assert (constant.value, constant.reason) == (None, "all scores are equal")
