"""Slurm on this machine: the sbatch file starts Ray, goes back into the queue, and finishes the demo."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sarx.cluster.local import unused_ports
from sarx.study.ledger import read_events
from tests.debian import needed
from tests.ray.conftest import CHECKOUT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(os.geteuid()), reason="needs root"),
]
# without systemd: no cgroups, processes are told apart by /proc
CONFIG = """\
ClusterName=sarx
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldPort={control}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ReturnToService=2
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """munged, slurmctld and slurmd with state, ports and key of their own."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        host = socket.gethostname().partition(".")[0]
        control, daemon = unused_ports(2)
        cpus = max(2, len(os.sched_getaffinity(0)))
        for name in ("state", "spool"):
            (folder / name).mkdir()
        text = CONFIG.format(folder=folder, host=host, control=control, daemon=daemon, cpus=cpus)
        (folder / "slurm.conf").write_text(text)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        names = {
            "key-file": "key",
            "socket": "socket",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        options = [f"--{option}={folder}/munge.{name}" for option, name in names.items()]
        self.start("munged", "--foreground", "--force", *options)
        self.wait(lambda: (folder / "munge.socket").exists())
        self.start("slurmctld", "-D")
        self.start("slurmd", "-D", "-N", host)
        self.wait(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"))

    def start(self, name, *options):
        log = (self.folder / f"{name}.out").open("wb")
        with log:
            command = [needed("slurm-wlm munge", name), *options]
            self.processes.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)
            )

    def said(self):
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-1500:]}"
            for path in sorted(self.folder.glob("*.out")) + sorted(self.folder.glob("slurm*.log"))
        )

    def wait(self, condition, seconds=60.0):
        deadline = time.monotonic() + seconds
        while not condition():
            ended = [process.args[0] for process in self.processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                pytest.skip(
                    f"Slurm does not come up here ({', '.join(ended) or 'it takes too long'}):\n{self.said()}"
                )
            time.sleep(0.2)

    def ask(self, *command):
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    def close(self):
        self.ask("scancel", "--user=root")
        deadline = time.monotonic() + 30
        while "sarx" in self.ask("squeue", "--noheader", "--format=%j") and time.monotonic() < deadline:
            time.sleep(0.5)
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def cluster(tmp_path):
    found = Slurm.__new__(Slurm)
    found.processes = []
    try:
        found.__init__(tmp_path)
        yield found
    finally:
        found.close()


def checkout(folder, storage):
    """Make a checkout whose slurm files are filled in for one node with two tasks and no GPU."""
    shutil.copytree(CHECKOUT / "clusters", folder / "clusters")
    shutil.copy(CHECKOUT / "search_spaces" / "demo.yaml", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    place = folder / "clusters" / "slurm"
    settings = place / "place.env"
    text = (
        settings.read_text().replace("FILL_IN_FOLDER", str(folder)).replace("FILL_IN_STORAGE", str(storage))
    )
    settings.write_text(text)
    script = place / "study.sbatch"
    values = {
        "partition=FILL_IN_PARTITION": "partition=all",
        "nodes=2": "nodes=1",
        "ntasks-per-node=1": "ntasks-per-node=2",
        "cpus-per-task=FILL_IN_CPUS_OF_A_NODE": "cpus-per-task=1",
        "#SBATCH --gpus-per-node=FILL_IN_GPUS_OF_A_NODE\n": "",
    }
    text = script.read_text()
    for given, value in values.items():
        assert given in text
        text = text.replace(given, value)
    script.write_text(text)


def test_the_demo_goes_back_into_the_queue_and_is_finished(cluster, tmp_path):
    folder, storage = tmp_path / "checkout", tmp_path / "results"
    folder.mkdir()
    checkout(folder, storage)
    environment = cluster.environment | {"PYTHONPATH": str(CHECKOUT)}
    for name in ("RAY_ADDRESS", "SARX_STORAGE"):
        environment.pop(name, None)

    def word(*words, **options):
        command = [sys.executable, "-m", "sarx.cluster.words", *words]
        return subprocess.Popen(
            command, cwd=folder, env=environment, stderr=subprocess.STDOUT, text=True, **options
        )

    up = word("up", "slurm", stdout=subprocess.PIPE)
    said, _ = up.communicate(timeout=120)
    assert up.returncode == 0, said
    log = tmp_path / "job.log"
    with log.open("w") as output:
        job = word("job", "demo.yaml", "--on-code-change", "rerun", stdout=output)

    def events(kind):
        ledger = storage / "demo" / "ledger"
        return [event for event in read_events(ledger) if event["event"] == kind] if ledger.exists() else []

    def wait_for(condition, seconds=900.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert job.poll() is None, log.read_text()[-3000:] + cluster.said()
            assert time.monotonic() < deadline, log.read_text()[-3000:] + cluster.said()
            time.sleep(0.5)

    try:
        wait_for(lambda: len(events("trial_finished")) >= 2)
        number = cluster.ask("squeue", "--noheader", "--format=%i").strip()
        token = folder / ".sarx" / "slurm" / number / "auth_token"
        assert token.stat().st_mode & 0o777 == 0o600
        first = token.read_text()
        assert "1 jobs wait or run" in word("status", stdout=subprocess.PIPE).communicate(timeout=120)[0]
        cluster.ask(
            "scancel", "--batch", "--signal=USR1", number
        )  # what --signal sends before the time limit
        wait_for(lambda: events("stopping"))
        wait_for(lambda: token.exists() and token.read_text() != first)  # it is back
        assert job.wait(900) == 0, log.read_text()[-3000:] + cluster.said()
    finally:
        if job.poll() is None:
            job.terminate()
            job.wait()
    assert "back into the queue" in log.read_text()
    finished = Counter(event["trial_id"] for event in events("trial_finished"))
    assert finished
    assert set(finished.values()) == {1}
    assert not token.exists()
    deadline = time.monotonic() + 60
    while number in cluster.ask("squeue", "--noheader", "--format=%i"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    down = word("down", stdout=subprocess.PIPE)
    assert "0 Slurm jobs ended" in down.communicate(timeout=120)[0]
    assert not list(Path("/tmp").glob(f"sarx-{number}-*"))
    left = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True, check=False)
    assert not left.stdout.split(), left.stdout
