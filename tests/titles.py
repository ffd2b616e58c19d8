"""Processes by how they are titled, as Ray titles those that host trials."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

TRIAL_HOSTS = (b"ray::TrialHost", b"ray::SessionHost", b"ray::ResourceTrainable")
"""What hosts a trial, idle and at work."""


def titled(pids: Iterable[int], *titles: bytes) -> list[int]:
    """Return those of some processes whose title begins with one of these."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(titles):
                found.append(pid)
    return found
