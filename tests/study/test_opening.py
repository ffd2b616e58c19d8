"""The record of a start, and the choice when finished trials were trained by other code."""

import json

import pytest

from sarx.config.errors import UserError
from sarx.study.identity import Code, canonical
from sarx.study.ledger import Ledger
from sarx.study.ledger_schema import OPENED_KEYS
from sarx.study.opening import open_study, opened_payload, settle_code

OLD, NEW = Code("old", {"training/loop.py": "1"}), Code("new", {"training/loop.py": "2"})


@pytest.fixture
def events(load, text, tmp_path):
    """Return the events of a study that was opened with the old code and finished one trial."""
    study, arms = load(text)
    with Ledger(tmp_path) as ledger:
        open_study(ledger, opened_payload(study, arms, OLD, []), tmp_path / "study.lock")
        ledger.append("trial_finished", trial_id="t", attempt=1)
        return list(ledger.events)


def test_the_payload_has_the_keys_of_the_schema(events, tmp_path):
    payload = json.loads(events[0]["payload"])
    assert set(payload) == set(OPENED_KEYS) - {"held_out", "looks"}  # of other studies
    assert payload["reference"] == "sar"
    assert [arm["arm"] for arm in payload["arms"]] == ["sar", "plain", "no_pull"] * 2
    promised = json.loads((tmp_path / "study.lock").read_text())
    assert promised["seeds"] == 3


def test_cited_rows_are_recorded_and_belong_to_no_trial(load, text):
    cited = "cited: [{name: FCN, value: 0.5, source: theirs}]"
    plain, arms = load(text)
    study, same = load(text.replace("report: {", f"report: {{{cited}, "))
    record = opened_payload(study, same, OLD, [])
    assert record["report"].pop("cited") == [{"name": "FCN", "value": 0.5, "source": "theirs", "setting": ""}]
    without = opened_payload(plain, arms, OLD, [])
    assert without | {"file": ""} == record | {"file": ""}
    assert [(arm.key, canonical(arm.config)) for arm in same] == [
        (arm.key, canonical(arm.config)) for arm in arms
    ]


def test_ranges_are_recorded_in_full_precision(load, text):
    study, arms = load(text.replace("low: 0.001", "low: 0.00123456789"))
    plan = opened_payload(study, arms, OLD, [])["plan"]
    assert plan["ranges"] == {
        "optim.lr": {"kind": "float", "low": 0.00123456789, "high": 0.1, "log": True},
        "regularizer.anchor_dim": {"kind": "choice", "choices": [32, "feature_dim"]},
    }
    assert plan["space"]["optim.lr"] == "[0.00123457, 0.1] log"


def test_the_lock_is_written_once(events, load, text, tmp_path):
    before = (tmp_path / "study.lock").read_text()
    study, arms = load(text, ["confirm.seeds=9"])
    with Ledger(tmp_path) as ledger:
        open_study(ledger, opened_payload(study, arms, OLD, []), tmp_path / "study.lock")
    assert (tmp_path / "study.lock").read_text() == before


def test_changed_code_needs_a_choice_only_when_something_is_finished(events):
    assert settle_code([], NEW, None) == (NEW, [])
    assert settle_code(events[:1], NEW, None) == (NEW, [])
    assert settle_code(events, OLD, None) == (OLD, [])
    with pytest.raises(UserError, match=r"1 finished trials .*changed: training/loop\.py.*--on-code-change"):
        settle_code(events, NEW, None)
    assert settle_code(events, NEW, "rerun") == (NEW, [])
    assert settle_code(events, NEW, "keep") == (OLD, ["training/loop.py"])
