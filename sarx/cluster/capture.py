"""What a process prints goes to a trial's log; a process that hangs is ended."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from sarx.cluster.failures import verdict


@contextlib.contextmanager
def captured(log: Path, attempt: int) -> Iterator[None]:
    """Send everything this process prints inside the block to a file, tracebacks included.

    An exception is written with its traceback, and in one last line that says that the attempt failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as restore:
        raw = restore.enter_context(log.open("ab", buffering=0))  # nothing is left to write when it closes
        handle = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
        restore.callback(handle.detach)
        for fd in (1, 2):
            copy = os.dup(fd)
            restore.callback(os.close, copy)
            restore.callback(os.dup2, copy, fd)
            os.dup2(raw.fileno(), fd)
        try:
            with contextlib.redirect_stdout(handle), contextlib.redirect_stderr(handle):
                yield
        except GeneratorExit:
            raise
        except BaseException as error:
            with contextlib.suppress(OSError):  # a full disk: the driver gets the error itself from Ray
                handle.write(traceback.format_exc())
                handle.write(verdict(attempt, f"{type(error).__name__}: {error}"))
            raise


@contextlib.contextmanager
def watchdog(log: Path, seconds: float | None) -> Iterator[None]:
    """End this process if the block takes longer, with the stacks of all threads at the end of ``log``.

    It works while the block hangs in C code, holding the GIL or not.

    Args:
        log: Where the stacks are written.
        seconds: What the block may take; None: as long as it likes.
    """
    if seconds is None:
        yield
        return
    with log.open("ab", buffering=0) as handle:
        faulthandler.dump_traceback_later(max(seconds, 0.001), exit=True, file=handle)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
