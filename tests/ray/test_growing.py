"""A cluster that starts nodes on demand, by Ray's own autoscaler: it grows to all that a study can use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import ray
import yaml

from sarx.cluster.local import unused_ports
from sarx.cluster.processes import end, family, identity
from sarx.cluster.resources import GROWS
from tests.ray.steps import STUDY, script
from tests.ray.test_session import EPOCHS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
HEAD = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
TYPES = {
    "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0},
    "pair": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 2},
}
PROVIDER = {"type": "fake_multinode", "head_node_id": HEAD, "launch_multiple": True}
COMMANDS = [f"{who}start_ray_commands" for who in ("head_", "worker_")]
COMMANDS += [f"{who}setup_commands" for who in ("", "head_", "worker_")]
COMMANDS += ["initialization_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter"]
TWO_AT_ONCE = (
    EPOCHS
    + """
def before(segment, rank, epoch):
    # each of the first two trials waits for the other
    folder = root / "running"
    folder.mkdir(exist_ok=True)
    (folder / segment.trial_id).touch()
    deadline = time.monotonic() + 150
    while len(list(folder.iterdir())) < 2:
        if time.monotonic() > deadline:
            raise TimeoutError("no second trial at the same time")
        time.sleep(0.1)

def start(work):
    return epochs(work, before)

class Two(SessionHost):
    starting = staticmethod(start)

ray.init(address=sys.argv[2], log_to_driver=False)
print("nodes at first", len(ray.nodes()), flush=True)
run(Two)
"""
)


@pytest.fixture
def growing(tmp_path):
    """The address of a head that hands out nothing, and whose autoscaler starts up to two nodes of 2 CPUs."""
    gcs, client, agent = unused_ports(3)
    address = f"{ray.util.get_node_ip_address()}:{gcs}"
    config = {
        "cluster_name": "growing",
        "max_workers": 2,
        "idle_timeout_minutes": 5,
        "provider": {**PROVIDER, "gcs_address": address},
        "available_node_types": TYPES,
        "head_node_type": "ray.head.default",
        **{name: [] for name in COMMANDS},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        "upscaling_speed": 1.0,
    }
    file, said = tmp_path / "cluster.yaml", tmp_path / "head.log"
    file.write_text(yaml.safe_dump(config))
    told = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "token"}
    told |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD, "RAY_CLOUD_INSTANCE_ID": HEAD}
    with tempfile.TemporaryDirectory(prefix="sarx-ray-") as temporary, said.open("wb") as log:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=0"]
        command += [f"--port={gcs}", f"--ray-client-server-port={client}", "--include-dashboard=false"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={temporary}/ray"]
        command += [f"--autoscaling-config={file}"]
        head = subprocess.Popen(
            command, env=os.environ | told, stdout=log, stderr=log, start_new_session=True
        )
        known = identity(head.pid)
        try:
            deadline = time.monotonic() + 60
            while "--block" not in said.read_text():
                assert head.poll() is None, said.read_text()
                assert time.monotonic() < deadline, said.read_text()
                time.sleep(0.3)
            yield address
        finally:
            end(known, family(head.pid))
            head.wait()


def test_trials_of_several_workers_get_nodes_of_their_own_at_once(tmp_path, growing):
    two = STUDY + "resources: {num_workers: 2}\n"
    kinds = json.dumps([{"nodes": 2, "CPU": 2}])
    code = TWO_AT_ONCE.replace("sys.argv[2]", repr(growing))
    output, events = script(tmp_path, code, two, timeout=280, **{GROWS: kinds, "RAY_AUTH_MODE": "token"})
    assert "nodes at first 1" in output
    assert "done True" in output
    finished = [event["trial_id"] for event in events if event["event"] == "trial_finished"]
    assert len(finished) == len(set(finished)) == 6
