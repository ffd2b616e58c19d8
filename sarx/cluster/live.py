"""A table of the arms on a terminal, redrawn in place, while what is printed meanwhile scrolls above it."""

from __future__ import annotations

import contextlib
import io
import math
import os
import select
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from sarx.search.overview import ArmOverview, Count
from sarx.search.state import DIVERGED, FAILED
from sarx.study.ledger_schema import CONFIRM, FINALIST, SEARCH

MAX_ARMS = 30
AROUND = 5
"""Lines of a frame that are no arms."""
PATIENCE_S = 0.2
"""Seconds that leaving waits for a terminal that takes nothing, such as one stopped by Ctrl-S."""


def wanted() -> bool:
    """Whether a live view suits: a terminal that can move its cursor, no CI, no ``SARX_PLAIN=1``."""
    plain = any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in ("CI", "SARX_PLAIN"))
    dumb = os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")
    return not plain and not dumb and sys.stdout.isatty()


# ---------------------------------------------------------------- what it shows


def frame(
    arms: Sequence[ArmOverview], bottom: str, *, metric: str, hours: tuple[str, float], rows: int = MAX_ARMS
) -> Group:
    """Return the table of the arms, those that are not done first, and the line below it.

    Args:
        arms: How far each arm is.
        bottom: The line below.
        metric: Name of the objective.
        hours: Unit of the column of hours, and its amount for each recorded second.
        rows: Arms shown at most.
    """
    finalists = any(FINALIST in arm.phases for arm in arms)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("arm", no_wrap=True)
    numbers = ["search", "stopped", *(["finalist"] if finalists else []), "confirm", "running"]
    for name in (*numbers, f"best {metric}", hours[0]):
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("failures")
    shown = sorted(arms, key=_done)[: max(1, min(rows, MAX_ARMS))]
    for arm in shown:
        phases = [arm.phases.get(phase) for phase in (SEARCH, *([FINALIST] if finalists else []), CONFIRM)]
        cells = [_of(phase) for phase in phases]
        cells[1:1] = [str(arm.phases[SEARCH].stopped or "")]
        best = "" if math.isnan(arm.best) else f"{arm.best:.4g}"
        cells += [str(arm.running or ""), best, f"{arm.seconds * hours[1]:.2f}", failures(arm.failures)]
        table.add_row(*map(Text, (arm.key, *cells)), style="dim" if _done(arm) else "")
    more = len(arms) - len(shown)
    rest = [Text(f"and {more} more")] if more else []
    return Group(table, *rest, Text(bottom))


def failures(counts: Counter[str]) -> str:
    """Write how often what went wrong, such as ``1 diverged, 3 crashed, 1 failed for good``."""
    first = [name for name in (DIVERGED,) if counts[name]]
    kinds = sorted(name for name in counts if counts[name] and name not in (DIVERGED, FAILED))
    texts = [f"{counts[name]} {name.replace('_', ' ')}" for name in (*first, *kinds)]
    return ", ".join([*texts, *([f"{counts[FAILED]} failed for good"] if counts[FAILED] else [])])


