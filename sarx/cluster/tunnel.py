"""A tunnel from a loopback port of this machine to one of a cluster, for as long as it is needed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO

from sarx.cluster.local import free, unused_ports
from sarx.config.errors import UserError

WAIT_S = 60.0
LAST_LINES = 3


@contextlib.contextmanager
def tunnel(command: Callable[[int], list[str]], preferred: int) -> Iterator[int]:
    """Open a tunnel, yield its port on this machine, and close it.

    Args:
        command: From a local port to the command that keeps the tunnel open while it runs.
        preferred: The local port if nothing uses it, else another.

    Raises:
        UserError: If the command ends, or nothing listens within a minute; with what it said.
    """
    port = preferred if free(preferred) else unused_ports(1)[0]
    with tempfile.TemporaryFile() as said, running(command(port), said) as process:
        wait_for(port, process, said)
        yield port


@contextlib.contextmanager
def running(
    command: list[str], output: IO[bytes] | None, stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a group of its own while the block runs; end the group with the block.

    Args:
        command: The command.
        output: Where its output goes; None: to the terminal.
        stdin: As for Popen. With PIPE the command sees its input end when this process does.
    """
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        process_group=0,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
                break


def wait_for(port: int, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    """Wait until a loopback port takes connections.

    Raises:
        UserError: With the last lines of what the process said.
    """
    deadline = time.monotonic() + WAIT_S
    while free(port):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()[-LAST_LINES:]
            why = f"ended with {process.returncode}" if ended else f"did not open within {WAIT_S:.0f} s"
            raise UserError(f"the tunnel {why}: {' / '.join(lines) or 'it said nothing'}", where="tunnel")
        time.sleep(0.1)
