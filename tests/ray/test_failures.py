"""Failures, limits and stops on a real Ray: files in the way, a full disk, dead processes and nodes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sarx.cluster.processes import alive, family

CHECKOUT = Path(__file__).resolve().parents[2]


def wait_for(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def payloads(events):
    return [json.loads(event["payload"]) for event in events]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_failed_trial_has_its_own_traceback_in_its_own_log(host, finish):
    """A file stands where the second trial of an arm wants its folder of checkpoints."""
    one = host()
    process = one.start()
    finish.append(process)
    (victim,) = wait_for(
        lambda: [
            event["trial_id"]
            for event in one.events("proposed")
            if event["arm"] == "sar" and event["index"] == 1
        ]
    )
    trials = one.storage / "tiny" / "trials"
    (trials / victim).mkdir()
    (trials / victim / "attempt-1").write_text("in the way")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    (failure,) = payloads(one.events("failed"))
    assert failure["kind"] == "crashed"
    assert (
        f"{trials}/{victim}/attempt-1: no checkpoint can be written here (File exists)" in failure["reason"]
    )
    assert f"attempt 1 failed (crashed): {failure['reason']} ({trials}/{victim}/log.txt)" in output
    logs = {path.parent.name: path.read_text() for path in trials.glob("*/log.txt")}
    assert len(logs) == 10
    assert "Traceback (most recent call last)" in logs[victim]
    assert f"attempt 1 failed: UserError: {trials}/{victim}/attempt-1" in logs[victim]
    assert re.findall(r", attempt (\d)", logs[victim]) == ["1", "2"]
    pids: dict[str, list[str]] = {}
    for trial, text in logs.items():
        assert set(re.findall(r": trial (\w+), attempt", text)) == {trial}
        assert trial == victim or "Traceback" not in text
        pids[trial] = re.findall(r"attempt \d \(pid (\d+)", text)
    others = [pid for trial, own in pids.items() if trial != victim for pid in own]
    assert pids[victim][0] in others  # it was an actor that had served another trial
    assert len(one.events("trial_finished")) == 10


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_attempts_over_their_minutes_are_ended_and_the_next_ones_start(host):
    one = host()
    limits = ["limits.trial_minutes=0.01", "search.trials_per_arm=2"]  # importing torch takes longer
    done = one.run("--set", *limits)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    failed = one.events("failed")
    assert Counter(event["trial_id"] for event in failed) == dict.fromkeys(
        {event["trial_id"] for event in one.events("proposed")}, 2
    )
    for payload in payloads(failed):
        assert payload["kind"] == "timed_out"
        assert payload["reason"].startswith("it ran longer than limits.trial_minutes; it was in ")
    log = one.storage / "tiny" / "trials" / failed[0]["trial_id"] / "log.txt"
    assert log.read_text().count("Timeout (0:00:00.6") == 2
    assert "attempt 2 failed: timed_out: it ran longer than limits.trial_minutes" in log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_max_trials_stops_without_cutting_any_trial_off_and_a_higher_limit_goes_on(host):
    one = host()
    stopped = one.run("--set", "limits.max_trials=3")
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    assert "stopped: limits.max_trials=3 is reached: 3 trials are decided" in stopped.stdout
    assert "left: search 1 of 4, confirm 6 of 6 trials" in stopped.stdout
    assert "to go on: raise limits.max_trials, then python -m sarx.tune" in stopped.stdout
    assert len(one.events("trial_finished")) == len(one.events("trial_started")) == 3
    assert payloads(one.events("stopping"))[0]["reason"].startswith("limits.max_trials=3")
    again = one.run()
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(one.events("trial_finished")) == 10
    assert set(one.executions().values()) == {1}


def test_a_limit_that_is_reached_already_starts_no_ray(host):
    one = host()
    started = time.monotonic()
    stopped = one.run("--set", "limits.max_hours=1e-12")
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    assert "stopped: limits.max_hours=1e-12 is reached: this start has run" in stopped.stdout
    assert not one.events("trial_started")
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("number", "delay"),
    [
        (signal.SIGTERM, 2.0),
        pytest.param(signal.SIGINT, 0.3, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 0.3, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 4.0, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 4.0, marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_ray_starts_is_recorded_and_leaves_nothing_behind(host, finish, number, delay):
    one = host()
    process = one.start()
    finish.append(process)
    wait_for(lambda: one.events("proposed"))
    time.sleep(delay)
    started = family(process.pid)
    sent = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - sent < 2.0  # half of that and less where nothing else runs
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    assert f"stopped by {number.name}; nothing finished is lost" in output
    assert payloads(one.events("stopping")) == [{"reason": number.name}]
    wait_for(lambda: not any(alive(entry) for entry in started), 5)


# ---------------------------------------------------------------- a full disk

UNSHARE = ("unshare", "--map-root-user", "--mount")
FULL = """
import json, os, subprocess, sys, time
from pathlib import Path
from sarx.study.ledger import read_events
disk, command = Path(sys.argv[1]), json.loads(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(disk)], check=True)
ledger = disk / "tiny" / "ledger"
def finished():
    return [event["trial_id"] for event in read_events(ledger) if event["event"] == "trial_finished"]
first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
while not ledger.exists() or len(finished()) < 2:
    assert first.poll() is None, first.communicate()
    time.sleep(0.05)
with (disk / "ballast").open("wb", buffering=0) as ballast:
    for size in (1 << 20, 4096):
        try:
            while ballast.write(bytes(size)) == size:
                pass
        except OSError:
            pass
    out, err = first.communicate(timeout=200)
before = finished()
(disk / "ballast").unlink()
again = subprocess.run(command, capture_output=True, text=True, timeout=300)
rest = again.stdout + again.stderr
print(json.dumps([first.returncode, out, err, before, again.returncode, rest, finished()]))
"""


def unshare_works():
    return not subprocess.run(
        [*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        check=False,
    ).returncode


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not unshare_works(), reason="no private mounts here")
def test_a_full_disk_ends_the_run_with_one_message_and_the_same_command_goes_on(host):
    one = host(steps=12)
    one.storage.mkdir()
    command = json.dumps(one.command)
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", FULL, str(one.storage), command],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env=one.environment,
        check=False,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    code, out, err, before, again, rest, finished = json.loads(done.stdout)
    assert code == 2, out + err
    assert "Traceback" not in out + err
    assert re.search(rf"^error: {one.storage}/tiny.*: the study cannot be recorded any more \(", err, re.M), (
        err
    )
    assert again == 0, rest
    assert len(finished) == len(set(finished)) == 10
    executions = one.executions()
    assert len(before) >= 2
    assert all(executions[key] == 1 for key in executions if key[0] in before)
