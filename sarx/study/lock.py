"""The right to write to a study's ledger: one driver at a time, and none after it has been replaced.

``flock`` on local file systems: the kernel ends the lock with its process. ``lease`` elsewhere, where flock
may be local to a host or absent: ``lease.json`` says who holds the study and is renewed every ``RENEW_S``. It
may be taken over when it was released, when its process is known to be dead, or when it is older than
``EXPIRY_S`` and stays unchanged while the contender watches for two renewals (clocks of hosts may differ).

Neither is trusted alone: a start becomes the holder by creating the events file of its fence (``claim``),
which one of two contenders can do, and ``check`` before every append refuses once a higher fence exists. So
even hosts that see a folder as different file systems, and take different kinds of lock, cannot both record.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import threading
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from sarx.config.errors import UserError
from sarx.study.ledger_files import claim_file, highest_fence

RENEW_S = 10.0  # between two renewals of a lease; read when a lock is taken, as the next
EXPIRY_S = 60.0  # age at which a lease that is not renewed may be taken over
FLOCK, LEASE, LOCK_FILE, LEASE_FILE = "flock", "lease", "lock", "lease.json"
LOCAL = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"}
LOCAL |= {"apfs", "bcachefs", "exfat", "hfsplus", "nilfs2", "ntfs3", "reiserfs", "rootfs", "ubifs", "vfat"}
"""File system types on which flock excludes all processes that can see the file."""
_PAUSES_S = (0.02, 0.05, 0.1, 0.2)  # a look at who holds the lock takes it for a moment


@dataclass(frozen=True)
class Holder:
    """Who holds a study.

    Attributes:
        since: local time at which it took the study, "YYYY-MM-DD HH:MM:SS".
        alive: False: it neither released the study nor is it there any more; the next start takes over.
    """

    host: str
    pid: int
    since: str
    alive: bool

    def __str__(self) -> str:
        """Return, e.g., ``pid 12 on a since 2026-01-01 12:00:00``."""
        return f"pid {self.pid} on {self.host} since {self.since}" if self.host else "another process"


class Lock:
    """The lock of one start of a driver, of either kind.

    Attributes:
        folder: the ledger's folder.
        fence: the number of this start.
    """

    def __init__(self, folder: Path, fence: int) -> None:
        """Stand for the start with this fence, which is not claimed yet."""
        self.folder = folder
        self.fence = fence
        self._lost = False

    def claim(self) -> int:
        """Become the holder: create the events file of this fence and return its descriptor, to append to.

        Raises:
            UserError: If another start was faster.
        """
        try:
            return claim_file(self.folder, self.fence)
        except FileExistsError:
            raise _busy(self.folder, _other(self.folder)) from None

    def check(self) -> None:
        """Make sure that what this start writes counts: that no other one has taken over.

        Raises:
            UserError: If one has, or the ledger's files are gone.
            OSError: If that cannot be found out.
        """
        highest = highest_fence(self.folder)
        if highest < self.fence:
            raise UserError("the ledger's files were removed while it was open", where=str(self.folder))
        self._lost = self._lost or highest > self.fence
        if self._lost:
            who = _other(self.folder) or "it is not known which"
            raise UserError(
                f"another driver has taken over this study ({who}); this one records nothing more",
                where=str(self.folder.parent),
            )

    def close(self) -> None:
        """Let others have the study; more than once is fine."""


def take_lock(folder: Path, kind: str | None = None) -> Lock:
    """Lock a study for this process; however the process ends, nobody has to unlock anything.

    Args:
        folder: The ledger's folder.
        kind: "flock" or "lease", which decides nothing before ``claim``; None: what fits the file system.

    Raises:
        UserError: Naming the process that holds the study.
    """
    return {FLOCK: _Flock, LEASE: _Lease}[kind or lock_kind(folder)](folder)


def lock_kind(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the kind of lock that fits a folder: "flock" if its file system is known to be local."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return LEASE
    path = folder.resolve()
    length, file_system = -1, ""
    for line in lines:  # id parent device root POINT options [tags] - TYPE source options
        left, _, right = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), left.split()[4]))
        if path.is_relative_to(point) and len(point.parts) >= length:  # a later mount hides an earlier one
            length, file_system = len(point.parts), right.split()[0]
    return FLOCK if file_system in LOCAL else LEASE


def holder(folder: Path) -> Holder | None:
    """Return who holds the study now, without taking it; None if nobody does.

    Nothing is created or changed. A process that locked with flock and died holds nothing; one whose lease
    ended unreleased is returned with ``alive`` False, judged by this host's clock.
    """
    record, highest, _ = _look(folder)
    leased = None if record is None or record.released or record.fence < highest else record.holder
    return leased if leased and leased.alive else _flock_holder(folder / LOCK_FILE) or leased


def _other(folder: Path) -> Holder | None:
    """Return who holds the study if that is not this process."""
    who = holder(folder)
    return None if who and (who.pid, who.host) == (os.getpid(), socket.gethostname()) else who


def _busy(folder: Path, who: Holder | None, more: str = "") -> UserError:
    """Return the error for a study that another driver has."""
    return UserError(
        f"this study is already running ({who or 'another driver has just started it'}); wait for it, stop "
        f"it, or give another --storage{more}",
        where=str(folder.parent),
    )


class _Flock(Lock):
    """A lock that the kernel ends with the process."""

    def __init__(self, folder: Path) -> None:
        """Take it, or raise a UserError that names the holder."""
        path = folder / LOCK_FILE
        self._handle = path.open("a+", encoding="utf-8")
        for pause in (*_PAUSES_S, None):
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if pause is None:
                    self._handle.close()
                    raise _busy(folder, _flock_holder(path)) from None
                time.sleep(pause)
        self._handle.truncate(0)
        self._handle.write(f"pid {os.getpid()} on {socket.gethostname()} since {_clock(time.time())}")
        self._handle.flush()
        super().__init__(folder, max(highest_fence(folder), 0) + 1)

    def close(self) -> None:
        """Let others have the study."""
        self._handle.close()


def _flock_holder(path: Path) -> Holder | None:
    """Return who holds the flock of a file, by what the file says."""
    try:
        handle = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    with handle:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        match = re.match(r"pid (\d+) on (.+) since (.+)", handle.read())
    return Holder(match[2], int(match[1]), match[3].strip(), True) if match else Holder("", 0, "", True)


def _clock(seconds: float) -> str:
    """Return a time since the Unix epoch as local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


