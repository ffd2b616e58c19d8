"""Reports of ledgers that the engine wrote: rungs, duplicates, trade-offs between goals."""

from typing import Any

import pytest
from scipy import stats

from analysis.results import search_trials

HALVING = "  batch: 4\n  scheduler: {name: successive_halving, min_fraction: 0.33, reduction_factor: 2}"
MEDIAN = "  batch: 4\n  reproducible: false\n  scheduler: {name: median, min_trials: 2}"
ASHA = "  batch: 4\n  reproducible: false\n  scheduler: {name: asha, min_fraction: 0.33}"
EPOCH_HOURS = 36 / 3600


def rank(segment: Any) -> float:
    """Return a number that has nothing to do with the options."""
    return int(segment.trial_id, 16) % 1009 / 1009


def test_stopped_trials_are_searched_and_never_finished(start: Any, shown: Any, text: str) -> None:
    text = text.replace("trials_per_arm: 4", "trials_per_arm: 8")

    def reversing(segment: Any) -> Any:
        return lambda epoch: rank(segment) * (1 if epoch < 6 else -1) + epoch / 1e6

    found = shown(start(text.replace("  batch: 4", HALVING)).run(reversing))
    engine = found.driver.engine
    for arm, row in found.rows.items():
        seats = engine.searches[arm, 0].seats
        stopped = sum(seat.stopped is not None for seat in seats)
        assert (row["trials"], row["stopped"]) == (8 - stopped, stopped) == (2, 6)
        assert found.cells(arm)["trials"] == "8 of 8, 6 stopped early"
        assert row["hours"] == pytest.approx(found.paid(arm))
        assert row["steps"] == 2 * sum(engine.record(seat.claim).epoch for seat in seats)
        assert row["best"] == max(engine.record(s.claim).final[0] for s in seats if s.stopped is None)
    trials = search_trials(found.events)
    assert set(trials.filter(state="stopped")["rung"]) == {2, 4}
    assert trials.filter(state="finished")["rung"].null_count() == 6
    assert found.report.missing == []
    assert found.said("Search trials were stopped early by successive_halving. Kendall's tau of first rung a")
    assert "over 6 trials that ran to the end: -1.00." in found.said("Search trials were stopped")
    again = shown(start(text).run(reversing))  # without a scheduler its old verdicts hold no more
    row = again.rows["sar"]
    assert (row["trials"], row["stopped"], row["steps"]) == (8, 0, 8 * 12)
    assert any("scheduler: removed" in change for change in again.study.changes)


def test_kendall_of_first_rung_and_end_equals_scipy(start: Any, shown: Any, text: str) -> None:
    text = text.replace("  batch: 4", HALVING).replace("trials_per_arm: 4", "trials_per_arm: 8")

    def outcome(segment: Any) -> Any:
        return lambda epoch: (rank(segment) * 7919 * epoch) % 1

    found = shown(start(text).run(outcome))
    records = found.driver.engine.records
    ended = search_trials(found.events).filter(state="finished")["trial_id"].unique()
    pairs = [(records[trial].goals[2][0], records[trial].final[0]) for trial in ended]
    expected = stats.kendalltau(*zip(*pairs, strict=True)).statistic
    line = found.said("Search trials were stopped early")
    assert f"over {len(pairs)} trials that ran to the end" in line
    assert float(line.rstrip(".").rsplit(" ", 1)[1]) == pytest.approx(expected, abs=0.005)


def test_few_trials_give_no_kendall(start: Any, shown: Any, text: str) -> None:
    line = shown(start(text.replace("  batch: 4", HALVING)).run()).said("Search trials were stopped early")
    assert line.endswith("over 3 trials that ran to the end: not computed, fewer than 5.")


def test_a_trial_that_one_arm_stops_and_another_finishes(start: Any, shown: Any, text: str) -> None:
    text = text.replace("plain: {regularizer: none}", "fixed: {regularizer.pull_weight: 0.1}")
    driver = start(text.replace("  batch: 4", HALVING))
    engine = driver.engine
    shared = engine.searches["sar", 0].seats[0].claim.trial_id
    assert engine.searches["fixed", 0].seats[0].claim.trial_id == shared
    mine = {seat.claim.trial_id for seat in engine.searches["sar", 0].seats}

    def outcome(segment: Any) -> Any:
        if segment.trial_id == shared:
            return lambda epoch: 0.5
        return lambda epoch: 0.1 if segment.trial_id in mine else 0.9

    found = shown(driver.run(outcome))
    states = search_trials(found.events).filter(trial_id=shared).select("arm", "state")
    assert dict(states.iter_rows()) == {"sar": "finished", "fixed": "stopped"}
    assert (found.rows["sar"]["best"], found.rows["fixed"]["best"]) == (0.5, 0.9)
    for arm in ("sar", "fixed"):
        seats = engine.searches[arm, 0].seats
        epochs = sum(seat.stopped or engine.record(seat.claim).epoch for seat in seats)
        assert found.rows[arm]["steps"] == 2 * epochs
        assert found.rows[arm]["hours"] == pytest.approx((epochs + 4 * 6) * EPOCH_HOURS)


