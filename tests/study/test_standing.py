"""Where a study stands by its ledger, and what --retry-failed and --forget write into it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sarx.config.errors import UserError
from sarx.study import studies
from sarx.study.ledger import Ledger, read_events
from sarx.study.standing import Standing, Use, max_failures
from sarx.study.studies import age, describe_studies, describe_study, find_study, forget, retry_failed

OPENING: dict[str, Any] = {
    "question": "Does it help?",
    "arms": [
        {"arm": "sar", "level": "", "parameters": ["optim.lr"]},
        {"arm": "plain", "level": "", "parameters": ["optim.lr"]},
    ],
    "trials_per_arm": 2,
    "seeds": 3,
    "plan": {},
    "file": "max_failures: 0\n",
    "command": "python -m sarx.tune s.yaml",
}

Add = Callable[..., None]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return the folder of a study with an empty ledger."""
    (tmp_path / "small" / "ledger").mkdir(parents=True)
    return tmp_path / "small"


@pytest.fixture
def add(study: Path) -> Add:
    """Return a function that appends events: a kind and its columns, payloads as values."""

    def append(*events: tuple[str, dict[str, Any]], opening: dict[str, Any] | None = None) -> None:
        with Ledger(study / "ledger") as ledger:
            if opening is not None:
                ledger.append("study_opened", payload=json.dumps(OPENING | opening))
            for kind, columns in events:
                payload = {"payload": json.dumps(columns["payload"])} if "payload" in columns else {}
                ledger.append(kind, **columns | payload)

    return append


def claim(name: str, arm: str = "sar", phase: str = "search", index: int = 0, **more: Any) -> Any:
    kind = "proposed" if phase == "search" else "claimed"
    return kind, {"arm": arm, "level": "", "phase": phase, "index": index, "trial_id": name, **more}


def started(name: str, attempt: int = 1) -> Any:
    return "trial_started", {"trial_id": name, "attempt": attempt}


def finished(name: str, attempt: int = 1) -> Any:
    return "trial_finished", {"trial_id": name, "attempt": attempt, "epoch": 2}


def failed(name: str, attempt: int = 1, kind: str = "crashed", reason: str = "it broke") -> Any:
    return "failed", {"trial_id": name, "attempt": attempt, "payload": {"kind": kind, "reason": reason}}


def verdict(kind: str, name: str, index: int = 0) -> Any:
    columns = {"arm": "sar", "level": "", "phase": "search", "index": index, "trial_id": name, "epoch": 1}
    return kind, columns


def standing(study: Path) -> Standing:
    return Standing(read_events(study / "ledger"))


def status(study: Path, **options: Any) -> str:
    """Return the status of the first search claim of sar."""
    return standing(study).status(Use("sar", "", "search", 0, 0), **options)


RUNG = ("rung", {"trial_id": "t", "attempt": 1, "epoch": 1})


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], "waiting"),
        ([started("t")], "running"),
        ([started("t"), finished("t")], "finished"),
        ([started("t"), RUNG], "waiting"),
        ([started("t"), RUNG, verdict("stopped", "t")], "stopped early"),
        ([started("t"), RUNG, verdict("promoted", "t"), started("t", 2), finished("t", 2)], "finished"),
        ([started("t"), RUNG, verdict("stopped", "t"), verdict("promoted", "t")], "waiting"),
        ([started("t"), ("diverged", {"trial_id": "t", "attempt": 1, "epoch": 1})], "diverged"),
        ([started("t"), failed("t")], "failed"),
        ([started("t"), failed("t", kind="preempted")], "waiting"),
        ([started("t"), started("t", 2), failed("t", 1)], "running"),
        ([started("t"), failed("t"), ("retried", {"trial_id": "t"})], "waiting"),
        ([started("t"), finished("t"), ("retried", {"trial_id": "t"})], "finished"),
        ([started("t"), finished("t"), ("forgotten", {"trial_id": "t"})], "waiting"),
        ([started("t"), failed("t"), ("forgotten", {"trial_id": "t"}), started("t", 2)], "running"),
        ([started("t"), RUNG, verdict("stopped", "t"), ("forgotten", {"trial_id": "t"})], "waiting"),
        ([started("t"), ("forgotten", {"trial_id": "t"}), finished("t", 2)], "waiting"),
    ],
)
def test_the_status_of_a_trial(study: Path, add: Add, events: list[Any], expected: str) -> None:
    add(claim("t"), *events, opening={})
    assert status(study) == expected


def test_without_a_driver_nothing_runs(study: Path, add: Add) -> None:
    add(claim("t"), started("t"), opening={})
    assert status(study, driven=False) == "waiting"


def test_failures_are_final_after_as_many_as_the_study_allows(study: Path, add: Add) -> None:
    add(claim("t"), started("t"), failed("t"), opening={"file": "max_failures: 1\n"})
    assert status(study) == "waiting"
    add(started("t", 2), failed("t", 2))
    assert status(study) == "failed"


