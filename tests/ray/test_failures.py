"""Failures, limits and stops on a real Ray: files in the way, a full disk, dead processes and nodes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sarx.cluster.processes import alive, family
from sarx.study.ledger import read_events

CHECKOUT = Path(__file__).resolve().parents[2]


def wait_for(condition, seconds=120.0):
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
    proposed = wait_for(lambda: one.events("proposed"))
    victim = next(event for event in proposed if event["arm"] == "sar" and event["index"] == 1)["trial_id"]
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


# ---------------------------------------------------------------- workers that Ray or a node takes away

STUDY = """\
# Does the machinery work?
study: tiny
base: [data=digit_scenes, training.steps=12, training.eval_every=2]
ablation:
  reference: cross_entropy
  arms: {cross_entropy: {regularizer: none}, sar: {regularizer: sar}}
search:
  parameters: {optim.lr: {low: 0.001, high: 0.01, log: true}}
  trials_per_arm: 2
  batch: 2
confirm: {seeds: 1}
max_failures: 0
"""
PRELUDE = """
import os, sys, threading, time
from pathlib import Path
from types import SimpleNamespace
from sarx.cluster.resources import prepare_environment
prepare_environment()
import ray
from sarx.cluster.driver import fit
from sarx.cluster.monitor import Monitor
from sarx.cluster.trial import TrialHost, node_id
from sarx.search.engine import Engine
from sarx.study.design import make_arms
from sarx.study.identity import trial_id
from sarx.study.ledger import Ledger
from sarx.study.load import load_study
from sarx.study.storage import open_folder

class Steps(TrialHost):
    pause_s = 0.5

    def _start(self):
        for epoch in range(self._segment.start + 1, 7):
            self.before(epoch)
            time.sleep(self.pause_s)
            metrics = {"val/miou": 0.5}
            result = {"epoch": epoch, "step": 2 * epoch, "duration_s": 0.5, "metrics": metrics}
            yield SimpleNamespace(**result, last=epoch == 6, diverged=False, module=None)

    def before(self, epoch):
        pass

root = Path(sys.argv[1])
study, source = load_study(root / "tiny.yaml")
folder = open_folder(root / "results", study.study)
ledger = Ledger(folder.ledger)

def identify(config):
    return trial_id(config, data_fingerprint="d", code="c")

engine = Engine(study, make_arms(study, source), ledger, identify)

def run(host):
    with Monitor() as monitor:
        monitor.tick(engine)
        fit(study, engine, folder, monitor, host)
    print("done", engine.done, flush=True)
    ledger.close()
"""


def script(folder, code, **environment):
    (folder / "tiny.yaml").write_text(STUDY)
    clean = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, str(folder)],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env=clean | environment,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, read_events(folder / "results" / "tiny" / "ledger")


NODES = """
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
doomed = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)

def harm():
    def epochs_there():
        logs = [path.read_text() for path in folder.root.glob("trials/*/log.txt")]
        started = any(doomed.node_id in text for text in logs)
        return started and any(event["event"] == "epoch" for event in ledger.events)
    while not epochs_there():
        time.sleep(0.1)
    cluster.remove_node(doomed, allow_graceful=False)

threading.Thread(target=harm, daemon=True).start()
run(Steps)
cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_trial_whose_node_died_is_preempted_and_goes_on_elsewhere(tmp_path):
    """With max_failures: 0, so that a failure that counts would be the end of the trial."""
    output, events = script(tmp_path, NODES)
    assert "done True" in output
    failed = [event for event in events if event["event"] == "failed"]
    assert [payload["kind"] for payload in payloads(failed)] == ["preempted"]
    finished = [event["trial_id"] for event in events if event["event"] == "trial_finished"]
    assert failed[0]["trial_id"] in finished
    assert len(finished) == len(set(finished)) == 6


MEMORY = """
class Eats(Steps):
    def before(self, epoch):
        if self._segment.label == "sar search 1" and epoch == 2:
            self.eaten = bytearray(os.urandom(1 << 20)) * 8192
            time.sleep(60)

ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
run(Eats)
"""


def memory_gib():
    values = dict(re.findall(r"^(\w+): +(\d+) kB$", Path("/proc/meminfo").read_text(), re.M))
    return int(values["MemTotal"]) / 2**20, int(values["MemAvailable"]) / 2**20


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(memory_gib()[1] < 12, reason="needs 12 GiB")
def test_a_worker_that_ray_kills_for_memory_is_a_failed_trial_by_that_name(tmp_path):
    """Tune 2.60 would end the whole run; see lost_actors_are_failed_trials."""
    total, free = memory_gib()
    threshold = (total - free + 4) / total
    output, events = script(
        tmp_path,
        MEMORY,
        RAY_memory_usage_threshold=f"{threshold:.3f}",
        RAY_memory_monitor_refresh_ms="100",
    )
    assert "done True" in output
    failed = payloads(event for event in events if event["event"] == "failed")
    assert failed  # that one; Ray may end another one with it
    assert all(failure["kind"] == "out_of_memory" for failure in failed)
    assert all("the memory of its node was nearly full (" in failure["reason"] for failure in failed)


DEATHS = """
import faulthandler, signal

HOW = {
    "cross_entropy search 0": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sar search 0": faulthandler._sigsegv,
    "cross_entropy search 1": lambda: sys.exit(3),
    "sar search 1": os.abort,
}

class Dies(Steps):
    pause_s = 0.05

    def before(self, epoch):
        if epoch == 2:
            HOW[self._segment.label]()

ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
run(Dies)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_process_that_dies_is_named_as_well_as_ray_can(tmp_path):
    _, events = script(tmp_path, DEATHS)
    proposed = {
        event["trial_id"]: f"{event['arm']} search {event['index']}"
        for event in events
        if event["event"] == "proposed"
    }
    reasons = {
        proposed[event["trial_id"]]: json.loads(event["payload"])["reason"]
        for event in events
        if event["event"] == "failed"
    }
    assert reasons == {
        "cross_entropy search 0": "the worker process died without a message (SIGKILL, or the machine's "
        "memory was full)",
        "sar search 0": "the worker process died (SIGSEGV); its log has the stack",
        "cross_entropy search 1": "SystemExit: 3",
        "sar search 1": "the worker process died (SIGABRT); its log has the stack",
    }
