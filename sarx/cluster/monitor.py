"""Progress of a running study, one line now and then."""

from __future__ import annotations

import time

from sarx.search.engine import Engine
from sarx.search.state import DECIDED, DIVERGED, FAILED
from sarx.study.ledger_schema import CONFIRM, SEARCH

INTERVAL_S = 15.0


class Monitor:
    """Prints how far a study is and when it will be done.

    Args:
        interval_s: Seconds between two lines.
    """

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        """Start the clock."""
        self.interval_s = interval_s
        self.started = time.monotonic()
        self.last = self.started
        self.before: int | None = None

    def tick(self, engine: Engine, *, force: bool = False) -> None:
        """Print a line if enough time has passed."""
        now = time.monotonic()
        if self.before is None:
            self.before = sum(progress(engine)[0].values())
        if not force and now - self.last < self.interval_s:
            return
        self.last = now
        print(self.line(engine, now), flush=True)

    def line(self, engine: Engine, now: float) -> str:
        """Return the present state as one line."""
        done, total = progress(engine)
        elapsed = now - self.started
        new = sum(done.values()) - (self.before or 0)
        left = sum(total.values()) - sum(done.values())
        eta = f"about {clock(elapsed / new * left)} left" if new > 0 else "estimating"
        parts = [f"{phase} {done[phase]}/{total[phase]}" for phase in (SEARCH, CONFIRM)]
        trouble = [record.status for record in engine.records.values() if record.status in (FAILED, DIVERGED)]
        counts = [f"{trouble.count(status)} {status}" for status in (DIVERGED, FAILED) if status in trouble]
        return f"[{clock(elapsed)}] " + ", ".join([*parts, *counts, eta])


def progress(engine: Engine) -> tuple[dict[str, int], dict[str, int]]:
    """Return trials decided and planned, by phase."""
    done, total = {SEARCH: 0, CONFIRM: 0}, {SEARCH: 0, CONFIRM: 0}
    for arm in engine.arms:
        total[SEARCH] += engine.trials_of(arm)
        total[CONFIRM] += engine.study.confirm.seeds
    for claim in engine.queue():
        done[claim.phase] += engine.record(claim).status in DECIDED
    return done, total


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