@pytest.mark.parametrize(
    ("opening", "expected"),
    [
        ({}, 1),
        ({"file": "study: s\nmax_failures: 3\n"}, 3),
        ({"file": "max_failures: 3\n", "command": "python -m sarx.tune s.yaml --set max_failures=0"}, 0),
        ({"file": "# max_failures: 3\n", "command": "tune --set x.max_failures=4"}, 1),
        ({"plan": {"max_failures": 2}, "file": "max_failures: 3\n"}, 2),
    ],
)
def test_how_many_failures_are_allowed(opening: dict[str, str], expected: int) -> None:
    assert max_failures(opening) == expected


def test_a_trial_stopped_for_one_arm_goes_on_for_another(study: Path, add: Add) -> None:
    add(claim("t"), claim("t", "plain"), started("t"), RUNG, verdict("stopped", "t"), opening={})
    add(started("t", 2), finished("t", 2))
    counts = standing(study).counts()["search"]
    assert (counts["stopped early"], counts["finished"]) == (1, 1)


@pytest.mark.parametrize(
    ("rungs", "expected"), [([1, 2], "stopped early"), ([2], "waiting"), ([], "waiting")]
)
def test_a_verdict_counts_at_the_rungs_of_the_last_start(
    study: Path, add: Add, rungs: list[int], expected: str
) -> None:
    add(claim("t"), started("t"), RUNG, verdict("stopped", "t"), opening={"plan": {"rungs": rungs}})
    assert status(study) == expected


def test_an_equal_proposal_is_what_the_first_is(study: Path, add: Add) -> None:
    add(claim("t"), claim("u", index=1, payload={"same_as": 0}), started("t"), finished("t"), opening={})
    assert standing(study).counts()["search"]["finished"] == 2


def test_what_is_not_claimed_yet_waits(study: Path, add: Add) -> None:
    add(claim("t"), started("t"), finished("t"), opening={})
    counts = standing(study).counts()
    assert {phase: count.total() for phase, count in counts.items()} == {"search": 4, "confirm": 6}
    assert counts["search"]["waiting"] == 3


@pytest.mark.parametrize(
    ("plan", "totals"),
    [
        ({"repeats": 2}, {"search": 8, "confirm": 6}),
        ({"finalists": {"top": 2, "seeds": 3}}, {"search": 4, "finalist": 12, "confirm": 6}),
        ({"scope": "shared", "tune_on": "sar"}, {"search": 2, "confirm": 6}),
    ],
)
def test_the_terms_of_the_search_count(
    study: Path, add: Add, plan: dict[str, Any], totals: dict[str, int]
) -> None:
    add(opening={"plan": plan})
    assert {phase: count.total() for phase, count in standing(study).counts().items()} == totals


def test_an_arm_that_cannot_win_has_nothing_to_confirm(study: Path, add: Add) -> None:
    add(claim("t"), claim("u", index=1), opening={})
    add(started("t"), failed("t"), started("u"), failed("u"))
    assert standing(study).counts()["confirm"].total() == 3


def test_claims_that_the_study_dropped_do_not_count(study: Path, add: Add) -> None:
    add(claim("t"), claim("u", index=1), claim("v", "gone"), claim("w", phase="confirm"), opening={})
    add(started("u"), failed("u"), opening={"trials_per_arm": 1, "seeds": 0, "arms": OPENING["arms"][:1]})
    found = standing(study)
    assert [found.claims[use] for use in found.current] == ["t"]
    assert found.failed() == []


def test_an_identity_is_found_by_its_beginning(study: Path, add: Add) -> None:
    add(claim("abc1"), claim("abd2", index=1), claim("abd2", "plain"), opening={})
    assert standing(study).resolve("abc").trial_id == "abc1"
    with pytest.raises(UserError, match=r"ab: 2 trials begin so \(abc1, abd2\)"):
        standing(study).resolve("ab")
    with pytest.raises(UserError, match="abx1: no trial of this study is called so; did you mean 'abc1'"):
        standing(study).resolve("abx1")
    with pytest.raises(UserError, match="no trial"):
        standing(study).resolve("")


