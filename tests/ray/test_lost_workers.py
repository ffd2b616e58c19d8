"""Workers that Ray or a node takes away, on a real Ray."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.ray.steps import script


def payloads(events):
    return [json.loads(event["payload"]) for event in events]


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
        if self._run.work.segment.label == "sar search 1" and epoch == 2:
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
            HOW[self._run.work.segment.label]()

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
