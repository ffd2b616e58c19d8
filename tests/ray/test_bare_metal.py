"""A cluster over ssh: three hosts, a job from a fourth, a lost terminal, a lost host, nothing left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.debian import needed
from tests.ray.conftest import CHECKOUT
from tests.ray.netns import MISSING, Hosts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "-"),
]
CLIENT = 4
SSHD_CONFIG = """\
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv PYTHONPATH={checkout} HOME={home} RAY_agent_register_timeout_ms=100000
"""
SSH_CONFIG = """\
IdentityFile {folder}/key
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
"""


class Place:
    """Hosts 1 to 3 with sshd, and host 4 with a working folder that names them."""

    def __init__(self, hosts, one, folder):
        self.hosts, self.one, self.folder = hosts, one, folder
        self.servers = {}
        for name in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        public = (folder / "host_key.pub").read_text()
        known = [f"{hosts.address(number)} {public}" for number in (1, 2, 3)]
        (folder / "known_hosts").write_text("".join(known))
        home = folder / "home"
        home.mkdir()
        (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder, checkout=CHECKOUT, home=home))
        (folder / "ssh_config").write_text(SSH_CONFIG.format(folder=folder))
        there = folder / "there"  # the checkout of the hosts, which share this machine's files
        there.mkdir()
        (there / ".venv").symlink_to(sys.prefix)
        shutil.copytree(CHECKOUT / "clusters", one.folder / "clusters")
        place = one.folder / "clusters" / "bare_metal"
        (place / "hosts.txt").write_text("".join(f"{hosts.address(n)} cpus=1 gpus=0\n" for n in (1, 2, 3)))
        text = (
            (place / "place.env").read_text().replace("SSH_OPTIONS=", f"SSH_OPTIONS='-F {folder}/ssh_config'")
        )
        text = text.replace("FILL_IN_FOLDER", str(there)).replace("FILL_IN_STORAGE", str(one.storage))
        (place / "place.env").write_text(text)
        self.environment = one.environment | {"PYTHONPATH": str(CHECKOUT), "HOME": str(home)}
        del self.environment["SARX_STORAGE"], self.environment["RAY_AUTH_MODE"]

    def serve(self):
        Path("/run/sshd").mkdir(exist_ok=True)
        for number in (1, 2, 3):
            command = [needed("openssh-server", "sshd"), "-D", "-e", "-f", str(self.folder / "sshd_config")]
            log = (self.folder / f"sshd-{number}.log").open("wb")
            with log:
                self.servers[number] = subprocess.Popen(
                    self.hosts.command(number, command), stdout=log, stderr=subprocess.STDOUT
                )

    def word(self, *words, output=subprocess.PIPE, folder=None, session=False):
        command = [sys.executable, "-m", "sarx.cluster.words", *words]
        return subprocess.Popen(
            self.hosts.command(CLIENT, command),
            cwd=folder or self.one.folder,
            start_new_session=session,
            env=self.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *words, code=0, timeout=600):
        process = self.word(*words)
        said, _ = process.communicate(timeout=timeout)
        assert process.returncode == code, said
        return said

    def left(self, number):
        """Return the command lines of what runs on a host besides sshd."""
        found = []
        for pid in self.hosts.processes(number):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if command and "sshd" not in command:
                found.append(command)
        return found


@pytest.fixture
def place(host, tmp_path):
    one = host("bare", steps=12, num_eval=500)
    hosts = Hosts(4, tmp_path)
    servers = {}
    try:
        found = Place(hosts, one, tmp_path)
        servers = found.servers
        found.serve()
        yield found
    finally:
        hosts.close()
        for process in servers.values():
            process.kill()
            process.wait()
        for record in (tmp_path / "there").glob(".sarx/nodes/*/node.json"):  # of the host that was lost
            shutil.rmtree(json.loads(record.read_text())["temporary"], ignore_errors=True)


def wait_for(condition, process, seconds=600.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the job has ended with {process.returncode}"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def test_a_start_that_is_cut_off_leaves_nothing(place):
    started = place.word("up", "bare_metal", session=True)
    notes = place.folder / "there" / ".sarx" / "nodes"
    wait_for(lambda: list(notes.glob("*/node.json")), started)
    os.killpg(started.pid, signal.SIGINT)
    said, _ = started.communicate(timeout=120)
    assert started.returncode == 130, said
    assert "Traceback" not in said
    deadline = time.monotonic() + 60
    while any(place.left(number) for number in (1, 2, 3)):
        assert time.monotonic() < deadline, [place.left(number) for number in (1, 2, 3)]
        time.sleep(0.2)
    assert not list(notes.glob("*/node.json"))
    assert "no cluster of ours is up" in place.run("down", "bare_metal")


FETCH = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def fetched(place, word, path, log):
    """Return the HTTP status of what a word opens a tunnel to, and end the word."""
    with log.open("w") as output:
        process = place.word(word, output=output)
    try:
        wait_for(lambda: "until Ctrl-C" in log.read_text(), process)
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+", log.read_text())
        fetch = place.hosts.command(CLIENT, [sys.executable, "-c", FETCH, address + path])
        return subprocess.run(fetch, capture_output=True, text=True, check=True).stdout.strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_a_study_outlives_a_terminal_and_a_host_and_nothing_is_left(place):
    one, hosts = place.one, place.hosts
    said = place.run("up", "bare_metal", timeout=900)
    assert "cluster up on 3 hosts" in said
    token = one.folder / ".sarx" / "bare_metal" / "token" / "auth_token"
    secret = token.read_text()
    for number in (1, 2, 3):
        kept = place.folder / "there" / ".sarx" / "nodes" / hosts.address(number) / "auth_token"
        assert kept.read_text() == secret
        assert kept.stat().st_mode & 0o777 == 0o600
        assert not [command for command in place.left(number) if secret in command]
    assert "up already" in place.run("up", "bare_metal", code=2)
    another = place.folder / "another"  # somebody else, who names the same hosts
    shutil.copytree(one.folder / "clusters", another / "clusters")
    other = place.word("up", "bare_metal", folder=another)
    said, _ = other.communicate(timeout=120)
    assert other.returncode == 2, said
    assert "a node of ours runs here already" in said
    assert all(place.left(number) for number in (1, 2, 3)), "it ended the cluster of another checkout"

    with (place.folder / "first.log").open("w") as output:
        first = place.word("job", "tiny.yaml", output=output)
    wait_for(lambda: len(one.events("trial_finished")) >= 1, first)
    first.send_signal(signal.SIGHUP)  # the terminal is closed
    assert first.wait(60) == 128 + signal.SIGHUP
    assert not place.left(CLIENT), "a tunnel is left"

    second_log = place.folder / "second.log"
    with second_log.open("w") as output:
        second = place.word("job", "tiny.yaml", output=output)
    wait_for(lambda: "attached to sarx-tiny-1" in second_log.read_text(), second)
    wait_for(lambda: one.events("epoch")[-1]["epoch"] if one.events("epoch") else 0, second)
    for pid in hosts.processes(3):  # a host loses power
        os.kill(pid, signal.SIGKILL)
    hosts.cut(3)
    assert second.wait(900) == 0, second_log.read_text()[-3000:]
    assert second_log.read_text().count("running 10 trials") == 1  # the whole log, once

    finished = Counter(event["trial_id"] for event in one.events("trial_finished"))
    assert len(finished) == 10
    assert set(finished.values()) == {1}
    assert "sarx-tiny-1: succeeded" in place.run("status", "tiny")
    assert fetched(place, "tensorboard", "/data/runs", place.folder / "board.log") == "200"
    assert fetched(place, "dashboard", "/api/jobs/", place.folder / "dashboard.log") == "401"
    assert not place.left(CLIENT)
    assert not [command for command in place.left(1) if "tensorboard" in command]
    assert "10.77.0.3: not ended" in place.run("down", code=1)
    assert [place.left(number) for number in (1, 2, 3)] == [[], [], []]
    assert not list((place.folder / "there" / ".sarx" / "nodes").glob("10.77.0.[12]/auth_token"))
