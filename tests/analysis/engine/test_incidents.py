"""Reports of studies that are not as they should be: failures, void results, no winner, half of a study."""

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from analysis.errors import UserError
from analysis.ledger import read_ledger
from analysis.markdown import to_markdown
from analysis.report import make_report
from analysis.results import confirm_trials, search_trials

RICH = """\
  batch: 4
  repeats: 2
  finalists: {top: 2, seeds: 1}
  overrides: {training.steps: 8}
  scheduler: {name: successive_halving, min_fraction: 0.33, reduction_factor: 2}"""
GOALS = "objective: {metric: val/miou, also: [{metric: time/train_s, mode: min}]}\n"


def rank(segment: Any) -> float:
    return int(segment.trial_id, 16) % 1009 / 1009


def status(found: Any, arm: str = "sar") -> list[str]:
    return confirm_trials(found.events).filter(arm=arm)["status"].to_list()


def test_failures_are_counted_by_kind(start: Any, shown: Any, text: str) -> None:
    kinds = {"sar search 1": "out_of_memory", "sar confirm 0": "out_of_memory", "plain confirm 1": "crashed"}

    def outcome(segment: Any) -> Any:
        if segment.label in kinds and segment.attempt <= 2:
            return kinds[segment.label]
        return "preempted" if segment.label == "plain confirm 2" and segment.attempt < 5 else rank(segment)

    found = shown(start(text).run(outcome))
    line = found.said("Failed attempts over all starts: ")
    assert "4 out_of_memory, 4 preempted, 2 crashed; a trial" in line
    assert found.cells("sar")["trials"] == "3 of 4, 1 failed"
    assert found.cells("sar")["seeds"] == "3 of 4, 1 failed"
    assert found.cells("plain")["seeds"] == "3 of 4, 1 failed"
    assert found.said("2 confirm trials failed (1 crashed, 1 out_of_memory); raise max_failures")
    assert found.said("Search trials without a score, so a winner of fewer proposals: sar: 3 of 4.")


def test_a_failed_attempt_that_will_be_tried_again_is_to_come(start: Any, shown: Any, text: str) -> None:
    start(text, only_phase="search").run()
    for kind in ("crashed", "preempted"):
        found = shown(start(text).run(lambda segment, kind=kind: kind, limit=1))
        assert status(found) == ["waiting"] * 4
        assert found.cells("sar")["seeds"] == "0 of 4, 4 to come"
    found = shown(start(text).run(lambda segment: "crashed" if segment.label == "sar confirm 0" else 0.5))
    assert status(found) == ["failed", "finished", "finished", "finished"]
    trial = found.driver.engine.confirm["sar"][0].claim.trial_id
    driver = start(text)
    driver.ledger.append("retried", trial_id=trial, payload=json.dumps({"reason": "--retry-failed"}))
    assert status(shown(driver)) == ["waiting", "finished", "finished", "finished"]
    assert status(shown(start(text).run(rank))) == ["finished"] * 4


def test_a_confirm_trial_that_trained_on_fewer_workers_is_flagged(start: Any, shown: Any, text: str) -> None:
    many = text.replace(
        "confirm: {seeds: 4}", "confirm: {seeds: 4}\nresources: {num_workers: 4, min_workers: 2}"
    )
    driver = start(many)
    while (segment := driver.engine.next_segment()) is not None:
        planned = segment.label not in ("sar confirm 1", "sar search 0")
        driver.end(segment, 0.5, workers=4 if planned else 2)
    assert {event["workers"] for event in driver.ledger.events if "workers" in event} == {2}
    found = shown(driver)
    assert found.cells("sar")["seeds"] == "4 of 4, 1 on other workers"
    assert found.cells("plain")["seeds"] == "4 of 4"
    assert found.said("Confirm trials trained in part on another number of workers").endswith("over: 1.")


def test_a_void_confirm_result_counts_no_more_and_its_hours_do(start: Any, shown: Any, text: str) -> None:
    driver = start(text).run(lambda segment: 0.25)
    trial = driver.engine.confirm["plain"][2].claim.trial_id
    driver.ledger.append("forgotten", trial_id=trial, payload=json.dumps({"reason": "its node overheated"}))
    found = shown(driver)
    hours = found.rows["plain"]["hours"]
    assert status(found, "plain") == ["finished", "finished", "waiting", "finished"]
    assert found.cells("plain")["seeds"] == "3 of 4, 1 to come"
    assert found.said("Interim: 11 of 12 confirm trials have ended.")
    assert found.said(
        f"Results declared void and trained again: {trial} (its node overheated). With a finished confirm "
        "trial among them: 1."
    )
    again = shown(start(text).run(lambda segment: 0.75))
    assert status(again, "plain") == ["finished"] * 4
    assert again.rows["plain"]["hours"] == pytest.approx(hours + 6 * 36 / 3600) == again.paid("plain")
    values = again.report.frames["trials.csv"].filter(arm="plain", metric="test/miou")["value"]
    assert values.to_list() == [0.25, 0.25, 0.75, 0.25]
    assert again.report.missing == []


