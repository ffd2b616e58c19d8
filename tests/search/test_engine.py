"""The engine against a simulated host: what runs, in which order, what is chosen, what is recorded."""

import os
import random
from collections import Counter

import pytest

from sarx.config.errors import UserError
from sarx.search.state import FAILED, FINISHED, RUNNING
from sarx.study.ledger import of_kind, read_events, unpack_metrics, unpack_parameters


def searched(engine):
    """Return the search claims of each arm."""
    return {key: [seat.claim for seat in search.seats] for (key, _), search in engine.searches.items()}


def confirmed(engine):
    """Return the confirm claims of each arm."""
    return {key: [seat.claim for seat in seats] for key, seats in engine.confirm.items()}


def proposals(engine):
    """Return the parameters of every search proposal by arm."""
    return {key: [dict(claim.parameters) for claim in claims] for key, claims in searched(engine).items()}


def winners(engine):
    """Return the index and the identity of each arm's winner."""
    return {key: claim and (claim.index, claim.trial_id) for (key, _), claim in engine.winners.items()}


def everything(engine):
    """Return what must not depend on timing."""
    confirm = {key: [claim.trial_id for claim in claims] for key, claims in confirmed(engine).items()}
    return proposals(engine), winners(engine), confirm


def starts(engine):
    """Return (trial_id, attempt) of every start in the ledger."""
    return [(event["trial_id"], event["attempt"]) for event in of_kind(engine.ledger.events, "trial_started")]


@pytest.fixture
def finished(begin, host):
    """Return a finished engine and its host."""
    engine, runner = begin(), host()
    runner.run(engine)
    assert engine.done
    return engine, runner


def test_a_study_runs_every_trial_once(finished):
    engine, runner = finished
    assert len(runner.ran) == len(set(runner.ran)) == 3 * (4 + 2)
    assert engine.incomplete == []
    assert engine.next_segment() is None
    assert all(segment.attempt == 1 for segment in runner.started)


def test_arms_are_interleaved(finished):
    engine, runner = finished
    arm_of = {claim.trial_id: claim.arm.key for claim in engine.queue()}
    for phase in ("search", "confirm"):
        counts = Counter(dict.fromkeys(searched(engine), 0))
        for segment in runner.started:
            if segment.phase == phase:
                counts[arm_of[segment.trial_id]] += 1
                assert max(counts.values()) - min(counts.values()) <= 1
    phases = [segment.phase for segment in runner.started]
    assert phases == sorted(phases, reverse=True)


def test_proposals_are_common_and_the_first_is_the_default(finished):
    engine, _ = finished
    by_arm = proposals(engine)
    assert set(by_arm["sar"][1]) == {"optim.lr", "optim.weight_decay", "regularizer.pull_weight"}
    for arm in ("plain", "no_pull"):
        assert set(by_arm[arm][1]) == {"optim.lr", "optim.weight_decay"}
        for own, reference in zip(by_arm[arm], by_arm["sar"], strict=True):
            assert own == {key: reference[key] for key in own}
    assert all(points[0] == {} for points in by_arm.values())
    for index in range(4):
        assert len({claims[index].seed for claims in searched(engine).values()}) == 1


def test_seeds(finished):
    engine, _ = finished
    search = [claim.seed for claim in searched(engine)["sar"]]
    confirm = [claim.seed for claim in confirmed(engine)["sar"]]
    assert len({*search, *confirm}) == 4 + 2
    for claims in confirmed(engine).values():
        assert [claim.seed for claim in claims] == confirm
        assert [claim.config.seed for claim in claims] == confirm
        assert {claim.config.role for claim in claims} == {"confirm"}


