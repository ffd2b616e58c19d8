"""Segments and rungs: who is stopped, who goes on, and that timing, kills and other arms change nothing."""

import random
import zlib

import pytest

from sarx.search.state import FINISHED
from sarx.study.ledger import of_kind

HALVING = """\
# Which is better?
study: small
base: [data=digit_scenes, training.steps=12, training.eval_every=2]
ablation:
  reference: sar
  arms:
    sar: {}
    plain: {regularizer: none}
search:
  parameters:
    optim.lr: {low: 0.001, high: 0.1, log: true}
  trials_per_arm: 12
  batch: 4
  sampler: SAMPLER
  scheduler: {name: successive_halving, min_fraction: 0.33, reduction_factor: 2}
confirm: {seeds: 2}
"""


def rank(label):
    """Return a number in [0, 1) that says how good a trial is."""
    return zlib.crc32(label.encode()) % 1009 / 1009


def value(segment):
    """Return a score that is known from the first epoch on and differs between trials."""
    return lambda epoch: rank(segment.label) + epoch / 1e6


def verdicts(engine):
    """Return what was decided at the rungs."""
    return sorted(
        (e["event"], e["arm"], e["index"], e["epoch"], e["trial_id"])
        for e in of_kind(engine.ledger.events, "promoted", "stopped")
    )


def proposed(engine):
    return sorted(
        (e["arm"], e["index"], e["trial_id"], str(e["parameters"]))
        for e in of_kind(engine.ledger.events, "proposed")
    )


@pytest.fixture(params=["qmc", "{name: tpe, startup: 4}"])
def halving(request):
    return HALVING.replace("SAMPLER", request.param)


def test_of_each_batch_the_best_half_goes_on_at_each_rung(begin, host, halving):
    engine, runner = begin(halving), host(slots=3, outcome=value)
    runner.run(engine)
    assert engine.done
    assert engine.incomplete == []
    search = engine.searches["sar", 0]
    for first in range(0, 12, 4):
        batch = search.seats[first : first + 4]
        ordered = sorted(batch, key=lambda seat: -rank(seat.claim.label))
        assert [seat.stopped for seat in ordered] == [None, 4, 2, 2]
        assert engine.record(ordered[0].claim).status == FINISHED
        assert [engine.record(seat.claim).epoch for seat in ordered] == [6, 4, 2, 2]
    best = engine.winners["sar", 0]
    assert engine.book.records.of(best.trial_id).status == FINISHED
    epochs = [s.until - s.start for s in runner.started if s.phase == "search"]
    assert sum(epochs) == 2 * 3 * (6 + 4 + 2 + 2)


def test_a_segment_continues_where_the_one_before_ended(begin, host, halving):
    engine, runner = begin(halving), host(outcome=value)
    runner.run(engine)
    seen = {}
    for segment in runner.started:
        assert segment.start == seen.get(segment.trial_id, 0)
        seen[segment.trial_id] = segment.until
    per_trial = [
        [s.attempt for s in runner.started if s.trial_id == trial]
        for trial in {s.trial_id for s in runner.started}
    ]
    assert all(attempts == list(range(1, len(attempts) + 1)) for attempts in per_trial)


@pytest.mark.parametrize("seed", range(4))
def test_timing_and_slots_change_no_proposal_and_no_verdict(begin, host, halving, seed):
    plain, other = begin(halving), begin(halving, "other")
    host(outcome=value).run(plain)
    host(slots=(1, 2, 4, 9)[seed], rng=random.Random(seed), outcome=value).run(other)
    assert verdicts(other) == verdicts(plain)
    assert proposed(other) == proposed(plain)
    assert other.winners.keys() == plain.winners.keys()


def test_a_kill_at_any_moment_changes_no_proposal_and_no_verdict(begin, host, halving, tmp_path):
    whole = begin(halving)
    host(slots=3, outcome=value).run(whole)
    lines = whole.ledger.path.read_bytes().splitlines(keepends=True)
    for cut in range(0, len(lines), 5):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / whole.ledger.path.name).write_bytes(b"".join(lines[:cut]))
        engine, runner = begin(halving, folder.name), host(slots=2, outcome=value)
        before = {e["trial_id"] for e in of_kind(whole.ledger.events[:cut], "trial_finished")}
        runner.run(engine)
        assert engine.done
        assert verdicts(engine) == verdicts(whole)
        assert proposed(engine) == proposed(whole)
        assert before.isdisjoint(runner.ran)
        engine.ledger.close()