def test_a_study_in_words(study: Path, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_study(study) == ["small: never ran", "  next: python -m sarx.tune STUDY.yaml"]
    add(claim("t"), claim("u", "plain"), started("t"), finished("t"), opening={})
    add(started("u"), failed("u", kind="out_of_memory", reason="CUDA\nout of memory"))
    add(("stopping", {"payload": {"reason": "SIGTERM"}}))
    lines = describe_study(study, "--storage here")
    text = "\n".join(lines)
    assert lines[:2] == ["small: stopped", "  Does it help?"]
    assert lines[2].startswith("  last event 0 s ago")
    assert lines[3] == "  last stopped 0 s ago: SIGTERM"
    assert [line.split() for line in lines[5:7]] == [
        ["search", "1", "0", "0", "2", "0", "1", "4"],
        ["confirm", "0", "0", "0", "6", "0", "0", "6"],
    ]
    assert "failed: 1 out_of_memory (the GPU's or the machine's memory was full)" in text
    assert "plain search 0  u  out_of_memory: CUDA out of memory" in text
    assert str(study / "trials" / "u" / "log.txt") in text
    assert lines[-1] == "  next: python -m sarx.status --storage here small --retry-failed"
    with Ledger(study / "ledger"):
        running = describe_study(study)
        assert running[0].startswith("small: running by pid ")
        assert describe_studies(study.parent)[0].split()[:2] == ["small", "running"]
    assert running[-1] == "  next: just tensorboard small"


def test_a_finished_study(study: Path, add: Add) -> None:
    only = {"arms": OPENING["arms"][:1], "trials_per_arm": 1, "seeds": 1}
    add(claim("t"), started("t"), finished("t"), opening=only)
    add(claim("c", phase="confirm"), started("c"), finished("c"))
    assert describe_study(study)[-1] == "  next: python -m sarx.tune s.yaml"
    add(("study_finished", {"payload": {"reason": "nothing left to run"}}))
    assert describe_study(study)[0] == "small: finished"
    assert describe_study(study)[-1] == "  next: just analyze small"
    (row,) = describe_studies(study.parent)
    assert row.startswith("small  finished  2 of 2 trials decided, last event 0 s ago")
    forget(study, "c", "wrong data")
    assert describe_study(study)[0] == "small: stopped"


def test_the_studies_of_a_storage(study: Path, add: Add, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    bad = tmp_path / "a-bad-one" / "ledger" / "events.ndjson"
    bad.parent.mkdir(parents=True)
    bad.write_text("no\nno\n")
    rows = describe_studies(tmp_path)
    assert [row.split()[:2] for row in rows] == [["a-bad-one", "unreadable"], ["small", "never"]]
    assert "the ledger is damaged here" in rows[0]
    assert describe_studies(tmp_path / "nowhere") == []


def test_which_study_is_meant(study: Path, add: Add, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no study in .*; start one with"):
        find_study(tmp_path / "nowhere", None)
    (tmp_path / "other" / "ledger").mkdir(parents=True)
    add(opening={})
    assert find_study(tmp_path, None) == study
    assert find_study(tmp_path, "other") == tmp_path / "other"
    with pytest.raises(UserError, match=r"no study is called 'smal' in .*; did you mean 'small'"):
        find_study(tmp_path, "smal")


def test_failed_trials_run_again_when_asked_for(study: Path, add: Add) -> None:
    add(claim("t"), claim("u", "plain"), started("t"), failed("t"), started("u"), finished("u"), opening={})
    before = read_events(study / "ledger")
    lines = retry_failed(study)
    events = read_events(study / "ledger")
    assert events[: len(before)] == before
    assert [(event["event"], event["trial_id"]) for event in events[len(before) :]] == [("retried", "t")]
    assert lines == [
        "the next run continues these from their last checkpoints:",
        "  sar search 0  t",
        "run it: python -m sarx.tune s.yaml",
    ]
    assert standing(study).failed() == []
    assert retry_failed(study) == ["no trial has failed for good; nothing was changed"]


def test_a_forgotten_trial_runs_again_and_nothing_is_deleted(study: Path, add: Add) -> None:
    add(claim("t123"), started("t123"), finished("t123"), claim("u", "plain"), opening={})
    kept = study / "trials" / "t123" / "attempt-1" / "weights.pt"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"w")
    before = read_events(study / "ledger")
    lines = forget(study, "t1", "wrong data")
    (event,) = read_events(study / "ledger")[len(before) :]
    assert (event["event"], event["trial_id"]) == ("forgotten", "t123")
    assert json.loads(event["payload"]) == {"reason": "wrong data"}
    assert lines[0] == "t123 (sar search 0; finished) does not count any more"
    assert "trains it from the start" in lines[2]
    assert kept.exists()
    with pytest.raises(UserError, match="u: has not run; there is nothing to forget"):
        forget(study, "u", "")


def test_nothing_is_written_while_a_driver_runs(study: Path, add: Add) -> None:
    add(claim("t"), started("t"), failed("t"), opening={})
    before = read_events(study / "ledger")
    with Ledger(study / "ledger"):
        for ask in (lambda: retry_failed(study), lambda: forget(study, "t", "")):
            with pytest.raises(UserError, match=r"small: is running \(pid \d+ .*; stop it first"):
                ask()
    assert read_events(study / "ledger") == before


def test_a_study_that_never_ran_has_nothing_to_change(study: Path) -> None:
    with pytest.raises(UserError, match="small: has never run"):
        retry_failed(study)
    assert list((study / "ledger").iterdir()) == []


def test_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.time, "time", lambda: 1_000_000.0)
    seconds = {5: "5 s", 119: "119 s", 121: "2 min", 7300: "2 h", 200_000: "2 days", -9: "0 s"}
    assert {gap: age(1_000_000 - gap) for gap in seconds} == {g: f"{text} ago" for g, text in seconds.items()}
