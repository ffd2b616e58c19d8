"""What has changed in a study since its last start, and what that leaves of its finished trials."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

DECISIVE = ("objective", "reference", "trials_per_arm", "seeds", "looks", "steps", "selection", "plan")
"""Entries of ``study_opened`` that decide which trials a study has."""


def changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """Return what differs between two starts, one short text each, in the words of the study file.

    Args:
        before: Payload of the last ``study_opened``; None at the first start.
        after: Payload of this one.
    """
    if before is None:
        return []
    old = dict(_flat({key: before.get(key) for key in DECISIVE}))
    new = dict(_flat({key: after.get(key) for key in DECISIVE}))
    found = [
        f"{key} {_text(old.get(key))} -> {_text(new.get(key))}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and not (key not in old and key.startswith("plan."))
    ]
    arms = [
        {(row["level"], row["arm"]): row for row in payload.get("arms", [])} for payload in (before, after)
    ]
    for key in dict.fromkeys([*arms[0], *arms[1]]):
        name = "/".join(part for part in key if part)
        if key not in arms[0] or key not in arms[1]:
            found.append(f"arm {name} {'added' if key in arms[1] else 'removed'}")
        elif any(arms[0][key].get(part) != arms[1][key].get(part) for part in ("overrides", "parameters")):
            found.append(f"arm {name} changed")
    return found


def describe_changes(found: list[str], finished: int, counting: int) -> list[str]:
    """Return the lines that tell the user what a change of the study costs.

    Args:
        found: What ``changes`` gave.
        finished: Finished trials in the ledger.
        counting: Those of them that the study, as it is now, still has.
    """
    lines = []
    if found:
        shown = "; ".join(found[:8]) + (f"; and {len(found) - 8} more" if len(found) > 8 else "")
        lines.append(f"  changed since the last start: {shown}")
    if finished > counting:
        lines.append(
            f"  {finished - counting} of {finished} finished trials are of another plan, code or winner; "
            "they stay in the ledger and out of the table"
        )
    return lines


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
