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
    for name, run in (CASES if only is None else {only: (CASES | IN_TURN)[only]}).items():
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
        said = named_in_log(path)
        assert said, f"{path.name} is not named in the trial's log"
        return Case(name, True, said[0])

    return case


def named_in_log(path: Path) -> list[str]:
    """Return the lines in the log of a checkpoint's trial that name it."""
    log = (path.parents[1] / "log.txt").read_text()
    return [line for line in log.splitlines() if path.name in line]


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def truncate(path: Path) -> None:
    """Cut a file in half."""
    with path.open("r+b") as handle:
        handle.truncate(path.stat().st_size // 2)


def newest_ledger(subject: Subject) -> Path:
    """Return the file that the last driver wrote to."""
    return sorted((subject.study / "ledger").glob("events*.ndjson"))[-1]


def refuses_flipped(subject: Subject, path: Path) -> str:
    """Flip a bit of the ledger, check that the study stops and changes nothing, and flip it back."""
    raw = path.read_bytes()
    flip(path)
    code, output = subject.run()
    assert code == 2, f"exit code {code}: {output[-1500:]}"
    assert "Traceback" not in output, output[-1500:]
    said = [line for line in output.splitlines() if path.name in line and "is damaged here" in line]
    assert said, output[-1500:]
    flip(path)
    assert path.read_bytes() == raw, "the damaged file was changed"
    return said[0]


def flipped_ledger(name: str, subject: Subject) -> Case:
    """A flipped bit in the middle of the ledger stops the study, which changes nothing."""
    before = interrupted(subject)
    said = refuses_flipped(subject, newest_ledger(subject))
    complete(subject, before)
    return Case(name, True, said)


def tear(path: Path) -> None:
    """Add a line that was cut short to a ledger."""
    with path.open("ab") as handle:
        handle.write(b'{"v":2,"seq":99999,"time":1.0,"event":"trial_fin')


def names_torn(output: str, path: Path) -> list[str]:
    """Return the lines that say that the last line of a ledger was cut short."""
    return [line for line in output.splitlines() if path.name in line and "cut short" in line]


def torn_ledger(name: str, subject: Subject) -> Case:
    """A torn last line is left out and named."""
    before = interrupted(subject)
    ledger = newest_ledger(subject)
    tear(ledger)
    said = names_torn(complete(subject, before), ledger)
    assert said, subject.log.read_text()[-1500:]
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


def remount(disk: Path, options: str) -> None:
    """Give a mounted file system other options."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


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
        remount(disk, "size=300m")
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
        remount(disk, "ro")
        code, output = own.run()
        said = refused(own, code, output)
        remount(disk, "rw")
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


def files_in_turn(name: str, subject: Subject) -> Case:
    """Ledger flipped, then torn, and a checkpoint cut in half; after another kill one with a flipped bit."""
    before = interrupted(subject)
    ledger, cut = newest_ledger(subject), checkpoints(subject)[-1]
    refuses_flipped(subject, ledger)
    tear(ledger)
    truncate(cut)
    subject.start()
    starts = len(subject.events("trial_started"))
    subject.wait(lambda: named_in_log(cut) and len(subject.events("trial_started")) > starts)
    subject.wait(lambda: len(subject.finished()) > len(before) and checkpoints(subject))
    subject.kill_driver(alone=False)
    assert names_torn(subject.log.read_text(), ledger), subject.log.read_text()[-1500:]
    flipped = checkpoints(subject)[-1]
    flip(flipped)
    complete(subject, subject.finished())
    assert named_in_log(flipped), f"{flipped.name} is not named in the trial's log"
    return Case(name, True, f"{named_in_log(cut)[0]}; {named_in_log(flipped)[0]}")


def disks_in_turn(name: str, subject: Subject) -> Case:
    """The disk fills; with more room the study goes on; killed, it finds its folder read-only."""
    if os.geteuid() != 0:
        return Case(name, True, NEEDS_ROOT, skipped=True)
    disk = subject.folder / "disk"
    with small_disk(disk, "3m"):
        own = Subject(subject.folder, disk, **SMALL)
        full = refused(own, *own.run())
        remount(disk, "size=300m")
        own.start()
        done = len(own.finished())
        own.wait(lambda: len(own.finished()) > done and checkpoints(own))
        own.kill_driver(alone=False)
        own.wait_until_idle(disk)
        remount(disk, "ro")
        read_only = refused(own, *own.run())
        remount(disk, "rw")
        complete(own, own.finished())
    return Case(name, True, f"{full}; {read_only}")


CASES: dict[str, Callable[[str, Subject], Case]] = {
    "truncated checkpoint": damaged_checkpoint(truncate),
    "flipped byte in a checkpoint": damaged_checkpoint(flip),
    "flipped byte in the ledger": flipped_ledger,
    "torn ledger": torn_ledger,
    "full disk": full_disk,
    "read-only folder": read_only_folder,
}
IN_TURN: dict[str, Callable[[str, Subject], Case]] = {
    "damaged files in turn": files_in_turn,
    "damaged disks in turn": disks_in_turn,
}
"""The same damages, several to a study: less of the time goes into starting Ray."""