@pytest.mark.parametrize(("terms", "name"), [(ASHA, "asha"), (MEDIAN, "median")])
def test_decisions_that_depend_on_timing_are_called_not_reproducible(
    start: Any, shown: Any, text: str, terms: str, name: str
) -> None:
    found = shown(start(text.replace("  batch: 4", terms)).run())
    assert found.said(f"Not reproducible (reproducible: false): {name} judges a trial by those that came")
    assert found.said(f"Search trials were stopped early by {name}.")
    assert found.report.missing == []


def test_duplicates_count_as_proposed_and_cost_nothing(start: Any, shown: Any, text: str) -> None:
    begin, end = text.index("  parameters:"), text.index("  trials_per_arm")
    text = text[:begin] + "  parameters:\n    optim.lr: {choices: [0.001, 0.01]}\n" + text[end:]
    found = shown(start(text.replace("trials_per_arm: 4", "trials_per_arm: 8")).run())
    for arm, row in found.rows.items():
        own = [seat for seat in found.driver.engine.searches[arm, 0].seats if seat.same_as is None]
        assert 2 <= len(own) <= 3
        assert row["duplicates"] == 8 - len(own)
        assert row["hours"] == pytest.approx((len(own) + 4) * 6 * EPOCH_HOURS)
        assert row["steps"] == len(own) * 12
        assert found.cells(arm)["trials"] == f"{len(own)} of 8, {8 - len(own)} duplicates"
    assert found.said("Duplicates are proposals equal to an earlier one")
    assert found.report.missing == []


def paced(driver: Any) -> Any:
    """Make epochs of a driver differ in time, and some first attempts be lost after two epochs."""
    engine, report, end, started = driver.engine, driver.engine.epoch_done, driver.end, []

    def slow(segment: Any, what: Any) -> None:
        started.append(segment)
        pace = float(len(started) * 7 % 11)
        engine.epoch_done = lambda at, result: report(at, {**result, "duration_s": pace})
        if segment.attempt == 1 and segment.index % 3 == 1:
            for epoch in (1, 2):
                engine.epoch_done(segment, {"epoch": epoch, "step": epoch, "metrics": {"val/miou": 0.0}})
            engine.failed(segment, "its node went away", "preempted")
        else:
            end(segment, what)

    driver.end = slow
    return driver


def test_goals_beside_the_objective_give_a_table_of_trade_offs(start: Any, shown: Any, text: str) -> None:
    goals = "objective: {metric: val/miou, also: [{metric: time/train_s, mode: min}]}\n"
    driver = paced(start(text.replace("trials_per_arm: 4", "trials_per_arm: 8") + goals))
    found = shown(driver.run(rank))
    candidates = {
        (arm, seat.claim.trial_id): driver.engine.record(seat.claim).final
        for (arm, _), search in driver.engine.searches.items()
        for seat in search.seats
    }
    front = {
        at
        for at, (score, cost) in candidates.items()
        if not any(s >= score and c <= cost and (s, c) != (score, cost) for s, c in candidates.values())
    }
    assert 2 < len(front) < len(candidates)
    frame = found.report.frames["tradeoffs.csv"]
    assert {(arm, trial) for arm, trial in frame.select("arm", "trial_id").iter_rows()} == front
    for arm, trial, value, cost in frame.select("arm", "trial_id", "val/miou", "time/train_s").iter_rows():
        assert (value, cost) == pytest.approx(candidates[arm, trial])
    assert frame.columns == ["level", "arm", "trial_id", "val/miou", "time/train_s", "parameters"]
    rows = found.extra("Trade-offs")
    assert [*rows[0]] == ["arm", "val/miou (max)", "time/train_s (min)", "trial_id", "parameters"]
    assert [row["trial_id"] for row in rows] == frame["trial_id"].to_list()
    assert "preempted; a trial" in found.said("Failed attempts over all starts: ")


def test_without_further_goals_there_are_no_trade_offs(start: Any, shown: Any) -> None:
    found = shown(start().run())
    assert list(found.report.frames) == ["trials.csv", "winners.csv", "search.csv"]
    assert not any(table.title.startswith("Trade-offs") for table in found.report.extras)
