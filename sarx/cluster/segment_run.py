"""One segment in this process, epoch by epoch: what trial hosts and the ranks of a session share."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from sarx.cluster.capture import captured, watchdog
from sarx.cluster.failures import heading
from sarx.cluster.transfer import Carrier
from sarx.config import plugins
from sarx.search.claims import Segment
from sarx.study.identity import changed_files, training_code
from sarx.study.ledger_schema import CONFIRM
from sarx.study.provenance import trial_provenance, write_config
from sarx.study.schema import Resources
from sarx.study.storage import StudyFolder
from sarx.study.urls import url_of

DIVERGED = "the loss became non-finite"


@dataclass(frozen=True)
class Work:
    """A segment with all that a worker needs to run it.

    Attributes:
        segment: What to run.
        folder: The study's folder.
        resources: What a trial occupies; ``cpus_per_worker`` are the CPU threads of a rank.
        trial_minutes: Minutes that the attempt may take; 0: no limit.
        plugins: Modules to load first.
        files: Digests of what trains on the driver's side; a worker with other code refuses the work.
    """

    segment: Segment
    folder: StudyFolder
    resources: Resources
    trial_minutes: float = 0.0
    plugins: Sequence[str] = ()
    files: Mapping[str, str] | None = None


Start = Callable[[Work], Iterator[Any]]
"""Makes the results of a segment, epoch by epoch: see sarx.training.loop.EpochResult.

They may go on past ``until``; no more is taken of them then. The first epoch is the one after ``start``, or
an earlier one where checkpoints were lost.
"""


def encode_work(
    segment: Segment, root: Path, resources: Resources, trial_minutes: float = 0.0, url: str = ""
) -> str:
    """Return a segment with all that a worker needs as text."""
    work: dict[str, Any] = {"segment": asdict(segment), "root": str(root), "resources": asdict(resources)}
    work |= {"url": url} if url else {}
    work |= {"trial_minutes": trial_minutes, "plugins": plugins.loaded()}
    return json.dumps(work | {"files": dict(training_code().files)})


def decode_work(text: str) -> Work:
    """Return what ``encode_work`` was given."""
    work = json.loads(text)
    return Work(
        Segment(**work["segment"]),
        StudyFolder(Path(work["root"]), url_of(work["url"]) if "url" in work else None),
        Resources(**work["resources"]),
        work["trial_minutes"],
        work["plugins"],
        work["files"],
    )


def log_of(work: Work, rank: int = 0) -> Path:
    """Return the log of a trial, or that of one of its further ranks."""
    name = f"log-rank{rank}.txt" if rank else "log.txt"
    return work.folder.trial(work.segment.trial_id) / name


class SegmentRun:
    """A segment that runs in this process; what it prints goes to the trial's log.

    Args:
        work: What to run.
        start: Makes its results.
        rank: Of several that run it together; only rank 0 writes anything but its log.
        world_size: How many run it together.
    """

    def __init__(self, work: Work, start: Start, rank: int = 0, world_size: int = 1) -> None:
        """Start nothing yet."""
        self.work, self.rank, self.world_size = work, rank, world_size
        self.log = log_of(work, rank)
        self._start = start
        self._results: Iterator[Any] | None = None
        self._left_s = 60 * work.trial_minutes or None
        self._carrier = None
        if work.folder.url is not None:
            attempts = range(work.segment.attempt, work.segment.since - 1, -1)
            self._carrier = Carrier(work.folder, work.segment.trial_id, list(attempts), rank)

    def advance(self) -> dict[str, Any]:
        """Train one epoch; return ``result`` (JSON), ``images`` of the last, and ``done`` of the segment.

        Of a study on an object store everything up to here is there when this returns.
        """
        if self._carrier is None:
            return self._advance()
        if self._results is None:
            self._carrier.bring()
        over = True
        try:
            answer = self._advance()
            over = answer["done"]
            return answer
        finally:
            with contextlib.suppress(OSError):  # what matters is what was to be told
                self._carrier.send_logs(over)

    def _advance(self) -> dict[str, Any]:
        began, segment = time.monotonic(), self.work.segment
        with captured(self.log, segment.attempt), watchdog(self.log, self._left_s):
            if self._results is None:
                print(heading(segment.label, segment.trial_id, segment.attempt, os.getpid(), node_id()))
                if self.rank == 0:
                    record(self.log.parent, segment, self.world_size)
                self._results = self._start(self.work)
            result = next(self._results, None)
            if result is None:
                raise RuntimeError(f"the training ended before epoch {segment.until}")
            ended = result.last or result.diverged or result.epoch >= segment.until
            shows = self.rank == 0 and result.last and not result.diverged
            images = previews(self.work, result) if shows else []
            if ended:
                self.close()  # its checkpoint is there
            if self._carrier is not None:
                self._carrier.send_checkpoints()
                if ended:
                    self._carrier.tidy()
        if self._left_s is not None:
            self._left_s -= time.monotonic() - began
        values = plain(result)
        if self.work.resources.num_workers > 1:
            values["workers"] = self.world_size
        return {"result": json.dumps(values), "images": images, "done": ended}

    def close(self) -> None:
        """Close the generator; the last checkpoint counts."""
        results, self._results = self._results, None
        close = getattr(results, "close", None)
        if close is not None:
            close()


def plain(result: Any) -> dict[str, Any]:
    """Return what the driver records of an epoch."""
    return {
        "epoch": result.epoch,
        "step": result.step,
        "duration_s": result.duration_s,
        "metrics": result.metrics,
        "diverged": result.diverged,
        "last": result.last,
    }


def record(trial: Path, segment: Segment, world_size: int) -> None:
    """Write into a trial's folder what it trains, and add where this attempt runs and on what."""
    write_config(trial, segment.config, segment.trial_id, segment.config["seed"])
    entry = {"attempt": segment.attempt, **trial_provenance()}
    entry |= {"workers": world_size} if world_size > 1 else {}
    with (trial / "attempts.ndjson").open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(entry) + "\n")


def start_training(work: Work) -> Iterator[Any]:
    """Return the results of a segment from the training loop; of several ranks each calls it.

    Raises:
        RuntimeError: If this worker's code is not the driver's.
    """
    import torch

    from sarx.config.schema import build
    from sarx.training.loop import train
    from sarx.training.report import train_and_report

    plugins.load(work.plugins)
    if changed := changed_files(work.files or {}, training_code().files):
        raise RuntimeError(f"this worker's code or versions are not the driver's: {', '.join(changed)}")
    torch.set_num_threads(work.resources.cpus_per_worker)
    segment, folder = work.segment, work.folder
    attempts = [folder.attempt(segment.trial_id, n) for n in range(segment.attempt, segment.since - 1, -1)]
    run = train_and_report if segment.phase == CONFIRM else train
    return run(
        build(segment.config),
        folder=attempts[0],
        resume=attempts,
        name=segment.trial_id,
        replay_from=min(segment.start + 1, segment.until),
    )


def previews(work: Work, result: Any) -> list[tuple[str, bytes]]:
    """Return pictures of the trained model, as (tag, PNG); none without a model."""
    if getattr(result, "module", None) is None:
        return []
    from sarx.config.schema import build
    from sarx.training.preview import preview

    config = build(work.segment.config)
    return preview(config, result.module.model, result.module.prediction_adjustment)


def node_id() -> str:
    """Return the id of the Ray node that this runs on; empty without Ray."""
    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
