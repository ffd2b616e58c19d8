"""A Ray cluster on this machine for submitted jobs: ``python -m sarx.cluster.local up | down``.

``up`` records what it started in ``.sarx/cluster.json``; ``down`` ends those processes and no others.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from sarx.cluster.processes import alive, end, family, identity
from sarx.cluster.resources import ENVIRONMENT
from sarx.cluster.tokens import own_token
from sarx.config.errors import UserError

RECORD = Path(".sarx/cluster.json")
DASHBOARD_PORT = 8265
WAIT_S = 60.0
ATTEMPTS = 3
LAST_LINES = 5
PORTS = range(20000, 32768)


def up(port: int = DASHBOARD_PORT, cpus: int | None = None) -> None:
    """Start a head node with token authentication and wait until it takes jobs.

    Jobs and dashboard listen on loopback. Ray itself binds its internal ports to the machine's address,
    whatever address it is given; the token guards them.

    Args:
        port: Port of the job server and dashboard.
        cpus: CPUs that the cluster hands out; None: those of this machine.

    Raises:
        UserError: If a cluster of ours runs already, the port is taken, or Ray does not come up.
    """
    if RECORD.exists() and alive(json.loads(RECORD.read_text())["head"]):
        raise UserError("a cluster is up already; use it, or end it with: just down", where=str(RECORD))
    if not free(port):
        raise UserError(
            f"port {port}, for jobs and dashboard, is in use by another process; end that one or choose "
            "another with --port",
            where="just up",
        )
    if RECORD.exists():  # its head has died; what else it started may live
        end_recorded()
    RECORD.parent.mkdir(exist_ok=True)
    log = RECORD.parent / "cluster.log"
    deadline = time.monotonic() + WAIT_S
    attempts = 1
    while not came_up(port, log, deadline, cpus):
        end_recorded()
        if attempts < ATTEMPTS and time.monotonic() < deadline:
            attempts += 1
            continue
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LAST_LINES:]
        raise UserError("\n  ".join([f"Ray did not come up; the end of {log}:", *said]), where="just up")
    print(f"cluster up: jobs and dashboard at http://127.0.0.1:{port} (token authentication on)")
    if port != DASHBOARD_PORT:
        print(f"first: export RAY_API_SERVER_ADDRESS=http://127.0.0.1:{port}")
    print("next: just job search_spaces/ablation.yaml")


def came_up(port: int, log: Path, deadline: float, cpus: int | None = None) -> bool:
    """Start a head, record it, and return whether it takes jobs before the deadline (on the monotonic clock).

    Ports are chosen before Ray listens on them; where another process is quicker, the head exits at once.
    """
    temporary = tempfile.mkdtemp(prefix="sarx-ray-")
    ports = dict(zip(("gcs", "client", "agent"), unused_ports(3, apart_from=port), strict=True))
    ports["dashboard"] = port
    head = start_head(ports, temporary, log, cpus)
    record: dict[str, Any] = {
        "head": identity(head.pid),
        "ports": ports,
        "temporary": temporary,
        "log": str(log),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    while free(ports["agent"]) or not answers(port):
        if head.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.3)
    record["processes"] = family(head.pid)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return True


def start_head(
    ports: dict[str, int], temporary: str, log: Path, cpus: int | None = None
) -> subprocess.Popen[bytes]:
    """Start ``ray start --head --block`` in a session of its own; make the token where there is none."""
    environment = {**os.environ, **{k: os.environ.get(k, v) for k, v in ENVIRONMENT.items()}}
    bin_folder = Path(sys.executable).parent
    environment["PATH"] = f"{bin_folder}{os.pathsep}{environment['PATH']}"
    ray = str(bin_folder / "ray")
    own_token(make=True)
    options = {
        "node-ip-address": "127.0.0.1",
        "port": ports["gcs"],
        "ray-client-server-port": ports["client"],
        "temp-dir": f"{temporary}/ray",  # Ray lets everybody write there; the folder around it is ours alone
        "include-dashboard": "true",
        "dashboard-host": "127.0.0.1",
        "dashboard-port": ports["dashboard"],
        "dashboard-agent-listen-port": ports["agent"],  # where submitted jobs are handed to
    }
    command = [ray, "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--{name}={value}" for name, value in options.items()]
    command += [f"--num-cpus={cpus}"] if cpus else []
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def down() -> None:
    """End the cluster that ``up`` started, with everything it started in turn."""
    if not RECORD.exists():
        print("no cluster of ours is up")
        return
    print(f"cluster down: {end_recorded()} processes ended")


def end_recorded() -> int:
    """End what the record names, forget the record, and return how many processes that were."""
    record = json.loads(RECORD.read_text())
    count = end(record["head"], record.get("processes", []))
    if record["temporary"].startswith(str(Path(tempfile.gettempdir()) / "sarx-ray-")):
        shutil.rmtree(record["temporary"], ignore_errors=True)
    RECORD.unlink()
    return count


def free(port: int) -> bool:
    """Return whether nothing listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def unused_ports(count: int, apart_from: int | None = None) -> list[int]:
    """Return loopback ports that nothing uses now.

    They lie above those that Ray gives its workers (10002-19999: Ray refuses to start with a port of ours
    among them) and below those that Linux usually gives to outgoing connections (from 32768), so that neither
    takes one before we listen on it. A port that the system picks can be either.
    """
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port != apart_from:
            found.append(port)
        if len(found) == count:
            return found
    raise UserError(f"no unused port in {PORTS.start}-{PORTS.stop - 1}", where="just up")


def answers(port: int, path: str = "/api/version") -> bool:
    """Return whether the dashboard, or what else has the path, speaks HTTP; being refused counts."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).close()
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except OSError:
        return False
    return True


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m sarx.cluster.local", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("up", "down"))
    parser.add_argument("--port", type=int, default=DASHBOARD_PORT, help="of jobs and dashboard (up)")
    parser.add_argument("--cpus", type=int, help="that the cluster hands out (up; default: this machine's)")
    return parser


def main() -> int:
    """Run ``up`` or ``down``."""
    options = parser().parse_args()
    try:
        up(options.port, options.cpus) if options.action == "up" else down()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
