"""One Ray node on this host, started and ended over ssh: ``python -m sarx.cluster.node up | down --ip IP``.

``up`` reads the token as a line of its standard input, keeps it in a file of mode 600, records what it
started in ``.sarx/nodes/IP/node.json`` of the folder it runs in, and prints that. Where its standard input
ends meanwhile, as with a lost connection, it ends what it started. ``down`` ends those processes and no
others, and none of another cluster. Ports are fixed, so that a firewall can be told of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarx.cluster.local import answers
from sarx.cluster.place import STATE
from sarx.cluster.processes import alive, end, family, identity, marked
from sarx.cluster.resources import ENVIRONMENT
from sarx.config.errors import UserError, exit_code

GCS_PORT = 6379
DASHBOARD_PORT = 8265
PORTS = {
    "object-manager-port": 8076,
    "node-manager-port": 8077,
    "dashboard-agent-grpc-port": 8078,
    "runtime-env-agent-port": 8079,
    "dashboard-agent-listen-port": 52365,
    "min-worker-port": 10002,
    "max-worker-port": 19999,
}
"""Between the hosts, besides GCS_PORT of the head. Nothing outside them needs any but ssh."""
CLIENT_PORT = 10001
MARK = "SARX_NODE"
"""Variable in the environment of all that a node starts."""
WAIT_S = 400.0
ATTEMPTS = 6
LAST_LINES = 5
STARTED = b"Ray runtime started"


def folder_of(ip: str) -> Path:
    """Return the folder of a node's record, token and log. Hosts may share the file system."""
    return (STATE / "nodes" / ip.replace(":", "_")).resolve()


@dataclass(frozen=True)
class Wanted:
    """A node to be.

    Args:
        ip: Address of this host that the others reach.
        join: IP:PORT of the head; None: this is the head.
        token: Of the cluster.
        cluster: Which cluster it is for; '' is all the same.
        cpus: CPUs that it hands out; None: those of this host.
        gpus: GPUs likewise.
    """

    ip: str
    join: str | None
    token: str
    cluster: str = ""
    cpus: int | None = None
    gpus: int | None = None


