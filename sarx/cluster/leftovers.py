"""Deletes what decided trials no longer need."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

from sarx.cluster.transfer import delete_checkpoints
from sarx.search.engine import Engine
from sarx.search.state import DIVERGED as DIVERGED_TRIAL
from sarx.search.state import FINISHED, NEW
from sarx.study.ledger import Event
from sarx.study.ledger_schema import CONFIRM
from sarx.study.storage import StudyFolder


class Leftovers:
    """Deletes the resumable checkpoints of decided trials; confirm trials keep their final weights.

    A trial is decided when it has finished or diverged, or when all that claimed it have stopped it early.
    One that failed for good keeps its checkpoints: it may be retried.

    Args:
        engine: The study being run.
        folder: Its folder.
    """

    def __init__(self, engine: Engine, folder: StudyFolder) -> None:
        """Start with nothing known; the first ``clean`` reads all of the ledger."""
        self.engine = engine
        self.folder = folder
        self._read = 0
        self._phase: dict[str, str] = {}
        self._remote = ThreadPoolExecutor(1) if folder.url is not None else None  # the store may be slow

    def clean(self) -> None:
        """Delete what was left by the trials that were decided since the last call."""
        events = self.engine.ledger.events
        fresh, self._read = events[self._read :], len(events)
        moved = dict.fromkeys(trial for event in fresh if (trial := self._note(event)))
        for trial_id in moved:
            if self._decided(trial_id):
                self._delete(trial_id)
                if self._remote is not None:
                    self._remote.submit(self._delete_remote, trial_id)

    def close(self) -> None:
        """Wait for what is being deleted from an object store."""
        if self._remote is not None:
            self._remote.shutdown()

    def _note(self, event: Event) -> str | None:
        """Take in an event; return the trial if it may be decided now."""
        kind, trial_id = event["event"], event.get("trial_id", "")
        if kind == "trial_started":
            self._phase[trial_id] = event["phase"]
        return trial_id if kind in ("stopped", "trial_finished", "diverged") else None

    def _decided(self, trial_id: str) -> bool:
        status = self.engine.records[trial_id].status
        if status == NEW:
            return self.engine.stopped(trial_id)
        return status in (FINISHED, DIVERGED_TRIAL)

    def _delete(self, trial_id: str) -> None:
        for attempt in self.folder.trial(trial_id).glob("attempt-*"):
            try:
                if self._phase.get(trial_id) == CONFIRM:
                    for stale in (*attempt.glob("epoch-*"), *attempt.glob(".epoch-*")):
                        stale.unlink(missing_ok=True)
                elif attempt.is_dir():
                    shutil.rmtree(attempt)
            except OSError as error:
                print(f"{attempt}: checkpoints that are needed no more stay there ({error})", flush=True)

    def _delete_remote(self, trial_id: str) -> None:
        try:
            delete_checkpoints(self.folder, trial_id)
        except OSError as error:
            print(f"trial {trial_id}: checkpoints that are needed no more stay there ({error})", flush=True)
