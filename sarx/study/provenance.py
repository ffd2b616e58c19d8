"""Where a study and its trials ran: state of the checkout, machine, command. Never the environment.

Of the checkout's git repository only the difference of tracked files is kept, and the names of files that git
does not track and does not ignore. No part of it is needed: what cannot be learnt in time is null, with the
reason.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from sarx.study.identity import package_version

PACKAGES = ("torch", "torchvision", "timm", "ray", "optuna", "hydra-core", "numpy", "scikit-learn", "polars")
CONFIG = "config.yaml"
GIT_STATE = "SARX_GIT_STATE"
"""Variable of jobs that run in a copy of a checkout: the state of that checkout when they were submitted."""
PATIENCE_S = 5.0
"""Seconds after which git or nvidia-smi is given up."""
MAX_DIFF = 1_000_000
"""Bytes of a kept difference; its hash is that of the whole."""
MAX_NAMES = 1000
"""Untracked files that are named."""


def provenance(checkout: Path, kept: Path | None = None) -> dict[str, Any]:
    """Return where and with what a start of a study runs: the key ``provenance`` of ``study_opened``.

    Args:
        checkout: Folder that holds the package ``sarx``; its git repository is asked.
        kept: Folder for the difference between the checkout and its commit, ``diff-<sha8>.patch``; None
            writes none.
    """
    return {
        "git": git_state(checkout, kept),
        "host": socket.gethostname(),
        "devices": devices(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": shlex.join(sys.orig_argv),
    }


def trial_provenance() -> dict[str, Any]:
    """Return where a trial runs: host, pid, devices, and a digest of the versions. Does not import torch."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "devices": [cpu_model(), *_torch_devices()],
        "versions": versions_digest(),
    }


def write_config(folder: Path, config: Mapping[str, Any], trial_id: str, seed: int) -> Path:
    """Write ``config.yaml`` of a trial: its resolved options, below how to run it again.

    Args:
        folder: Folder of the trial, ``<storage>/<study>/trials/<trial_id>``.
        config: Nested plain values; ``sarx.config.schema.build`` reads them back.
        trial_id: Identity of the trial.
        seed: Its seed.
    """
    name = f"{folder.parent.parent.name}/{trial_id}"
    again = f"python -m sarx.train --trial {shlex.quote(name)}"
    heading = f"# study {folder.parent.parent.name}, trial {trial_id}, seed {seed}\n# run it again: {again}\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CONFIG
    temporary = folder / f".{CONFIG}.{os.getpid()}"
    temporary.write_text(heading + yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    temporary.replace(path)
    return path


@functools.cache
def versions() -> dict[str, str]:
    """Return the version of Python and of the packages that matter."""
    return {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}}


def versions_digest() -> str:
    """Return 16 hex digits that change with any of these versions."""
    return hashlib.sha256(json.dumps(versions(), sort_keys=True).encode()).hexdigest()[:16]


# -------------------------------------------------------------------- git


def git_state(checkout: Path, kept: Path | None = None) -> dict[str, Any]:
    """Return commit, dirty, the SHA-256 of the difference and the name of its file; null where unknown.

    ``dirty`` counts changed tracked files and files that git neither tracks nor ignores. Where something is
    unknown or left out, ``reason`` says why.
    """
    state: dict[str, Any] = dict.fromkeys(("commit", "dirty", "diff_sha256", "diff", "reason"))
    deadline = time.monotonic() + PATIENCE_S
    try:
        commit = _git(checkout, deadline, "rev-parse", "--verify", "HEAD").decode().strip()
        if not _git(checkout, deadline, "ls-tree", "--name-only", "HEAD"):
            raise _Unknown(f"the repository around {checkout} does not track it")
        state["commit"] = commit
        with tempfile.TemporaryFile() as difference:
            _write_difference(checkout, deadline, difference)
            if difference.tell() == 0:
                return state | {"dirty": False}
            state |= {"dirty": True, "diff_sha256": _sha256(difference)}
            if kept is not None:
                state |= _keep(difference, kept, state["diff_sha256"])
    except _Unknown as unknown:
        state["reason"] = str(unknown)
        if state["commit"] is None:
            state |= _told()
    return state


