"""A Ray cluster on hosts that ssh reaches: a node on each, the first is the head.

``up`` copies nothing but the token, over ssh's standard input; ``down`` ends what ``up`` recorded.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import secrets
import shlex
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarx.cluster.node import GCS_PORT
from sarx.cluster.place import SETTINGS, Site
from sarx.cluster.tokens import make_token
from sarx.config.errors import UserError

HOSTS = "hosts.txt"
KEYS = ("SSH_USER", "SSH_OPTIONS", "SARX_FOLDER", "SARX_STORAGE")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
FIELDS = ("ip", "cpus", "gpus")
SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15")
WAIT_S = 460.0


@dataclass(frozen=True)
class Host:
    """A line of the host list.

    Args:
        address: What ssh is given.
        ip: By which the other hosts reach it.
        cpus: That it hands out; None: all.
        gpus: Likewise.
    """

    address: str
    ip: str
    cpus: int | None = None
    gpus: int | None = None


def read_hosts(path: Path) -> list[Host]:
    """Return the hosts of a list, the head first.

    Raises:
        UserError: With file and line, for a name that ssh could take for an option, an unknown field, no
            number where one belongs, an address twice, or an empty list.
    """
    found: list[Host] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words, where = line.partition("#")[0].split(), f"{path}:{number}"
        if not words:
            continue
        fields: dict[str, str] = {}
        for word in words[1:]:
            key, equals, value = word.partition("=")
            if not equals or key not in FIELDS or key in fields:
                raise UserError(f"{word!r} is none of ip=, cpus=, gpus=, each once", where=where)
            fields[key] = value
        if not NAME.fullmatch(words[0]):
            raise UserError(f"{words[0]!r} is no address", where=where)
        ip = given_ip(fields["ip"], where) if "ip" in fields else ip_of(words[0], where)
        host = Host(words[0], ip, *numbers(fields, where))
        if any(host.ip == other.ip for other in found):
            raise UserError(f"{host.ip} is there twice", where=where)
        found.append(host)
    if not found:
        raise UserError("names no host", where=str(path))
    return found


def numbers(fields: dict[str, str], where: str) -> list[int | None]:
    """Return cpus and gpus of a line."""
    found: list[int | None] = []
    for key, lowest in (("cpus", 1), ("gpus", 0)):
        text = fields.get(key)
        if text is not None and not (text.isdecimal() and int(text) >= lowest):
            raise UserError(f"{key}={text} is no whole number from {lowest}", where=where)
        found.append(None if text is None else int(text))
    return found


def given_ip(text: str, where: str) -> str:
    """Return an IP address that a line gives.

    Raises:
        UserError: If it is none, or one that other hosts cannot use.
    """
    try:
        found = ipaddress.IPv4Address(text)
    except ValueError:
        raise UserError(f"ip={text} is no IPv4 address", where=where) from None
    if found.is_loopback or found.is_unspecified:
        raise UserError(f"ip={text}: no other host reaches this one by it", where=where)
    return str(found)


def ip_of(address: str, where: str) -> str:
    """Return the IPv4 address that a name has here.

    Raises:
        UserError: If it has none, or one that other hosts cannot use.
    """
    try:
        known = socket.getaddrinfo(address, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
        found = str(known[0][4][0])
    except OSError as error:
        raise UserError(
            f"{address} has no IP address here ({error}); add ip=, by which the other hosts reach it",
            where=where,
        ) from None
    if ipaddress.ip_address(found).is_loopback:
        raise UserError(f"{address} is {found}; add ip=, by which the other hosts reach it", where=where)
    return found


def ssh(site: Site, address: str, command: str, *options: str) -> list[str]:
    """Return the ssh that runs a shell command on a host."""
    user, extra = site.settings["SSH_USER"], shlex.split(site.settings["SSH_OPTIONS"])
    target = f"{user}@{address}" if user else address
    return [*SSH, *extra, *options, "--", target, *([command] if command else [])]


def there(site: Site, *words: str) -> str:
    """Return the shell command that runs words with the hosts' Python in the hosts' folder."""
    folder = site.settings["SARX_FOLDER"]
    return f"cd {shlex.quote(folder)} && exec {shlex.join(['.venv/bin/python', *words])}"


def node_command(site: Site, host: Host, head: Host | None, cluster: str) -> str:
    """Return the shell command that starts the node of a host; ``cluster`` tells ours from others."""
    words = ["-m", "sarx.cluster.node", "up", f"--ip={host.ip}", f"--cluster={cluster}"]
    words += [f"--join={head.ip}:{GCS_PORT}"] if head else []
    words += [f"--cpus={host.cpus}"] if host.cpus is not None else []
    words += [f"--gpus={host.gpus}"] if host.gpus is not None else []
    return there(site, *words)


def record_of(site: Site) -> Path:
    """Return the file in which we record the hosts that have a node."""
    return site.state / "cluster.json"


def up(site: Site, arguments: list[str]) -> None:
    """Start the head, then the other nodes at once; on any trouble end those that were started.

    Raises:
        UserError: If a cluster of ours is up already, or a host does not start its node.
    """
    if arguments:
        raise UserError(
            f"unknown: {' '.join(arguments)}; the hosts stand in {HOSTS}", where="just up bare_metal"
        )
    record = record_of(site)
    if record.exists():
        raise UserError(
            "a cluster is up already; use it, or end it with: just down bare_metal", where=str(record)
        )
    if not site.settings["SARX_FOLDER"].startswith("/"):
        raise UserError("is no absolute folder", where=str(site.folder / SETTINGS), key="SARX_FOLDER")
    _ = site.storage
    head, *others = read_hosts(site.folder / HOSTS)
    make_token(site.token)
    started: dict[str, dict[str, Any]] = {}
    cluster = secrets.token_hex(8)
    try:
        start_group(site, [head], None, cluster, started)
        start_group(site, others, head, cluster, started)
    except BaseException:
        down(site)
        raise
    print(f"cluster up on {len(started)} hosts (token authentication on); head: {head.address}")


def start_group(
    site: Site, group: list[Host], join: Host | None, cluster: str, started: dict[str, dict[str, Any]]
) -> None:
    """Start the nodes of some hosts at once, and record them before and after.

    A start that is still under way when this one is left ends itself, since its standard input does.

    Raises:
        UserError: Of the first that did not start, once all have answered.
    """
    record, token = record_of(site), site.token.read_text(encoding="utf-8")
    started |= {host.address: {"ip": host.ip, "cluster": cluster} for host in group}
    record.write_text(json.dumps(started, indent=1), encoding="utf-8")
    troubles = []
    with contextlib.ExitStack() as launches:
        waiting = {}
        for host in group:
            command = ssh(site, host.address, node_command(site, host, join, cluster))
            waiting[host] = launches.enter_context(launched(command, token))
        for host, process in waiting.items():
            try:
                started[host.address] |= outcome(host, process)
                print(f"{host.address}: a node is up", flush=True)
            except UserError as error:
                troubles.append(error)
    if troubles:
        raise troubles[0]
    record.write_text(json.dumps(started, indent=1), encoding="utf-8")


@contextlib.contextmanager
def launched(command: list[str], token: str) -> Iterator[subprocess.Popen[str]]:
    """Run the start of a node; its standard input brings the token, and stays open while the block runs."""
    inside, outside = os.pipe()
    try:
        process = subprocess.Popen(
            command, stdin=inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(inside)
    try:
        with contextlib.suppress(BrokenPipeError):  # ssh has ended; what it said comes with its outcome
            os.write(outside, f"{token}\n".encode())
        yield process
    finally:
        os.close(outside)
        if process.poll() is None:
            process.kill()
            process.wait()


def outcome(host: Host, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a node and return its record.

    Raises:
        UserError: With what the host said.
    """
    try:
        said, trouble = process.communicate(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        raise UserError(f"no answer within {WAIT_S:.0f} s", where=host.address) from None
    if process.returncode:
        raise UserError(trouble.strip() or f"ssh ended with {process.returncode}", where=host.address)
    found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return found


def down(site: Site) -> int:
    """End the nodes that are recorded; return 1 if a host could not be reached, else 0.

    Hosts that could not be reached stay recorded, so that the same command ends them later.
    """
    record = record_of(site)
    if not record.exists():
        print("no cluster of ours is up")
        return 0
    hosts: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    waiting = {
        address: subprocess.Popen(
            ssh(site, address, there(site, "-m", "sarx.cluster.node", "down", *which(entry))),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for address, entry in hosts.items()
    }
    for address, process in waiting.items():
        said, trouble = process.communicate()
        if process.returncode == 0:
            print(f"{address}: {json.loads(said.strip().splitlines()[-1])['ended']} processes ended")
            del hosts[address]
        else:
            print(f"{address}: not ended ({' '.join(trouble.split()) or 'no answer'})")
    if hosts:
        record.write_text(json.dumps(hosts, indent=1), encoding="utf-8")
        print("give the command again when these can be reached, or delete", record)
        return 1
    record.unlink()
    return 0


def which(entry: dict[str, Any]) -> list[str]:
    """Return the words that name a node which is recorded, and spare that of another cluster."""
    cluster = entry.get("cluster")
    return [f"--ip={entry['ip']}", *([f"--cluster={cluster}"] if cluster else [])]


def head_of(site: Site) -> str:
    """Return the address of the head of the cluster that is up.

    Raises:
        UserError: If none is.
    """
    record = record_of(site)
    if not record.exists():
        raise UserError("no cluster is up; start one with: just up bare_metal", where="bare_metal")
    return str(next(iter(json.loads(record.read_text(encoding="utf-8")))))


def shell(site: Site, command: str) -> list[str]:
    """Return what runs a shell command in the folder on the head."""
    folder = shlex.quote(site.settings["SARX_FOLDER"])
    inside = f'cd {folder} && PATH="$PWD/.venv/bin:$PATH" exec bash -c {shlex.quote(command)}'
    return ssh(site, head_of(site), inside)


def forward(site: Site, local: int, remote: int) -> list[str]:
    """Return what keeps a tunnel open from a loopback port here to one of the head."""
    forwarding = f"127.0.0.1:{local}:127.0.0.1:{remote}"
    return ssh(site, head_of(site), "", "-N", "-o", "ExitOnForwardFailure=yes", "-L", forwarding)
