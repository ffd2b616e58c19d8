"""Where numbers come from: the starts of a study, versions, code, and the machines of its confirm trials."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import polars as pl

from analysis.sources import Sources
from analysis.table import Table


class Starts:
    """All ``study_opened`` events of a ledger.

    Args:
        events: of the ledger.

    Attributes:
        times: when each was written, seconds since the epoch.
        payloads: what each says.
    """

    def __init__(self, events: pl.DataFrame) -> None:
        """Read the payloads."""
        opened = events.filter(pl.col("event") == "study_opened")
        self.times: list[float | None] = opened["time"].to_list()
        self.payloads: list[dict[str, Any]] = [json.loads(text or "{}") for text in opened["payload"]]

    @cached_property
    def places(self) -> list[dict[str, Any]]:
        """Return the provenance of each start; empty where it was not recorded."""
        return [payload.get("provenance") or {} for payload in self.payloads]

    @property
    def last(self) -> dict[str, Any]:
        """Return the payload of the last start."""
        return self.payloads[-1]


def starts_table(starts: Starts) -> Table:
    """Return one row per start: when, where, with which code."""
    columns = ["start", "time (UTC)", "host", "devices", "git commit", "training code", "torch", "Python"]
    rows = []
    for number, (time, payload, place) in enumerate(
        zip(starts.times, starts.payloads, starts.places, strict=True), start=1
    ):
        versions = payload.get("versions") or {}
        rows.append(
            [
                str(number),
                utc(time),
                str(place.get("host") or "-"),
                devices_text(place.get("devices") or {}) or "-",
                commit_text(place.get("git") or {}) or "-",
                str((payload.get("code") or {}).get("digest") or "-")[:16],
                str(versions.get("torch") or "-"),
                str(versions.get("python") or place.get("python") or "-"),
            ]
        )
    return Table("Starts of the study", columns, rows)


def last_start(starts: Starts) -> list[tuple[str, str]]:
    """Return what the last start says beside its row: name and value, without what is not known."""
    payload, place = starts.last, starts.places[-1]
    git, devices, code = place.get("git") or {}, place.get("devices") or {}, payload.get("code") or {}
    versions = payload.get("versions") or {}
    memory = devices.get("memory_gib")
    found = {
        "Command": payload.get("command"),
        "Command of the process": place.get("command")
        if place.get("command") != payload.get("command")
        else "",
        "Git commit": git.get("commit"),
        "Uncommitted changes": {True: "yes", False: "none", None: "not known"}[git.get("dirty")]
        if git
        else "",
        "SHA-256 of the changes": git.get("diff_sha256"),
        "Changes kept in": git.get("diff"),
        "Note on git": git.get("reason"),
        "Digest of the training code": code.get("digest"),
        "Kept in spite of changed code": ", ".join(code.get("kept") or ()),
        "Host": place.get("host"),
        "Devices": devices_text(devices),
        "Memory": f"{memory} GiB" if memory else "",
        "Operating system": place.get("os"),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
    }
    return [(name, str(value)) for name, value in found.items() if value]


def machines_table(sources: Sources) -> Table | None:
    """Return on which hosts and devices the attempts of the confirm trials ran; None if not recorded."""
    found: Counter[tuple[str, str]] = Counter()
    for attempt in sources.attempts:
        found[str(attempt.get("host") or "-"), ", ".join(map(str, attempt.get("devices") or ())) or "-"] += 1
    rows = [[host, devices, str(count)] for (host, devices), count in sorted(found.items())]
    if not rows:
        return None
    return Table("Where confirm trials ran", ["host", "devices", "attempts"], rows)


def training_devices(sources: Sources) -> list[str]:
    """Return the devices of the confirm trials' attempts: the GPUs, or without any the CPU."""
    found = [list(map(str, attempt.get("devices") or ())) for attempt in sources.attempts]
    return sorted({name for devices in found for name in (devices[1:] or devices[:1])})


def commit_text(git: Mapping[str, Any]) -> str:
    """Return a short commit, and whether the working tree differed from it; '' where unknown."""
    if not git.get("commit"):
        return ""
    dirty = {True: " with uncommitted changes", False: "", None: " (whether changed is not known)"}
    return str(git["commit"])[:12] + dirty[git.get("dirty")]


def devices_text(devices: Mapping[str, Any]) -> str:
    """Return CPUs and GPUs of a machine as ``2 CPUs (name), 1 x NVIDIA H200``; '' where unknown."""
    gpus = [str(gpu).partition(": ")[2] or str(gpu) for gpu in devices.get("gpus") or ()]
    named = f" ({devices['cpu']})" if devices.get("cpu") else ""
    parts = (
        [f"{devices['cpus']} CPU{'s' if devices['cpus'] != 1 else ''}{named}"] if devices.get("cpus") else []
    )
    return ", ".join([*parts, *(f"{gpus.count(gpu)} x {gpu}" for gpu in dict.fromkeys(gpus))])


def utc(time: float | None) -> str:
    """Return ``2026-01-31 12:00:00`` for seconds since the epoch."""
    return "-" if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")
