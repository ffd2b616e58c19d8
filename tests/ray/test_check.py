"""The look at a cluster before a study, on a real Ray with nodes that lack something."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

CLUSTER = """
import sys, subprocess
from ray.cluster_utils import Cluster
import ray

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
for path in sys.argv[2:]:
    cluster.add_node(num_cpus=1, num_gpus=1 if path.endswith("gpu") else 0, env_vars={"PYTHONPATH": path})
cluster.wait_for_nodes()
if "busy" in sys.argv[-1]:
    ray.init(address=cluster.address, log_to_driver=False)
    holder = ray.remote(num_gpus=1)(type("Holder", (), {"here": lambda self: None})).remote()
    ray.get(holder.here.remote())
done = subprocess.run([sys.executable, "-m", "sarx.cluster.check", sys.argv[1], "--address", cluster.address])
ray.shutdown()
cluster.shutdown()
sys.exit(done.returncode)
"""
STUDY = """\
# Does the machinery work?
study: tiny
base: [data=digit_scenes, model=fcn_test_efficientnet]
ablation:
  reference: cross_entropy
  arms:
    cross_entropy: {regularizer: none}
    sar: {regularizer: sar}
search:
  parameters: {optim.lr: {low: 0.001, high: 0.01, log: true}}
  trials_per_arm: 2
  batch: 2
confirm: {seeds: 3}
"""


def look(tmp_path, *paths, storage=None, resources=""):
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY + resources)
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"SARX_STORAGE": str(storage or tmp_path / "results"), "COLUMNS": "400"}
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(study), *map(str, paths)],
        cwd=tmp_path,  # Ray puts the driver's folder before PYTHONPATH
        env=environment | {"RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    lines = [re.split(r" {2,}", line.strip()) for line in done.stdout.splitlines()]
    return done, [line for line in lines if len(line) > 1 and line[1] in ("ok", "failed", "warning")]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_two_nodes_lack_is_found(tmp_path):
    """One without sarx, one with another Optuna and a GPU that is none."""
    without, other = tmp_path / "without", tmp_path / "gpu"
    (without / "sarx").mkdir(parents=True)
    (without / "sarx" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'sarx'\")\n")
    (other / "optuna-1.0.0.dist-info").mkdir(parents=True)
    (other / "optuna-1.0.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: optuna\nVersion: 1.0.0\n"
    )
    done, lines = look(tmp_path, without, other)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = {line[0]: line[2] for line in lines if line[1] == "failed"}
    assert sorted(failed) == ["GPUs", "sarx", "versions"], done.stdout
    assert "cannot be imported (No module named 'sarx')" in failed["sarx"]
    assert re.search(r"optuna 1\.0\.0 \(here 5\.", failed["versions"])
    assert "Ray hands out 1, torch sees 0" in failed["GPUs"]
    assert "3 to mend" in done.stdout
    network = next(line for line in lines if line[0] == "network")
    assert re.search(r"gloo all-reduce of 64 MiB, 2 workers on 2 nodes: \d+\.\d\d GB/s", network[2])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_storage_and_resources_that_are_not_there_are_found(tmp_path):
    (tmp_path / "file").write_text("no folder")
    few = "resources: {num_workers: 2, gpus_per_worker: 1}\n"
    done, lines = look(tmp_path, storage=tmp_path / "file" / "results", resources=few)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = {line[0]: line[2] for line in lines if line[1] == "failed"}
    assert sorted(failed) == ["resources", "storage"]
    assert "cannot be written (Not a directory)" in failed["storage"]
    assert "2 workers with 1 CPU, 1 GPU each" in failed["resources"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_gpus_that_a_study_uses_are_no_failure_of_the_network(tmp_path):
    """Two nodes with what Ray takes for a GPU, one of them in use."""
    one = "resources: {num_workers: 1, gpus_per_worker: 1}\n"
    done, lines = look(tmp_path, tmp_path / "gpu", tmp_path / "busy-gpu", resources=one)
    found = {line[0]: line for line in lines}
    assert found["resources"][1:3] == ["ok", "2 trials at once"], done.stdout
    assert found["network"][1] == "warning"
    assert re.search(r"not measured with the GPUs of \S+ \(.*\): all are in use", found["network"][2])
    assert [line[0] for line in lines if line[1] == "failed"] == ["GPUs", "GPUs"]  # torch sees none
