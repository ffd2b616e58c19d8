"""What sarx.status reads from the ledger is what the engine, which writes it, knows."""

import json
import random

import pytest

from sarx.search.overview import overview, totals
from sarx.study.identity import Code
from sarx.study.ledger import read_events
from sarx.study.opening import opened_payload
from sarx.study.standing import DIVERGED, FAILED, FINISHED, PHASES, STOPPED, WAITING, Standing

DECIDED = {FINISHED, STOPPED, DIVERGED, FAILED}


def counted(engine):
    """Count the trials that are decided or stopped early, one by one."""
    seats = {}
    for search in engine.searches.values():
        for seat in search.seats:
            if seat.same_as is None:
                seats.setdefault(seat.claim.trial_id, []).append(seat)
    ended = {name for name, record in engine.records.items() if record.status in DECIDED}
    stopped = {name for name, found in seats.items() if all(seat.stopped is not None for seat in found)}
    return len(ended | stopped)


HALVING = "scheduler: {name: successive_halving, min_fraction: 0.3, reduction_factor: 2}"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "terms",
    [
        "",
        HALVING,
        "finalists: {top: 2, seeds: 2}",
        "repeats: 2\n  finalists: {top: 2, seeds: 1}",
        "scope: shared\n  tune_on: sar",
    ],
)
def test_after_any_number_of_segments(begin, host, text, terms, seed):
    rng = random.Random(seed)

    def outcome(segment):
        kinds = ("failed", "preempted", "diverged", "finished", "finished", "finished", "finished")
        return rng.choice(kinds)

    text = text.replace("steps=4", "steps=12").replace("  batch: 4", f"  batch: 4\n  {terms}")
    while True:
        engine = begin(text)
        payload = opened_payload(engine.study, engine.arms, Code("c", {}), [])
        engine.ledger.append("study_opened", payload=json.dumps(payload))
        host(slots=2, rng=rng, outcome=outcome).run(engine, limit=rng.randrange(1, 12))
        standing = Standing(read_events(engine.ledger.path.parent))
        counts, known = standing.counts(), totals(overview(engine))
        for phase in PHASES:
            mine = counts.get(phase, {})
            theirs = known.get(phase)
            decided = sum(n for status, n in mine.items() if status in DECIDED)
            assert (decided, mine.get(STOPPED, 0)) == ((theirs.done, theirs.stopped) if theirs else (0, 0))
        assert engine.spent()[0] == counted(engine)
        for trial in standing.trials.values():
            record = engine.records[trial.trial_id]
            assert (trial.attempts, trial.failures) == (record.attempts, record.failures)
        engine.ledger.close()
        if engine.done:
            assert not any(count[WAITING] for count in counts.values())
            return
