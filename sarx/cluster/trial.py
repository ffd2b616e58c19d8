"""The trial host: a Tune trainable, reused from trial to trial, that runs one segment at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from sarx.cluster.segment_run import SegmentRun, Work, decode_work, encode_work, start_training
from sarx.search.claims import Segment
from sarx.study.schema import Resources


def encode_segment(
    segment: Segment, root: Path, resources: Resources, trial_minutes: float = 0.0, url: str = ""
) -> dict[str, str]:
    """Return a Tune config for a segment: one text, so that Tune neither flattens nor resolves it.

    Args:
        segment: What to run.
        root: The study's folder.
        resources: What a trial occupies.
        trial_minutes: Minutes that the attempt may take; 0: no limit.
        url: Of the study on an object store, whose working copy ``root`` is then; empty without one.
    """
    return {"segment": encode_work(segment, root, resources, trial_minutes, url)}


class TrialHost(Trainable):
    """Runs segments; ``step`` is one epoch, and the actor serves the next trial when a segment has ended.

    A subclass may override ``start`` alone, to run something else through the same searcher.
    """

    def start(self, work: Work) -> Iterator[Any]:
        """Return the results of a segment; see ``sarx.cluster.segment_run.Start``."""
        return start_training(work)

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first segment."""
        self._run = self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next segment."""
        self._run.close()
        self._run = self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch and hand its result to the driver; ``last`` says whether it is the trial's last."""
        return self._run.advance()

    def cleanup(self) -> None:
        """Close the generator; the last checkpoint counts."""
        self._run.close()

    def _take(self, config: dict[str, Any]) -> SegmentRun:
        return SegmentRun(decode_work(config["segment"]), self.start)
