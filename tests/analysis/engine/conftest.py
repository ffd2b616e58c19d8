"""Real ledgers: the engine of a study, and a host that only pretends to train."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.ledger import read_ledger
from analysis.opened import read_study
from analysis.report import make_report
from analysis.results import search_summary
from sarx.config.schema import build
from sarx.search.claims import Segment
from sarx.search.engine import Engine
from sarx.study.design import make_arms
from sarx.study.identity import Code, trial_id
from sarx.study.ledger import Ledger
from sarx.study.load import load_study
from sarx.study.opening import opened_payload

TEXT = """\
# Which is better?
study: small
base: [data=digit_scenes, training.steps=12, training.eval_every=2]
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
confirm: {seeds: 4}
"""


def score(segment: Segment) -> float:
    """Return a score with its best learning rate at 0.02."""
    config = segment.config
    pull = config["regularizer"].get("pull_weight", 0.0)
    rate = math.log10(config["optim"]["lr"] / 0.02)
    return 0.5 - 0.1 * rate**2 + 0.01 * pull + (config["seed"] % 97) / 1e4


class Driver:
    """A start of a study: the real engine on a real ledger, trials that only pretend.

    Args:
        folder: of the study.
        text: its YAML.
        options: of the engine.
    """

    def __init__(self, folder: Path, text: str, **options: Any) -> None:
        (folder / "ledger").mkdir(parents=True, exist_ok=True)
        (folder / "study.yaml").write_text(text)
        self.folder = folder
        study, source = load_study(folder / "study.yaml")
        arms = make_arms(study, source)
        self.ledger = Ledger(folder / "ledger")
        payload = opened_payload(study, arms, Code("c0de", {}), [])
        self.ledger.append("study_opened", payload=json.dumps(self.with_plan(payload, study, arms)))
        self.engine = Engine(study, arms, self.ledger, self.identify, "c0de", **options)

    @staticmethod
    def identify(config: Any) -> str:
        """Return the identity of a trial under fixed code and data."""
        return trial_id(config, data_fingerprint="d", code="c0de")

    @staticmethod
    def with_plan(payload: dict[str, Any], study: Any, arms: Any) -> dict[str, Any]:
        """Return an opening with what analysis expects of it, where the driver does not write it yet."""
        search, scheduler = study.search, study.search.scheduler
        names = ("name", "min_fraction", "reduction_factor", "min_trials")
        expected = {
            "scheduler": {name: getattr(scheduler, name) for name in names},
            "finalists": {"top": search.finalists.top, "seeds": search.finalists.seeds},
            "repeats": search.repeats,
            "scope": search.scope,
            "tune_on": search.tune_on,
            "overrides": dict(search.overrides),
            "reproducible": search.reproducible,
            "batch": search.batch,
            "max_failures": study.max_failures,
        }
        also = [{"metric": goal.metric, "mode": goal.mode} for goal in study.objective.also]
        rows = [{"takes": list(arm.takes), **row} for arm, row in zip(arms, payload["arms"], strict=True)]
        return {
            **payload,
            "arms": rows,
            "objective": {"also": also, **payload["objective"]},
            "plan": expected | payload["plan"],
        }

    def run(self, outcome: Callable[[Segment], Any] = score, limit: int = 10_000) -> "Driver":
        """Run until the engine is done or ``limit`` segments have run; ``outcome`` see ``end``."""
        while limit and (segment := self.engine.next_segment()) is not None:
            self.end(segment, outcome(segment))
            limit -= 1
        return self

    def end(self, segment: Segment, what: Any, **columns: Any) -> None:
        """Report one segment: a kind of failure, ``diverged``, a score, or a function from epoch to score."""
        if what == "diverged":
            self.engine.diverged(segment, "not finite", segment.start + 1)
            return
        if isinstance(what, str):
            self.engine.failed(segment, "it broke", what)
            return
        epochs = build(segment.config).training.epochs
        for epoch in range(segment.start + 1, segment.until + 1):
            value = what(epoch) if callable(what) else what
            metrics = {"val/miou": value}
            if segment.phase == "confirm" and epoch == epochs:
                metrics |= {"test/miou": value, "test/tail_iou": value - 0.1}
            result = {"epoch": epoch, "step": 2 * epoch, "duration_s": 36.0, "metrics": metrics, **columns}
            if epoch == epochs:
                self.engine.finished(segment, result)
            elif epoch == segment.until:
                self.engine.rung_reached(segment, result)
            else:
                self.engine.epoch_done(segment, result)

    def close(self) -> Path:
        """Let go of the ledger; return the folder of the study."""
        self.ledger.close()
        return self.folder


class Shown:
    """What analysis makes of a driver's ledger, which it closes.

    Attributes:
        events: the ledger.
        report: the report.
        rows: the search summary by arm.
    """

    def __init__(self, driver: Driver) -> None:
        folder = driver.close()
        self.driver = driver
        self.events = read_ledger(folder).events
        self.study = read_study(self.events)
        self.report = make_report(folder)
        self.rows = {row["arm"]: row for row in search_summary(self.events, self.study).iter_rows(named=True)}

    def cells(self, arm: str) -> dict[str, str]:
        """Return the row of an arm in the main table."""
        table = self.report.tables[0]
        row = next(row for row in table.rows if row[0] == arm)
        return dict(zip(table.columns, row, strict=True))

    def extra(self, title: str) -> list[dict[str, str]]:
        """Return the rows of the table below the main one whose title begins so."""
        (table,) = [table for table in self.report.extras if table.title.startswith(title)]
        return [dict(zip(table.columns, row, strict=True)) for row in table.rows]

    def said(self, beginning: str) -> str:
        """Return the one statement of caption or missing that begins so."""
        lines = [*self.report.caption, *self.report.missing]
        (line,) = [line for line in lines if line.startswith(beginning)]
        return line

    def paid(self, arm: str) -> float:
        """Return the hours of all trials of an arm as the engine counts them."""
        engine = self.driver.engine
        trials = {claim.trial_id for claim in engine.queue() if claim.arm.name == arm}
        return sum(engine.records[trial].seconds for trial in trials) / 3600


@pytest.fixture
def shown() -> type[Shown]:
    """Return what shows the report of a driver."""
    return Shown


@pytest.fixture
def text() -> str:
    """Return a study of three arms, four search trials and four confirm seeds each, of six epochs."""
    return TEXT


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Return a function that starts the driver of a study text, again on the same ledger each time."""
    drivers: list[Driver] = []

    def begin(text: str = TEXT, **options: Any) -> Driver:
        if drivers:
            drivers[-1].close()
        drivers.append(Driver(tmp_path / "small", text, **options))
        return drivers[-1]

    yield begin
    for driver in drivers:
        driver.close()
