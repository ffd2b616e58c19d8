"""Where a run of a study stops by itself: hours, trials, GPU hours, and a disk that takes no more."""

from __future__ import annotations

import errno
import os
import time

from sarx.config.errors import UserError
from sarx.search.engine import Engine
from sarx.study.schema import Limits
from sarx.study.storage import StudyFolder

ROOM = 4 * 2**20
"""Bytes that a storage must take after a failed attempt, or the study stops."""
LOOK_S = 0.5
"""Seconds between two looks at what has been spent."""


class Guard:
    """Says when a run must stop. Limits at 0 do not count.

    Args:
        limits: The study's limits.
        engine: The study being run; asked for what has been spent over all starts.
        started: ``time.monotonic()`` at which this start began.
    """

    def __init__(self, limits: Limits, engine: Engine, started: float) -> None:
        """Start without having looked."""
        self.limits = limits
        self.engine = engine
        self.started = started
        self._next_look = 0.0

    def reached(self) -> str | None:
        """Return which limit is reached, as a sentence, or None; also None when the study is done."""
        now, limits = time.monotonic(), self.limits
        if now < self._next_look:
            return None
        self._next_look = now + LOOK_S
        why = None
        hours = (now - self.started) / 3600
        if limits.max_hours and hours >= limits.max_hours:
            why = f"limits.max_hours={limits.max_hours:g} is reached: this start has run {hours:.3g} hours"
        elif limits.max_trials or limits.max_gpu_hours:
            trials, gpu_hours = self.engine.spent()
            if limits.max_trials and trials >= limits.max_trials:
                why = f"limits.max_trials={limits.max_trials} is reached: {trials} trials are decided"
            elif limits.max_gpu_hours and gpu_hours >= limits.max_gpu_hours:
                why = (
                    f"limits.max_gpu_hours={limits.max_gpu_hours:g} is reached: "
                    f"{gpu_hours:.3g} GPU hours are used"
                )
        return None if why is None or self.engine.done else why

    def admits(self, running: int) -> bool:
        """Whether one more segment may start, so that ``max_trials`` cannot be overshot.

        Each running segment may decide its trial. So none starts when all of them, this one included, could
        bring the decided trials above the limit; trials that wait at a rung go on at the next start.

        Args:
            running: Segments that run now.
        """
        limit = self.limits.max_trials
        return not limit or self.engine.spent()[0] + running < limit


def check_room(folder: StudyFolder, reason: str) -> None:
    """After a failed attempt, ask whether it was the storage that failed and not the trial.

    A full or read-only storage would fail every trial in turn until all are given up; it must stop the study.

    Args:
        folder: The study's folder.
        reason: Why the attempt failed.

    Raises:
        OSError: If the storage takes no file of ``ROOM`` bytes, or if the attempt failed for want of room.
    """
    for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        if os.strerror(number) in reason and str(folder.root) in reason:
            raise OSError(number, os.strerror(number), str(folder.root))
    probe = folder.root / f".room-{os.getpid()}"
    try:
        with probe.open("wb") as handle:
            handle.write(bytes(ROOM))
            handle.flush()
            os.fsync(handle.fileno())
    finally:
        probe.unlink(missing_ok=True)


def unwritable(folder: StudyFolder, error: OSError) -> UserError:
    """Return what to tell the user when the study's folder cannot be written."""
    return UserError(
        f"the study cannot be recorded any more ({error.strerror or error}); nothing finished is lost. Free "
        "space there or make it writable, then the same command goes on",
        where=str(error.filename or folder.root),
    )
