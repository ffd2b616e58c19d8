"""Progress of a running study: a table of its arms on a terminal, else one line now and then."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import Counter
from pathlib import Path
from types import TracebackType

from rich.console import Group

from sarx.cluster.live import MAX_ARMS, LiveView, failures, frame, wanted
from sarx.cluster.pace import Pace, Work, remaining, work
from sarx.search.engine import Engine
from sarx.search.overview import ArmOverview, Count, overview, totals
from sarx.search.shortfall import shortfalls

INTERVAL_S = 15.0
REFRESH_S = 0.5
SHARE = 0.05
"""Part of the driver's time that looking at the study may take at most."""


class Monitor:
    """Shows how far a study is and when it will be done.

    On a terminal a table of the arms is redrawn in place; elsewhere, under CI and with ``SARX_PLAIN=1`` one
    line is printed now and then. Everything is drawn by ``tick`` and ``close``, in the caller's thread; no
    error of the terminal, or of the pipe that is printed to, leaves them.

    Args:
        interval_s: Seconds between two lines.
        results: Folder of the results, shown below the table.
    """

    def __init__(self, interval_s: float = INTERVAL_S, *, results: Path | str = "") -> None:
        """Start the clock."""
        self.interval_s = interval_s
        self.results = str(results)
        self.started = time.monotonic()
        self.next = self.started + interval_s
        self.pace: Pace | None = None
        self.view: LiveView | None = None
        self.engine: Engine | None = None
        self.closed = False
        self._said = ""
        self._warned: set[str] = set()

    def __enter__(self) -> Monitor:
        """Return the monitor."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show the final state, whatever happened."""
        self.close()

    def tick(self, engine: Engine, *, force: bool = False) -> None:
        """Show the present state if enough time has passed; the first call only takes note of it."""
        if self.closed:
            return
        now = time.monotonic()
        if self.pace is None:
            self.engine, self.pace = engine, Pace(engine)
            if wanted():
                self.view = LiveView()
                self.next = now + REFRESH_S
        if force or now >= self.next:
            self._warn(engine)
            self._show(engine)
            took = time.monotonic() - now
            self.next = now + max(REFRESH_S if self.view else self.interval_s, took / SHARE)

    def close(self) -> None:
        """Show the final state once and give the terminal back; a signal handler may call it, and twice."""
        if self.closed:
            return
        self.closed = True
        if self.engine is not None:
            # the signal may have come while the engine was between two states
            with contextlib.suppress(RuntimeError, LookupError, AttributeError, TypeError, ValueError):
                self._show(self.engine, last=True)
        if self.view is not None:
            self.view.close()

    def line(self, engine: Engine, now: float) -> str:
        """Return the present state as one line."""
        arms, done = overview(engine), work(engine)
        parts = [_phase(phase, count) for phase, count in totals(arms).items()]
        if best := _best(engine, arms):
            parts.append(f"best {best.key} {best.best:.4g}")
        if trouble := failures(sum((arm.failures for arm in arms), Counter[str]())):
            parts.append(trouble)
        unit, rate = _hours(engine)
        parts += [f"{done.seconds * rate:.1f} {unit}", self._left(engine, arms, done, now)]
        return f"[{clock(now - self.started)}] " + ", ".join(parts)

    def table(self, engine: Engine, now: float, rows: int = MAX_ARMS) -> Group:
        """Return the present state as a table of at most ``rows`` arms and a line below it."""
        arms, done, elapsed = overview(engine), work(engine), now - self.started
        counts = totals(arms).values()
        parts = [
            f"{clock(elapsed)} elapsed",
            self._left(engine, arms, done, now),
            f"{sum(count.done for count in counts)}/{sum(count.total for count in counts)} decided",
        ]
        if self.pace and elapsed > 0 and (new := done.decided - self.pace.before.decided):
            parts.append(f"{new / elapsed * 60:.3g} trials/min")
        parts += [f"results {self.results}"] if self.results else []
        goal = engine.study.objective.metric
        return frame(arms, "   ".join(parts), metric=goal, hours=_hours(engine), rows=rows)

    def _show(self, engine: Engine, *, last: bool = False) -> None:
        now = time.monotonic()
        if self.view is None:
            self._say(self.line(engine, now))
        elif last:
            self.view.close(self.table(engine, now, self.view.rows))
        else:
            self.view.draw(self.table(engine, now, self.view.rows))

    def _warn(self, engine: Engine) -> None:
        """Say once of each arm that it stays below what others reach."""
        for arm, text in shortfalls(engine).items():
            if arm not in self._warned:
                self._warned.add(arm)
                self._say(text)

    def _left(self, engine: Engine, arms: list[ArmOverview], done: Work, now: float) -> str:
        if engine.done:
            return "done"
        left = remaining(engine, arms)
        seconds = self.pace.left(engine, left, done, now - self.started) if self.pace else None
        return "estimating" if seconds is None else f"about {about(seconds)} left"

    def _say(self, text: str) -> None:
        """Print a line, once; nobody listening is no reason to end a study."""
        if text == self._said:
            return
        self._said = text
        try:
            print(text, flush=True)
        except RuntimeError:  # a signal came in the middle of another print
            with contextlib.suppress(OSError):
                os.write(1, f"{text}\n".encode())
        except OSError:
            pass


# ---------------------------------------------------------------- as text


def progress(engine: Engine) -> tuple[dict[str, int], dict[str, int]]:
    """Return trials decided and planned, by phase."""
    counts = totals(overview(engine))
    return {p: count.done for p, count in counts.items()}, {p: count.total for p, count in counts.items()}


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def about(seconds: float) -> str:
    """Write seconds roughly, such as ``40 s``, ``50 min``, ``3.5 h`` or ``4.2 days``."""
    for unit, size, upto in (("s", 1, 90), ("min", 60, 5400)):
        if seconds < upto:
            return f"{math.ceil(seconds / size)} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _phase(phase: str, count: Count) -> str:
    stopped = f" ({count.stopped} stopped early)" if count.stopped else ""
    return f"{phase} {count.done}/{count.total}{stopped}"


def _best(engine: Engine, arms: list[ArmOverview]) -> ArmOverview | None:
    """Return the arm with the best objective of a finished search trial."""
    found = [arm for arm in arms if not math.isnan(arm.best)]
    sign = 1 if engine.study.objective.mode == "max" else -1
    return max(found, key=lambda arm: sign * arm.best, default=None)


def _hours(engine: Engine) -> tuple[str, float]:
    """Return what the hours of this study are hours of, and how many one recorded second is."""
    needs = engine.study.resources
    name, each = "CPU h", float(needs.cpus_per_worker)
    if needs.gpus_per_worker:
        name, each = "GPU h", needs.gpus_per_worker
    return name, each * needs.num_workers / 3600
