"""The append-only event log of a study: the only source of truth, written by the driver alone.

``ledger_schema`` has the format, ``ledger_files`` says which files there are and which events count, ``lock``
who may write.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from sarx.study.compaction import merge_files, set_empty_aside
from sarx.study.ledger_files import FILE, events_file, find_files, read_events, read_folder
from sarx.study.ledger_lines import (
    Event,
    decode,
    encode,
    of_kind,
    pack_metrics,
    pack_parameters,
    unpack_metrics,
    unpack_parameters,
)
from sarx.study.ledger_schema import COLUMNS, SCHEMA_VERSION
from sarx.study.lock import Holder, Lock, holder, take_lock

__all__ = [
    "FILE",
    "Event",
    "Holder",
    "Ledger",
    "Lock",
    "decode",
    "encode",
    "holder",
    "of_kind",
    "pack_metrics",
    "pack_parameters",
    "read_events",
    "take_lock",
    "unpack_metrics",
    "unpack_parameters",
]

MAX_CLOSED = 16
"""More closed files than this are compacted when a ledger is opened."""
BROKEN = "the ledger could not be written before; what came after is not recorded"


class Ledger:
    """An open ledger: holds the study, appends events to a file of its own, keeps those that were there.

    Opening takes the lock, reads all events, then creates the file. What earlier starts wrote is never
    changed; what was read stays true, whatever a driver does that was replaced without noticing. Other
    processes may read at any time.

    Attributes:
        path: the file that this start writes.
        fence: the number of this start.
        events: all events that count, those written since included; the position of each is its seq.

    Raises:
        UserError: If another driver holds the study, a line is damaged, or events are missing.
    """

    def __init__(self, folder: Path, *, lock_kind: str | None = None) -> None:
        """Lock and read the ledger in ``folder``; ``lock_kind`` is flock or lease, None for what fits."""
        self._lock = take_lock(folder, lock_kind)
        self.fence = self._lock.fence
        self.path = events_file(folder, self.fence)
        self._file = -1
        self._broken = False
        try:
            contents = read_folder(folder)
            for torn in contents.torn:
                print(f"{torn}: this line was cut short; it does not count and stays as it is", flush=True)
            self.events: list[Event] = contents.events
            gc.freeze()  # they stay for good: the collector need not go over them again and again
            self._file = self._lock.claim()
            set_empty_aside(folder, self.fence)
            self._compact(folder)
        except BaseException:
            self._release()
            raise

    def append(self, event: str, *, sync: bool = False, **columns: Any) -> Event:
        """Write one event and return it; with ``sync`` it is on disk before this returns.

        Raises:
            UserError: If another driver has taken over the study.
            OSError: If it cannot be written, or an earlier one could not; what was written before is intact.
            ValueError: If a number is not finite; nothing was written and the ledger can be used.
        """
        if self._broken:
            raise OSError(BROKEN)
        self._lock.check()
        record = self._next(event, columns)
        line = encode(record).encode()
        self._broken = True  # until the whole line is out
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(
                f"{self.path}: only {written} of {len(line)} bytes could be written; is the disk full?"
            )
        self._broken = False
        self.events.append(record)
        if sync:
            self.sync()
        return record

    def _next(self, event: str, columns: dict[str, Any]) -> Event:
        """Return the event that comes next."""
        unknown = set(columns) - set(COLUMNS)
        assert not unknown, f"not ledger columns: {unknown}"
        place = {"v": SCHEMA_VERSION, "seq": len(self.events), "time": time.time(), "fence": self.fence}
        return {**place, "event": event, **columns}

    def sync(self) -> None:
        """Force everything written so far to disk.

        Raises:
            OSError: If that fails; nothing can be appended any more, since what is on disk is unknown.
        """
        try:
            os.fsync(self._file)
        except OSError:
            self._broken = True
            raise

    def close(self) -> None:
        """Flush to disk and release the lock; more than once is fine."""
        try:
            if self._file >= 0:
                self.sync()
        finally:
            self._release()

    def __enter__(self) -> Ledger:
        """Return the open ledger."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _release(self) -> None:
        """Close the file, if it is open, and let others have the study."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        self._lock.close()

    def _compact(self, folder: Path) -> None:
        """Merge the closed files if there are many; if it cannot be done, they are read as they are."""
        if sum(file.fence < self.fence for file in find_files(folder)) <= MAX_CLOSED:
            return
        try:
            merge_files(folder, self.fence, self._lock)
        except OSError as error:
            print(f"{folder}: its files could not be merged ({error}); all stay as they are", flush=True)