def rendered(renderable: Any, width: int) -> str:
    """Return something of rich's as text for a terminal of a width; colours as the environment says."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, highlight=False, legacy_windows=False)
    console.print(renderable)
    return file.getvalue()


def _of(count: Count | None) -> str:
    return f"{count.done}/{count.total}" if count and count.total else "-"


def _done(arm: ArmOverview) -> bool:
    return all(count.done >= count.total for count in arm.phases.values())


# ---------------------------------------------------------------- how it is drawn


class LiveView:
    """The last lines of a terminal. The cursor is never hidden, and always stands below them.

    So nothing has to be put right whenever the process ends, by SIGKILL too. ``sys.stdout`` and
    ``sys.stderr`` are replaced until ``close``: whole lines that are printed go above the view at once, the
    beginning of a line waits for its end.
    """

    def __init__(self) -> None:
        """Take over the terminal of ``sys.stdout``."""
        sys.stdout.flush()
        self.stdout = sys.stdout
        self.descriptor = sys.stdout.fileno()
        self.lock = threading.RLock()
        self.closed = False
        self._text = ""
        self._height = 0
        self._size = self.size
        self._torn = False
        self._replaced: list[tuple[str, TextIO, Above]] = []
        for name in ("stdout", "stderr"):
            stream: TextIO = getattr(sys, name)
            if stream is not None and stream.isatty():
                above = Above(self, stream)
                self._replaced.append((name, stream, above))
                setattr(sys, name, above)

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines of the terminal."""
        try:
            found = os.get_terminal_size(self.descriptor)
        except OSError:
            found = os.terminal_size((0, 0))
        return os.terminal_size((found.columns or 80, found.lines or 24))

    @property
    def rows(self) -> int:
        """Arms that a frame can show."""
        return self.size.lines - AROUND

    def draw(self, renderable: Any) -> None:
        """Replace what is shown, without waiting for a terminal that takes nothing now."""
        if self.lock.acquire(blocking=False):
            try:
                if not self.closed and _writable(self.descriptor, 0.0):
                    self._redraw("", self._lines(renderable))
            finally:
                self.lock.release()

    def above(self, text: str) -> None:
        """Print whole lines above the view."""
        with self.lock:
            self._redraw(text, self._text)

    def close(self, renderable: Any | None = None) -> None:
        """Show a last frame, which stays, and give the streams back; a second time does nothing.

        From a signal handler it neither waits for a thread nor for a terminal longer than ``PATIENCE_S``.

        Args:
            renderable: The last frame; None: what was shown last.
        """
        got = self.lock.acquire(timeout=PATIENCE_S)
        try:
            if self.closed:
                return
            self.closed = True
            for name, stream, above in self._replaced:
                if getattr(sys, name) is above:
                    setattr(sys, name, stream)
            if self._torn or not got:  # in the middle of another frame
                self._height = 0
            held = "".join(f"{above.held}\n" for _, _, above in self._replaced if above.held)
            last = self._text if renderable is None else self._lines(renderable)
            if _writable(self.descriptor, PATIENCE_S):
                self._redraw(("\r\n" if self._torn else "") + held, last)
        finally:
            if got:
                self.lock.release()

    def _lines(self, renderable: Any) -> str:
        columns, lines = self.size
        text = rendered(renderable, columns - 1).splitlines(keepends=True)
        return "".join(text[-(lines - 1) :])

    def _redraw(self, above: str, below: str) -> None:
        """Erase the view, print lines, draw the view again, all in one write where the terminal allows."""
        size = self.size
        height = self._height if size == self._size else 0  # lines have wrapped anew: nobody knows how
        erase = f"\x1b[{height}A\r\x1b[J" if height else "\r"
        data = (erase + above + below).encode(self.stdout.encoding or "utf-8", "replace")
        self._torn = True
        with contextlib.suppress(OSError):  # the terminal is gone, which must not end the study
            while data:
                data = data[os.write(self.descriptor, data) :]
            self._torn = False
        self._text, self._height, self._size = below, below.count("\n"), size


class Above:
    """Stands in for a stream of a terminal that has a live view.

    Args:
        view: The view.
        stream: The stream; all but writing is left to it.
    """

    def __init__(self, view: LiveView, stream: TextIO) -> None:
        """Begin with nothing held."""
        self.view, self.stream, self.held = view, stream, ""

    def write(self, text: str) -> int:
        """Print whole lines above the view, and hold the rest back until its line ends."""
        if self.view.closed:
            return self.stream.write(text)
        with self.view.lock:
            lines, newline, rest = text.rpartition("\n")
            if newline:
                whole, self.held = self.held + lines + newline, rest
                self.view.above(whole)
            else:
                self.held += text
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        """Write texts one after the other."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flush the stream; whole lines are out already."""
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Leave the rest to the stream."""
        return getattr(self.stream, name)


def _writable(descriptor: int, seconds: float) -> bool:
    try:
        return bool(select.select([], [descriptor], [], seconds)[1])
    except (OSError, ValueError):
        return False
