"""Compaction: the files of many starts become one. Nothing is deleted, and it may end at any moment.

Readers take the newest ``compacted-NNNNNN.ndjson`` and files with a higher fence. So until the rename that
makes it they read the files that it is made of, and from then on it alone; whether those have been moved to
``originals/`` yet does not matter.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sarx.config.errors import UserError
from sarx.study.ledger_files import (
    LedgerFile,
    all_files,
    collecting_nothing,
    compacted_file,
    find_files,
    merge,
    read_file,
    read_parts,
    sync_folder,
)
from sarx.study.lock import Lock, take_lock

ORIGINALS = "originals"


def compact(folder: Path, below: int, kind: str | None = None) -> Path | None:
    """Merge all files of a ledger with a lower fence, under the lock; events and their lines stay the same.

    It claims a fence of its own, as a start of the driver does, and leaves its empty file.

    Args:
        folder: The ledger's folder.
        below: Files with this fence or a higher one stay as they are.
        kind: As in ``take_lock``.

    Returns:
        The compacted file, None if there was nothing to merge.

    Raises:
        UserError: If a driver holds the study, the ledger is damaged, or what was written reads back as
            something else; nothing is changed then.
    """
    lock = take_lock(folder, kind)
    try:
        os.close(lock.claim())
        return merge_files(folder, below, lock)
    finally:
        lock.close()


def merge_files(folder: Path, below: int, lock: Lock) -> Path | None:
    """Merge files as ``compact`` does, for the holder of the study.

    Raises:
        UserError: As ``compact``, or if the study is held no longer.
    """
    old = [file for file in find_files(folder) if file.fence < min(below, lock.fence)]
    if len(old) < 2:
        return None
    target = LedgerFile(compacted_file(folder, old[-1].fence), old[-1].fence, compacted=True)
    for stale in folder.glob(".compacted-*"):  # of one that was interrupted
        stale.unlink()
    beside = target.path.with_name(f".{target.path.stem}-{lock.fence:06d}.ndjson")
    write_merged(folder, beside, target)
    lock.check()
    beside.replace(target.path)
    sync_folder(folder)
    lock.check()
    set_aside(folder, target)
    return target.path


def write_merged(folder: Path, beside: Path, target: LedgerFile) -> None:
    """Write the events up to a fence that count, byte for byte, and verify what can be read of it.

    Raises:
        UserError: If that is something else.
    """
    parts = read_parts(folder, keep_lines=True)
    contents = merge(parts)
    later = (part.events[0]["seq"] for part in parts if part.file.fence > target.fence and part.events)
    end = min(later, default=len(contents.events))
    with beside.open("wb") as handle:
        handle.writelines(contents.lines[:end])
        handle.flush()
        os.fsync(handle.fileno())
    with collecting_nothing():
        written = read_file(LedgerFile(beside, target.fence, compacted=True), keep_lines=True)
    if (written.events, written.lines) != (contents.events[:end], contents.lines[:end]):
        raise UserError(
            f"reads back as something else than was written for {target.path.name}; the ledger was not "
            "changed. Is the disk failing?",
            where=str(beside),
        )


def set_aside(folder: Path, compacted: LedgerFile) -> None:
    """Move all files that a compacted one replaces to ``originals/``; an interrupted one's leftovers too."""
    files = all_files(folder)
    move(folder, [file.path for file in files if file.fence <= compacted.fence and file != compacted])


def set_empty_aside(folder: Path, below: int) -> None:
    """Move the files of earlier starts that have written nothing to ``originals/``.

    If such a start was not dead but stopped, and wrote its first event later, after another one has read and
    counted on, that event would decide which of the events between them count. In ``originals/`` it decides
    nothing: what the holder of the study has read stays as it is, whatever replaced drivers do.
    """
    files = [file for file in all_files(folder) if file.fence < below and not file.compacted]
    move(folder, [file.path for file in files if file.path.stat().st_size == 0])


def move(folder: Path, paths: list[Path]) -> None:
    """Move files to ``originals/``, under another name if theirs is taken there."""
    if not paths:
        return
    originals = folder / ORIGINALS
    originals.mkdir(exist_ok=True)
    for path in paths:
        names = (f"{path.name}{suffix}" for suffix in ["", *(f".{n}" for n in range(1, 1000))])
        aside = next(originals / name for name in names if not (originals / name).exists())
        with contextlib.suppress(FileNotFoundError):  # moved by a driver that has been replaced since
            path.rename(aside)
    sync_folder(originals)
    sync_folder(folder)
