"""Processes by identity, so that what we end is what we started."""

from __future__ import annotations

import contextlib
import os
import signal
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


def end_descendants() -> None:
    """Kill what this process started, directly or not: the local Ray, when the driver leaves at once."""
    for entry in family(os.getpid()):
        if entry["pid"] != os.getpid() and alive(entry):
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry["pid"], signal.SIGKILL)
