"""The append-only event log of a study: the only source of truth, written by the driver alone."""

from __future__ import annotations

import fcntl
import json
import math
import os
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from sarx.config.errors import UserError
from sarx.study.ledger_schema import COLUMNS, SCHEMA_VERSION

Event = dict[str, Any]
FILE = "events.ndjson"


def encode(event: Mapping[str, Any]) -> str:
    """Return one ledger line, checksum included, newline included."""
    plain = {key: event[key] for key in COLUMNS if event.get(key) is not None and key != "crc"}
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    crc = f"{zlib.crc32(text.encode()):08x}"
    return f'{text[:-1]},"crc":"{crc}"}}\n'


def decode(line: str) -> Event:
    """Return the event of one line.

    Raises:
        ValueError: If the line is not JSON or its checksum does not match.
    """
    head, separator, _ = line.rpartition(',"crc":')
    event = json.loads(line)
    if not separator or not isinstance(event, dict):
        raise ValueError("no checksum")
    if f"{zlib.crc32((head + '}').encode()):08x}" != event.get("crc"):
        raise ValueError("checksum mismatch")
    return event


def pack_metrics(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return metrics as the ledger stores them: a list, non-finite values as text."""
    packed = []
    for name, value in metrics.items():
        if math.isfinite(value):
            packed.append({"name": name, "value": float(value)})
        else:
            packed.append({"name": name, "nonfinite": str(float(value))})
    return packed


def unpack_metrics(packed: list[dict[str, Any]]) -> dict[str, float]:
    """Return metrics by name."""
    return {
        item["name"]: float(item["nonfinite"] if "nonfinite" in item else item["value"]) for item in packed
    }


def pack_parameters(parameters: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return parameters as the ledger stores them: values as JSON."""
    return [{"name": name, "value": json.dumps(value)} for name, value in parameters.items()]


def unpack_parameters(packed: list[dict[str, str]]) -> dict[str, Any]:
    """Return parameters by dotted key."""
    return {item["name"]: json.loads(item["value"]) for item in packed}


class Ledger:
    """An open ledger: holds the study's lock, appends events, keeps those that were there.

    Opening locks the folder, sets a torn last line aside, and reads all events. Other processes may read the
    file at any time.

    Raises:
        UserError: If another driver holds the study, or a line in the middle is damaged.
    """

    def __init__(self, folder: Path) -> None:
        """Lock and read the ledger in ``folder``."""
        self.path = folder / FILE
        self._lock = take_lock(folder / "lock")
        try:
            self.events: list[Event] = read_events(self.path, mend=True)
        except UserError:
            self._lock.close()
            raise
        self._seq = self.events[-1]["seq"] + 1 if self.events else 0
        self._file = self.path.open("ab", buffering=0)
        self._broken = False

    def append(self, event: str, *, sync: bool = False, **columns: Any) -> Event:
        """Write one event; with ``sync`` it is on disk before this returns."""
        unknown = set(columns) - set(COLUMNS)
        assert not unknown, f"not ledger columns: {unknown}"
        record: Event = {
            "v": SCHEMA_VERSION,
            "seq": self._seq,
            "time": time.time(),
            "event": event,
            **columns,
        }
        if self._broken:
            raise OSError("the ledger could not be written before; what came after is not recorded")
        self._broken = True  # until the whole line is out
        self._file.write(encode(record).encode())
        self._broken = False
        self._seq += 1
        self.events.append(record)
        if sync:
            self.sync()
        return record

    def sync(self) -> None:
        """Force everything written so far to disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush to disk and release the lock."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()
        self._lock.close()

    def __enter__(self) -> Ledger:
        """Return the open ledger."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def take_lock(path: Path) -> TextIO:
    """Lock a study for this process; the lock ends with the process, however it ends.

    Raises:
        UserError: Naming the process that holds it.
    """
    handle = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        holder = handle.read().strip() or "another process"
        handle.close()
        raise UserError(
            f"this study is already running ({holder}); wait for it, stop it, or give another --storage",
            where=str(path.parent.parent),
        ) from None
    handle.truncate(0)
    handle.write(f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    handle.flush()
    return handle


def read_events(path: Path, *, mend: bool = False) -> list[Event]:
    """Read all events of a ledger file.

    Args:
        path: The file; a missing one has no events.
        mend: Copy a torn last line aside and cut it off (the lock's holder alone may do so); without it such
            a line is left out of what is returned.

    Raises:
        UserError: If any line but the last is damaged; nothing is rewritten then.
    """
    if not path.exists():
        return []
    raw = path.read_bytes()
    events = []
    position = 0
    for number, line in enumerate(raw.splitlines(keepends=True), start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("torn")
            events.append(decode(line.decode("utf-8")))
        except ValueError as error:
            if position + len(line) < len(raw):
                raise UserError(
                    f"the ledger is damaged here ({error}); nothing was changed. Restore the file "
                    "from a copy, or move this line aside if you know what it lost",
                    where=f"{path}:{number}",
                ) from None
            if mend:
                path.with_name(f"torn-{int(time.time())}-{os.getpid()}.txt").write_bytes(line)
                with path.open("r+b") as handle:
                    handle.truncate(position)
                print(f"{path}:{number}: the last line was torn; it is kept beside the ledger", flush=True)
            break
        if events[-1]["v"] > SCHEMA_VERSION:
            version = events[-1]["v"]
            raise UserError(
                f"was written by a newer sarx (version {version}; this one reads {SCHEMA_VERSION})",
                where=f"{path}:{number}",
            )
        position += len(line)
    return events


def of_kind(events: list[Event], *kinds: str) -> Iterator[Event]:
    """Yield the events of some kinds, in order."""
    return (event for event in events if event["event"] in kinds)
