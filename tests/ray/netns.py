"""Several hosts on one machine: network namespaces of our own, joined by a bridge that is in a further one.

Needs root and iproute2 (Debian's package of that name). Nothing outside the namespaces can be reached from
them, and they are gone with the ``Hosts``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sarx.cluster.processes import alive, identity
from tests.titles import titled

PORT = 6379
MISSING = "needs root" if os.geteuid() else "needs iproute2" if shutil.which("ip") is None else ""


class Hosts:
    """Namespaces ``1 .. count`` with addresses 10.77.0.1 .. count, and a Ray node in each.

    Args:
        count: Hosts.
        folder: For the logs of the nodes.
        apart: Folder of which each command that is run on a host sees an empty one of its own, as on a disk
            that no other host has; None: hosts share all folders.
    """

    def __init__(self, count: int, folder: Path, apart: Path | None = None) -> None:
        """Make the namespaces; on any trouble nothing of them stays."""
        self.tag, self.folder, self.apart = f"sarx{os.getpid()}", folder, apart
        self.numbers = range(1, count + 1)
        self.nodes: dict[int, subprocess.Popen[bytes]] = {}
        self.started: list[dict[str, int]] = []
        try:
            self._ip("netns", "add", self.net)
            self._ip("-n", self.net, "link", "add", "bridge", "type", "bridge")
            self._ip("-n", self.net, "link", "set", "bridge", "up")
            for number in self.numbers:
                self._join(number)
        except BaseException:
            self.close()
            raise

    @property
    def net(self) -> str:
        """Namespace of the bridge."""
        return f"{self.tag}-net"

    def name(self, number: int) -> str:
        """Return the namespace of a host."""
        return f"{self.tag}-{number}"

    @staticmethod
    def address(number: int) -> str:
        """Return the address of a host."""
        return f"10.77.0.{number}"

    def command(self, number: int, command: Sequence[str]) -> list[str]:
        """Return a command as it is run on a host."""
        inside = ["ip", "netns", "exec", self.name(number)]  # with a view of the file system of its own, too
        if self.apart is None:
            return [*inside, *command]
        disk = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
        return [*inside, "sh", "-c", disk, str(self.apart), *command]

    def start_node(self, number: int, cpus: int, environment: dict[str, str], *options: str) -> None:
        """Start a Ray node on a host; that of host 1 is the head."""
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, "start", "--block", f"--node-ip-address={self.address(number)}", f"--num-cpus={cpus}"]
        if number == 1:
            command += ["--head", f"--port={PORT}", "--include-dashboard=false"]
        else:
            command += [f"--address={self.address(1)}:{PORT}"]
        log = (self.folder / f"node-{number}.log").open("wb")
        with log:
            process = subprocess.Popen(
                self.command(number, [*command, *options]),
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.nodes[number] = process

    def wait(self, number: int, seconds: float = 120.0) -> None:
        """Wait until the Ray node of a host is up."""
        deadline, log = time.monotonic() + seconds, self.folder / f"node-{number}.log"
        while b"Ray runtime started" not in log.read_bytes():
            assert time.monotonic() < deadline, log.read_text()
            assert self.nodes[number].poll() is None, log.read_text()
            time.sleep(0.2)

    def cut(self, number: int, *, off: bool = True) -> None:
        """Cut a host off from all others, or join it again."""
        self._ip("-n", self.net, "link", "set", f"port{number}", "down" if off else "up")

    def processes(self, number: int) -> list[int]:
        """Return the processes on a host."""
        found = subprocess.run(["ip", "netns", "pids", self.name(number)], capture_output=True, check=False)
        return [int(word) for word in found.stdout.split()]

    def runs(self, number: int, *titles: bytes) -> bool:
        """Return whether a process with such a title runs on a host."""
        return bool(titled(self.processes(number), *titles))

    def close(self) -> None:
        """End everything that runs on the hosts, and remove them."""
        for number in self.numbers:
            for entry in [identity(pid) for pid in self.processes(number)]:
                with contextlib.suppress(ProcessLookupError):
                    if alive(entry):
                        os.kill(entry["pid"], signal.SIGKILL)
        for process in self.nodes.values():
            process.wait(30)
        for name in (*map(self.name, self.numbers), self.net):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def _join(self, number: int) -> None:
        name, port = self.name(number), f"port{number}"
        self._ip("netns", "add", name)
        self._ip("-n", self.net, "link", "add", port, "type", "veth", "peer", "eth0", "netns", name)
        self._ip("-n", self.net, "link", "set", port, "master", "bridge", "up")
        self._ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        self._ip("-n", name, "link", "set", "eth0", "up")
        self._ip("-n", name, "link", "set", "lo", "up")

    @staticmethod
    def _ip(*arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