def test_a_void_search_result_leaves_its_arm_without_winner_until_it_ran_again(
    start: Any, shown: Any, text: str
) -> None:
    def outcome(segment: Any) -> float:
        return 0.9 if segment.label == "sar search 1" else 0.1 + segment.index / 100

    driver = start(text).run(outcome)
    trial = driver.engine.winners["sar", 0].trial_id
    driver.ledger.append("forgotten", trial_id=trial, payload=json.dumps({"reason": "wrong data"}))
    found = shown(driver)
    assert found.said("No winner selected yet: sar.")
    assert found.said("Search: 11 of 12 trials have ended.")
    assert found.rows["sar"]["best"] == pytest.approx(0.13)
    assert found.cells("sar")["seeds"] == "0 of 4, 4 to come"
    same = shown(start(text).run(outcome))
    assert same.report.missing == []
    assert same.extra("Winners")[0]["winner"] == trial
    assert same.cells("sar")["seeds"] == "4 of 4"
    driver = start(text)
    driver.ledger.append("forgotten", trial_id=trial)
    driver.close()
    other = shown(start(text).run(lambda segment: 0.0 if segment.phase == "search" else 0.5))
    assert other.extra("Winners")[0]["winner"] == other.driver.engine.winners["sar", 0].trial_id != trial
    assert other.cells("sar")["seeds"] == "4 of 4"
    assert "(no reason given). With" in other.said("Results declared void")
    assert all("left out" in line for line in other.report.missing)


def test_a_search_without_any_result_has_no_winner_and_says_so(start: Any, shown: Any, text: str) -> None:
    found = shown(start(text).run(lambda s: "diverged" if s.label.startswith("plain search") else rank(s)))
    assert found.driver.engine.done
    assert found.report.missing == ["No winner, because no search trial ran to the end with a score: plain."]
    assert found.cells("plain")["trials"] == "0 of 4, 4 diverged"
    assert found.cells("plain")["seeds"] == "0 of 4, 4 without winner"
    assert "plain" not in {row["arm"] for row in found.extra("Winners")}


def test_finalists_that_all_lost_a_run_give_no_winner(start: Any, shown: Any, text: str) -> None:
    text = text.replace("  batch: 4", "  batch: 4\n  finalists: {top: 2, seeds: 2}")

    def outcome(segment: Any) -> Any:
        return "diverged" if segment.label in ("sar finalist 0", "sar finalist 3") else rank(segment)

    found = shown(start(text).run(outcome))
    assert found.driver.engine.winners["sar", 0] is None
    assert found.report.missing[0] == "No winner, because every finalist lost a run: sar."
    assert found.extra("Search")[0]["finalist runs"] == "2 of 4, 2 lost"


def test_one_of_several_searches_without_winner_loses_its_seeds_alone(
    start: Any, shown: Any, text: str
) -> None:
    text = text.replace("  batch: 4", "  batch: 4\n  repeats: 2")

    def outcome(segment: Any) -> Any:
        lost = segment.label.startswith("plain search") and segment.label.endswith("of search 1")
        return "diverged" if lost else rank(segment)

    found = shown(start(text).run(outcome))
    assert found.cells("plain")["seeds"] == "2 of 4, 2 without winner"
    expected = "No winner, because no search trial ran to the end with a score: plain, search 1."
    assert found.report.missing == [expected]


def test_followers_of_an_arm_without_winner(start: Any, shown: Any, text: str) -> None:
    text = text.replace("search:\n", "search:\n  scope: shared\n  tune_on: sar\n")
    found = shown(start(text).run(lambda s: "diverged" if s.phase == "search" else rank(s)))
    assert {found.cells(arm)["seeds"] for arm in found.rows} == {"0 of 4, 4 without winner"}
    assert found.said("No winner, because no search trial ran to the end with a score: sar; plain; no_pull.")


def test_search_alone_and_an_arm_alone(start: Any, shown: Any, text: str) -> None:
    found = shown(start(text, only_phase="search").run())
    assert found.said("Interim: 0 of 12 confirm trials have ended.")
    assert found.said("No confirm trial has finished: the table has no values yet.")
    assert found.said("Confirm trials to come: sar: 4; plain: 4; no_pull: 4.")
    assert len(found.extra("Winners")) == 3
    assert set(found.report.frames["trials.csv"]["status"]) == {"waiting"}
    found = shown(start(text, only_arms=frozenset({"plain"}), only_phase="confirm").run())
    assert found.cells("plain")["seeds"] == "4 of 4"
    assert found.said("Confirm trials to come: sar: 4; no_pull: 4.")


def test_nothing_but_an_opening(start: Any, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = start(text).close()
    assert main(["small", "--storage", str(folder.parent)]) == 0
    out = capsys.readouterr().out
    assert "No winner selected yet: sar, plain, no_pull." in out
    assert "Search: 0 of 12 trials have ended." in out


def test_every_moment_of_a_study_has_a_report(start: Any, text: str, tmp_path: Path) -> None:
    def outcome(segment: Any) -> Any:
        if rank(segment) < 0.08:
            return "diverged"
        return "out_of_memory" if rank(segment) < 0.2 and segment.attempt == 1 else rank(segment)

    driver = start(text.replace("  batch: 4", RICH).replace("trials_per_arm: 4", "trials_per_arm: 8") + GOALS)
    folder = driver.run(outcome).close()
    lines = driver.ledger.path.read_bytes().splitlines(keepends=True)
    cut_off = tmp_path / "cut"
    (cut_off / "ledger").mkdir(parents=True)
    seen = set()
    for count in [1, 2, 3, *range(5, len(lines), 29), len(lines)]:
        (cut_off / "ledger" / driver.ledger.path.name).write_bytes(b"".join(lines[:count]))
        report = make_report(cut_off)
        to_markdown(report)
        seen.add(report.missing[0].partition(":")[0] if report.missing else "complete")
        states = search_trials(read_ledger(cut_off).events)
        assert states.select("level", "arm", "repeat", "index").is_unique().all()
    assert "Interim" in seen
    assert make_report(folder).missing == report.missing


def test_an_empty_ledger_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "small" / "ledger").mkdir(parents=True)
    with pytest.raises(UserError, match="no complete line yet"):
        make_report(tmp_path / "small")
