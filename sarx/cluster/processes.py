"""Processes by identity, so that what we end is what we started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def identity(pid: int) -> dict[str, Any]:
    """Return a process as (pid, start time), which no later process shares."""
    return {"pid": pid, "started": stat(pid)[19]}


def alive(entry: dict[str, Any]) -> bool:
    """Return whether exactly this process still runs."""
    try:
        fields = stat(entry["pid"])
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[19] == entry["started"] and fields[0] != "Z"


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def family(pid: int) -> list[dict[str, Any]]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                children.setdefault(int(stat(int(path.name))[1]), []).append(int(path.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        try:
            found.append(identity(current))
        except (FileNotFoundError, ProcessLookupError):
            continue
        todo += children.get(current, [])
    return found


def marked(name: str, value: str) -> list[dict[str, Any]]:
    """Return the processes of this user that were started with this variable in their environment.

    It finds those whose parents are gone. A process that has renamed itself, as workers of Ray do, may have
    written over what /proc shows of its environment.
    """
    wanted, found = f"{name}={value}".encode(), []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            try:
                if wanted in (path / "environ").read_bytes().split(b"\0"):
                    found.append(identity(int(path.name)))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found


def end(
    head: dict[str, Any], known: list[dict[str, Any]], more: Callable[[], list[dict[str, Any]]] = list
) -> int:
    """End a process with all its descendants, and others that are known; return how many there were.

    Args:
        head: The process that the others come from; it is asked to leave, and has 10 s for it.
        known: Others that were seen earlier, whose parents may be gone.
        more: Tells of others that run now.
    """
    ours = {entry["pid"]: entry for entry in [*known, *more()] if alive(entry)}
    deadline = time.monotonic()
    if alive(head):
        deadline += 10
        ours |= {entry["pid"]: entry for entry in family(head["pid"])}
        os.kill(head["pid"], signal.SIGTERM)
    while any(alive(entry) for entry in ours.values()) and time.monotonic() < deadline:
        time.sleep(0.1)
    deadline = time.monotonic() + 5
    while (left := [e for e in [*ours.values(), *more()] if alive(e)]) and time.monotonic() < deadline:
        for entry in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry["pid"], signal.SIGKILL)
        time.sleep(0.05)
    return len(ours)


def end_descendants() -> None:
    """Kill what this process started, directly or not: the local Ray, when the driver leaves at once.

    Nothing that is printed from here on is seen: threads of Ray would report the deaths. This does not flush,
    for it is called in signal handlers, which may have interrupted a print.
    """
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    for entry in family(os.getpid()):
        if entry["pid"] != os.getpid() and alive(entry):
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry["pid"], signal.SIGKILL)
