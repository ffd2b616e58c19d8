"""The benchmarks start, and the short ones judge; what they measure is for ``just bench``."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

FOLDER = Path(__file__).parent
SCRIPTS = ("engine.py", "resume.py", "aa.py", "scaling.py", "data.py", "statistics_.py", "analyze.py")


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_what_is_measured(script):
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert f"just bench {Path(script).stem.rstrip('_')}" in done.stdout


def test_equal_arms_choose_the_same_winner(tmp_path):
    done = run("aa.py", "--studies", "4", "--folder", str(tmp_path))
    assert done.returncode in (0, 1), done.stderr  # of 4 studies one may be significant by chance
    assert "BAR aa_common_same_winner 1.000 >= 1 pass" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_small_ledger_is_resumed(tmp_path):
    done = run("resume.py", "--sizes", "20", "--rounds", "1", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].split()[0] == "20"
    assert not list(tmp_path.iterdir())


def test_simulated_studies_are_judged():
    done = run("statistics_.py", "--studies", "4", "--bootstrap", "2")
    assert done.returncode in (0, 1), done.stderr  # of 4 studies, too many may be wrong by chance
    bars = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("BAR")]
    assert bars == [
        "statistics_fwer",
        "statistics_coverage_least",
        "statistics_coverage_most",
        "statistics_power_k5",
        "statistics_power_k10",
    ]
    assert sum(line.startswith("exponential") for line in done.stdout.splitlines()) == 8 + 16


def test_bootstrap_intervals_equal_scipy(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    bench = importlib.import_module("statistics_")
    monkeypatch.setattr(bench, "RESAMPLES", 20_000)
    values = np.random.default_rng(0).exponential(size=(3, 12)) ** 2
    found = bench.bootstrap_intervals(values, np.random.default_rng(1))
    for name, method in (("pct", "percentile"), ("BCa", "BCa")):
        for row, low, high in zip(values, *found[name], strict=True):
            expected = stats.bootstrap(
                (row,), np.mean, method=method, n_resamples=20_000, rng=np.random.default_rng(2)
            ).confidence_interval
            width = expected.high - expected.low
            assert low == pytest.approx(expected.low, abs=0.05 * width)
            assert high == pytest.approx(expected.high, abs=0.05 * width)


def test_no_benchmark_hides_a_module_of_the_standard_library():
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert not names & sys.stdlib_module_names


def test_the_report_of_a_small_ledger_is_timed(tmp_path):
    done = run("analyze.py", "--sizes", "500", "--rounds", "1", "--metrics", "2", "--folder", str(tmp_path))
    assert done.returncode in (0, 1), done.stderr  # so few events are read faster than a report is made
    table = [line.split() for line in done.stdout.splitlines()]
    assert [row[3] for row in table[2:6]] == ["report", "read", "bare", "pandas"]
    bars = [line for line in done.stdout.splitlines() if line.startswith("BAR analyze")]
    assert [" ".join(line.split()[1:-4]) for line in bars] == [
        "analyze over bare scan",
        "analyze seconds",
        "analyze peak GiB",
    ]
    assert not list(tmp_path.iterdir())


def test_the_ledger_of_a_large_study_is_one_that_the_driver_reads(tmp_path):
    """Its lines are written apart from the driver's own writer."""
    sys.path.insert(0, str(FOLDER))
    try:
        from study_ledger import EPOCH_METRICS, ROW_TRIALS, write_ledger
    finally:
        sys.path.remove(str(FOLDER))
    from sarx.study.ledger import read_events

    count = write_ledger(tmp_path, 500, 3)
    events = read_events(tmp_path / "ledger")
    assert len(events) == count
    kinds = Counter(event["event"] for event in events)
    trials = {event["trial_id"] for event in events if "trial_id" in event}
    assert len(trials) == 5 * ROW_TRIALS
    assert kinds["trial_finished"] + kinds["diverged"] == len(trials) + kinds["forgotten"]
    ended = [event for event in events if event["event"] == "trial_finished"]
    assert {len(event["metrics"]) for event in ended if event["phase"] == "search"} == {3}
    assert {event["epoch"] for event in ended} == {30}
    assert EPOCH_METRICS[0] == "val/miou"


def test_a_large_ledger_read_twice_gives_equal_costs_to_the_last_digit(tmp_path):
    """Hours are sums of many numbers, in several threads: they must be added up in one order."""
    sys.path.insert(0, str(FOLDER))
    try:
        from study_ledger import write_ledger
    finally:
        sys.path.remove(str(FOLDER))
    from analysis.costs import row_costs
    from analysis.ledger import read_ledger
    from analysis.results import search_trials

    write_ledger(tmp_path, 2000, 3)
    found = []
    for _ in range(3):
        events = read_ledger(tmp_path).events
        found.append(row_costs(events, search_trials(events)).sort("level", "arm"))
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])
