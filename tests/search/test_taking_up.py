"""Taking up a large study: identities that the ledger vouches for are not worked out again."""

import json

import pytest

from sarx.cluster.pace import Pace
from sarx.config.errors import UserError
from sarx.search.engine import Engine
from sarx.study.design import make_arms
from sarx.study.identity import trial_id
from sarx.study.ledger import Ledger, of_kind
from sarx.study.ledger_lines import encode
from sarx.study.load import load_study

TWO_WORKERS = """\
# With dropout the number of workers belongs to a trial, without it does not.
study: ranks
base: [data=digit_scenes, regularizer=none, training.sync_bn=true, training.device=cuda]
ablation: {reference: plain, arms: {plain: {}}}
search:
  parameters: {model.dropout: {low: 0.0, high: 0.5}}
  trials_per_arm: 8
  batch: 4
confirm: {seeds: 2}
resources: {num_workers: 2, gpus_per_worker: 1}
"""


@pytest.fixture
def take_up(tmp_path):
    """Return a function that opens an engine under some code and also returns what was identified."""
    opened = []

    def open_engine(text, code="c"):
        file = tmp_path / "s.yaml"
        file.write_text(text)
        study, source = load_study(file)
        (tmp_path / "ledger").mkdir(exist_ok=True)
        ledger, made = Ledger(tmp_path / "ledger"), []
        opened.append(ledger)

        def identify(config):
            made.append(config)
            workers = study.resources.num_workers
            return trial_id(config, data_fingerprint="d", code=code, workers=workers)

        return Engine(study, make_arms(study, source), ledger, identify), made

    yield open_engine
    for ledger in opened:
        ledger.close()


def claims(engine):
    """Return all search claims."""
    return [seat.claim for search in engine.searches.values() for seat in search.seats]


def close(engine, runner):
    """Run to the end and release the ledger."""
    runner.run(engine)
    assert engine.done
    engine.ledger.close()


def test_search_trials_are_not_identified_again(text, host, take_up):
    first, made = take_up(text)
    close(first, host())
    assert len(made) >= 3 * (4 + 2)
    again, made = take_up(text)
    assert again.done
    assert len(made) == 3 * (1 + 2)  # for each arm its base and its confirm seeds
    assert claims(again) == claims(first)
    for claim in claims(again):
        assert trial_id(claim.config, data_fingerprint="d", code="c") == claim.trial_id
    assert [claim.config for claim in claims(again)] == [claim.config for claim in claims(first)]


def test_showing_progress_resolves_no_options(text, host, take_up):
    first, _ = take_up(text)
    close(first, host())
    again, _ = take_up(text)
    Pace(again)
    assert not any("config" in vars(claim) for claim in claims(again))


def test_options_that_became_invalid_write_nothing(text, host, take_up, monkeypatch):
    first, _ = take_up(text)
    host().run(first, limit=1)
    first.ledger.close()
    again, _ = take_up(text)
    before = len(again.ledger.events)

    def refuse(*_):
        raise UserError("no longer allowed", key="optim.lr")

    monkeypatch.setattr("sarx.search.book.rebuild", refuse)
    with pytest.raises(UserError, match="no longer allowed"):
        again.next_segment()
    assert len(again.ledger.events) == before
    assert again.running == 0


@pytest.mark.parametrize("change", ["code", "base"])
def test_another_base_makes_new_trials(text, host, take_up, change):
    first, _ = take_up(text)
    close(first, host())
    if change == "code":
        again, _ = take_up(text, code="other")
    else:
        again, _ = take_up(text.replace("training.steps=4", "training.steps=6"))
    assert not {claim.trial_id for claim in claims(again)} & {claim.trial_id for claim in claims(first)}
    for claim in claims(again):
        code = "other" if change == "code" else "c"
        assert trial_id(claim.config, data_fingerprint="d", code=code) == claim.trial_id


def test_a_ledger_without_bases_is_taken_up_as_well(text, host, take_up, tmp_path):
    first, _ = take_up(text)
    close(first, host())
    file = tmp_path / "ledger" / "events-000001.ndjson"
    lines = []
    for event in first.ledger.events:
        plain = dict(event)
        if event["event"] == "proposed":
            payload = json.loads(event["payload"])
            assert payload.pop("base")
            plain["payload"] = json.dumps(payload)
        lines.append(encode(plain))
    file.write_text("".join(lines))
    before = len(lines)
    again, made = take_up(text)
    assert again.done
    assert claims(again) == claims(first)
    assert len(made) >= 3 * (4 + 2)
    assert len(again.ledger.events) == before


def test_a_seed_that_the_study_no_longer_gives_is_not_taken_over(text, host, take_up):
    first, _ = take_up(text)
    close(first, host())
    again, _ = take_up(text.replace("study: small", "study: small\nseed: 5"))
    assert not {claim.trial_id for claim in claims(again)} & {claim.trial_id for claim in claims(first)}


def test_the_number_of_workers_counts_where_only_a_parameter_lets_it_in(host, take_up):
    first, _ = take_up(TWO_WORKERS)
    close(first, host())
    assert len(list(of_kind(first.ledger.events, "proposed"))) == 8
    again, _ = take_up(TWO_WORKERS.replace("num_workers: 2", "num_workers: 4"))
    old, new = claims(first), claims(again)
    assert new[0].trial_id == old[0].trial_id  # dropout 0
    for one, other in zip(old[1:], new[1:], strict=True):
        assert one.parameters == other.parameters
        assert one.trial_id != other.trial_id
