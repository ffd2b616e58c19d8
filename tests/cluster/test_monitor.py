"""What a running study shows: the line of a job log, the table, and when it will be done."""

from __future__ import annotations

import importlib.util
import io
import re
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from sarx.cluster import pace
from sarx.cluster.monitor import Monitor, about, clock, progress
from sarx.search.overview import overview

SIMULATED = Path(__file__).parents[1] / "search" / "conftest.py"


def simulated():
    """Return the module with the simulated host."""
    spec = importlib.util.spec_from_file_location("simulated_host", SIMULATED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SIM = simulated()
TEXT = SIM.TEXT
FINALISTS = TEXT.replace("  batch: 4\n", "  batch: 4\n  finalists: {top: 2, seeds: 2}\n")
HALVING = TEXT.replace("training.steps=4", "training.steps=12").replace(
    "  batch: 4\n", "  batch: 4\n  scheduler: {name: successive_halving, reduction_factor: 2}\n"
)


@pytest.fixture
def begin(tmp_path):
    opened = []

    def open_engine(text=TEXT, **options):
        (tmp_path / "s.yaml").write_text(text)
        study, source = SIM.load_study(tmp_path / "s.yaml")
        (tmp_path / "ledger").mkdir(exist_ok=True)
        opened.append(SIM.Ledger(tmp_path / "ledger"))
        return SIM.Engine(study, SIM.make_arms(study, source), opened[-1], SIM.identify, **options)

    yield open_engine
    for ledger in opened:
        ledger.close()


def host(limit=10_000, **options):
    """Return a function that runs segments of an engine."""
    return lambda engine: SIM.Host(**options).run(engine, limit)


def ran(engine, seconds, limit=10_000, results="", **options):
    """Return a monitor that saw an engine start, and then run for so many seconds."""
    found = Monitor(results=results)
    found.tick(engine)
    host(limit, **options)(engine)
    found.started -= seconds
    return found


def shown(table, width=120):
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    console.print(table)
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())


def now():
    return time.monotonic()


# ---------------------------------------------------------------- the line


def test_the_line_of_a_job_log(begin, capsys):
    calls = iter(["finished", "diverged", "failed"])
    engine = begin()
    found = ran(engine, 16, limit=7, outcome=lambda segment: next(calls, "finished"))
    capsys.readouterr()
    found.tick(engine, force=True)
    printed = capsys.readouterr().out
    pattern = (
        r"\[0:16\] search 6/12, confirm 0/6, best \w+ \d\.\d+, 1 diverged, 1 crashed, 0\.0 CPU h, "
        r"about \d+ (s|min) left\n"
    )
    assert re.fullmatch(pattern, printed), printed


def test_one_line_an_interval_and_the_last_state_once(begin, capsys):
    engine = begin()
    found = Monitor(interval_s=1000)
    found.tick(engine)
    host()(engine)
    found.tick(engine)
    assert capsys.readouterr().out == ""
    found.close()
    found.close()
    found.tick(engine, force=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("[0:00] search 12/12, confirm 6/6, best ")
    assert line.endswith(", done")


def test_an_arm_below_what_others_reach_is_named_once(begin, capsys):
    engine = begin(TEXT + "report: {primary: test/miou, orientation: {plain: 0.8}}\n")
    found = Monitor(interval_s=0)
    found.tick(engine)
    host(limit=4 + 2, outcome=lambda _: 0.5)(engine)
    found.tick(engine, force=True)
    said = capsys.readouterr().out
    assert said.count("warning: plain reaches test/miou 0.5000") == 1
    assert said.index("warning") < said.index("confirm 2/")
    host()(engine)
    found.tick(engine, force=True)
    found.close()
    assert "warning" not in capsys.readouterr().out


def test_the_context_shows_the_last_state_whatever_happens(begin, capsys):
    engine = begin()
    found = Monitor()
    found.tick(engine)
    with pytest.raises(ZeroDivisionError), found:
        _ = 1 / 0
    assert capsys.readouterr().out.startswith("[0:00] search 0/12, ")


def test_stopped_trials_finalists_and_gpu_hours(begin):
    engine = begin(HALVING)
    rank = {}
    found = ran(engine, 1, outcome=lambda s: lambda epoch: rank.setdefault(s.trial_id, len(rank)) / 100)
    assert re.search(r"search 12/12 \((\d+) stopped early\)", found.line(engine, now()))
    engine.study.resources.gpus_per_worker = 0.5
    spent = sum(record.seconds for record in engine.records.values())
    assert f", {spent / 7200:.1f} GPU h, " in found.line(engine, now())


def test_progress_counts_finalists_as_a_phase(begin):
    engine = begin(FINALISTS)
    assert progress(engine) == (
        {"search": 0, "finalist": 0, "confirm": 0},
        {"search": 12, "finalist": 12, "confirm": 6},
    )
    host()(engine)
    assert progress(engine)[0] == progress(engine)[1]


def test_a_pipe_that_nobody_reads_ends_nothing(begin, monkeypatch):
    engine = begin()

    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Broken())
    found = Monitor()
    found.tick(engine, force=True)
    found.close()


# ---------------------------------------------------------------- when it will be done


def left(found, engine):
    arms, done = overview(engine), pace.work(engine)
    return found.pace.left(engine, pace.remaining(engine, arms), done, now() - found.started)


