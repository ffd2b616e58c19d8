"""A study of two-worker trials over three hosts with disks of their own, its results on an object server.

One host is cut off and comes back, a worker is killed.

The host that is cut off is the one where the trial's own host and Train's controller run: the head has too
little memory for them. When it is there again, that controller still asks for new workers before it ends.
"""

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

from tests import s3_server
from tests.ray.conftest import CHECKOUT
from tests.ray.netns import MISSING, PORT, Hosts
from tests.titles import TRIAL_HOSTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "-"),
    pytest.mark.skipif(bool(s3_server.MISSING), reason=s3_server.WHY),
]
S3_PORT = 5055
HEADING = re.compile(r", attempt (\d+) \(pid (\d+), node (\w+)\)$", re.MULTILINE)
NODES = """
import json, ray
ray.init(address={address!r}, log_to_driver=False)
print(json.dumps({{node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}}))
"""


OBSERVE = """
import json, sys
from sarx.study.ledger_at import read_events
from sarx.study.store_object import store_of
from sarx.study.urls import parse_url
url = parse_url(sys.argv[1])
for line in sys.stdin:
    try:
        name = json.loads(line)
        if name:
            answer = store_of(url).read(name)[0].decode()
        else:
            keys = ("event", "trial_id", "attempt", "payload", "workers")
            answer = [{key: event.get(key) for key in keys} for event in read_events(url / "ledger")]
    except FileNotFoundError:
        answer = None
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def hosts(tmp_path):
    apart = tmp_path / "cache" / "storage"
    apart.mkdir(parents=True)
    found = Hosts(3, tmp_path, apart)
    yield found
    found.close()


class Store:
    """An S3 server on the first host, and what a process there sees of a study on it."""

    def __init__(self, hosts):
        self.url = "s3://bucket/some/where"
        self.environment = s3_server.environment(S3_PORT, hosts.address(1)) | {"SARX_STORAGE": self.url}
        server = [sys.executable, "-m", "moto.server", "-H", hosts.address(1), "-p", str(S3_PORT)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.server = subprocess.Popen(hosts.command(1, server), **quiet)
        code = f"from tests.s3_server import await_bucket as b; b({S3_PORT}, 'bucket', {hosts.address(1)!r})"
        subprocess.run(hosts.command(1, [sys.executable, "-c", code]), cwd=CHECKOUT, check=True, timeout=120)
        self.observer = subprocess.Popen(
            hosts.command(1, [sys.executable, "-c", OBSERVE, f"{self.url}/tiny"]),
            env=os.environ | self.environment,
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, name=""):
        self.observer.stdin.write(json.dumps(name) + "\n")
        self.observer.stdin.flush()
        return json.loads(self.observer.stdout.readline())

    def events(self, *kinds):
        return [event for event in self.ask() or [] if not kinds or event["event"] in kinds]

    def close(self):
        for process in (self.observer, self.server):
            process.terminate()
            process.wait()
        self.observer.stdin.close()
        self.observer.stdout.close()


@pytest.fixture
def store(hosts):
    found = Store(hosts)
    yield found
    found.close()


def wait_for(condition, process, log, seconds=400.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        said = log.read_text()[-3000:]
        assert process.poll() is None, f"the driver has ended with {process.returncode}: {said}"
        assert time.monotonic() < deadline, f"waited in vain: {said}"
        time.sleep(0.1)
    return found


def running(store):
    """Return (trial, attempt, [(pid, node) of each rank]) of a trial in flight that has an epoch."""
    over, open_trials = ("trial_finished", "failed", "rung", "diverged"), {}
    for event in store.events():
        if event["event"] == "trial_started":
            open_trials[event["trial_id"]] = [event["attempt"], False]
        elif event["event"] == "epoch":
            open_trials[event["trial_id"]][1] = True
        elif event["event"] in over:
            open_trials.pop(event["trial_id"], None)
    for trial, (attempt, has_epoch) in open_trials.items():
        ranks = [
            (int(pid), node)
            for log in ("log.txt", "log-rank1.txt")
            for number, pid, node in HEADING.findall(store.ask(f"trials/{trial}/{log}") or "")
            if int(number) == attempt
        ]
        if has_epoch and len(ranks) == 2:
            return trial, attempt, ranks
    return None


def test_a_host_is_cut_off_and_comes_back_and_a_worker_is_killed(host, hosts, store):
    one = host(steps=16, num_eval=500)
    text = one.study.read_text()
    one.study.write_text(text + "resources: {num_workers: 2, placement: spread}\nmax_failures: 1\n")
    environment = one.environment | store.environment | {"RAY_USAGE_STATS_ENABLED": "0"}
    environment["SARX_CACHE"] = str(hosts.apart.parent)
    for number in hosts.numbers:
        hosts.start_node(number, 1, environment, *(["--memory=1000000"] if number == 1 else []))
        hosts.wait(number)
    address = f"{hosts.address(1)}:{PORT}"
    listed = subprocess.run(
        hosts.command(1, [sys.executable, "-c", NODES.format(address=address)]),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    place = json.loads(listed.stdout.splitlines()[-1])
    log = one.folder / "driver.log"
    with log.open("wb") as output:
        driver = subprocess.Popen(
            hosts.command(1, [*one.command, "--address", address]),
            cwd=CHECKOUT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        (trial, attempt, ranks) = wait_for(lambda: running(store), driver, log)
        assert len({node for _, node in ranks}) == 2, "both workers are on one host"
        cut = next(number for number in hosts.numbers if hosts.runs(number, *TRIAL_HOSTS))
        assert cut != 1
        node = next(node for node, address in place.items() if address == hosts.address(cut))
        lost = [pid for pid, where in ranks if where == node]
        hosts.cut(cut)
        failed = wait_for(lambda: store.events("failed"), driver, log)
        assert failed[0]["trial_id"] == trial
        assert json.loads(failed[0]["payload"])["kind"] == "preempted"
        hosts.cut(cut, off=False)
        before = (attempt, ranks)
        again = wait_for(lambda: (found := running(store)) and found[1:] != before and found, driver, log)
        assert node not in {where for _, where in again[2]}
        os.kill(again[2][1][0], signal.SIGKILL)
        wait_for(lambda: len(store.events("failed")) > 1, driver, log)
        assert driver.wait(500) == 0, log.read_text()[-3000:]
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
    kinds = [json.loads(event["payload"])["kind"] for event in store.events("failed")]
    assert kinds == ["preempted", "crashed"]
    finished = [event["trial_id"] for event in store.events("trial_finished")]
    assert len(finished) == len(set(finished)) == 10
    assert not [event for event in store.events("epoch", "trial_finished") if event.get("workers")]
    starts = Counter(event["trial_id"] for event in store.events("trial_started"))
    assert sum(starts.values()) == 12  # ten trials and the two that were started again
    ends = {event["trial_id"]: event["attempt"] for event in store.events("trial_finished")}
    assert ends == dict(starts)  # each by its last attempt
    assert not any(Path(f"/proc/{pid}").exists() for pid in lost), "a worker of the lost attempt still runs"
