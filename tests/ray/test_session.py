"""Warm sessions on a real Ray: what fails, what it leaves to the next trial, and what grows."""

from __future__ import annotations

import json
import re

import pytest

from tests.ray.steps import STUDY, script

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TWO = STUDY + "resources: {num_workers: 2}\n"
HEADING = re.compile(r", attempt (\d+) \(pid (\d+), node (\w+)\)$", re.MULTILINE)
EPOCHS = """
import torch
from torch import distributed as dist

def epochs(work, before, last=6):
    for epoch in range(work.segment.start + 1, last + 1):
        before(work.segment, dist.get_rank(), epoch)
        value = torch.ones(1)
        dist.all_reduce(value)
        metrics = {"val/miou": float(value) / 4}
        result = {"epoch": epoch, "step": 2 * epoch, "duration_s": 0.5, "metrics": metrics}
        yield SimpleNamespace(**result, last=epoch == last, diverged=False, module=None)
"""
FAILS = (
    EPOCHS
    + """
def before(segment, rank, epoch):
    if segment.attempt == 1 and epoch == 3 and rank == 1:
        if segment.label == "sar search 0":
            raise ValueError("no luck")
        if segment.label == "sar search 1":
            os.kill(os.getpid(), 9)

def start(work):
    return epochs(work, before)

class Two(SessionHost):
    starting = staticmethod(start)

ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
run(Two)
"""
)


def pids(folder, trial, rank, attempt):
    """Return the process of a rank of an attempt, by its log."""
    name = "log-rank1.txt" if rank else "log.txt"
    text = (folder / "results" / "tiny" / "trials" / trial / name).read_text()
    return next(int(pid) for number, pid, _ in HEADING.findall(text) if int(number) == attempt)


def test_an_exception_leaves_the_workers_to_the_next_trial_and_a_dead_worker_is_replaced(tmp_path):
    output, events = script(tmp_path, FAILS, TWO.replace("max_failures: 0", "max_failures: 1"))
    assert "done True" in output
    proposed = {e["trial_id"]: f"{e['arm']} search {e['index']}" for e in events if e["event"] == "proposed"}
    failed = [e for e in events if e["event"] == "failed"]
    reasons = {proposed[e["trial_id"]]: json.loads(e["payload"]) for e in failed}
    assert reasons["sar search 0"] == {"kind": "crashed", "reason": "rank 1: ValueError: no luck"}
    assert reasons["sar search 1"]["kind"] == "crashed"
    assert re.fullmatch(r"rank 1 \(pid \d+\): its worker process died .*", reasons["sar search 1"]["reason"])
    assert len(failed) == 2
    finished = [e["trial_id"] for e in events if e["event"] == "trial_finished"]
    assert len(finished) == len(set(finished)) == 6
    raised, killed = (next(t for t, label in proposed.items() if label == name) for name in reasons)
    for rank in (0, 1):
        assert pids(tmp_path, raised, rank, 1) == pids(tmp_path, raised, rank, 2)
        assert pids(tmp_path, killed, rank, 1) != pids(tmp_path, killed, rank, 2)
    folder = tmp_path / "results" / "tiny" / "trials" / raised
    assert "ValueError: no luck" in (folder / "log-rank1.txt").read_text()
    others = [p for p in (tmp_path / "results").rglob("log*.txt") if p.parent != folder]
    assert not [p for p in others if "no luck" in p.read_text()]


LOST_NODE = (
    EPOCHS
    + """
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
doomed = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)

def start(work):
    return epochs(work, lambda *what: time.sleep(0.3))

class Two(SessionHost):
    starting = staticmethod(start)

def harm():
    while sum(event["event"] == "epoch" for event in ledger.events) < 2:
        time.sleep(0.1)
    cluster.remove_node(doomed, allow_graceful=False)

threading.Thread(target=harm, daemon=True).start()
run(Two)
cluster.shutdown()
"""
)


def test_an_elastic_trial_goes_on_with_the_workers_that_are_left(tmp_path):
    elastic = TWO.replace("num_workers: 2", "num_workers: 2, min_workers: 1")
    output, events = script(tmp_path, LOST_NODE, elastic)
    assert "done True" in output
    finished = [e["trial_id"] for e in events if e["event"] == "trial_finished"]
    assert len(finished) == len(set(finished)) == 6
    assert [json.loads(e["payload"])["kind"] for e in events if e["event"] == "failed"] == ["preempted"]
    last = [e for e in events if e["event"] == "trial_finished"]
    assert {e.get("workers") for e in last} == {1}
    assert any("workers" not in e for e in events if e["event"] == "epoch")  # the first ones had two


LOST_HOST = (
    EPOCHS
    + """
import signal

ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
place = str(root / "host")

def start(work):
    return epochs(work, lambda *what: time.sleep(0.1))

class Two(SessionHost):
    starting = staticmethod(start)

    def setup(self, config):
        Path(place).write_text(str(os.getpid()))
        super().setup(config)

def harm():
    while sum(event["event"] == "epoch" for event in ledger.events) < 2:
        time.sleep(0.1)
    os.kill(int(Path(place).read_text()), signal.SIGKILL)

threading.Thread(target=harm, daemon=True).start()
run(Two)
"""
)


def test_a_lost_host_leaves_its_place_to_the_next(tmp_path):
    """Ray keeps the placement groups of a dead controller; without a dashboard it never removes them."""
    once = TWO.replace("max_failures: 0", "max_failures: 1")
    output, events = script(tmp_path, LOST_HOST, once)
    assert "done True" in output
    assert len([e for e in events if e["event"] == "failed"]) == 1
    finished = [e["trial_id"] for e in events if e["event"] == "trial_finished"]
    assert len(finished) == len(set(finished)) == 6