def up(node: Wanted, left: Callable[[], bool]) -> Any:
    """Start a node and wait until it takes part; return its record.

    Args:
        node: What to start.
        left: Whether who asked for it is gone; the node then ends.

    Raises:
        UserError: If a node of ours runs here already, the token is empty, a port is in use, or Ray does not
            start.
    """
    ip, folder = node.ip, folder_of(node.ip)
    path = folder / "node.json"
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        if alive(record["head"]) or alive(record.get("starter", record["head"])):
            raise UserError("a node of ours runs here already; end it first", where=str(path))
        down(ip)  # it has died; what it started may live
    if not node.token:
        raise UserError("no token on the standard input", where="node up")
    check_ports(node)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = folder / "auth_token"
    write_secret(secret, node.token)
    deadline = time.monotonic() + WAIT_S
    for attempt in range(1, ATTEMPTS + 1):
        record = came_up(node, secret, deadline, left)
        if left():
            down(ip)
            raise UserError("who asked for the node has gone; it is ended", where=ip)
        if record:
            return record
        if attempt == ATTEMPTS or time.monotonic() > deadline:
            break
        down(ip)
        write_secret(secret, node.token)
    kept = json.loads(path.read_text(encoding="utf-8"))["temporary"]
    down(ip, keep=True)
    said = (folder / "ray.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    more = f"more in {kept}/ray/session_latest/logs of that host"
    raise UserError(f"Ray did not start: {' / '.join(said[-LAST_LINES:])}; {more}", where=ip)


def write_secret(path: Path, token: str) -> None:
    """Write a file that only this user can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token)


def check_ports(node: Wanted) -> None:
    """Refuse a host where something else listens on a port of ours; Ray would wait for it, or say little.

    Raises:
        UserError: Naming the port.
    """
    fixed = [("0.0.0.0", port) for name, port in PORTS.items() if "worker" not in name]
    if node.join is None:
        fixed += [("0.0.0.0", GCS_PORT), ("0.0.0.0", CLIENT_PORT), ("127.0.0.1", DASHBOARD_PORT)]
    for address, port in fixed:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise UserError(
                    f"port {port} cannot be used ({error.strerror}); it must be free on every host",
                    where=node.ip,
                ) from None


def came_up(node: Wanted, secret: Path, deadline: float, left: Callable[[], bool]) -> Any:
    """Start a node, record it, and return its record once it takes part; None if it ends or is late.

    Ray gives its own processes 15 to 30 s to start, which a host that is busy or reads its files over the
    network for the first time does not keep.
    """
    folder = folder_of(node.ip)
    # everybody may write to Ray's folder, were it not in ours
    mark, temporary = uuid.uuid4().hex, tempfile.mkdtemp(prefix="sarx-", dir="/tmp")
    with (folder / "ray.log").open("wb") as output:
        process = subprocess.Popen(
            [*start_command(node), f"--temp-dir={temporary}/ray"],
            env=environment(secret, mark),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    record: dict[str, Any] = {"head": identity(process.pid), "mark": mark, "temporary": temporary}
    record |= {"processes": [], "starter": identity(os.getpid()), "cluster": node.cluster}
    (folder / "node.json").write_text(json.dumps(record), encoding="utf-8")
    while STARTED not in (folder / "ray.log").read_bytes() or (
        node.join is None and not answers(DASHBOARD_PORT)
    ):
        if process.poll() is not None or time.monotonic() > deadline or left():
            return None
        time.sleep(0.2)
    record["processes"] = family(process.pid)
    del record["starter"]
    (folder / "node.json").write_text(json.dumps(record), encoding="utf-8")
    return record


def start_command(node: Wanted) -> list[str]:
    """Return the ``ray start`` of a node."""
    options: dict[str, Any] = {"node-ip-address": node.ip} | PORTS
    if node.join is None:
        options |= {"port": GCS_PORT, "ray-client-server-port": CLIENT_PORT, "include-dashboard": "true"}
        options |= {"dashboard-host": "127.0.0.1", "dashboard-port": DASHBOARD_PORT}
    else:
        options["address"] = node.join
    if node.cpus is not None:
        options["num-cpus"] = node.cpus
    if node.gpus is not None:
        options["num-gpus"] = node.gpus
    ray = str(Path(sys.executable).with_name("ray"))
    head = ["--head"] if node.join is None else []
    return [
        ray,
        "start",
        *head,
        "--block",
        "--disable-usage-stats",
        *(f"--{k}={v}" for k, v in options.items()),
    ]


def environment(secret: Path, mark: str) -> dict[str, str]:
    """Return the environment of a node: jobs find this Python first, and nothing finds another token."""
    found = {key: value for key, value in os.environ.items() if key not in ("RAY_AUTH_TOKEN", "RAY_ADDRESS")}
    found = {**ENVIRONMENT, **found, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(secret), MARK: mark}
    found["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{found.get('PATH', os.defpath)}"
    return found


def down(ip: str, keep: bool = False, cluster: str = "") -> int:
    """End what ``up`` started here, and return how many processes that were.

    Args:
        ip: Address of this host.
        keep: Leave Ray's temporary folder, which has its logs.
        cluster: Leave the node of any other cluster alone.
    """
    folder = folder_of(ip)
    path = folder / "node.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    if cluster and record.get("cluster", cluster) != cluster:
        return 0
    starter = record.get("starter")
    if starter and starter["pid"] != os.getpid() and alive(starter):
        os.kill(starter["pid"], signal.SIGKILL)  # it would start the node again
    count = end(record["head"], record["processes"], lambda: marked(MARK, record["mark"]))
    if not keep and record["temporary"].startswith("/tmp/sarx-"):
        shutil.rmtree(record["temporary"], ignore_errors=True)
    (folder / "auth_token").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    return count


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sarx.cluster.node", description="A Ray node on this host."
    )
    parser.add_argument("action", choices=("up", "down"))
    parser.add_argument("--ip", required=True, help="address of this host that the others reach")
    parser.add_argument("--join", metavar="IP:PORT", help="of the head (up; default: be the head)")
    parser.add_argument("--cluster", default="", help="that the node is of (down: leave others alone)")
    parser.add_argument("--cpus", type=int, help="that the node hands out (default: this host's)")
    parser.add_argument("--gpus", type=int, help="that the node hands out (default: this host's)")
    return parser


def main() -> int:
    """Run ``up`` or ``down`` and print the outcome as one line of JSON."""
    options = parser().parse_args()

    def run() -> int:
        if options.action == "up":
            token, end_of_input = sys.stdin.readline().strip(), threading.Event()
            node = Wanted(options.ip, options.join, token, options.cluster, options.cpus, options.gpus)

            def wait_for_the_end() -> None:
                while os.read(0, 4096):  # past sys.stdin, whose lock Python would want when it ends
                    pass
                end_of_input.set()

            threading.Thread(target=wait_for_the_end, daemon=True).start()
            outcome = up(node, end_of_input.is_set)
        else:
            outcome = {"ended": down(options.ip, cluster=options.cluster)}
        print(json.dumps(outcome), flush=True)
        return 0

    return exit_code(run, "stopped")


if __name__ == "__main__":
    sys.exit(main())
