"""A real study with its storage on a real S3 server: kills of the driver lose nothing and repeat nothing."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sarx.study.ledger_at import read_events
from sarx.study.store_object import store_of
from sarx.study.urls import Url
from tests import s3_server

CHECKOUT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(s3_server.MISSING), reason=s3_server.WHY),
]


@pytest.fixture
def stored(host, monkeypatch, tmp_path):
    """Return a host whose storage is on a server, with its URL."""
    with s3_server.s3_server() as port:
        s3_server.make_bucket(port, "bucket")
        one, url = host(steps=12, num_eval=500), Url("s3", "bucket", "some/where")
        settings = s3_server.environment(port) | {
            "SARX_STORAGE": str(url),
            "SARX_CACHE": str(tmp_path / "cache"),
        }
        one.environment |= settings
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        store_of.cache_clear()
        yield one, url
        store_of.cache_clear()


def wait_for(condition, seconds=600.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(1)
    raise AssertionError("waited in vain")


def events(url, *kinds):
    found = read_events(url / "tiny" / "ledger")
    return [event for event in found if not kinds or event["event"] in kinds]


def test_a_killed_driver_loses_nothing_and_repeats_nothing_finished(stored, finish, tmp_path):
    one, url = stored
    process = one.start()
    finish.append(process)
    wait_for(lambda: process.poll() is not None or len(events(url, "trial_finished")) >= 3)
    assert process.poll() is None, process.communicate()[0]
    other = one.run()
    assert other.returncode == 2, other.stdout + other.stderr
    assert f"already running (pid {process.pid}" in other.stderr
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished_before = {event["trial_id"] for event in events(url, "trial_finished")}
    executions_before = one.executions()
    one.environment["SARX_CACHE"] = str(tmp_path / "another-machine")  # goes on from the store alone
    done = one.run(timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"results      {url}/tiny" in done.stdout
    finished = [event["trial_id"] for event in events(url, "trial_finished")]
    assert len(finished) == len(set(finished)) == 10
    after = one.executions()
    assert all(after[key] == executions_before[key] for key in executions_before if key[0] in finished_before)
    assert max(after.values()) <= 2  # at most the epoch since the last checkpoint is repeated
    assert sum(count - 1 for count in after.values()) <= 2  # two trials were in flight

    store = store_of(url / "tiny")
    names = [item.name for item in store.listing()]
    assert not [name for name in names if "/epoch-" in name]  # all trials are decided
    assert sum(name.endswith("/log.txt") for name in names) == 10
    assert sum(name.endswith("/geometry.npz") for name in names) == 6
    assert any(name.startswith("tensorboard/") for name in names)
    assert {"study.lock", "study.yaml"} <= set(names)
    secrets = [s3_server.environment(0)["AWS_SECRET_ACCESS_KEY"].encode()]
    assert not [name for name in names for secret in secrets if secret in store.read(name)[0]]

    again = one.run(timeout=600)
    assert again.returncode == 0
    assert one.executions() == after  # the same command again runs nothing

    for command, said in (
        (["-m", "sarx.status", "tiny"], "tiny: finished"),
        (["-m", "analysis", "tiny"], f"{url}/tiny/report/table.csv"),
    ):
        shown = subprocess.run(
            [sys.executable, *command],
            cwd=CHECKOUT,
            env=one.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert said in shown.stdout
    assert b"cross_entropy" in store.read("report/table.csv")[0]