def test_the_rest_takes_its_trials_times_their_seconds_over_the_busy_slots(begin):
    engine = begin()
    found = ran(engine, 10, limit=6)  # six trials of two epochs of 0.1 s in 10 s: 0.12 slots are busy
    assert left(found, engine) == pytest.approx((6 + 6) * 0.2 / 0.12, rel=0.01)


def test_before_anything_is_decided_it_is_estimating(begin):
    engine = begin()
    found = ran(engine, 10, limit=0)
    engine.epoch_done(segment := engine.next_segment(), SIM.result(segment, 1, 0.5))
    assert left(found, engine) is None
    assert found.line(engine, now()).endswith("estimating")


def test_a_resumed_study_does_not_count_what_was_decided_before(begin):
    first = begin()
    host(10)(first)
    first.ledger.close()
    engine = begin()
    found = Monitor()
    found.tick(engine)
    found.started -= 100
    assert found.line(engine, now()).endswith("estimating")
    host(2)(engine)
    assert left(found, engine) == pytest.approx(6 * 0.2 / (0.4 / 100), rel=0.01)
    assert "1.2 trials/min" in shown(found.table(engine, now()))


def test_what_is_spent_on_open_trials_is_not_left(begin):
    engine = begin()
    found = ran(engine, 10, limit=6)
    segment = engine.next_segment()
    engine.epoch_done(segment, SIM.result(segment, 1, 0.5))
    assert left(found, engine) == pytest.approx((12 * 0.2 - 0.1) / 0.13, rel=0.01)


def test_a_phase_that_has_not_begun_is_estimated_from_the_steps_of_the_others(begin):
    engine = begin(TEXT.replace("  batch: 4\n", "  batch: 4\n  overrides: {training.steps: 2}\n"))
    found = ran(engine, 10, limit=6)  # search trials of one epoch, confirm trials of two
    assert left(found, engine) == pytest.approx((6 * 0.1 + 6 * 0.2) / 0.06, rel=0.01)


def test_only_what_may_run_is_left(begin):
    engine = begin(only_phase="search", only_arms=frozenset({"sar", "plain"}))
    found = ran(engine, 10, limit=4)
    assert left(found, engine) == pytest.approx(4 * 0.2 / 0.08, rel=0.01)
    host()(engine)
    assert found.line(engine, now()).endswith("done")


def test_an_arm_without_a_winner_has_nothing_left_to_confirm(begin):
    engine = begin(TEXT.replace("    plain: {regularizer: none}\n", ""))
    arm = engine.arms[0].key
    found = ran(engine, 10, limit=8, outcome=lambda s: "diverged" if s.label.startswith(arm) else "finished")
    assert pace.remaining(engine, overview(engine)) == {"search": 0, "confirm": 2}
    assert left(found, engine) > 0


def test_trials_without_any_recorded_time_give_no_estimate(begin):
    engine = begin()
    found = ran(engine, 10, limit=6, outcome=lambda segment: "diverged")
    assert found.line(engine, now()).endswith("estimating")


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65, "1:05"), (3605, "1:00:05")])
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (2970, "50 min"), (12_600, "3.5 h"), (10**6, "11.6 days")],
)
def test_about(seconds, text):
    assert about(seconds) == text


# ---------------------------------------------------------------- the table


def test_the_table_has_a_row_for_each_arm_and_the_folder(begin):
    calls = iter(["finished", "diverged", "failed", "finished", "preempted"])
    engine = begin(FINALISTS)
    found = ran(engine, 16, limit=9, outcome=lambda s: next(calls, "finished"), results="/data/small")
    engine.next_segment()
    text = shown(found.table(engine, now()))
    head, *rows, bottom = text.splitlines()
    assert head.split() == [
        *["arm", "search", "stopped", "finalist", "confirm"],
        *["running", "best", "val/miou", "CPU", "h", "failures"],
    ]
    cells = {row.split()[0]: re.split(r"\s{2,}", row.strip()) for row in rows}
    assert list(cells) == ["sar", "plain", "no_pull"]
    assert cells["plain"][1:4] == ["2/4", "0/4", "0/2"]
    assert cells["plain"][-1] == "1 diverged"
    assert "1 crashed" in text
    assert "1 preempted" in text
    assert sum(row[4] == "1" for row in cells.values()) == 1  # the one that runs
    assert re.fullmatch(
        r"0:16 elapsed   about \d+ s left   7/30 decided   26.\d trials/min   results /data/small", bottom
    )


def test_at_most_thirty_arms_are_shown_those_that_are_not_done_first(begin):
    arms = "".join(f"    a{i:02d}: {{optim.momentum: {0.5 + i / 100}}}\n" for i in range(35))
    text = TEXT.split("    sar: {}")[0] + arms + "search:" + TEXT.split("search:")[1]
    engine = begin(text.replace("reference: sar", "reference: a00"), only_arms=frozenset({"a00", "a01"}))
    found = ran(engine, 16)
    rows = shown(found.table(engine, now())).splitlines()[1:]
    assert [row.split()[0] for row in rows[:30]] == [f"a{i:02d}" for i in range(2, 32)]
    assert rows[30].strip() == "and 5 more"
    rows = shown(found.table(engine, now(), rows=3)).splitlines()[1:]
    assert [row.split()[0] for row in rows[:3]] == ["a02", "a03", "a04"]
    assert rows[3].strip() == "and 32 more"
