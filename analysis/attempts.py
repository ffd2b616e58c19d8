"""What trials recorded of their attempts: a line each, with the host and the devices."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ATTEMPTS = "attempts.ndjson"
"""In the folder of a trial."""


def read_attempts(study: Path, trials: Iterable[str]) -> list[dict[str, Any]]:
    """Return the attempts of some trials; lines cut short are skipped, trials without the file have none."""
    return [entry for trial in trials for entry in _attempts(study / "trials" / trial / ATTEMPTS)]


def _attempts(path: Path) -> list[dict[str, Any]]:
    """Return the attempts that a trial recorded; none without the file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found += [entry] if isinstance(entry, dict) else []
    return found
