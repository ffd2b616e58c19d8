from __future__ import annotations

import csv
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest


def wait_for(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def table(host):
    path = host.storage / "tiny" / "report" / "table.csv"
    with path.open(newline="") as handle:
        return list(csv.reader(handle))


@pytest.mark.timeout(400)
def test_a_study_runs_from_yaml_to_table(host):
    one = host()
    done = one.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "next         just analyze tiny" in done.stdout
    finished = one.events("trial_finished")
    assert len(finished) == len({event["trial_id"] for event in finished}) == 10
    assert set(one.executions().values()) == {1}
    for event in one.events("epoch", "trial_finished", "diverged", "failed"):
        names = {item["name"] for item in event.get("metrics", [])}
        assert event["phase"] == "confirm" or not any(name.startswith("test/") for name in names)
    confirm = [event for event in finished if event["phase"] == "confirm"]
    assert all(any(item["name"] == "test/miou" for item in event["metrics"]) for event in confirm)
    again = one.run()
    assert again.returncode == 0
    assert set(one.executions().values()) == {1}  # the same command again runs nothing
    shown = one.analyze()
    assert shown.returncode == 0, shown.stderr
    assert "cross_entropy" in shown.stdout
    assert "sar" in shown.stdout
    assert list((one.storage / "tiny" / "tensorboard").rglob("events.out.tfevents.*"))
    assert not list((one.storage / "tiny" / "trials").rglob("epoch-*.pt"))
    logs = [path.read_text() for path in (one.storage / "tiny" / "trials").glob("*/log.txt")]
    assert len(logs) == 10
    assert all(text.count("attempt 1") == 1 for text in logs)


@pytest.mark.slow
def test_a_stopped_and_then_killed_driver_loses_nothing_repeats_nothing_and_changes_no_number(host, finish):
    one, whole = host(steps=12), host("whole", steps=12)
    process = one.start()
    finish.append(process)
    wait_for(lambda: len(one.events("trial_finished")) >= 2)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - sent < 1.0
    assert process.returncode == 128 + signal.SIGTERM
    assert "to go on: python -m sarx.tune" in output
    assert one.events("stopping")
    process = one.start()
    finish.append(process)
    wait_for(lambda: len(one.events("trial_finished")) >= 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished_before = {event["trial_id"] for event in one.events("trial_finished")}
    executions_before = one.executions()
    done = one.run()
    assert done.returncode == 0, done.stdout + done.stderr
    finished = [event["trial_id"] for event in one.events("trial_finished")]
    assert len(finished) == len(set(finished)) == 10
    after = one.executions()
    assert all(after[key] == executions_before[key] for key in executions_before if key[0] in finished_before)
    stopped = Counter({key: count - 1 for key, count in executions_before.items()})
    killed = after - executions_before - Counter(after.keys() - executions_before.keys())
    for repeated in (stopped, killed):  # at most the epoch since the last checkpoint, of two trials in flight
        assert max(repeated.values(), default=0) <= 1
        assert repeated.total() <= 2
    assert whole.run().returncode == 0
    tables = []
    for study in (one, whole):
        assert study.analyze().returncode == 0
        tables.append(table(study))
    assert tables[0] == tables[1]
    assert len(tables[0]) > 5


@pytest.mark.slow
def test_a_killed_worker_is_retried_from_its_checkpoint(host, finish):
    one = host(steps=20)
    process = one.start()
    finish.append(process)
    wait_for(lambda: any(int(epoch) >= 3 for _, epoch in one.executions()))
    lines = [line.split() for line in one.witness.read_text().splitlines()]
    os.kill(next(int(pid) for _, epoch, pid in lines if int(epoch) >= 3), signal.SIGKILL)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    failed = one.events("failed")
    assert len(failed) == 1
    assert "died without a message" in failed[0]["payload"]
    restarted = [event for event in one.events("trial_started") if event["trial_id"] == failed[0]["trial_id"]]
    assert [event["attempt"] for event in restarted] == [1, 2]
    assert sum(count - 1 for count in one.executions().values()) <= 1
    assert len(one.events("trial_finished")) == 10
    log = one.storage / "tiny" / "trials" / failed[0]["trial_id"] / "log.txt"
    assert "continues after epoch" in log.read_text()


@pytest.mark.slow
def test_a_second_driver_is_told_who_holds_the_study(host, finish):
    one = host(steps=12)
    process = one.start()
    finish.append(process)
    wait_for(lambda: one.events("study_opened"))
    other = one.run()
    assert other.returncode == 2
    assert "already running" in other.stderr
    assert f"pid {process.pid}" in other.stderr
    process.kill()
    process.communicate()


def test_a_trial_that_fits_nowhere_is_refused_before_anything_starts(host):
    one = host()
    refused = one.run("--set", "resources.cpus_per_worker=1000")
    assert refused.returncode == 2
    assert "1000 CPUs" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(Path(one.storage).glob("tiny/ledger/*.ndjson")) == []
