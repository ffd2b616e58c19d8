"""Places: settings, marked values, tokens, host lists, tunnels, and what ends with a node."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sarx.cluster import bare_metal, node, words
from sarx.cluster.local import unused_ports
from sarx.cluster.place import MARKED, Site, open_site, read_settings
from sarx.cluster.places import PLACES
from sarx.cluster.processes import alive, end, identity, marked
from sarx.cluster.tunnel import tunnel
from sarx.config.errors import UserError

ELSEWHERE = [name for name in PLACES if name != "local"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_settings_mean_the_same_to_a_shell(checkout, name):
    path = Path("clusters") / name / "place.env"
    path.write_text(path.read_text().replace("SSH_OPTIONS=", "SSH_OPTIONS='-i key -p 22'"))
    site = open_site(name, PLACES[name].keys)
    for key, value in site.settings.items():
        asked = subprocess.run(
            ["bash", "-c", f'. {path}; printf %s "${key}"'], capture_output=True, text=True, check=True
        )
        assert asked.stdout == value
    assert site.storage == site.settings["SARX_STORAGE"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("STORAGE=/x\n", r"env:1: STORAGE: no setting of this place; did you mean 'SARX_STORAGE'"),
        ("SARX_STORAGE=/x\nnonsense\n", r"env:2: no line of KEY=VALUE"),
        ("SARX_STORAGE=$HOME/x\n", r"env:1: .* would mean something else to a shell"),
        ("SARX_STORAGE=/x y\n", r"env:1: .* would mean something else to a shell"),
        ("# nothing\n", r"env: SARX_STORAGE: is missing"),
    ],
)
def test_wrong_settings_are_refused_with_file_and_line(tmp_path, text, said):
    path = tmp_path / "place.env"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_settings(path, ("SARX_STORAGE",))


@pytest.mark.parametrize("storage", ["results", "", "s3:/bucket"])
def test_results_need_a_place_that_all_nodes_see(storage, tmp_path):
    site = Site("aws", tmp_path, tmp_path, {"SARX_STORAGE": storage})
    with pytest.raises(UserError, match="neither an absolute folder nor a URL"):
        _ = site.storage
    assert Site("aws", tmp_path, tmp_path, {"SARX_STORAGE": "gs://bucket/x"}).storage == "gs://bucket/x"


@pytest.mark.parametrize("name", ELSEWHERE)
def test_up_refuses_marked_values_by_file_and_line_and_starts_nothing(name, tmp_path, monkeypatch, capsys):
    shutil.copytree("clusters", tmp_path / "clusters")
    monkeypatch.chdir(tmp_path)
    assert words.main(["up", name]) == 2
    said = capsys.readouterr().err
    found = re.findall(r"(\S+):(\d+): (FILL_IN_\w+)", said)
    assert found
    for file, line, mark in found:
        assert mark in Path(file).read_text().splitlines()[int(line) - 1]
    left = sum(
        len(MARKED.findall((Path("clusters") / name / file).read_text())) for file in PLACES[name].files
    )
    assert len(found) == left
    assert not Path(".sarx").exists()


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("word", ["job", "status", "logs", "tensorboard", "dashboard", "down"])
def test_no_word_goes_to_a_place_with_marked_values(word, name, tmp_path, monkeypatch, capsys):
    shutil.copytree("clusters", tmp_path / "clusters")
    monkeypatch.chdir(tmp_path)
    place = [name] if word == "down" else ["--place", name]
    assert words.main([word, *place, *(["x.yaml"] if word == "job" else [])]) == 2
    assert "fill in the marked values first" in capsys.readouterr().err


# ------------------------------------------------------------ bare metal


def test_a_host_list_is_read(tmp_path):
    path = tmp_path / "hosts.txt"
    path.write_text("# a comment\n10.1.0.1 gpus=0 # the head\n\nnode2 ip=10.1.0.2 cpus=8 gpus=4\n")
    assert bare_metal.read_hosts(path) == [
        bare_metal.Host("10.1.0.1", "10.1.0.1", None, 0),
        bare_metal.Host("node2", "10.1.0.2", 8, 4),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.1.0.1 cpu=3", r":1: 'cpu=3' is none of"),
        ("10.1.0.1 cpus=0", r":1: cpus=0 is no whole number from 1"),
        ("10.1.0.1\n10.1.0.1", r":2: 10.1.0.1 is there twice"),
        ("-oProxyCommand=x ip=10.1.0.1", r":1: '-oProxyCommand=x' is no address"),
        ("127.0.0.1", r":1: 127.0.0.1 is 127.0.0.1; add ip="),
        ("node2 ip=10.1.0", r":1: ip=10.1.0 is no IPv4 address"),
        ("node2 ip=", r":1: ip= is no IPv4 address"),
        ("node2 ip=fd00::1", r":1: ip=fd00::1 is no IPv4 address"),
        ("node2 ip=127.0.1.1", r":1: ip=127.0.1.1: no other host reaches this one by it"),
        ("# none", r"names no host"),
    ],
)
def test_wrong_host_lists_are_refused_with_file_and_line(tmp_path, text, said):
    path = tmp_path / "hosts.txt"
    path.write_text(text + "\n")
    with pytest.raises(UserError, match=said):
        bare_metal.read_hosts(path)


def test_commands_for_hosts_survive_a_shell_and_hold_no_token(tmp_path):
    settings = {
        "SSH_USER": "me",
        "SSH_OPTIONS": "-F 'my config'",
        "SARX_FOLDER": "/a b/sarx",
        "SARX_STORAGE": "/r",
    }
    site = Site("bare_metal", tmp_path, tmp_path, settings)
    host, head = bare_metal.Host("two", "10.1.0.2", 8, 0), bare_metal.Host("one", "10.1.0.1")
    command = bare_metal.ssh(site, host.address, bare_metal.node_command(site, host, head, "c1"))
    assert command[-3:-1] == ["--", "me@two"]
    assert command[command.index("-F") + 1] == "my config"
    echoed = command[-1].replace("exec ", "echo ").replace("cd ", "echo ")
    shown = subprocess.run(["bash", "-c", echoed], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == [
        "/a b/sarx",
        ".venv/bin/python -m sarx.cluster.node up --ip=10.1.0.2 --cluster=c1 --join=10.1.0.1:6379 --cpus=8 "
        "--gpus=0",
    ]


def test_a_node_keeps_to_its_ports():
    head = node.start_command(node.Wanted("10.1.0.1", None, "t", cpus=4, gpus=0))
    other = node.start_command(node.Wanted("10.1.0.2", "10.1.0.1:6379", "t"))
    assert {"--head", "--dashboard-host=127.0.0.1", "--port=6379", "--num-cpus=4", "--num-gpus=0"} <= {*head}
    assert not [word for word in other if "dashboard-host" in word or word == "--head" or "num-" in word]
    single = [port for name, port in node.PORTS.items() if "worker" not in name]
    single += [node.GCS_PORT, node.DASHBOARD_PORT, node.CLIENT_PORT]
    workers = range(node.PORTS["min-worker-port"], node.PORTS["max-worker-port"] + 1)
    assert len(set(single)) == len(single)
    assert not set(single) & {*workers}
    text = Path("clusters/bare_metal/README.md").read_text()
    opened = [range(int(a), int(b or a) + 1) for a, b in re.findall(r"(\d{4,5})(?: to (\d{4,5}))?", text)]
    between = {*node.PORTS.values(), node.GCS_PORT, node.CLIENT_PORT}
    assert all(any(port in ports for ports in opened) for port in between)


def test_a_nodes_environment_has_one_token(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    found = node.environment(tmp_path / "secret", "mark")
    assert "RAY_AUTH_TOKEN" not in found
    assert (found["RAY_AUTH_MODE"], found["RAY_AUTH_TOKEN_PATH"]) == ("token", str(tmp_path / "secret"))
    assert found["PATH"].split(":")[0] == str(Path(sys.executable).parent)


def test_a_node_ends_with_its_descendants_and_those_that_lost_their_parent(tmp_path):
    pids = tmp_path / "pids"
    orphan = f"setsid bash -c 'echo $$ >> {pids}; sleep 300 & echo $! >> {pids}; wait' &"
    script = f"{orphan} sleep 300 & echo $! >> {pids}; wait"
    ours = subprocess.Popen(["bash", "-c", script], env=os.environ | {node.MARK: "m1"})
    other = subprocess.Popen(["sleep", "300"], env=os.environ | {node.MARK: "m2"})
    try:
        deadline = time.monotonic() + 30
        while not pids.exists() or len(pids.read_text().split()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        started = [identity(int(pid)) for pid in pids.read_text().split()]
        head = identity(ours.pid)
        ours.send_signal(signal.SIGKILL)  # a host's head may be gone when its node is ended
        ours.wait()
        assert end(head, [], lambda: marked(node.MARK, "m1")) >= 3
        deadline = time.monotonic() + 10
        while any(alive(entry) for entry in started):
            assert time.monotonic() < deadline, "something is left"
            time.sleep(0.02)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


# ------------------------------------------------------------ tunnels

LISTEN = (
    "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(300)"
)


def test_a_tunnel_is_open_for_as_long_as_it_is_needed():
    (wanted,) = unused_ports(1)
    started = []

    def command(port):
        started.append(port)
        return [sys.executable, "-c", LISTEN, str(port)]

    with socket.create_server(("127.0.0.1", wanted)):
        with tunnel(command, wanted) as port:
            assert port != wanted
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=5)
    assert started == [port]


def test_a_tunnel_that_does_not_open_says_why():
    with (
        pytest.raises(UserError, match="ended with 3: no such host"),
        tunnel(lambda _: ["bash", "-c", "echo no such host >&2; exit 3"], unused_ports(1)[0]),
    ):
        pass


def test_the_node_of_another_cluster_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = node.folder_of("10.1.0.1")
    folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "300"]) as process:
        record = {"head": identity(process.pid), "processes": [], "mark": "none", "temporary": "/x"}
        (folder / "node.json").write_text(json.dumps({**record, "cluster": "a"}))
        assert node.down("10.1.0.1", cluster="b") == 0
        assert process.poll() is None
        with pytest.raises(UserError, match="a node of ours runs here already"):
            node.up(node.Wanted("10.1.0.1", None, "t", "b"), lambda: False)
        assert node.down("10.1.0.1", cluster="a") == 1
        assert process.wait(10) == -signal.SIGTERM
    assert not (folder / "node.json").exists()
    assert node.down("10.1.0.1", cluster="a") == 0


def test_a_port_that_something_else_has_is_named(monkeypatch):
    (port,) = unused_ports(1)
    monkeypatch.setattr(node, "PORTS", {"node-manager-port": port})
    wanted = node.Wanted("127.0.0.1", "10.1.0.1:6379", "t")
    node.check_ports(wanted)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(UserError, match=rf"port {port} cannot be used \(Address already in use\)"):
            node.check_ports(wanted)
