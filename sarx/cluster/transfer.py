"""Files between a machine's working copy of a study and the object store on which the study lies.

A worker brings logs and checkpoints before it starts a segment and sends them after every epoch, before the
driver hears of it. So what the driver records is never ahead of what another machine can continue from. The
driver sends everything else: the study's files and TensorBoard. Of a study in a folder nothing is done here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sarx.study.storage import StudyFolder
from sarx.study.store import Object, Store, deletable
from sarx.study.store_object import store_of

SEND_S = 10.0
"""Seconds between two rounds of sending what the driver writes."""
LOGS_S = 10.0
"""Seconds between two times that a worker sends the log of a trial that goes well."""
_CHECKPOINT = re.compile(r"epoch-\d+\.pt")
_NOT_SENT = frozenset({"ledger", "trials", "report"})

Stamp = tuple[int, int]
"""Size and time of change of a file: what was sent last."""


class Carrier:
    """What a worker carries for one segment.

    Args:
        folder: The study's folder; ``url`` must be set.
        trial_id: The trial.
        attempts: Numbers of the attempts, this one first, then those that it may continue from.
        rank: Only rank 0 sends checkpoints and the list of attempts.
    """

    def __init__(self, folder: StudyFolder, trial_id: str, attempts: list[int], rank: int = 0) -> None:
        """Carry nothing yet."""
        assert folder.url is not None
        self.folder, self.trial_id, self.attempts, self.rank = folder, trial_id, attempts, rank
        self.store: Store = store_of(folder.url)
        self.local = folder.trial(trial_id)
        self._sent: dict[str, Stamp] = {}
        self._next_logs = 0.0

    def bring(self) -> None:
        """Make the working copy of the trial equal to the store: its logs, and checkpoints to continue from.

        A checkpoint whose digest does not match is named and left out, so that the one before is used.
        """
        self.local.mkdir(parents=True, exist_ok=True)
        found = {item.name: item for item in self.store.listing(f"trials/{self.trial_id}")}
        with _locked(self.local / ".bringing"):  # ranks of one machine share the folder
            bring_logs(self.folder, self.trial_id, found)
            wanted: set[Path] = set()
            for attempt in self.attempts:
                usable = [] if wanted else self._bring_attempt(attempt, found)
                wanted |= {path for file in usable for path in (file, file.with_suffix(".sha256"))}
                for stale in self.folder.attempt(self.trial_id, attempt).glob("epoch-*"):
                    if stale not in wanted:
                        stale.unlink(missing_ok=True)

    def _bring_attempt(self, attempt: int, found: dict[str, Object]) -> list[Path]:
        """Bring the checkpoints of one attempt that verify; return them."""
        prefix = f"trials/{self.trial_id}/attempt-{attempt}/"
        files = []
        for name in sorted(found, reverse=True):
            beside = name.removesuffix(".pt") + ".sha256"
            if not (name.startswith(prefix) and _CHECKPOINT.fullmatch(name.removeprefix(prefix))):
                continue
            path = self.folder.root / name
            if beside not in found:
                continue  # it was being sent when its worker was lost
            path.parent.mkdir(parents=True, exist_ok=True)
            stated = self.store.read(beside)[0]
            coming = path.with_name(f".{path.name}.coming")
            digest = self.store.fetch(name, coming)
            if digest != stated.decode("ascii", errors="replace").strip():
                coming.unlink()
                print(
                    f"checkpoint {self.store.url}/{name} is damaged: its checksum does not match", flush=True
                )
                continue
            path.with_suffix(".sha256").write_bytes(stated)
            coming.replace(path)
            files.append(path)
        return files

    def send_checkpoints(self) -> None:
        """Send what the attempt has written since the last call, each checkpoint before its digest."""
        if self.rank:
            return
        folder = self.folder.attempt(self.trial_id, self.attempts[0])
        stamps = dict(_stamps(folder))
        for path in sorted(stamps, key=lambda path: (path.suffix == ".sha256", path.name)):
            self._send(path, stamps[path])
        gone = [name for name in self._sent if deletable(name) and not (self.folder.root / name).exists()]
        self.store.delete(gone)
        for name in gone:
            del self._sent[name]

    def send_logs(self, at_once: bool = True) -> None:
        """Send what the trial's logs have gained; unless at once, not again before ``LOGS_S`` have passed."""
        if not at_once and time.monotonic() < self._next_logs:
            return
        self._next_logs = time.monotonic() + LOGS_S
        for path, stamp in _stamps(self.local):
            own = path.name == (f"log-rank{self.rank}.txt" if self.rank else "log.txt")
            if own or (self.rank == 0 and not path.name.startswith("log")):
                self._send(path, stamp)

    def tidy(self) -> None:
        """Delete the working copies of the checkpoints, all of which are in the store."""
        if not self.rank:
            for attempt in self.attempts:
                shutil.rmtree(self.folder.attempt(self.trial_id, attempt), ignore_errors=True)

    def _send(self, path: Path, stamp: Stamp) -> None:
        name = path.relative_to(self.folder.root).as_posix()
        if self._sent.get(name) == stamp:
            return
        with contextlib.suppress(FileNotFoundError):  # replaced by newer ones meanwhile
            self.store.put(name, path if stamp[0] > 2**20 else path.read_bytes())
            self._sent[name] = stamp


