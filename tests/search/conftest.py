"""A small study, and a simulated host: no Ray, no torch, a score that is a function of the options."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sarx.config.schema import build
from sarx.search.claims import Segment
from sarx.search.engine import Engine
from sarx.study.design import make_arms
from sarx.study.identity import trial_id
from sarx.study.ledger import Ledger
from sarx.study.load import load_study

TEXT = """\
# Which is better?
study: small
base: [data=digit_scenes, training.steps=4, training.eval_every=2]
ablation:
  reference: sar
  arms:
    sar: {}
    plain: {regularizer: none}
    no_pull: {regularizer.pull_weight: 0.0}
search:
  parameters:
    optim.lr: {low: 0.001, high: 0.1, log: true}
    optim.weight_decay: {low: 0.0, high: 0.1}
    regularizer.pull_weight: {low: 0.01, high: 1.0, log: true}
  trials_per_arm: 4
  batch: 4
confirm: {seeds: 2}
"""


def identify(config: Any) -> str:
    """Return the identity of a trial under fixed code and data."""
    return trial_id(config, data_fingerprint="d", code="c")


def score(config: dict[str, Any]) -> float:
    """Return a score with its best learning rate at 0.02."""
    pull = config["regularizer"].get("pull_weight", 0.0)
    return 1 - (math.log10(config["optim"]["lr"] / 0.02)) ** 2 + 0.1 * pull + (config["seed"] % 97) / 1e4


class Host:
    """Runs segments of an engine in ``slots`` places and remembers what it ran.

    Args:
        slots: Segments that run at once.
        rng: Picks which running segment ends next; without it the one that started first.
        outcome: Called with a segment; "finished", "failed", "preempted", "diverged", a score after the last
            epoch, or a function from epoch to score.
    """

    def __init__(
        self,
        slots: int = 1,
        rng: random.Random | None = None,
        outcome: Callable[[Segment], Any] = lambda segment: "finished",
    ) -> None:
        self.slots = slots
        self.rng = rng
        self.outcome = outcome
        self.started: list[Segment] = []

    def run(self, engine: Engine, limit: int = 10_000) -> None:
        """Run until the engine is done, or until ``limit`` segments have started."""
        running: list[Segment] = []
        while True:
            while len(running) < self.slots and len(self.started) < limit:
                segment = engine.next_segment()
                if segment is None:
                    break
                self.started.append(segment)
                running.append(segment)
            if not running:
                return
            at = self.rng.randrange(len(running)) if self.rng else 0
            self.end(engine, running.pop(at))

    def end(self, engine: Engine, segment: Segment) -> None:
        """Report one segment's epochs and how it ended."""
        what = self.outcome(segment)
        if what in ("failed", "preempted"):
            engine.failed(segment, "it broke", "crashed" if what == "failed" else what)
            return
        if what == "diverged":
            engine.diverged(segment, "not finite", 1)
            return
        epochs = build(segment.config).training.epochs
        for epoch in range(segment.start + 1, segment.until + 1):
            if callable(what):
                value = what(epoch)
            elif epoch < epochs:
                value = 0.0
            else:
                value = score(segment.config) if what == "finished" else what
            report = result(segment, epoch, value)
            if epoch == epochs:
                engine.finished(segment, report)
            elif epoch == segment.until:
                engine.rung_reached(segment, report)
            else:
                engine.epoch_done(segment, report)

    @property
    def ran(self) -> list[str]:
        """Identities of the trials that were started, in order."""
        return [segment.trial_id for segment in self.started]


def result(segment: Segment, epoch: int, value: float) -> dict[str, Any]:
    """Return what a host reports of an epoch."""
    return {
        "epoch": epoch,
        "step": 2 * epoch,
        "duration_s": 0.1,
        "metrics": {"val/miou": value, "test/miou": value},
    }


@pytest.fixture
def text() -> str:
    """Return a study of three arms, four search trials and two confirm seeds each."""
    return TEXT


@pytest.fixture
def host() -> type[Host]:
    """Return the simulated host."""
    return Host


@pytest.fixture
def epoch_of() -> Callable[..., dict[str, Any]]:
    """Return a maker of epoch results."""
    return result


@pytest.fixture
def begin(tmp_path: Path) -> Any:
    """Return a function that opens the engine of a study text on a ledger folder."""
    opened: list[Ledger] = []

    def open_engine(text: str = TEXT, folder: str = "ledger", **options: Any) -> Engine:
        file = tmp_path / "s.yaml"
        file.write_text(text)
        study, source = load_study(file)
        (tmp_path / folder).mkdir(exist_ok=True)
        ledger = Ledger(tmp_path / folder)
        opened.append(ledger)
        return Engine(study, make_arms(study, source), ledger, identify, **options)

    yield open_engine
    for ledger in opened:
        ledger.close()