def test_the_winner_is_the_best_at_the_last_epoch(finished):
    engine, _ = finished
    for arm in engine.arms:
        values = [engine.record(claim).final[0] for claim in searched(engine)[arm.key]]
        best = engine.winners[arm.key, 0]
        assert values[best.index] == max(values)
        assert all(claim.parameters == best.parameters for claim in confirmed(engine)[arm.key])
    for event in of_kind(engine.ledger.events, "selected"):
        record = engine.records[event["trial_id"]]
        assert unpack_metrics(event["metrics"])["val/miou"] == record.final[0]


def test_ties_go_to_the_earlier_and_min_means_smallest(begin, host, text):
    engine = begin()
    host(outcome=lambda segment: 0.5 if segment.index else 0.1).run(engine)
    assert {claim.index for claim in engine.winners.values()} == {1}
    engine = begin(text + "objective: {metric: val/miou, mode: min}\n", "other")
    host(outcome=lambda segment: -0.5 if segment.index == 2 else 0.1).run(engine)
    assert {claim.index for claim in engine.winners.values()} == {2}


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), "failed", "diverged"])
def test_only_finished_finite_scores_win(begin, host, bad):
    engine = begin()
    host(outcome=lambda segment: bad if segment.index == 0 and segment.phase == "search" else 0.0).run(engine)
    assert {claim.index for claim in engine.winners.values()} == {1}
    assert engine.done


def test_proposals_are_on_disk_before_the_batch_starts(begin, host, monkeypatch):
    synced = {"size": 0}
    real = os.fsync

    def fsync(number):
        real(number)
        synced["size"] = os.fstat(number).st_size

    monkeypatch.setattr(os, "fsync", fsync)
    engine = begin()

    def check(segment):
        lines = engine.ledger.path.read_bytes()[: synced["size"]].decode().splitlines()
        assert any('"proposed"' in line and segment.trial_id in line for line in lines)
        return "finished"

    host(outcome=lambda s: check(s) if s.phase == "search" else "finished").run(engine, limit=5)


@pytest.mark.parametrize("sampler", ["qmc", "random"])
@pytest.mark.parametrize("seed", range(4))
def test_timing_changes_nothing(begin, host, text, sampler, seed):
    text = text.replace("  batch: 4", f"  batch: 2\n  sampler: {sampler}")
    plain, slow = begin(text), begin(text, "other")
    host().run(plain)
    runner = host(slots=4, rng=random.Random(seed))
    runner.run(slow)
    assert everything(slow) == everything(plain)
    assert len(runner.ran) == len(set(runner.ran))


def test_resume_after_every_event(begin, host, finished, tmp_path):
    whole, _ = finished
    lines = whole.ledger.path.read_bytes().splitlines(keepends=True)
    expected = everything(whole)
    for cut in range(len(lines) + 1):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / "events.ndjson").write_bytes(b"".join(lines[:cut]))
        before = whole.ledger.events[:cut]
        done = {event["trial_id"] for event in of_kind(before, "trial_finished")}
        engine, runner = begin(folder=folder.name), host()
        runner.run(engine)
        assert engine.done
        assert everything(engine) == expected
        assert done.isdisjoint(runner.ran)
        assert len(done) + len(runner.ran) == 18
        after = engine.ledger.events
        for kind, count in (("trial_finished", 18), ("proposed", 12), ("selected", 3), ("claimed", 6)):
            assert sum(1 for _ in of_kind(after, kind)) == count
        assert len(starts(engine)) == len(set(starts(engine)))
        engine.ledger.close()


