"""Tables of what the ledger records beside numbers: failures, void results, starts, machines, cost."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from analysis.failures import LONGEST, MOST, failure_table, void_table
from analysis.provenance import Starts, last_start, machines_table, starts_table
from analysis.report import make_report
from analysis.spent import cost_sentences
from tests.analysis.paper_study import LEVELS, PROVENANCE, plan, write_paper_study

Begin = Callable[..., Any]


def test_failures_with_rows_kinds_and_reasons(new_ledger: Begin) -> None:
    writer = new_ledger()
    write_paper_study(writer)
    table = failure_table(make_report(writer.study).sources.events)
    assert table is not None
    assert [row[0] for row in table.rows] == ["c-tnet-no_ema-2", "c-tnet-own_classifier-4", "c-next-no_ema-2"]
    assert table.rows[1][2:] == [f"own_classifier ({LEVELS[0]})", "confirm", "1", "diverged", "loss is nan"]
    assert table.rows[0][5] == "out_of_memory"


def test_of_many_failures_the_last_and_of_long_reasons_both_ends(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open()
    for number in range(MOST + 5):
        reason = f"begin {'x' * 2000}\n end {number}"
        writer.add("failed", trial_id=f"t{number}", attempt=1, phase="search", payload={"reason": reason})
    table = failure_table(make_report(writer.study).sources.events)
    assert table is not None
    assert table.title == "Failed attempts and diverged trials, the last 100 of 105"
    assert [table.rows[0][0], table.rows[-1][0], len(table.rows)] == ["t5", "t104", MOST]
    reason = table.rows[-1][-1]
    assert reason.startswith("begin xxx")
    assert reason.endswith("x end 104")
    assert len(reason) == LONGEST + len(" ... ")
    assert table.rows[0][2] == "-"


def test_nothing_wrong_gives_no_table_and_void_results_have_one(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open()
    events = make_report(writer.study).sources.events
    assert (failure_table(events), void_table(events)) == (None, None)
    writer.add("forgotten", trial_id="t", payload={"reason": "wrong labels"})
    table = void_table(make_report(writer.study).sources.events)
    assert table is not None
    assert table.rows == [["t", "2023-11-14 22:13:21", "wrong labels"]]


def test_every_start_has_a_row_and_the_last_is_told_in_full(new_ledger: Begin) -> None:
    writer = new_ledger()
    write_paper_study(writer, seeds_done=0, searches=0)
    writer.add("study_opened", payload=plan(provenance=None, versions={}))
    starts = Starts(make_report(writer.study).sources.events)
    first = ["1", "2023-11-14 22:13:20", "node-17.example", "16 CPUs (Xeon 8480), 2 x NVIDIA H200"]
    first += ["3f2a91c07be5 with uncommitted changes", "c0de5eed01234567", "2.15.0", "3.11.9"]
    assert starts_table(starts).rows == [
        first,
        ["2", "2023-11-14 22:13:21", *"---", "c0de5eed01234567", *"--"],
    ]
    assert last_start(starts) == [
        ("Command", "python -m sarx.tune search_spaces/ablation.yaml"),
        ("Digest of the training code", "c0de5eed0123456789abcdef"),
    ]
    writer.add("study_opened", payload=plan(provenance=PROVENANCE | {"command": "python -m x"}))
    told = dict(last_start(Starts(make_report(writer.study).sources.events)))
    assert (told["Command of the process"], told["Uncommitted changes"]) == ("python -m x", "yes")
    assert told["SHA-256 of the changes"] == PROVENANCE["git"]["diff_sha256"]


def test_machines_count_the_attempts_of_confirm_trials_alone(new_ledger: Begin) -> None:
    writer = new_ledger()
    write_paper_study(writer, seeds_done=2)
    sources = make_report(writer.study).sources
    assert machines_table(sources) is None
    lines = [{"attempt": n, "host": f"h{n % 2}", "devices": ["cpu", "gpu"]} for n in range(3)]
    for trial in ("c-tnet-sar-0", "s-tnet-sar-0"):
        folder = writer.study / "trials" / trial
        folder.mkdir(parents=True)
        text = "\n".join([*map(json.dumps, lines), "[1]", '{"cut'])
        (folder / "attempts.ndjson").write_text(text, encoding="utf-8")
    sources = dataclasses.replace(sources)  # what was read is kept
    table = machines_table(sources)
    assert table is not None
    assert table.rows == [["h0", "cpu, gpu", "2"], ["h1", "cpu, gpu", "1"]]
    assert len(sources.attempts) == 3


def test_cost_counts_every_attempt_once(new_ledger: Begin) -> None:
    writer = new_ledger()
    writer.open()
    for attempt, seconds in ((1, 1800.0), (2, 3600.0), (2, 3600.0)):
        end = {"trial_id": "t", "attempt": attempt, "phase": "search", "epoch": 1, "step": 9}
        writer.add("epoch", **end, duration_s=seconds, metrics={})
    writer.add("trial_started", trial_id="t", attempt=2, phase="search", epoch=0)
    first, second = cost_sentences(make_report(writer.study).sources)
    assert first.startswith("Training and evaluation of 1 trial took 1.50 hours")
    assert second == "The ledger reaches from 2023-11-14 22:13:20 to 2023-11-14 22:13:24 UTC, .00 hours."
