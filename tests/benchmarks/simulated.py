"""A simulated host: runs segments of the real engine without Ray and torch, as fast as they are recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sarx.config.schema import TrainConfig
from sarx.search.claims import Segment
from sarx.search.engine import Engine
from sarx.study.arm import Arm
from sarx.study.design import make_arms
from sarx.study.identity import trial_id
from sarx.study.load import load_study
from sarx.study.schema import Study

Metrics = Callable[[Engine, Segment, int], Mapping[str, float]]
"""What a trial gives after an epoch."""


def identify(config: TrainConfig) -> str:
    """Return the identity of a trial, under code and data that never change."""
    return trial_id(config, data_fingerprint="simulated", code="simulated")


def make_study(text: str, folder: Path) -> tuple[Study, list[Arm]]:
    """Load a study from its text as the command line does, through a file in ``folder``."""
    file = folder / "study.yaml"
    file.write_text(text, encoding="utf-8")
    study, source = load_study(file)
    return study, make_arms(study, source)


def run(engine: Engine, metrics: Metrics, limit: int | None = None) -> None:
    """Run segments, one after the other, until nothing is left, or ``limit`` of them."""
    count = 0
    while count != limit and (segment := engine.next_segment()) is not None:
        count += 1
        training = segment.config["training"]
        epochs = training["steps"] // training["eval_every"]
        for epoch in range(segment.start + 1, segment.until + 1):
            result = {
                "epoch": epoch,
                "step": epoch * training["eval_every"],
                "duration_s": 1.0,
                "metrics": metrics(engine, segment, epoch),
            }
            if epoch == epochs:
                engine.finished(segment, result)
            elif epoch == segment.until:
                engine.rung_reached(segment, result)
            else:
                engine.epoch_done(segment, result)
    if count != limit and not engine.done:
        raise RuntimeError("the engine waits for something that no host runs")
