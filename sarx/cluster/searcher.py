"""Hands the engine's segments to Ray Tune and Tune's results to the engine."""

from __future__ import annotations

import contextlib
import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ray.tune import Callback
from ray.tune.search import Searcher

from sarx.cluster import failures
from sarx.cluster.leftovers import Leftovers
from sarx.cluster.limits import Guard, check_room, unwritable
from sarx.cluster.monitor import Monitor
from sarx.cluster.segment_run import DIVERGED
from sarx.cluster.session_failure import SessionFailure
from sarx.cluster.slots import Slots
from sarx.cluster.transfer import bring_logs, send_log
from sarx.cluster.trial import encode_segment
from sarx.config.errors import UserError
from sarx.config.schema import as_dict
from sarx.search.claims import Claim, Segment
from sarx.search.engine import Engine
from sarx.search.mirror import Mirror
from sarx.study.storage import StudyFolder
from sarx.tensorboard import Board


@dataclass
class Ending:
    """A segment that has ended, and what Tune said of it."""

    tune_id: str
    segment: Segment
    board: Board
    result: dict[str, Any] | None
    error: BaseException | str | None = None
    since: float = field(default_factory=time.monotonic)


class SegmentSearcher(Searcher):
    """Tune's searcher for one study. Every Tune trial is one segment.

    Tune swallows errors raised in ``on_trial_complete``, wraps those in ``on_trial_result``, and tells the
    reason of a failure after both; and a study must not go on without its ledger. So what ends a segment is
    noted there and recorded after Tune's step (see ``Watch``), and an error of the ledger or the storage is
    handed to ``give_up`` at once.

    Args:
        engine: The study being run.
        folder: Its folder.
        monitor: Prints progress.
        guard: Its limits.
        at_limit: Called with the limit that is reached; does not return.
        give_up: Called with what ended the run; does not return.
        slots: Says whether Tune may have another segment.
        mirror: Where settled search trials are copied to.
    """

    def __init__(
        self,
        engine: Engine,
        folder: StudyFolder,
        monitor: Monitor,
        guard: Guard,
        at_limit: Callable[[str], NoReturn],
        give_up: Callable[[UserError], NoReturn],
        slots: Slots,
        mirror: Mirror | None = None,
    ) -> None:
        """Serve one engine."""
        super().__init__(metric=None, mode=None)  # Tune has no say in what is better
        self.engine = engine
        self.folder = folder
        self.monitor = monitor
        self.guard = guard
        self.at_limit = at_limit
        self.give_up = give_up
        self.slots = slots
        self.mirror = mirror
        self.running: dict[str, tuple[Segment, Board]] = {}
        self.ended: list[Ending] = []
        self.leftovers = Leftovers(engine, folder)
        self.leftovers.clean()

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
        self.look()  # Tune asks here again and again, without a step, while nothing runs
        with self._storage():
            busy = len(self.running) + len(self.ended)
            admitted = self.slots.room() and self.guard.admits(busy)
            segment = self.engine.next_segment() if admitted else None
            if segment is None:
                return Searcher.FINISHED if self.engine.done else None
            self.running[trial_id] = (segment, self._board(segment))
            self.slots.handed(trial_id)
        study, url = self.engine.study, str(self.folder.url or "")
        return encode_segment(segment, self.folder.root, study.resources, study.limits.trial_minutes, url)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record an epoch that is not the last of its segment; the worker starts no other before that."""
        segment, board = self.running[trial_id]
        values = json.loads(result["result"])
        with self._storage():
            self.engine.epoch_done(segment, values)
            board.scalars(values["step"], values["metrics"], time.time())
            self.monitor.tick(self.engine)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take note of how a segment ended."""
        self.slots.freed(trial_id)
        if trial_id in self.running:
            failure = (result or {}).get("failure")
            why = SessionFailure(json.loads(failure)) if failure else None
            self.ended.append(Ending(trial_id, *self.running.pop(trial_id), None if error else result, why))

    def explain(self, trial_id: str, error: BaseException | str | None) -> None:
        """Add to a failed segment what Tune stored as its error."""
        for ending in self.ended:
            if ending.tune_id == trial_id:
                ending.error = error

    def look(self) -> None:
        """Record what has ended, show how far the study is, then look at the limits."""
        self.record_ended()
        self.monitor.tick(self.engine)
        if why := self.guard.reached():
            self.at_limit(why)

    def record_ended(self, *, final: bool = False) -> None:
        """Record the segments that have ended.

        A segment whose actor is out of reach waits until the cluster knows whether its node is dead.

        Args:
            final: Record these too, as what they seem to be.
        """
        ended, self.ended = self.ended, []
        with self._storage():
            for ending in ended:
                if not final and self._unsettled(ending):
                    self.ended.append(ending)
                    continue
                self._record(ending)
                self.leftovers.clean()
                if self.mirror is not None:
                    self.mirror.settle(self.engine)
                self.monitor.tick(self.engine)
        if final:
            self.leftovers.close()

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the ledger is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the ledger is the only state."""

    @contextlib.contextmanager
    def _storage(self) -> Iterator[None]:
        """Give up where the study can no longer be recorded, naming the folder and what to do."""
        try:
            yield
        except OSError as error:
            self.give_up(unwritable(self.folder, error))
        except UserError as error:
            self.give_up(error)

    def _log(self, segment: Segment) -> Path:
        bring_logs(self.folder, segment.trial_id)
        return self.folder.trial(segment.trial_id) / "log.txt"

    def _unsettled(self, ending: Ending) -> bool:
        if ending.error is None or time.monotonic() - ending.since >= failures.UNSURE_S:
            return False
        if isinstance(ending.error, SessionFailure):
            return ending.error.unsettled(failures.dead_nodes())
        return failures.unsettled(ending.error, self._log(ending.segment), ending.segment.attempt)

    def _record(self, ending: Ending) -> None:
        """Tell the engine first: TensorBoard and logs are no part of the record."""
        segment, board, result = ending.segment, ending.board, ending.result
        if result is None or "result" not in result:
            self._record_failure(ending)
            board.ended(False, time.time())
            return
        values = json.loads(result["result"])
        if values["diverged"]:
            self.engine.diverged(segment, DIVERGED, values["epoch"])
        elif values["last"]:
            self.engine.finished(segment, values)
        else:
            self.engine.rung_reached(segment, values)
        now = time.time()
        board.scalars(values["step"], values["metrics"], now)
        for tag, png in result.get("images", []):
            board.image(tag, png, values["step"], now)
        board.ended(not values["diverged"], now)

    def _record_failure(self, ending: Ending) -> None:
        segment, log = ending.segment, self._log(ending.segment)
        if isinstance(ending.error, SessionFailure):
            kind, reason = ending.error.classify(log, segment.attempt, failures.dead_nodes())
        else:
            kind, reason = failures.classify(ending.error, log, segment.attempt, failures.dead_nodes())
        check_room(self.folder, reason)
        self.engine.failed(segment, reason, kind)
        failures.note(log, segment.attempt, kind, reason)
        send_log(self.folder, segment.trial_id)
        shown = self.folder.shown(log)
        with contextlib.suppress(OSError):  # nobody listens, which must not end the study
            print(
                f"{segment.label}: attempt {segment.attempt} failed ({kind}): {reason} ({shown})", flush=True
            )

    def _board(self, segment: Segment) -> Board:
        claim = self.engine.claim_of(segment)
        name = f"{claim.phase}-{claim.index:02d}-{claim.trial_id[:8]}"
        board = Board(self.folder.tensorboard / claim.arm.level / claim.arm.name / name)
        values = {"arm": claim.arm.name, "level": claim.arm.level, "phase": claim.phase, "index": claim.index}
        board.hyperparameters(values | searched_values(claim, self.engine), claim.trial_id, time.time())
        return board


class Watch(Callback):
    """Tells a searcher after each of Tune's steps what Tune tells no searcher.

    Args:
        searcher: The searcher.
    """

    def __init__(self, searcher: SegmentSearcher) -> None:
        """Watch for one searcher."""
        self.searcher = searcher
        self._over: list[Any] = []
        self._frozen = False

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Hand on that a segment has an actor."""
        self.searcher.slots.started(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Hand on why a segment failed."""
        self.searcher.explain(trial.trial_id, failures.stored_error(trial))
        self._over.append(trial)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Take note of a trial that is over."""
        self._over.append(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Let it record what has ended and look at the limits; then let Tune forget what is over."""
        self.searcher.look()
        if (
            self._over and not self._frozen
        ):  # of modules and Tune all is there: collecting need not look at it
            gc.collect()
            gc.freeze()
            self._frozen = True
        self._over = self.searcher.slots.forget(self._over)


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


def scratch(folder: StudyFolder) -> Path:
    """Folder for what Tune itself wants to write; nothing of it is ever read."""
    return folder.root / ".tune"
