"""From events to confirm results: whose claim counts, which attempt, what became of each seed."""

import math
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from analysis.errors import UserError
from analysis.ledger import read_ledger
from analysis.opened import read_study
from analysis.results import (
    code_versions,
    confirm_metrics,
    confirm_trials,
    rows_with_winner,
    search_summary,
    trials_left_out,
)

Begin = Callable[..., Any]
PLAN = {
    "seed": 0,
    "sampler": "qmc",
    "space": {"optim.lr": "0.001 .. 0.1, log"},
    "base": ["training.steps=600", "data=digits"],
    "cpus_per_worker": 1,
}


def ids(writer: Any, arm: str = "sar") -> list[str]:
    trials = confirm_trials(read_ledger(writer.study).events)
    return trials.filter(pl.col("arm") == arm)["trial_id"].to_list()


def status(writer: Any) -> list[str]:
    return confirm_trials(read_ledger(writer.study).events)["status"].to_list()


def values(writer: Any, metric: str = "test/miou") -> list[float]:
    events = read_ledger(writer.study).events
    found = confirm_metrics(events, confirm_trials(events))
    return found.filter(pl.col("metric") == metric).sort("arm", "index")["value"].to_list()


def test_only_claims_of_the_last_winner_count(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.search("sar", "", winner=0)
    for index in range(3):
        writer.claim("sar", "", index, f"old-{index}")
    writer.search("sar", "", winner=1, tag="more-")
    assert ids(writer) == []
    writer.claim("sar", "", 1, "new-1")
    assert ids(writer) == ["new-1"]


def test_claims_count_again_when_the_winner_comes_back_or_is_said_again(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.search("sar", "", winner=0)
    writer.claim("sar", "", 0, "a-0")
    writer.add("selected", arm="sar", trial_id="s--sar-0", index=0)
    assert ids(writer) == ["a-0"]
    writer.add("selected", arm="sar", trial_id="s--sar-1", index=1)
    writer.claim("sar", "", 0, "b-0")
    writer.add("selected", arm="sar", trial_id="s--sar-0", index=0)
    assert ids(writer) == ["a-0"]


def test_a_new_winner_with_the_same_parameters_keeps_the_claims(new_ledger: Begin) -> None:
    writer = new_ledger()
    same, other = ([{"name": "optim.lr", "value": value}] for value in ("0.1", "0.2"))
    row = {"arm": "sar", "level": ""}
    writer.add("selected", **row, trial_id="s-1", index=1, parameters=same)
    writer.add("claimed", **row, phase="confirm", index=0, trial_id="a", parameters=same)
    writer.add("selected", **row, trial_id="s-1-cheaper", index=1, parameters=same)
    assert ids(writer) == ["a"]
    writer.add("selected", **row, trial_id="s-2", index=2, parameters=other)
    assert ids(writer) == []


def test_a_later_claim_replaces_and_claims_without_search_count(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.claim("sar", "", 0, "a")
    writer.claim("sar", "", 1, "b")
    writer.claim("sar", "", 0, "c")
    writer.search("other", "")
    assert ids(writer) == ["c", "b"]


def test_the_highest_attempt_counts_whatever_the_order(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.claim("sar", "", 0, "t")
    writer.finish("t", {"test/miou": 0.2}, attempt=2)
    writer.finish("t", {"test/miou": 0.1}, attempt=1)
    assert values(writer) == [0.2]


def test_a_trial_of_two_arms_counts_for_both_and_a_search_result_for_none(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.claim("a", "", 0, "t")
    writer.claim("b", "", 0, "t")
    writer.claim("c", "", 0, "only-searched")
    end = {"attempt": 1, "phase": "search", "epoch": 2, "metrics": {"test/miou": 0.9}}
    writer.add("trial_finished", trial_id="only-searched", **end)
    writer.finish("t", {"test/miou": 0.2})
    assert values(writer) == [0.2, 0.2]
    assert status(writer) == ["finished", "finished", "waiting"]


def test_status_is_that_of_the_latest_attempt_and_finished_stays_finished(new_ledger: Begin) -> None:
    writer = new_ledger()
    for index, trial in enumerate(["diverged", "failed", "retried", "finished", "waiting"]):
        writer.claim("sar", "", index, trial)
    begun = {"phase": "confirm", "epoch": 0}
    writer.add("diverged", trial_id="diverged", attempt=1, phase="confirm", payload={"reason": "nan"})
    writer.add("failed", trial_id="failed", attempt=1, phase="confirm", payload={})
    writer.add("failed", trial_id="retried", attempt=1, phase="confirm", payload={})
    writer.add("trial_started", trial_id="retried", attempt=2, **begun)
    writer.finish("finished", {"test/miou": 0.2})
    writer.add("trial_started", trial_id="finished", attempt=2, **begun)
    assert status(writer) == ["diverged", "failed", "running", "finished", "waiting"]


def test_non_finite_metrics_survive(new_ledger: Begin) -> None:
    writer = new_ledger()
    for index, value in enumerate([math.nan, math.inf, -math.inf, 0.5]):
        writer.claim("sar", "", index, f"t{index}")
        writer.finish(f"t{index}", {"test/miou": value})
    nan, *others = values(writer)
    assert math.isnan(nan)
    assert others == [math.inf, -math.inf, 0.5]


def test_search_summary(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(levels=("",), trials_per_arm=3)
    writer.search("sar", "", trials=3)
    writer.claim("sar", "", 0, "c")
    writer.finish("c", {"test/miou": 0.1})
    writer.add("proposed", arm="no_pull", phase="search", index=0, trial_id="s--sar-0")
    events = read_ledger(writer.study).events
    sar, no_pull, no_aux, _ = search_summary(events, read_study(events)).iter_rows(named=True)
    assert (sar["trials"], sar["best"], sar["hours"]) == pytest.approx((3, 0.92, 0.04))
    assert (no_pull["trials"], no_pull["best"], no_pull["hours"]) == pytest.approx((1, 0.9, 0.01))
    assert (no_aux["trials"], no_aux["best"]) == (0, None)


def test_the_search_summary_counts_the_last_proposals_of_the_plan_and_its_code(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(levels=("",), trials_per_arm=4)
    writer.search("sar", "", trials=4)
    writer.search("sar", "", trials=1, tag="wider-")  # proposal 0 anew

    def summary() -> dict[str, Any]:
        events = read_ledger(writer.study).events
        return search_summary(events, read_study(events)).row(0, named=True)

    assert (summary()["trials"], summary()["best"], summary()["hours"]) == pytest.approx((4, 0.93, 0.04))
    writer.open(levels=("",), trials_per_arm=2)
    assert (summary()["trials"], summary()["best"], summary()["hours"]) == pytest.approx((2, 0.91, 0.02))
    writer.open(levels=("",), trials_per_arm=2, code={"digest": "new"})
    assert (summary()["trials"], summary()["best"], summary()["hours"]) == (0, None, None)
    writer.search("sar", "", trials=1, tag="new-")
    assert (summary()["trials"], summary()["best"]) == (1, 0.9)


def test_an_arm_with_nothing_left_to_search_counts_its_defaults_only(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(levels=("",))
    writer.search("sar", "")
    rows = [{"arm": "sar", "level": "", "parameters": []}]
    plan = {"study": "s", "report": {"primary": "test/miou"}, "reference": "sar", "seeds": 2}
    writer.add("study_opened", payload={**plan, "trials_per_arm": 2, "arms": rows})
    events = read_ledger(writer.study).events
    assert search_summary(events, read_study(events))["trials"].to_list() == [1]


@pytest.mark.parametrize("change", [{"plan": PLAN | {"seed": 1}}, {"code": {"digest": "new"}}])
def test_claims_on_other_seeds_or_of_other_code_wait(new_ledger: Begin, change: dict[str, Any]) -> None:
    writer = new_ledger()
    writer.open(arms=("sar", "a"), levels=("",), seeds=2)
    for arm in ("sar", "a"):
        for index in range(2):
            writer.claim(arm, "", index, f"{arm}-{index}")
            writer.finish(f"{arm}-{index}", {"test/miou": 0.5})
    assert ids(writer) == ["sar-0", "sar-1"]
    writer.open(arms=("sar", "a"), levels=("",), seeds=2, **change)
    assert ids(writer) == values(writer) == []
    events = read_ledger(writer.study).events
    assert trials_left_out(events, confirm_trials(events), read_study(events)) == 4
    writer.claim("sar", "", 1, "sar-1-new")
    assert ids(writer) == ["sar-1-new"]
    writer.open(arms=("sar", "a"), levels=("",), seeds=2)  # back again: the first claims are of this plan
    assert ids(writer) == ["sar-0", "sar-1"]
    assert status(writer) == ["finished"] * 4


def test_old_ledgers_know_no_seeds_and_no_codes_and_are_not_filtered(new_ledger: Begin) -> None:
    writer = new_ledger(old=True)
    writer.open(arms=("sar",), levels=("",))
    writer.search("sar", "")
    writer.claim("sar", "", 0, "c")
    writer.open(arms=("sar",), levels=("",), code={"digest": "new"})
    assert ids(writer) == ["c"]
    writer.old = False
    writer.open(arms=("sar",), levels=("",), code={"digest": "new"})  # the same seeds, now written down
    study = read_study(read_ledger(writer.study).events)
    assert ids(writer) == ["c"]
    assert not any("plan" in change for change in study.changes)
    writer.open(arms=("sar",), levels=("",), plan={**PLAN, "seed": 1})
    assert ids(writer) == []


def test_a_winner_that_is_proposed_no_more_is_none_and_its_claims_wait(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(arms=("sar",), levels=("",))
    writer.search("sar", "")
    writer.claim("sar", "", 0, "c")
    assert rows_with_winner(read_ledger(writer.study).events) == {("", "sar")}
    base = ["training.steps=900"]
    writer.open(arms=("sar",), levels=("",), plan={**PLAN, "base": base})  # the seeds stay as they are
    for index in range(2):
        row = {"arm": "sar", "phase": "search", "index": index}
        writer.add("proposed", **row, trial_id=f"longer-{index}", payload={"code": "c0de"})
    assert ids(writer) == []
    assert rows_with_winner(read_ledger(writer.study).events) == set()
    writer.add("selected", arm="sar", trial_id="longer-1", index=1)
    writer.claim("sar", "", 0, "c-longer")
    assert ids(writer) == ["c-longer"]


def test_changes_and_looks(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(levels=("",), seeds=5)
    writer.open(levels=("",), seeds=6)
    assert read_study(read_ledger(writer.study).events).looks == 1
    writer.finish("t", {"test/miou": 0.1})
    writer.open(levels=("",), seeds=6)
    writer.open(levels=("",), seeds=8, arms=("sar", "new"))
    study = read_study(read_ledger(writer.study).events)
    assert study.looks == 2
    assert study.changes == (
        "start 2, before any confirm result: seeds 5 -> 6",
        "start 4, after confirm results were known: arms: added new; removed cross_entropy, no_aux, no_pull",
        "start 4, after confirm results were known: seeds 6 -> 8",
    )


def test_a_changed_plan_is_one_readable_sentence_and_a_look(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(levels=("",))
    writer.finish("t", {"test/miou": 0.1})
    writer.open(levels=("",))
    space = {"optim.lr": "0.01 .. 1.0, log", "optim.momentum": "0.8 .. 0.99"}
    base = ["data=digits", "training.steps=900"]
    writer.open(levels=("",), plan={**PLAN, "seed": 1, "space": space, "base": base})
    writer.open(levels=("",), plan={**PLAN, "seed": 1, "base": [*reversed(base), "model=large"]})
    study = read_study(read_ledger(writer.study).events)
    when = "after confirm results were known"
    assert study.changes == (
        f"start 3, {when}: plan: seed 0 -> 1; space optim.lr 0.001 .. 0.1, log -> 0.01 .. 1.0, log; "
        "space optim.momentum: added 0.8 .. 0.99; base training.steps=600 -> training.steps=900",
        f"start 4, {when}: plan: space optim.lr 0.01 .. 1.0, log -> 0.001 .. 0.1, log; "
        "space optim.momentum: removed 0.8 .. 0.99; base: added model=large",
    )
    assert study.looks == 3


def test_a_plan_in_another_order_and_a_plan_changed_before_any_result(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(levels=("",))
    writer.open(levels=("",), plan={**PLAN, "base": PLAN["base"][::-1], "cpus_per_worker": 2})
    study = read_study(read_ledger(writer.study).events)
    assert study.changes == (
        "start 2, before any confirm result: plan: base reordered; cpus_per_worker 1 -> 2",
    )
    assert study.looks == 1


def test_an_arm_taken_out_or_changed_is_a_look_and_an_added_one_is_none(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(arms=("sar", "a", "b"), levels=("",))
    writer.finish("t", {"test/miou": 0.1})
    writer.open(arms=("sar", "a", "b", "c"), levels=("",))
    assert read_study(read_ledger(writer.study).events).looks == 1
    writer.open(arms=("sar", "a", "c"), levels=("",))
    assert read_study(read_ledger(writer.study).events).looks == 2


def test_training_again_with_other_code_is_a_look_and_keeping_trials_is_none(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(levels=("",), code={"digest": "a", "files": {"x.py": "1", "y.py": "1", "z.py": "1"}})
    writer.finish("t", {"test/miou": 0.1})
    writer.open(levels=("",), code={"digest": "b", "files": {"x.py": "2", "y.py": "1"}})
    writer.open(levels=("",), code={"digest": "b", "files": {"x.py": "2", "y.py": "1"}, "kept": ["y.py"]})
    study = read_study(read_ledger(writer.study).events)
    when = "after confirm results were known"
    assert study.changes == (
        f"start 2, {when}: training code changed (2 files), everything trained again",
        "start 3: the training code had changed (y.py) and trials were kept",
    )
    assert study.looks == 2


def test_reference_comes_first_and_levels_stay_together(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open(arms=("a", "sar", "b"))
    study = read_study(read_ledger(writer.study).events)
    assert [arm.arm for arm in study.arms] == ["sar", "a", "b"] * 2
    assert study.levels == ["model=small", "model=large"]


@pytest.mark.parametrize(
    ("primary", "mode", "higher"),
    [
        ("test/miou", "max", True),
        ("test/miou", "min", False),
        ("test/loss", "max", False),
        ("test/acc", "min", True),
    ],
)
def test_direction_of_the_primary_metric(new_ledger: Begin, primary: str, mode: str, higher: bool) -> None:
    writer = new_ledger()
    writer.open(report={"primary": primary}, objective={"metric": "val/miou", "mode": mode})
    assert read_study(read_ledger(writer.study).events).higher_is_better == higher


def test_code_versions_are_those_behind_the_claimed_trials(new_ledger: Begin) -> None:
    writer = new_ledger(old=True)
    for digest in ("one", "two", "three"):
        writer.open(code={"digest": digest})
        if digest != "two":
            writer.claim("sar", "", len(digest), digest)
            writer.finish(digest, {"test/miou": 0.1})
    events = read_ledger(writer.study).events
    assert code_versions(events, confirm_trials(events)) == ["one", "three"]


def test_a_ledger_without_an_opening_or_with_a_poor_one(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.add("stopping", payload={})
    with pytest.raises(UserError, match="no study_opened"):
        read_study(read_ledger(writer.study).events)
    writer.open(report={}, reference="sar")
    with pytest.raises(UserError, match=r"lacks report\.primary"):
        read_study(read_ledger(writer.study).events)
