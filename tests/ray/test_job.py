"""A cluster of our own, a submitted job, and nothing left afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sarx.cluster.local import unused_ports
from sarx.cluster.processes import alive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def cluster(host, tmp_path):
    one = host("job", steps=12, num_eval=500)
    (port,) = unused_ports(1)
    environment = one.environment | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"

    def local(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "sarx.cluster.local", *arguments],
            cwd=one.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    started = local("up", "--port", str(port))
    assert started.returncode == 0, started.stdout + started.stderr
    record = json.loads((one.folder / ".sarx" / "cluster.json").read_text())
    yield one, environment, record
    ended = local("down")
    assert ended.returncode == 0, ended.stderr
    assert not any(alive(entry) for entry in record["processes"])
    assert not Path(record["temporary"]).exists()


def submit(one, environment, *arguments, options=()):
    return subprocess.run(
        ["ray", "job", "submit", *options, "--", "python", "-m", "sarx.tune", "tiny.yaml", *arguments],
        cwd=one.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def wait_for(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_a_job_is_stopped_submitted_again_and_completes(cluster):
    one, environment, record = cluster
    without_token = subprocess.run(
        ["ray", "job", "list"],
        env={**environment, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert without_token.returncode != 0  # authentication is on
    first = submit(one, environment, options=("--no-wait", "--submission-id", "first"))
    assert first.returncode == 0, first.stdout + first.stderr
    wait_for(lambda: len(one.events("trial_finished")) >= 3)
    subprocess.run(
        ["ray", "job", "stop", "first"], env=environment, check=True, capture_output=True, timeout=60
    )
    assert one.events("stopping")
    before = one.executions()
    finished_before = {event["trial_id"] for event in one.events("trial_finished")}
    again = submit(one, environment)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "next         just analyze tiny" in again.stdout
    finished = [event["trial_id"] for event in one.events("trial_finished")]
    assert len(finished) == len(set(finished)) == 10
    assert all(one.executions()[key] == before[key] for key in before if key[0] in finished_before)
    second_cluster = subprocess.run(
        [sys.executable, "-m", "sarx.cluster.local", "up"],
        cwd=one.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second_cluster.returncode == 2
    assert "up already" in second_cluster.stderr
    os.kill(record["head"]["pid"], signal.SIGKILL)  # `down` must clean up even then


def test_results_inside_the_session_folder_are_refused(cluster):
    one, environment, _ = cluster
    clean = {key: value for key, value in environment.items() if key != "SARX_STORAGE"}
    runtime = json.dumps({"env_vars": {"SARX_STORAGE": ""}})
    refused = submit(one, clean, options=("--working-dir", ".", "--runtime-env-json", runtime))
    assert refused.returncode != 0
    assert "would vanish with it" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout


def test_a_study_of_two_workers_is_stopped_in_the_middle_of_a_trial_and_completes(cluster):
    one, environment, _ = cluster
    one.study.write_text(one.study.read_text() + "resources: {num_workers: 2}\n")
    first = submit(one, environment, options=("--no-wait", "--submission-id", "two"))
    assert first.returncode == 0, first.stdout + first.stderr
    wait_for(lambda: len(one.events("trial_finished")) >= 3 and one.events()[-1]["event"] == "epoch")
    subprocess.run(
        ["ray", "job", "stop", "two"], env=environment, check=True, capture_output=True, timeout=60
    )
    finished_before = {event["trial_id"] for event in one.events("trial_finished")}
    before = one.executions()
    again = submit(one, environment)
    assert again.returncode == 0, again.stdout + again.stderr
    finished = [event["trial_id"] for event in one.events("trial_finished")]
    assert len(finished) == len(set(finished)) == 10
    assert all(one.executions()[key] == before[key] for key in before if key[0] in finished_before)
    ranks = {path.name for path in (one.storage / "tiny" / "trials").rglob("log*.txt")}
    assert ranks == {"log.txt", "log-rank1.txt"}
