"""One Ray node on this host, started and ended over ssh: ``python -m sarx.cluster.node up | down --ip IP``.

``up`` reads the token as a line of its standard input, keeps it in a file of mode 600, records what it
started in ``.sarx/nodes/IP/node.json`` of the folder it runs in, and prints that. ``down`` ends those
processes and no others. Ports are fixed, so that a firewall can be told of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
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
    "metrics-export-port": 8080,
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


def up(ip: str, join: str | None, token: str, cpus: int | None = None, gpus: int | None = None) -> Any:
    """Start a node and wait until it takes part; return its record.

    Args:
        ip: Address of this host that the others reach.
        join: IP:PORT of the head; None: this is the head.
        token: Of the cluster.
        cpus: CPUs that it hands out; None: those of this host.
        gpus: GPUs likewise.

    Raises:
        UserError: If a node of ours runs here already, the token is empty, or Ray does not start.
    """
    folder = folder_of(ip)
    path = folder / "node.json"
    if path.exists() and alive(json.loads(path.read_text())["head"]):
        raise UserError("a node of ours runs here already; end it first", where=str(path))
    if not token:
        raise UserError("no token on the standard input", where="node up")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = folder / "auth_token"
    write_secret(secret, token)
    deadline = time.monotonic() + WAIT_S
    for attempt in range(1, ATTEMPTS + 1):
        if record := came_up(ip, join, secret, start_command(ip, join, cpus, gpus), deadline):
            return record
        if attempt == ATTEMPTS or time.monotonic() > deadline:
            break
        down(ip)
        write_secret(secret, token)
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


def came_up(ip: str, join: str | None, secret: Path, command: list[str], deadline: float) -> Any:
    """Start a node, record it, and return its record once it takes part; None if it ends or is late.

    Ray gives its own processes 15 to 30 s to start, which a host that is busy or reads its files over the
    network for the first time does not keep.
    """
    folder = folder_of(ip)
    mark, temporary = uuid.uuid4().hex, tempfile.mkdtemp(prefix="sarx-", dir="/tmp")
    with (folder / "ray.log").open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--temp-dir={temporary}/ray"],  # which everybody may write to, were it not in ours
            env=environment(secret, mark),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    record: dict[str, Any] = {"head": identity(process.pid), "mark": mark, "temporary": temporary}
    record["processes"] = []
    (folder / "node.json").write_text(json.dumps(record), encoding="utf-8")
    while STARTED not in (folder / "ray.log").read_bytes() or (join is None and not answers(DASHBOARD_PORT)):
        if process.poll() is not None or time.monotonic() > deadline:
            return None
        time.sleep(0.2)
    record["processes"] = family(process.pid)
    (folder / "node.json").write_text(json.dumps(record), encoding="utf-8")
    return record


def start_command(ip: str, join: str | None, cpus: int | None = None, gpus: int | None = None) -> list[str]:
    """Return the ``ray start`` of a node."""
    options: dict[str, Any] = {"node-ip-address": ip} | PORTS
    if join is None:
        options |= {"port": GCS_PORT, "ray-client-server-port": CLIENT_PORT, "include-dashboard": "true"}
        options |= {"dashboard-host": "127.0.0.1", "dashboard-port": DASHBOARD_PORT}
    else:
        options["address"] = join
    if cpus is not None:
        options["num-cpus"] = cpus
    if gpus is not None:
        options["num-gpus"] = gpus
    ray = str(Path(sys.executable).with_name("ray"))
    head = ["--head"] if join is None else []
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


def down(ip: str, keep: bool = False) -> int:
    """End what ``up`` started here, and return how many processes that were.

    Args:
        ip: Address of this host.
        keep: Leave Ray's temporary folder, which has its logs.
    """
    folder = folder_of(ip)
    path = folder / "node.json"
    if not path.exists():
        return 0
    record = json.loads(path.read_text(encoding="utf-8"))
    count = end(record["head"], record["processes"], lambda: marked(MARK, record["mark"]))
    if not keep and record["temporary"].startswith("/tmp/sarx-"):
        shutil.rmtree(record["temporary"], ignore_errors=True)
    (folder / "auth_token").unlink(missing_ok=True)
    path.unlink()
    return count


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sarx.cluster.node", description="A Ray node on this host."
    )
    parser.add_argument("action", choices=("up", "down"))
    parser.add_argument("--ip", required=True, help="address of this host that the others reach")
    parser.add_argument("--join", metavar="IP:PORT", help="of the head (up; default: be the head)")
    parser.add_argument("--cpus", type=int, help="that the node hands out (default: this host's)")
    parser.add_argument("--gpus", type=int, help="that the node hands out (default: this host's)")
    return parser


def main() -> int:
    """Run ``up`` or ``down`` and print the outcome as one line of JSON."""
    options = parser().parse_args()

    def run() -> int:
        if options.action == "up":
            outcome = up(options.ip, options.join, sys.stdin.readline().strip(), options.cpus, options.gpus)
        else:
            outcome = {"ended": down(options.ip)}
        print(json.dumps(outcome), flush=True)
        return 0

    return exit_code(run, "stopped")


if __name__ == "__main__":
    sys.exit(main())