def test_resume_after_a_torn_line(begin, host, finished, tmp_path):
    whole, _ = finished
    raw = whole.ledger.path.read_bytes()
    for cut in range(0, len(raw), len(raw) // 7):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / "events.ndjson").write_bytes(raw[:cut])
        engine = begin(folder=folder.name)
        host(slots=3).run(engine)
        assert everything(engine) == everything(whole)
        assert read_events(engine.ledger.path)


def test_resume_takes_a_new_attempt_and_says_where_it_continues(begin, host, epoch_of):
    engine = begin()
    segment = engine.next_segment()
    engine.epoch_done(segment, epoch_of(segment, 1, 0.3))
    engine.ledger.close()
    again = begin()
    second = again.next_segment()
    assert (second.trial_id, second.attempt) == (segment.trial_id, 2)
    assert again.ledger.events[-1]["epoch"] == 1
    again.finished(segment, epoch_of(segment, 2, 0.9))  # of the driver that was cut off
    assert again.record(again.claim_of(second)).status == RUNNING


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_a_failing_trial_is_retried_and_then_given_up(begin, host, text, allowed):
    engine = begin(text + f"max_failures: {allowed}\n")
    broken = searched(engine)["plain"][1].trial_id
    runner = host(slots=2, outcome=lambda s: "failed" if s.trial_id == broken else "finished")
    runner.run(engine)
    assert [s.attempt for s in runner.started if s.trial_id == broken] == list(range(1, allowed + 2))
    assert engine.records[broken].status == FAILED
    assert engine.done
    assert engine.incomplete == ["plain"]  # tuned on fewer trials than the others
    assert winners(engine)["plain"][1] != broken
    engine.ledger.close()
    again, other = begin(text + f"max_failures: {allowed}\n"), host()
    other.run(again)
    assert again.done
    assert other.ran == []


def test_a_trial_that_fails_once_finishes_on_its_second_attempt(begin, host):
    engine = begin()
    runner = host(outcome=lambda s: "failed" if s.attempt == 1 else "finished")
    runner.run(engine)
    assert len(runner.ran) == 36
    assert {record.status for record in engine.records.values()} == {FINISHED}


def test_an_arm_whose_search_fails_has_no_winner_and_the_others_go_on(begin, host):
    engine = begin()
    lost = {claim.trial_id for claim in searched(engine)["plain"]}
    host(outcome=lambda s: "failed" if s.trial_id in lost else "finished").run(engine)
    assert engine.done
    assert engine.incomplete == ["plain"]
    assert engine.winners["plain", 0] is None


def test_a_confirm_trial_that_fails_for_good_leaves_its_arm_incomplete(begin, host):
    engine = begin()
    host(outcome=lambda s: "failed" if s.label == "sar confirm 1" else "finished").run(engine)
    assert engine.done
    assert engine.incomplete == ["sar"]


def test_a_diverged_trial_is_a_result(begin, host):
    engine = begin()
    runner = host(outcome=lambda s: "diverged" if s.label == "sar confirm 1" else "finished")
    runner.run(engine)
    assert len(runner.ran) == 18
    assert engine.done
    assert engine.incomplete == []


def test_late_results_of_a_replaced_attempt_change_nothing(begin, host, epoch_of):
    engine = begin()
    first = engine.next_segment()
    engine.failed(first, "lost contact")
    calls = [
        lambda: engine.epoch_done(first, epoch_of(first, 1, 9.0)),
        lambda: engine.finished(first, epoch_of(first, 2, 9.0)),
        lambda: engine.diverged(first, "x", 1),
        lambda: engine.failed(first, "x"),
    ]
    calls[1]()  # before the next attempt starts
    second = engine.next_segment()
    assert (second.trial_id, second.attempt) == (first.trial_id, 2)
    for call in calls:
        before = vars(engine.records[first.trial_id]).copy()
        call()
        assert engine.ledger.events[-1]["event"] == "dropped"
        assert engine.ledger.events[-1]["attempt"] == 1
        assert vars(engine.records[first.trial_id]) == before
    engine.finished(second, epoch_of(second, 2, 0.25))
    engine.finished(second, epoch_of(second, 2, 0.75))
    assert engine.records[first.trial_id].final == (0.25,)
    assert engine.ledger.events[-1]["event"] == "dropped"


@pytest.mark.parametrize(
    ("old", "new", "more"),
    [
        ("seeds: 2", "seeds: 5", 3 * 3),
        ("    plain:", "    decay: {optim.weight_decay: 0.5}\n    plain:", 4 + 2),
        ("    plain:", "    other: {loss: logit_adjusted}\n    plain:", 4 + 2),
    ],
)
def test_a_grown_study_runs_only_what_is_new(begin, host, finished, text, old, new, more):
    engine, runner = finished
    before = everything(engine)
    engine.ledger.close()
    grown, other = begin(text.replace(old, new)), host()
    other.run(grown)
    assert len(other.ran) == more
    assert set(runner.ran).isdisjoint(other.ran)
    points, chosen, confirm = everything(grown)
    assert {key: points[key] for key in before[0]} == before[0]
    assert {key: chosen[key] for key in before[1]} == before[1]
    assert {key: confirm[key][:2] for key in before[2]} == before[2]


def test_more_trials_run_only_the_new_and_confirm_again_only_new_winners(begin, host, finished, text):
    engine, runner = finished
    before = everything(engine)
    engine.ledger.close()
    grown, other = begin(text.replace("trials_per_arm: 4", "trials_per_arm: 16")), host()
    other.run(grown)
    points, chosen, _ = everything(grown)
    assert {key: points[key][:4] for key in points} == before[0]
    changed = sum(chosen[key] != before[1][key] for key in chosen)
    assert len(other.ran) == 3 * 12 + 2 * changed
    assert set(runner.ran).isdisjoint(other.ran)
    assert changed > 0


def test_arms_that_share_a_trial_run_it_once(begin, host, text):
    text = text.replace("no_pull: {regularizer.pull_weight: 0.0}", "fixed: {regularizer.pull_weight: 0.1}")
    engine = begin(text)
    assert searched(engine)["sar"][0].trial_id == searched(engine)["fixed"][0].trial_id
    runner = host(slots=4, outcome=lambda s: 1.0 if s.index == 0 else 0.0)  # the default wins everywhere
    runner.run(engine)
    assert engine.done
    assert len(runner.ran) == len(set(runner.ran)) == 3 * 4 - 1 + 2 * 2
    assert [c.trial_id for c in confirmed(engine)["sar"]] == [c.trial_id for c in confirmed(engine)["fixed"]]
    assert sum(1 for _ in of_kind(engine.ledger.events, "claimed")) == 6
    assert sum(1 for _ in of_kind(engine.ledger.events, "proposed")) == 12


def test_without_a_search_the_default_runs_once(begin, host, text):
    engine = begin(text[: text.index("search:")] + "search: none\nconfirm: {seeds: 2}\n")
    runner = host()
    runner.run(engine)
    assert len(runner.ran) == 3 * (1 + 2)
    assert all(points == [{}] for points in proposals(engine).values())


def test_a_proposal_that_no_longer_fits_the_space_is_made_again(begin, host, finished, text):
    engine, _ = finished
    engine.ledger.close()
    narrow, other = begin(text.replace("high: 0.1, log: true", "high: 0.01, log: true")), host()
    other.run(narrow)
    for points in proposals(narrow).values():
        assert all(0.001 <= point["optim.lr"] <= 0.01 for point in points[1:])
    stored = {
        (e["arm"], e["index"]): unpack_parameters(e["parameters"])
        for e in of_kind(narrow.ledger.events, "proposed")
    }
    assert all(stored[key, i] == p for key, points in proposals(narrow).items() for i, p in enumerate(points))
    defaults = {claims[0].trial_id for claims in searched(narrow).values()}
    assert defaults.isdisjoint(other.ran)


def test_a_metric_that_trials_do_not_have_ends_the_first_trial(begin, host, text, epoch_of):
    engine = begin(text + "objective: {metric: val/moiu}\n")
    with pytest.raises(
        UserError, match=r"objective\.metric: trials have no metric 'val/moiu'; did you mean 'val/miou'"
    ):
        host().run(engine)
    assert not list(of_kind(engine.ledger.events, "trial_finished", "epoch"))
