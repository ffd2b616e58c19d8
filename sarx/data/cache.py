"""Arrays made once per machine and shared by its processes as read-only memory maps.

One folder per key. It is written under a temporary name and renamed, so it is whole or absent; the first
writer of a race wins and the others use its copy. Deleting an entry never harms who has it mapped: the file
lives on until the last map is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sarx.data.dataset import Array

MAX_ENTRIES = 64
STALE_S = 3600.0
"""A temporary folder of this age has lost its writer."""


def cache_root() -> Path:
    """Return ``$SARX_CACHE``, else ``$XDG_CACHE_HOME/sarx``, else ``~/.cache/sarx``."""
    if own := os.environ.get("SARX_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "sarx"
    return Path.home() / ".cache" / "sarx"


def cached(key: str, make: Callable[[], dict[str, Array]], shelf: str = "arrays") -> dict[str, Array]:
    """Return the arrays of ``key`` as read-only memory maps, calling ``make`` if no process did before.

    ``key`` must name everything that the arrays depend on. The newest ``MAX_ENTRIES`` keys of a shelf are
    kept; what is slow to make stands on a shelf of its own.
    """
    folder = cache_root() / shelf
    entry = folder / f"entry-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    found = _open(entry)
    if found is not None:
        return found
    arrays = make()
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, entry, arrays)
    _evict(folder, keep=entry)
    found = _open(entry)
    if found is not None:
        return found
    for array in arrays.values():  # evicted by others in this instant
        array.setflags(write=False)
    return arrays


def _open(entry: Path) -> dict[str, Array] | None:
    try:
        with contextlib.suppress(PermissionError):  # another user's entry: readable, not ours to touch
            os.utime(entry)
        files = sorted(entry.glob("*.npy"))
        return {file.stem: np.load(file, mmap_mode="r") for file in files} or None
    except FileNotFoundError:
        return None
    except (ValueError, EOFError):  # a file that power loss or a full disk left damaged
        with contextlib.suppress(OSError):
            entry.rename(entry.with_name(f"tmp-{os.getpid()}-damaged-{entry.name}"))
        return None


def _write(folder: Path, entry: Path, arrays: dict[str, Array]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="tmp-", dir=folder))
    try:
        for name, array in arrays.items():
            with (temporary / f"{name}.npy").open("wb") as handle:
                np.save(handle, array)
                handle.flush()
                os.fsync(handle.fileno())
        try:
            temporary.rename(entry)
        except OSError:
            if not entry.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _evict(folder: Path, keep: Path) -> None:
    """Drop the entries unused for longest and the leftovers of killed writers; only in ``folder``."""
    ages = []
    for child in folder.iterdir():
        try:
            age = time.time() - child.stat().st_mtime
        except FileNotFoundError:
            continue
        if child.name.startswith("tmp-") and age > STALE_S:
            shutil.rmtree(child, ignore_errors=True)
        elif child.name.startswith("entry-") and child != keep:
            ages.append((age, child))
    for _, child in sorted(ages)[MAX_ENTRIES - 1 :]:
        doomed = folder / f"tmp-{os.getpid()}-{child.name}"
        try:
            child.rename(doomed)
        except OSError:
            continue
        shutil.rmtree(doomed, ignore_errors=True)
