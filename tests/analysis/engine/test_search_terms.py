"""Reports of ledgers that the engine wrote: repeats, finalists, shared scope, proxies, samplers."""

import csv
import io
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.csv_file import without_formulas
from analysis.results import confirm_trials, winner_table

EPOCH_HOURS = 36 / 3600


def ids(engine: Any) -> dict[str, list[str]]:
    """Return the confirm trials of each arm in order of their seeds."""
    return {arm: [seat.claim.trial_id for seat in seats] for arm, seats in engine.confirm.items()}


def counted(report: Any) -> dict[str, list[str]]:
    """Return the confirm trials that analysis counts."""
    trials = confirm_trials(report.events)
    return {arm: trials.filter(arm=arm)["trial_id"].to_list() for arm in ("sar", "plain", "no_pull")}


def test_a_plain_study_is_complete(start: Any, shown: Any) -> None:
    found = shown(start().run())
    assert found.report.missing == []
    assert found.cells("plain")["trials"] == "4 of 4"
    assert found.cells("plain")["seeds"] == "4 of 4"
    assert counted(found) == ids(found.driver.engine)
    for arm, row in found.rows.items():
        assert row["hours"] == pytest.approx(found.paid(arm))
        assert row["steps"] == 4 * 12
    assert [row["winner"] for row in found.extra("Winners")] == [
        found.driver.engine.winners[arm, 0].trial_id for arm in ("sar", "plain", "no_pull")
    ]
    assert found.said("Conditional on the tuned configurations: 4 search trials per arm, one seed each, 12 s")


def test_hours_of_trials_that_occupy_gpus_are_gpu_hours(start: Any, shown: Any, text: str) -> None:
    plain = shown(start().run())
    found = shown(start(text + "resources: {gpus_per_worker: 4.0}\n").run())
    for before, after in zip(plain.extra("Cost"), found.extra("Cost"), strict=True):
        hours = float(before["search hours"]) + float(before["confirm hours"])
        assert float(before["CPU-hours"]) == pytest.approx(hours, abs=0.011)
        assert float(after["GPU-hours"]) == pytest.approx(4 * hours, abs=0.03)
        assert "GPU-hours" not in before


def test_the_csv_of_confirm_trials_names_every_trial(start: Any, shown: Any) -> None:
    found = shown(start().run())
    rows = list(csv.DictReader(io.StringIO(without_formulas(found.report.frames["trials.csv"]).write_csv())))
    primary = [row for row in rows if row["metric"] == "test/miou"]
    seats = {
        (arm, seat.claim.index): seat.claim
        for arm, seats in found.driver.engine.confirm.items()
        for seat in seats
    }
    assert {(row["arm"], int(row["index"])): row["trial_id"] for row in primary} == {
        at: claim.trial_id for at, claim in seats.items()
    }
    assert [int(row["seed"]) for row in primary[:4]] == [seats["sar", k].seed for k in range(4)]
    assert {row["status"] for row in rows} == {"finished"}
    mean = found.report.comparison.tidy.filter(arm="plain", metric="test/miou")["mean"].item()
    assert mean == pytest.approx(np.mean([float(row["value"]) for row in primary if row["arm"] == "plain"]))


def test_confirm_seed_k_belongs_to_the_winner_of_search_k_modulo_repeats(
    start: Any, shown: Any, text: str
) -> None:
    found = shown(start(text.replace("  batch: 4", "  batch: 4\n  repeats: 3")).run())
    engine = found.driver.engine
    assert confirm_trials(found.events).filter(arm="sar")["repeat"].to_list() == [0, 1, 2, 0]
    assert counted(found) == ids(engine)
    chosen = winner_table(found.events, found.study)
    assert chosen.select("arm", "repeat", "trial_id").rows() == [
        (arm, repeat, engine.winners[arm, repeat].trial_id)
        for arm in ("sar", "plain", "no_pull")
        for repeat in range(3)
    ]
    assert found.report.missing == []
    assert found.cells("sar")["trials"] == "12 of 12"
    assert found.rows["sar"]["steps"] == 12 * 12
    assert found.rows["sar"]["hours"] == pytest.approx(found.paid("sar"))
    assert found.said("The claim is about the method, its tuning included: 3 independent searches of 4 trial")
    assert found.said("Confirm seeds on the same winner")
    assert not any(line.startswith("Conditional") for line in found.report.caption)
    assert [row["search"] for row in found.extra("Winners")] == ["0", "1", "2"] * 3


def test_other_repeats_take_other_claims_and_the_first_come_back(start: Any, shown: Any, text: str) -> None:
    twice = text.replace("  batch: 4", "  batch: 4\n  repeats: 2")
    seen = []
    for plan in (twice, text, twice, text):
        found = shown(start(plan).run())
        assert counted(found) == ids(found.driver.engine)
        seen.append(counted(found))
    assert seen[0] == seen[2] != seen[1] == seen[3]
    assert found.cells("sar")["trials"] == "4 of 4"
    assert all("left out" in line for line in found.report.missing)


