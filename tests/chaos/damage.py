"""Damaged files and full disks: each must end in a clear message or a retry, and lose nothing finished."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.subject import Subject

SMALL = {"steps": 24, "search": 2, "batch": 2, "seeds": 2, "max_failures": 3}
TRIALS = 8
NEEDS_ROOT = "needs root, to mount a file system of its own"


@dataclass
class Case:
    """What one damage did.

    Attributes:
        name: The damage.
        passed: Whether the study said what happened, went on, and lost nothing.
        said: The line that names the damage, or why the case failed or could not run.
        skipped: Whether this machine cannot do it.
    """

    name: str
    passed: bool
    said: str
    skipped: bool = False


def all_cases(folder: Path, only: str | None = None) -> Iterator[Case]:
    """Yield every case, or one of them, each on a study of its own."""
    for name, run in CASES.items():
        if only not in (None, name):
            continue
        subject = Subject(folder / name.replace(" ", "-"), **SMALL)
        try:
            yield run(name, subject)
        except AssertionError as problem:
            yield Case(name, False, str(problem))
        finally:
            subject.close()


def interrupted(subject: Subject) -> list[str]:
    """Run until two trials are finished and another has a checkpoint, SIGKILL; return the finished ones."""
    subject.start()
    subject.wait(lambda: len(subject.finished()) >= 2 and checkpoints(subject))
    subject.kill_driver(alone=False)
    return subject.finished()


def checkpoints(subject: Subject) -> list[Path]:
    """Return the resumable checkpoints of trials that are not finished, the newest last."""
    done = set(subject.finished())
    found = [
        path
        for path in (subject.study / "trials").glob("*/attempt-*/epoch-*.pt")
        if path.parts[-3] not in done and path.with_suffix(".sha256").exists()
    ]
    with contextlib.suppress(FileNotFoundError):
        return sorted(found, key=lambda path: path.stat().st_mtime)
    return []


def complete(subject: Subject, before: list[str]) -> str:
    """Check that the same command ends the study without running anything finished again."""
    starts = len(subject.events("trial_started"))
    code, output = subject.run()
    assert code == 0, f"exit code {code}: {output[-1500:]}"
    finished = subject.finished()
    assert len(finished) == len(set(finished)) == TRIALS, f"{len(set(finished))} of {TRIALS} trials finished"
    again = {event["trial_id"] for event in subject.events("trial_started")[starts:]} & set(before)
    assert not again, f"finished trials ran again: {again}"
    assert "Traceback" not in output, output[-1500:]
    return output


def damaged_checkpoint(harm: Callable[[Path], None]) -> Callable[[str, Subject], Case]:
    """Return a case that harms the newest checkpoint of a trial in flight."""

    def case(name: str, subject: Subject) -> Case:
        before = interrupted(subject)
        path = checkpoints(subject)[-1]
        harm(path)
        complete(subject, before)
        log = (path.parents[1] / "log.txt").read_text()
        said = [line for line in log.splitlines() if path.name in line]
        assert said, f"{path.name} is not named in the trial's log"
        assert list(path.parent.glob("*.bad*")) or not path.exists() or path.parent.exists()
        return Case(name, True, said[0])

    return case


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def truncate(path: Path) -> None:
    """Cut a file in half."""
    with path.open("r+b") as handle:
        handle.truncate(path.stat().st_size // 2)


def flipped_ledger(name: str, subject: Subject) -> Case:
    """A flipped bit in the middle of the ledger stops the study, which changes nothing."""
    before = interrupted(subject)
    path = sorted((subject.study / "ledger").glob("events*.ndjson"))[-1]
    raw = path.read_bytes()
    flip(path)
    code, output = subject.run()
    assert code == 2, f"exit code {code}: {output[-1500:]}"
    assert "Traceback" not in output, output[-1500:]
    said = [line for line in output.splitlines() if path.name in line and "damaged" in line]
    assert said, output[-1500:]
    flip(path)
    assert path.read_bytes() == raw, "the damaged file was changed"
    complete(subject, before)
    return Case(name, True, said[0])


def torn_ledger(name: str, subject: Subject) -> Case:
    """A torn last line is left out and named."""
    before = interrupted(subject)
    path = sorted((subject.study / "ledger").glob("events*.ndjson"))[-1]
    with path.open("ab") as handle:
        handle.write(b'{"v":2,"seq":99999,"time":1.0,"event":"trial_fin')
    output = complete(subject, before)
    said = [line for line in output.splitlines() if "torn" in line]
    assert said, output[-1500:]
    return Case(name, True, said[0])


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a small file system of memory on a folder."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def full_disk(name: str, subject: Subject) -> Case:
    """The disk fills while the study runs; with room again the same command goes on."""
    if os.geteuid() != 0:
        return Case(name, True, NEEDS_ROOT, skipped=True)
    disk = subject.folder / "disk"
    with small_disk(disk, "3m"):
        own = Subject(subject.folder, disk, **SMALL)
        code, output = own.run()
        said = refused(own, code, output)
        before = own.finished()
        subprocess.run(["mount", "-o", "remount,size=300m", str(disk)], check=True)
        complete(own, before)
    return Case(name, True, said)


def read_only_folder(name: str, subject: Subject) -> Case:
    """The folder of a study that was killed has become read-only."""
    if os.geteuid() != 0:
        return Case(name, True, NEEDS_ROOT, skipped=True)
    disk = subject.folder / "disk"
    with small_disk(disk, "300m"):
        own = Subject(subject.folder, disk, **SMALL)
        before = interrupted(own)
        own.wait_until_idle(disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        code, output = own.run()
        said = refused(own, code, output)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        complete(own, before)
    return Case(name, True, said)


def refused(subject: Subject, code: int, output: str) -> str:
    """Check that a driver ended with one clear message that names the folder, and return it."""
    assert code == 2, f"exit code {code}: {output[-3000:]}"
    assert "Traceback" not in output, output[-3000:]
    said = [
        line for line in output.splitlines() if line.startswith("error:") and str(subject.storage) in line
    ]
    assert len(said) == 1, output[-3000:]
    return said[0]


CASES: dict[str, Callable[[str, Subject], Case]] = {
    "truncated checkpoint": damaged_checkpoint(truncate),
    "flipped byte in a checkpoint": damaged_checkpoint(flip),
    "flipped byte in the ledger": flipped_ledger,
    "torn ledger": torn_ledger,
    "full disk": full_disk,
    "read-only folder": read_only_folder,
}
