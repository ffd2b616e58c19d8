"""Hands the engine's segments to Ray Tune and Tune's results to the engine."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from sarx.cluster.monitor import Monitor
from sarx.cluster.trial import DIVERGED, encode_segment, failure_reason
from sarx.config.schema import as_dict
from sarx.search.engine import Claim, Engine, Segment
from sarx.study.ledger_schema import CONFIRM
from sarx.study.storage import StudyFolder
from sarx.tensorboard import Board


class SegmentSearcher(Searcher):
    """Tune's searcher for one study. Every Tune trial is one segment.

    Tune swallows errors raised in ``on_trial_complete``, and a study must not go on without its ledger; so
    that method only takes note, and the outcome is recorded at the next suggestion, whose errors end the run.
    """

    def __init__(self, engine: Engine, folder: StudyFolder, threads: int, monitor: Monitor) -> None:
        """Serve one engine."""
        super().__init__(metric=None, mode=None)  # Tune has no say in what is better
        self.engine = engine
        self.folder = folder
        self.threads = threads
        self.monitor = monitor
        self.running: dict[str, tuple[Segment, Board]] = {}
        self.ended: list[tuple[Segment, Board, dict[str, Any] | None]] = []

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Accept a run without metric, mode and space of Tune's own."""
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Give Tune nothing to save: the ledger is the only state."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """Return the next segment as a Tune config, None while nothing can start, FINISHED at the end."""
        self.record_ended()
        segment = self.engine.next_segment()
        if segment is None:
            return Searcher.FINISHED if self.engine.done else None
        self.running[trial_id] = (segment, self._board(segment))
        config: dict[str, Any] = encode_segment(segment, self.folder.root, self.threads)
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record an epoch that is not the last of its segment."""
        segment, board = self.running[trial_id]
        values = json.loads(result["result"])
        self.engine.epoch_done(segment, values)
        board.scalars(values["step"], values["metrics"], time.time())
        self.monitor.tick(self.engine)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take note of how a segment ended."""
        if trial_id in self.running:
            self.ended.append((*self.running.pop(trial_id), None if error else result))

    def record_ended(self) -> None:
        """Record the segments that have ended since the last call."""
        while self.ended:
            self._ended(*self.ended.pop(0))
            self.monitor.tick(self.engine)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the ledger is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the ledger is the only state."""

    def _ended(self, segment: Segment, board: Board, result: dict[str, Any] | None) -> None:
        now = time.time()
        if result is None or "result" not in result:
            log = self.folder.trial(segment.trial_id) / "log.txt"
            self.engine.failed(segment, failure_reason(log, segment.attempt))
            board.ended(False, now)
            return
        values = json.loads(result["result"])
        board.scalars(values["step"], values["metrics"], now)
        for tag, png in result.get("images", []):
            board.image(tag, png, values["step"], now)
        if values["diverged"]:
            self.engine.diverged(segment, DIVERGED, values["epoch"])
        else:
            self.engine.finished(segment, values)
        clean(self.folder, segment)
        board.ended(not values["diverged"], now)

    def _board(self, segment: Segment) -> Board:
        claim = self.engine.claim_of(segment)
        name = f"{claim.phase}-{claim.index:02d}-{claim.trial_id[:8]}"
        board = Board(self.folder.tensorboard / claim.arm.level / claim.arm.name / name)
        values = {"arm": claim.arm.name, "level": claim.arm.level, "phase": claim.phase, "index": claim.index}
        board.hyperparameters(values | searched_values(claim, self.engine), claim.trial_id, time.time())
        return board


def searched_values(claim: Claim, engine: Engine) -> dict[str, Any]:
    """Return what a trial uses of every searched option, its defaults included, for the HParams tab.

    Choices are text, since a column must not mix numbers and names.
    """
    config = as_dict(claim.config)
    values = {}
    for parameter in engine.study.search.parameters.values():
        group, name = parameter.key.split(".")
        value = config[group].get(name)
        if value is not None:
            values[parameter.key] = str(value) if parameter.kind == "choice" else value
    return values


def clean(folder: StudyFolder, segment: Segment) -> None:
    """Drop the resumable checkpoints of a decided trial; confirm trials keep their final weights."""
    for attempt in range(1, segment.attempt + 1):
        path = folder.attempt(segment.trial_id, attempt)
        if segment.phase == CONFIRM:
            for stale in path.glob("epoch-*"):
                stale.unlink(missing_ok=True)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def scratch(folder: StudyFolder) -> Path:
    """Folder for what Tune itself wants to write; nothing of it is ever read."""
    return folder.root / ".tune"