def test_failed_and_diverged_trials_count_as_last_and_the_barrier_waits_for_retries(begin, host, halving):
    engine = begin(halving)
    seats = engine.searches["sar", 0].seats[:4]
    fails, dies, retried, good = (seat.claim.trial_id for seat in seats)

    def outcome(segment):
        if segment.trial_id == fails or (segment.trial_id == retried and segment.attempt == 1):
            return "failed"
        if segment.trial_id == dies:
            return "diverged"
        return (lambda epoch: 9.0) if segment.trial_id == retried else value(segment)

    runner = host(slots=8, outcome=outcome)
    runner.run(engine)
    kept = {e["trial_id"] for e in of_kind(engine.ledger.events, "promoted")}
    assert {retried, good} <= kept
    assert not {fails, dies} & kept
    assert not {fails, dies} & {e["trial_id"] for e in of_kind(engine.ledger.events, "stopped")}
    assert engine.incomplete == ["sar"]  # a search trial failed for good


def test_more_trials_leave_the_first_as_they_were(begin, host, halving):
    engine = begin(halving)
    host(slots=2, outcome=value).run(engine)
    engine.ledger.close()
    grown, runner = begin(halving.replace("trials_per_arm: 12", "trials_per_arm: 16")), host(outcome=value)
    runner.run(grown)
    assert grown.done
    assert set(verdicts(engine)) < set(verdicts(grown))
    assert set(proposed(engine)) < set(proposed(grown))
    new = {s.claim.trial_id for search in grown.searches.values() for s in search.seats[12:]}
    assert {s.trial_id for s in runner.started if s.phase == "search"} == new


def test_a_trial_whose_gate_never_opened_is_not_judged(begin, host, halving, epoch_of):
    engine = begin(halving.replace("factor: 2", "factor: 4"))
    report = epoch_of

    class Gated(host):
        def end(self, engine, segment):
            for epoch in range(segment.start + 1, segment.until + 1):
                result = report(segment, epoch, float(segment.index))
                if segment.config["regularizer"]["name"] == "sar" and segment.index == 0:
                    result["metrics"]["train/first_open_step"] = -1.0
                last = epoch == 6
                (
                    engine.finished
                    if last
                    else engine.rung_reached
                    if epoch == segment.until
                    else engine.epoch_done
                )(segment, result)

    Gated().run(engine)
    promoted = {(e["arm"], e["index"]) for e in of_kind(engine.ledger.events, "promoted") if e["index"] < 4}
    assert promoted == {("sar", 0), ("sar", 3), ("plain", 3)}


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_asha_and_median_judge_on_arrival_per_arm(begin, host, scheduler):
    text = HALVING.replace("SAMPLER", "qmc").replace("batch: 4", "batch: 4\n  reproducible: false")
    text = text.replace("{name: successive_halving,", f"{{name: {scheduler},")
    text = text.replace("reduction_factor: 2", "min_trials: 3") if scheduler == "median" else text
    engine, runner = begin(text), host(slots=3, rng=random.Random(1), outcome=value)
    runner.run(engine)
    assert engine.done
    for arm in ("sar", "plain"):
        kinds = [v[0] for v in verdicts(engine) if v[1] == arm]
        assert {"promoted", "stopped"} == set(kinds)
        assert engine.winners[arm, 0] is not None
    kept = verdicts(engine)
    engine.ledger.close()
    again, other = begin(text), host()
    other.run(again)
    assert other.ran == []
    assert verdicts(again) == kept


def test_two_claims_on_one_trial_are_judged_each_in_its_arm(begin, host):
    text = HALVING.replace("SAMPLER", "qmc").replace(
        "plain: {regularizer: none}", "fixed: {regularizer.pull_weight: 0.1}"
    )
    text = text.replace(
        "log: true}\n", "log: true}\n    regularizer.pull_weight: {low: 0.01, high: 1.0}\n", 1
    )
    engine = begin(text.replace("trials_per_arm: 12", "trials_per_arm: 8"))
    shared = engine.searches["sar", 0].seats[0].claim.trial_id
    assert engine.searches["fixed", 0].seats[0].claim.trial_id == shared
    mine = {seat.claim.trial_id for seat in engine.searches["sar", 0].seats}

    def outcome(segment):
        if segment.trial_id == shared:
            return lambda epoch: 0.5
        return lambda epoch: 0.1 if segment.trial_id in mine else 0.9

    runner = host(slots=4, outcome=outcome)
    runner.run(engine)
    assert engine.done
    assert engine.searches["sar", 0].seats[0].stopped is None
    assert engine.searches["fixed", 0].seats[0].stopped == 2
    assert engine.records[shared].status == FINISHED
    assert engine.winners["sar", 0].trial_id == shared
    assert engine.winners["fixed", 0].trial_id != shared
    assert len({(s.trial_id, s.start) for s in runner.started}) == len(runner.started)
