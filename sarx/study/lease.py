"""The right to write to a study on an object store: a lease taken and renewed by conditional writes.

``ledger/lease.json`` says who holds the study. Whoever finds it free, or not renewed, writes it anew with the
next fence under the condition that it is still what was read: of two contenders one is refused. Its age only
says when to contend. What a replaced driver would still write is kept out by the seals of ``segments``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, fields, replace

from sarx.config.errors import UserError
from sarx.study import lock
from sarx.study.lock import LEASE_FILE, Holder, Record, machine, start_of
from sarx.study.store import Changed, Store, StoreError

PATIENCE_S = 1.0
"""How long closing waits for a renewal that is on its way."""


@dataclass(frozen=True)
class Seen:
    """The lease as it was read.

    Attributes:
        record: Its content; None if there is none or it cannot be read.
        tag: Of the object; empty if there is none.
    """

    record: Record | None
    tag: str


def look(store: Store) -> Seen:
    """Return the lease of a ledger; changes nothing."""
    try:
        raw, tag = store.read(LEASE_FILE)
    except FileNotFoundError:
        return Seen(None, "")
    types = {"str": str, "int": int, "float": float, "bool": bool}
    record = None
    with contextlib.suppress(ValueError, TypeError, KeyError):
        found = json.loads(raw)
        record = Record(*(types[str(item.type)](found[item.name]) for item in fields(Record)))
    return Seen(record, tag)


def lease_holder(store: Store) -> Holder | None:
    """Return who holds a study now, by this machine's clock; None if nobody does."""
    record = look(store).record
    return None if record is None or record.released else record.holder


class Lease:
    """The lease of one start of a driver, renewed by a thread until it is closed or lost.

    Attributes:
        fence: The number of this start.
        lost: Whether another start has taken over.
    """

    def __init__(self, store: Store, highest: int) -> None:
        """Take it.

        Args:
            store: The ledger's.
            highest: Highest fence of any segment; the lease's own counts too.

        Raises:
            UserError: If another driver holds the study, or was faster.
        """
        self._store = store
        seen = look(store)
        record = seen.record
        if record is not None and not (record.released or record.dead):
            if record.fresh:
                left = lock.EXPIRY_S - (time.time() - record.heartbeat)
                more = f". If that host is gone, start again in {left:.0f} s"
                raise busy(store, record.holder, more)
            _watch(store, seen)
        elif record is None and seen.tag:
            _watch(store, seen)
        self.fence = max(highest, record.fence if record else 0, 0) + 1
        self.lost = False
        now, pid = time.time(), os.getpid()
        self._record = Record(
            socket.gethostname(), machine(), pid, start_of(pid) or 0, now, self.fence, now, released=False
        )
        self._sent = _encode(self._record)
        try:
            if seen.tag:
                self._tag = store.replace(LEASE_FILE, self._sent, seen.tag)
            else:
                self._tag = store.create(LEASE_FILE, self._sent)
        except (FileExistsError, Changed):
            raise busy(store, lease_holder(store)) from None
        self._every_s = lock.RENEW_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sarx-lease", daemon=True)
        self._thread.start()

    def taken_over(self) -> UserError:
        """Return the error for a start that has been replaced."""
        self.lost = True
        who: object = "it is not known which"
        with contextlib.suppress(OSError):
            who = lease_holder(self._store) or who
        return UserError(
            f"another driver has taken over this study ({who}); this one records nothing more",
            where=self._store.url,
        )

    def close(self) -> None:
        """End the thread and mark the lease as released, if it is ours still; more than once is fine."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join(PATIENCE_S)
        if not self.lost and not self._thread.is_alive():
            with contextlib.suppress(OSError):  # it expires then
                self._renew(released=True)

    def _keep(self) -> None:
        """Renew until told to stop or replaced; a store that gives no answer is asked again."""
        while not self._stop.wait(self._every_s) and not self.lost:
            with contextlib.suppress(StoreError):
                self._renew()

    def _renew(self, released: bool = False) -> None:
        raw = _encode(replace(self._record, heartbeat=time.time(), released=released))
        try:
            self._tag = self._store.replace(LEASE_FILE, raw, self._tag)
            self._sent = raw
        except (Changed, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                found, tag = self._store.read(LEASE_FILE)
                if found in (self._sent, raw):  # a renewal that went unanswered
                    self._tag = tag
                    return
            self.lost = True
        except StoreError:
            self._sent = raw  # it may have arrived
            raise


def busy(store: Store, who: Holder | None, more: str = "") -> UserError:
    """Return the error for a study that another driver has."""
    return UserError(
        f"this study is already running ({who or 'another driver has just started it'}); wait for it, stop "
        f"it, or give another --storage{more}",
        where=store.url,
    )


def _encode(record: Record) -> bytes:
    return json.dumps(asdict(record)).encode()


def _watch(store: Store, seen: Seen) -> None:
    """Return if the lease stays as it is for two renewals; else raise a UserError that names the holder."""
    seconds, who = 2 * lock.RENEW_S, seen.record.holder if seen.record else "unknown"
    print(
        f"{store.url}: the last driver ({who}) did not end properly; watching for {seconds:g} s", flush=True
    )
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(lock.RENEW_S / 10, 2.0))
        if look(store).tag != seen.tag:
            raise busy(store, lease_holder(store))
