"""What a look at every node says about a study, with the cure: plain data in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OK, WARNING, FAILED = "ok", "warning", "failed"
SKEW_S, BAD_SKEW_S = 1.0, 10.0
"""Clocks that differ by more are named; by more than the second, leases on a shared folder are in doubt."""
LITTLE_GIB = 5.0

Look = Mapping[str, Any]
"""What ``node_probe.NodeProbe.look`` returns, and ``skew_s`` and ``error_s`` of its clock."""


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        check: what was looked at.
        state: OK, WARNING or FAILED.
        found: what is the case.
        cure: what to do; '' if nothing.
    """

    check: str
    state: str
    found: str
    cure: str = ""


def judge(
    here: Look, looks: Mapping[str, Look | str], gpus: Mapping[str, float], storage: str
) -> list[Finding]:
    """Return what the nodes say.

    Args:
        here: The driver's own look.
        looks: By node, its look, or why there is none.
        gpus: By node, how many GPUs Ray hands out there.
        storage: Folder of the results; '' for one that is not checked.
    """
    silent = {node: look for node, look in looks.items() if isinstance(look, str)}
    seen = {node: look for node, look in looks.items() if not isinstance(look, str)}
    found = [
        Finding("nodes", FAILED, f"{node}: {why}", "start Ray there anew") for node, why in silent.items()
    ]
    found += [] if silent else [Finding("nodes", OK, f"{len(seen)} answer")]
    found += _sarx(here, seen)
    found += _versions(here, seen)
    found += _gpus(seen, gpus)
    found += _storage(seen, storage) if storage else []
    found += _data(seen)
    found += _clocks(seen)
    return found


def _sarx(here: Look, seen: Mapping[str, Look]) -> list[Finding]:
    """Say where sarx is missing, or is another one."""
    without = {node: look["no_sarx"] for node, look in seen.items() if look["no_sarx"]}
    found = [
        Finding(
            "sarx",
            FAILED,
            f"{node}: cannot be imported ({why})",
            "install it there, or submit with --working-dir . so that the checkout travels",
        )
        for node, why in without.items()
    ]
    for node, look in seen.items():
        other = sorted(path for path, _ in here["code"].items() ^ look["code"].items())
        if node not in without and other:
            names = ", ".join(dict.fromkeys(other[:3])) + (" ..." if len(other) > 3 else "")
            cure = "bring its checkout to the same commit, or submit with --working-dir ."
            found.append(Finding("sarx", FAILED, f"{node}: other training code than here ({names})", cure))
    return found or [Finding("sarx", OK, f"the same training code on {len(seen)} nodes")]


def _versions(here: Look, seen: Mapping[str, Look]) -> list[Finding]:
    """Name the packages whose version differs from the driver's."""
    found = []
    for node, look in seen.items():
        differing = [
            f"{name} {look['versions'].get(name, 'none')} (here {version})"
            for name, version in here["versions"].items()
            if look["versions"].get(name, "none") != version
        ]
        if differing:
            cure = "pip install -c constraints.txt there, with the same Python"
            found.append(Finding("versions", FAILED, f"{node}: {', '.join(differing)}", cure))
    return found or [Finding("versions", OK, f"{len(here['versions'])} packages agree with these here")]


def _gpus(seen: Mapping[str, Look], gpus: Mapping[str, float]) -> list[Finding]:
    """Say where Ray hands out GPUs that torch does not see."""
    found = [
        Finding(
            "GPUs",
            FAILED,
            f"{node}: Ray hands out {gpus[node]:g}, torch sees {look['gpus']}",
            "check the driver (nvidia-smi) and that torch is the CUDA build there; start Ray with the right "
            "--num-gpus",
        )
        for node, look in seen.items()
        if gpus.get(node, 0) > look["gpus"]
    ]
    total = sum(gpus.values())
    return found or ([Finding("GPUs", OK, f"{total:g}, all seen by torch")] if total else [])


def _storage(seen: Mapping[str, Look], storage: str) -> list[Finding]:
    """Say where results cannot be written, or would lie in another folder."""
    cure = "mount a folder that all nodes share there, or name one with --storage"
    found = [
        Finding("storage", FAILED, f"{node}: {storage} cannot be written ({look['unwritable']})", cure)
        for node, look in seen.items()
        if look["unwritable"]
    ]
    found += [
        Finding("storage", FAILED, f"{node}: {storage} is another folder than here", cure)
        for node, look in seen.items()
        if look["unshared"]
    ]
    least = min((look["free_gib"] for look in seen.values() if not look["unwritable"]), default=0.0)
    if not found and least < LITTLE_GIB:
        return [Finding("storage", WARNING, f"{storage}: {least:.1f} GiB free", "make room")]
    room = f", {least:.0f} GiB free" if least < float("inf") else ""
    return found or [Finding("storage", OK, f"{storage}: writable from every node{room}")]


def _data(seen: Mapping[str, Look]) -> list[Finding]:
    """Say where the folders of data sets are missing."""
    return [
        Finding("data", FAILED, f"{node}: no folder {root}", "copy or mount the data there, or set data.root")
        for node, look in seen.items()
        for root in look["no_data"]
    ]


def _clocks(seen: Mapping[str, Look]) -> list[Finding]:
    """Say whose clock differs from the driver's by more than the measurement can be wrong."""
    found = []
    for node, look in seen.items():
        skew = max(0.0, abs(look["skew_s"]) - look["error_s"])
        if skew > SKEW_S:
            state = FAILED if skew > BAD_SKEW_S else WARNING
            text = f"{node}: {look['skew_s']:+.1f} s (known to {look['error_s']:.1f} s)"
            found.append(Finding("clocks", state, text, "let it follow a time server (chrony, ntp)"))
    worst = max((abs(look["skew_s"]) for look in seen.values()), default=0.0)
    return found or [Finding("clocks", OK, f"within {worst:.2f} s of this one")]