def _told() -> dict[str, Any]:
    """Return what the submitter of this job knew of its checkout; nothing where it said nothing of use."""
    try:
        told = json.loads(os.environ.get(GIT_STATE, "null"))
    except ValueError:
        return {}
    if not isinstance(told, dict) or not re.fullmatch(r"[0-9a-f]{40,64}", str(told.get("commit"))):
        return {}
    reason = "told by the submitter of the job, which runs in a copy of its checkout"
    return {key: told.get(key) for key in ("commit", "dirty", "diff_sha256")} | {"reason": reason}


class _Unknown(Exception):
    """Something about the checkout cannot be learnt."""


def _git(
    checkout: Path, deadline: float, *arguments: str, stdout: IO[bytes] | int = subprocess.PIPE
) -> bytes:
    """Run git without pager, external tools and file monitor, without locking its index, and in time."""
    plain = ["-c", "core.fsmonitor=false", "-c", "core.quotePath=true", "-c", "core.pager=cat"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *plain, *arguments],
            cwd=checkout,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=max(0.01, deadline - time.monotonic()),
            check=False,
            env=clean | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise _Unknown("git is not installed" if checkout.is_dir() else f"no folder {checkout}") from None
    except subprocess.TimeoutExpired:
        raise _Unknown(f"git took longer than {PATIENCE_S:g} s") from None
    except OSError as error:
        raise _Unknown(f"git cannot be run ({error.strerror})") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise _Unknown(f"git {arguments[0]}: {said[0] if said else f'exit code {done.returncode}'}")
    return done.stdout or b""


def _write_difference(checkout: Path, deadline: float, target: IO[bytes]) -> None:
    """Write the names of untracked files as comments, then the difference; nothing if there is neither."""
    found = _git(checkout, deadline, "ls-files", "--others", "--exclude-standard", "--directory", "--", ".")
    names = found.splitlines()
    target.writelines(b"# untracked: " + name + b"\n" for name in names[:MAX_NAMES])
    if len(names) > MAX_NAMES:
        target.write(f"# and {len(names) - MAX_NAMES} more\n".encode())
    target.flush()
    options = ("--no-color", "--no-ext-diff", "--no-textconv", "--full-index", "--relative")
    _git(checkout, deadline, "diff", *options, "HEAD", "--", ".", stdout=target)
    target.seek(0, os.SEEK_END)


def _sha256(handle: IO[bytes]) -> str:
    handle.seek(0)
    digest = hashlib.sha256()
    while piece := handle.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _keep(difference: IO[bytes], kept: Path, sha256: str) -> dict[str, str]:
    """Write the difference into the study; return its name, and the reason where it is not all there."""
    path = kept / f"diff-{sha256[:8]}.patch"
    difference.seek(0)
    raw = difference.read(MAX_DIFF + 1)
    note = {}
    if len(raw) > MAX_DIFF:
        raw = raw[:MAX_DIFF]
        note = {"reason": f"the difference was cut after {MAX_DIFF} bytes; the hash is that of all of it"}
        raw += f"\n# cut here, after {MAX_DIFF} bytes\n".encode()
    try:
        kept.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    except OSError as error:
        return {"reason": f"the difference was not written ({error.strerror})"}
    return {"diff": f"{kept.name}/{path.name}", **note}


# -------------------------------------------------------------------- devices


def devices() -> dict[str, Any]:
    """Return CPU model, how many CPUs this process may use, memory, and the names of the GPUs."""
    return {
        "cpu": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus(),
    }


@functools.cache
def cpu_model() -> str:
    """Return the CPU's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def gpus() -> list[str]:
    """Return the names of the GPUs by ``nvidia-smi -L``, without serial numbers; none where it fails."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return [
        line.partition(" (UUID")[0].strip() for line in lines if line.lstrip().startswith(("GPU ", "MIG "))
    ]


def _torch_devices() -> list[str]:
    """Return the names of the GPUs that torch sees, if somebody has imported it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
