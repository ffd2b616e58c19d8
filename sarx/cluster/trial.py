"""The trial host: a Tune trainable, reused from trial to trial, that runs one segment at a time."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from sarx.search.engine import Segment
from sarx.study.identity import changed_files, training_code
from sarx.study.ledger_schema import CONFIRM
from sarx.study.storage import StudyFolder

DIVERGED = "the loss became non-finite"


def encode_segment(segment: Segment, root: Path, threads: int) -> dict[str, str]:
    """Return a Tune config for a segment: one text, so that Tune neither flattens nor resolves it.

    It carries the digests of what trains on the driver's side; a worker with other code refuses the work.
    """
    work = {"segment": asdict(segment), "root": str(root), "threads": threads}
    return {"segment": json.dumps(work | {"files": dict(training_code().files)})}


class TrialHost(Trainable):
    """Runs segments; ``step`` is one epoch, and the actor serves the next trial when a segment has ended."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first segment."""
        self._results: Iterator[Any] | None = None
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next segment."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch and hand its result to the driver."""
        with captured(
            self._folder.trial(self._segment.trial_id) / "log.txt", f"attempt {self._segment.attempt}"
        ):
            if self._results is None:
                self._results = self._start()
            result = next(self._results)
            ended = result.last or result.diverged
            images = self._preview(result.module) if ended and not result.diverged else []
        return {
            "result": json.dumps(
                {
                    "epoch": result.epoch,
                    "step": result.step,
                    "duration_s": result.duration_s,
                    "metrics": result.metrics,
                    "diverged": result.diverged,
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
        self._files = work["files"]

    def _close(self) -> None:
        if self._results is not None:
            self._results.close()  # type: ignore[attr-defined]
            self._results = None

    def _start(self) -> Iterator[Any]:
        import torch

        from sarx.config.schema import build
        from sarx.training.loop import train
        from sarx.training.report import train_and_report

        if changed := changed_files(self._files, training_code().files):
            raise RuntimeError(f"this worker's code or versions are not the driver's: {', '.join(changed)}")
        torch.set_num_threads(self._threads)
        segment, folder = self._segment, self._folder
        print(f"{segment.label}: trial {segment.trial_id}, attempt {segment.attempt}", flush=True)
        self._config = build(segment.config)
        attempts = [folder.attempt(segment.trial_id, n) for n in range(segment.attempt, 0, -1)]
        run = train_and_report if segment.phase == CONFIRM else train
        return run(self._config, folder=attempts[0], resume=attempts, name=segment.trial_id)

    def _preview(self, module: Any) -> list[tuple[str, bytes]]:
        from sarx.training.preview import preview

        return preview(self._config, module.model, module.prediction_adjustment)


@contextlib.contextmanager
def captured(log: Path, heading: str) -> Iterator[None]:
    """Send everything this process prints inside the block to a file, tracebacks included."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [(fd, os.dup(fd)) for fd in (1, 2)]
    with log.open("a", encoding="utf-8", buffering=1) as handle:
        for fd, _ in saved:
            os.dup2(handle.fileno(), fd)
        try:
            with contextlib.redirect_stdout(handle), contextlib.redirect_stderr(handle):
                yield
        finally:
            kind, error, _ = sys.exc_info()
            if kind is not None and error is not None and kind is not GeneratorExit:
                handle.write(traceback.format_exc())
                handle.write(f"{heading} failed: {kind.__name__}: {error}\n")
                handle.flush()
            for fd, copy in saved:
                os.dup2(copy, fd)
                os.close(copy)


def failure_reason(log: Path, attempt: int) -> str:
    """Return why an attempt failed, from the trial's own log."""
    mark = f"attempt {attempt} failed: "
    if log.exists():
        for line in reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()):
            if line.startswith(mark):
                return line.removeprefix(mark)
    return "the worker process died without a message (killed, out of memory, or its node was lost)"
