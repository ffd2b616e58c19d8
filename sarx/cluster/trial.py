"""The trial host: a Tune trainable, reused from trial to trial, that runs one segment at a time."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.tune import Trainable

from sarx.cluster.failures import heading, verdict
from sarx.config import plugins
from sarx.search.claims import Segment
from sarx.study.identity import changed_files, training_code
from sarx.study.ledger_schema import CONFIRM
from sarx.study.provenance import trial_provenance, write_config
from sarx.study.storage import StudyFolder

DIVERGED = "the loss became non-finite"


def record(trial: Path, segment: Segment) -> None:
    """Write into a trial's folder what it trains, and add where this attempt runs and on what."""
    write_config(trial, segment.config, segment.trial_id, segment.config["seed"])
    with (trial / "attempts.ndjson").open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({"attempt": segment.attempt, **trial_provenance()}) + "\n")


def encode_segment(segment: Segment, root: Path, threads: int, trial_minutes: float = 0.0) -> dict[str, str]:
    """Return a Tune config for a segment: one text, so that Tune neither flattens nor resolves it.

    It carries the plug-ins to load and the digests of what trains on the driver's side; a worker with other
    code refuses the work.

    Args:
        segment: What to run.
        root: The study's folder.
        threads: CPU threads of a trial.
        trial_minutes: Minutes that the attempt may take; 0: no limit.
    """
    work = {"segment": asdict(segment), "root": str(root), "threads": threads}
    work |= {"trial_minutes": trial_minutes, "plugins": plugins.loaded()}
    work |= {"files": dict(training_code().files)}
    return {"segment": json.dumps(work)}


class TrialHost(Trainable):
    """Runs segments; ``step`` is one epoch, and the actor serves the next trial when a segment has ended.

    A subclass may override ``_start`` alone, to run something else through the same searcher.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first segment."""
        self._results: Iterator[Any] | None = None
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next segment."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch and hand its result to the driver; ``last`` says whether it is the trial's last."""
        began = time.monotonic()
        segment, log = self._segment, self._folder.trial(self._segment.trial_id) / "log.txt"
        with captured(log, segment.attempt), watchdog(log, self._left_s):
            if self._results is None:
                print(heading(segment.label, segment.trial_id, segment.attempt, os.getpid(), node_id()))
                record(log.parent, segment)
                self._results = self._start()
            result = next(self._results, None)
            if result is None:
                raise RuntimeError(f"the training ended before epoch {segment.until}")
            ended = result.last or result.diverged or result.epoch >= segment.until
            images = self._preview(result) if result.last and not result.diverged else []
            if ended:
                self._close()  # its checkpoint is there
        if self._left_s is not None:
            self._left_s -= time.monotonic() - began
        return {
            "result": json.dumps(
                {
                    "epoch": result.epoch,
                    "step": result.step,
                    "duration_s": result.duration_s,
                    "metrics": result.metrics,
                    "diverged": result.diverged,
                    "last": result.last,
                }
            ),
            "images": images,
            "done": ended,
        }

    def cleanup(self) -> None:
        """Close the generator; the last checkpoint counts."""
        self._close()

    def _take(self, config: dict[str, Any]) -> None:
        self._close()
        work = json.loads(config["segment"])
        self._segment = Segment(**work["segment"])
        self._folder = StudyFolder(Path(work["root"]))
        self._threads = work["threads"]
        self._plugins, self._files = work["plugins"], work["files"]
        self._left_s = 60 * work["trial_minutes"] or None

    def _close(self) -> None:
        if self._results is not None:
            close = getattr(self._results, "close", None)
            if close is not None:
                close()
            self._results = None

    def _start(self) -> Iterator[Any]:
        """Return the results of the segment in hand, epoch by epoch: see sarx.training.loop.EpochResult.

        It may go on past ``until``; no more is taken of it then. The first epoch is the one after ``start``,
        or an earlier one where checkpoints were lost.
        """
        import torch

        from sarx.config.schema import build
        from sarx.training.loop import train
        from sarx.training.report import train_and_report

        plugins.load(self._plugins)
        if changed := changed_files(self._files, training_code().files):
            raise RuntimeError(f"this worker's code or versions are not the driver's: {', '.join(changed)}")
        torch.set_num_threads(self._threads)
        segment, folder = self._segment, self._folder
        self._config = build(segment.config)
        attempts = [
            folder.attempt(segment.trial_id, n) for n in range(segment.attempt, segment.since - 1, -1)
        ]
        run = train_and_report if segment.phase == CONFIRM else train
        return run(
            self._config,
            folder=attempts[0],
            resume=attempts,
            name=segment.trial_id,
            replay_from=min(segment.start + 1, segment.until),
        )

    def _preview(self, result: Any) -> list[tuple[str, bytes]]:
        """Return pictures of the trained model, as (tag, PNG); none without a model."""
        if result.module is None:
            return []
        from sarx.training.preview import preview

        return preview(self._config, result.module.model, result.module.prediction_adjustment)


def node_id() -> str:
    """Return the id of the Ray node that this runs on; empty without Ray."""
    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


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