def test_finalists_decide_and_their_runs_count_in_the_budget(start: Any, shown: Any, text: str) -> None:
    def outcome(segment: Any) -> float:
        values = {"search": [0.1, 0.9, 0.8, 0.7], "finalist": [0.2, 0.2, 0.1, 0.5, 0.3, 0.4]}
        return values[segment.phase][segment.index] if segment.phase in values else 0.5

    found = shown(
        start(text.replace("  batch: 4", "  batch: 4\n  finalists: {top: 3, seeds: 2}")).run(outcome)
    )
    row = found.rows["sar"]
    assert (row["runs"], row["claimed"], row["lost"], row["steps"]) == (6, 6, 0, (4 + 6) * 12)
    assert row["hours"] == pytest.approx(found.paid("sar"))
    assert row["hours"] == pytest.approx((4 + 6 + 4) * 6 * EPOCH_HOURS)
    assert found.extra("Search")[0]["finalist runs"] == "6 of 6"
    winner = found.extra("Winners")[0]
    assert winner["winner"] == found.driver.engine.winners["sar", 0].trial_id
    assert winner["mean val/miou of its runs"] == ".3500"
    assert found.said("The 3 best trials of each search were trained again in full on 2 seeds that search ha")
    assert found.report.missing == []


def test_a_proxy_is_named_also_where_nothing_measures_it(start: Any, shown: Any, text: str) -> None:
    found = shown(start(text.replace("  batch: 4", "  batch: 4\n  overrides: {training.steps: 4}")).run())
    assert found.said("Search ran on a proxy: training.steps=4; finalists and confirm trials (12 steps) did ")
    assert found.said("How well the proxy ranks trials was not measured")
    assert found.said("Conditional on the tuned configurations: 4 search trials per arm, one seed each.")


def test_rank_correlation_of_proxy_and_finalists_equals_scipy(start: Any, shown: Any, text: str) -> None:
    terms = "  batch: 4\n  overrides: {training.steps: 4}\n  finalists: {top: 3, seeds: 2}"
    text = text.replace("  batch: 4", terms)
    beginning = "Spearman rank correlation of proxy and full score over "

    def outcome(segment: Any) -> float:
        return int(segment.trial_id, 16) % 1009 / 1009

    early = shown(start(text).run(outcome, limit=12))
    assert early.said(beginning) == f"{beginning}0 finalists of all arms: not computed, fewer than 5."
    found = shown(start(text).run(outcome))
    pairs = []
    for arm in ("sar", "plain", "no_pull"):
        choice = found.driver.engine.choices[arm, 0]
        for place, (proxy, _) in enumerate(choice.candidates):
            runs = [found.driver.engine.record(seat.claim).final[0] for seat in choice.seats[2 * place :][:2]]
            pairs.append((proxy, np.mean(runs)))
    expected = stats.spearmanr(*np.array(pairs).T).statistic
    line = found.said(f"{beginning}9 finalists of all arms: ")
    assert float(line.rstrip(".").rsplit(" ", 1)[1]) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("repeats", [1, 2])
def test_shared_scope_gives_every_arm_the_optimum_of_one(
    start: Any, shown: Any, text: str, repeats: int
) -> None:
    text = text.replace("search:\n", f"search:\n  scope: shared\n  tune_on: plain\n  repeats: {repeats}\n")
    text = text.replace("    regularizer.pull_weight: {low: 0.01, high: 1.0, log: true}\n", "")
    found = shown(start(text).run())
    assert found.report.missing == []
    assert counted(found) == ids(found.driver.engine)
    tuned, follower = found.cells("plain"), found.cells("sar")
    assert (tuned["tuned"], tuned["trials"]) == ("2", f"{4 * repeats} of {4 * repeats}")
    assert (follower["tuned"], follower["trials"]) == ("as plain", "-")
    row = found.rows["sar"]
    assert row["hours"] == pytest.approx(4 * 6 * EPOCH_HOURS)
    assert (row["steps"], row["trials"], row["best"]) == (0, 0, None)
    searches = {line["arm"]: line["tuned parameters"] for line in found.extra("Search")}
    assert searches["sar"] == "optim.lr, optim.weight_decay (from plain)"
    assert {line["arm"] for line in found.extra("Winners")} == {"plain"}
    one = "Conditional on the tuned configuration of plain, the only arm that was tuned"
    several = "The claim is about the method, the tuning of plain included: 2 independent searches"
    assert "may favour plain" in found.said(one if repeats == 1 else several)


def test_a_study_that_becomes_shared_takes_the_claims_of_the_new_winner(
    start: Any, shown: Any, text: str
) -> None:
    text = text.replace("    regularizer.pull_weight: {low: 0.01, high: 1.0, log: true}\n", "")
    start(text).run()
    found = shown(start(text.replace("search:\n", "search:\n  scope: shared\n  tune_on: plain\n")).run())
    assert counted(found) == ids(found.driver.engine)
    assert any("scope: added shared" in change for change in found.study.changes)
    assert found.study.looks == 2


def test_defaults_only(start: Any, shown: Any, text: str) -> None:
    begin, end = text.index("  parameters:"), text.index("confirm:")
    found = shown(start(text[:begin] + "  scope: none\n" + text[end:]).run())
    assert found.said("No arm was tuned: defaults only, 12 steps.")
    assert found.report.missing == []
    assert (found.cells("sar")["tuned"], found.cells("sar")["trials"]) == ("0", "1 of 1")


def test_a_sampler_that_learns_is_named(start: Any, shown: Any, text: str) -> None:
    text = text.replace("  batch: 4", "  batch: 4\n  sampler: {name: tpe, startup: 4}")
    found = shown(start(text.replace("trials_per_arm: 4", "trials_per_arm: 8")).run())
    assert found.said("Proposals by tpe, for each search from its own results")
    assert found.report.missing == []
