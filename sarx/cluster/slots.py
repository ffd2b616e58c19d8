"""How many segments Tune may hold, and which actor serves which: every slot busy, no actor started twice.

Left to itself, Tune (a) asks a searcher for one trial at a time, so that the actors of a cluster start one
after the other; (b) gives a free actor to the trial that has waited longest, and throws away the one that
is being started for that trial; (c) stops all free actors but one when nothing can start, as at the end of a
batch. With trials shorter than the start of an actor one slot then does the work of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler

LOOK_S = 2.0
"""Seconds between two looks at the cluster."""
PATIENCE_S = 60.0
"""Seconds after which a segment no longer waits for an actor of its own."""


class Silence(TrialProgressCallback):
    """Takes the place of what prints each of Tune's trials, which would hold on to them all."""

    def on_trial_result(self, *given: Any, **named: Any) -> None:
        """Print nothing."""

    on_trial_error = on_trial_complete = on_trial_result


class Slots(FIFOScheduler):
    """Tune's scheduler for one study: it stops nothing, and chooses who gets a free actor.

    Args:
        count: Tells how many segments the cluster holds now.
        ahead: Whether Tune gets one more than that. Not for hosts that occupy nothing: they would all start.
    """

    def __init__(self, count: Callable[[], int], *, ahead: bool = True) -> None:
        """Start with nothing handed to Tune."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._count, self._ahead = count, ahead
        self._slots, self._next_look = 0, 0.0
        self._since: dict[str, float] = {}
        self._started: set[str] = set()
        self._tune: Any = None

    def room(self) -> bool:
        """Whether Tune may be given another segment: a free slot, or one ahead when all that it has run.

        The one ahead is what a cluster sees that an autoscaler of its own lets grow.
        """
        now = time.monotonic()
        if now >= self._next_look:
            self._slots, self._next_look = self._count(), now + LOOK_S
        ahead = self._ahead and len(self._started) == len(self._since)
        return len(self._since) < self._slots + ahead

    def handed(self, tune_id: str) -> None:
        """Take note that Tune was given a segment."""
        self._since[tune_id] = time.monotonic()

    def started(self, tune_id: str) -> None:
        """Take note that a segment has an actor."""
        self._started.add(tune_id)

    def freed(self, tune_id: str) -> None:
        """Take note that a segment has ended."""
        self._since.pop(tune_id, None)
        self._started.discard(tune_id)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let Tune keep the actors that are free while nothing can start."""
        if self._tune is None:
            self._tune = tune_controller._tune_controller  # no public way (2.60)
            self._tune._actor_cache.increase_max(trial.placement_group_factory, by=1_000_000)

    def forget(self, over: list[Trial]) -> list[Trial]:
        """Let Tune forget trials that are over, but for its last one; return those that are not yet.

        Tune 2.60 keeps them all, at 70 KB each, and looks at each of them in every step.
        """
        waiting = []
        for trial in over:
            known = self._tune._trials
            finished = trial.is_finished()  # type: ignore[no-untyped-call]
            if not finished or known == [trial]:
                waiting.append(trial)
                continue
            if trial in known:
                known.remove(trial)
            for group in ("_stopped_trials", "_failed_trials", "_trials_to_cache"):
                getattr(self._tune, group).discard(trial)
        return waiting

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return who gets an actor next: the newest, which has none on its way, unless one waits long."""
        waiting: dict[str, Trial] = {
            trial.trial_id: trial
            for trial in tune_controller.get_live_trials()
            if trial.status == Trial.PENDING and trial.trial_id in self._since
        }
        if not waiting:
            return None
        oldest, newest = (choose(waiting, key=self._since.__getitem__) for choose in (min, max))
        patient = time.monotonic() - self._since[oldest] < PATIENCE_S
        return waiting[newest if patient else oldest]