def bring_logs(folder: StudyFolder, trial_id: str, found: dict[str, Object] | None = None) -> None:
    """Bring the logs of a trial that another machine has written on; they only grow, so the longer is right.

    Args:
        folder: The study's folder.
        trial_id: The trial.
        found: The objects of the trial by name, if they are known.
    """
    if folder.url is None:
        return
    store = store_of(folder.url)
    if found is None:
        found = {item.name: item for item in store.listing(f"trials/{trial_id}")}
    for name, item in found.items():
        path = folder.root / name
        if path.parent.name != trial_id or path.suffix not in (".txt", ".ndjson"):
            continue
        if not path.exists() or path.stat().st_size < item.size:
            path.parent.mkdir(parents=True, exist_ok=True)
            coming = path.with_name(f".{path.name}.{os.getpid()}")
            store.fetch(name, coming)
            coming.replace(path)


def send_log(folder: StudyFolder, trial_id: str) -> None:
    """Send the log of a trial to which the driver has added something."""
    if folder.url is not None:
        path = folder.trial(trial_id) / "log.txt"
        store_of(folder.url).put(path.relative_to(folder.root).as_posix(), path.read_bytes())


def delete_checkpoints(folder: StudyFolder, trial_id: str) -> None:
    """Delete the resumable checkpoints of a decided trial from the store."""
    if folder.url is not None:
        store = store_of(folder.url)
        names = [item.name for item in store.listing(f"trials/{trial_id}")]
        store.delete([name for name in names if deletable(name)])


class Publisher:
    """Sends what the driver writes below the study's folder, every few seconds and at the end.

    Args:
        folder: The study's folder; ``url`` must be set.
    """

    def __init__(self, folder: StudyFolder) -> None:
        """Take what the store has already for sent; send nothing yet."""
        assert folder.url is not None
        self.folder = folder
        self.store: Store = store_of(folder.url)
        there = {item.name: item.size for item in self.store.listing("tensorboard")}
        self._sent = {
            name: stamp
            for path, stamp in _stamps(folder.tensorboard)
            if there.get(name := path.relative_to(folder.root).as_posix()) == stamp[0]
        }
        self._guard, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sarx-publisher", daemon=True)

    def start(self) -> None:
        """Send what there is, then go on in a thread.

        Raises:
            StoreError: If the first round fails.
        """
        self.send()
        self._thread.start()

    def send(self) -> None:
        """Send every file that has changed since it was sent."""
        with self._guard:
            for top in sorted(self.folder.root.iterdir()):
                if top.name in _NOT_SENT or top.name.startswith("."):
                    continue
                for path, stamp in _stamps(top):
                    name = path.relative_to(self.folder.root).as_posix()
                    if self._sent.get(name) != stamp:
                        self.store.put(name, path.read_bytes())
                        self._sent[name] = stamp

    def close(self) -> None:
        """End the thread and send the rest; where that fails it is said: the ledger has all that counts."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self.send()
        except OSError as error:
            print(
                f"{self.folder.url}: TensorBoard files stay in {self.folder.root} ({error.strerror})",
                flush=True,
            )

    def _keep(self) -> None:
        while not self._stop.wait(SEND_S):
            with contextlib.suppress(OSError):  # the next round sends it
                self.send()


@contextlib.contextmanager
def publishing(folder: StudyFolder, fresh: bool) -> Iterator[Callable[[], None]]:
    """Keep the store up to date with what the driver writes; give a function that sends it at once.

    Args:
        folder: The study's folder.
        fresh: Whether the study has no events: what the working copy holds is of an earlier life then.

    Raises:
        StoreError: If the store cannot be written.
    """
    if folder.url is None:
        yield lambda: None
        return
    if fresh:
        for path in folder.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        folder.tensorboard.mkdir()
    promise = folder.root / "study.lock"
    try:
        promise.write_bytes(store_of(folder.url).read(promise.name)[0])
    except FileNotFoundError:
        promise.unlink(missing_ok=True)
    publisher = Publisher(folder)
    publisher.start()
    try:
        yield publisher.send
    finally:
        publisher.close()


def _stamps(place: Path) -> Iterator[tuple[Path, Stamp]]:
    """Yield the files of a folder that are whole, or a file itself, with their stamps."""
    shallow = place.parent.name == "trials"
    paths = [place] if place.is_file() else place.glob("*" if shallow else "**/*")
    for path in paths:
        if not path.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if path.is_file():
                    yield path, (stat.st_size, stat.st_mtime_ns)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