@dataclass(frozen=True)
class Record:
    """The content of ``lease.json``; times in seconds since the Unix epoch by the clock of ``host``."""

    host: str
    machine: str  # boot and process namespace in which pid means something; "" if unknown
    pid: int
    start: int  # of the process, in clock ticks since the boot: tells a pid that is used again
    since: float  # taken
    fence: int
    heartbeat: float  # renewed last
    released: bool

    @property
    def fresh(self) -> bool:
        """Return whether it looks renewed by our clock; the future is as odd as the distant past."""
        return abs(time.time() - self.heartbeat) <= EXPIRY_S

    @property
    def dead(self) -> bool:
        """Return whether its process is known to have ended."""
        here = self.machine != "" and self.machine == machine()
        return here and start_of(self.pid) not in (self.start, 0)

    @property
    def holder(self) -> Holder:
        """Return who wrote it."""
        return Holder(self.host, self.pid, _clock(self.since), self.fresh and not self.dead)


def _look(folder: Path) -> tuple[Record | None, int, bytes]:
    """Return the lease (None if there is none or it cannot be read), the highest fence, the lease's bytes."""
    record, raw = None, b""
    types = {"str": str, "int": int, "float": float, "bool": bool}
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        raw = (folder / LEASE_FILE).read_bytes()
        found = json.loads(raw)
        record = Record(*(types[str(item.type)](found[item.name]) for item in fields(Record)))
    return record, highest_fence(folder), raw


class _Lease(Lock):
    """A lock that has to be renewed; a thread does so."""

    def __init__(self, folder: Path) -> None:
        """Find the study free, or raise a UserError that names the holder."""
        record, highest, raw = seen = _look(folder)
        if record is not None and record.fence >= highest:
            free = record.released or record.dead
            if not free and record.fresh:
                left = EXPIRY_S - (time.time() - record.heartbeat)
                raise _busy(folder, record.holder, f". If that host is gone, start again in {left:.0f} s")
            highest = record.fence
        else:  # nobody yet; or a start that has claimed the highest fence but not written its lease
            free = highest <= 0 and not raw
        if not free:
            _watch(folder, seen)
        super().__init__(folder, max(highest, 0) + 1)
        now, pid = time.time(), os.getpid()
        self._record = Record(
            socket.gethostname(), machine(), pid, start_of(pid) or 0, now, self.fence, now, released=False
        )
        self._renewed, self._every_s, self._expiry_s = time.monotonic(), RENEW_S, EXPIRY_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sarx-lease", daemon=True)

    def claim(self) -> int:
        """Create the events file, write the lease and go on renewing it."""
        descriptor = super().claim()
        try:
            self._write()
        except OSError:
            os.close(descriptor)
            raise
        self._thread.start()
        return descriptor

    def check(self) -> None:
        """Look at the lease too when it has not been renewed for long."""
        if time.monotonic() - self._renewed > self._expiry_s / 2:
            self._lost = self._lost or self._replaced()
        super().check()

    def close(self) -> None:
        """End the thread and mark the lease as released, if it is ours still."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            with contextlib.suppress(OSError):  # it expires then
                if not self._lost and not self._replaced():
                    self._write(released=True)

    def _keep(self) -> None:
        """Renew until told to stop or replaced; what counts is when it last worked."""
        while not self._stop.wait(self._every_s):
            with contextlib.suppress(OSError):
                if self._replaced():
                    self._lost = True
                    return
                self._write()

    def _write(self, released: bool = False) -> None:
        """Put our lease in place."""
        began = time.monotonic()
        record = replace(self._record, heartbeat=time.time(), released=released)
        beside = self.folder / f".lease-{self.fence:06d}.json"
        beside.write_text(json.dumps(asdict(record)), encoding="utf-8")
        beside.replace(self.folder / LEASE_FILE)
        self._renewed = began

    def _replaced(self) -> bool:
        """Return whether a higher fence exists."""
        record, highest, _ = _look(self.folder)
        return max(highest, record.fence if record else 0) > self.fence


def _watch(folder: Path, seen: tuple[Record | None, int, bytes]) -> None:
    """Return if nothing stirs for two renewals; else raise a UserError that names the holder."""
    seconds, who = 2 * RENEW_S, seen[0].holder if seen[0] else "unknown"
    print(f"{folder}: the last driver ({who}) did not end properly; watching for {seconds:g} s", flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(RENEW_S / 10, 0.5))
        if _look(folder) != seen:
            raise _busy(folder, holder(folder))


def machine() -> str:
    """Return what tells apart boots and process namespaces, "" if that cannot be found out."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def start_of(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; None once it has ended, 0 if unknown."""
    try:
        os.kill(pid, 0)
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except ProcessLookupError:
        return None
    except OSError:  # there, but not ours to look at
        return 0
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])
