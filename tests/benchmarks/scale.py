"""Where a large study first gets stuck: ``just bench scale`` (simulated time; nothing is trained).

The real engine, ledger, samplers and schedulers serve a simulated cluster. Time is simulated, but for the
driver: each of its steps (a result taken, a segment handed out) is measured on this machine and passes on
the simulated clock. The work of Ray Tune's controller for a result is added; it is measured first, with real
trials that train nothing. The driver does one thing after the other, so results queue when they come faster
than it can take them.

    utilisation  share of the slots' time in which an epoch was being trained
    driver       share of the simulated time in which the driver was busy
    alone/s      results that searcher, rungs and ledger can take in a second on one core, without Tune
    results/s    the same with Tune's controller
    peak         memory of the driver's process; ledger: bytes of its files

Reproducible mode judges whole batches at a rung, so slots can run dry: the last rows vary how many proposals
all arms together have open at once, as a multiple of the slots.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bars import at_least

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

START_S = 0.08
"""Seconds until an actor that is there has begun the next trial: measured with reused actors."""
ARMS, SEEDS, EPOCHS, METRICS = 20, 100, 3, 30
NO_OP_TRIALS, NO_OP_REPORTS = 100, 9
LEAST_ALONE, LEAST_ASYNCHRONOUS, LEAST_REPRODUCIBLE = 500.0, 0.95, 0.9
FROM_MULTIPLE = 4
"""Open proposals over slots from which on reproducible mode must keep the slots busy."""


@dataclass(frozen=True)
class Case:
    """One simulated study.

    Attributes:
        trials: as a share of ``--trials``.
        epoch_s: seconds of an epoch, on average.
        multiple: proposals open at once over slots; None: results are judged one by one (ASHA).
    """

    trials: float
    slots: int
    epoch_s: float
    multiple: float | None = None


LARGE = "1,000 slots, epoch 5 min"
CASES = {
    LARGE: Case(1.0, 1000, 300.0),
    "1,000 slots, epoch 1 min": Case(0.1, 1000, 60.0),
    "1,000 slots, epoch 15 s": Case(0.1, 1000, 15.0),
    **{f"reproducible, {m} x slots": Case(0.2, 250, 300.0, m) for m in (1, 2, 4, 8)},
}
TEXT = """\
# How large can a study be?
study: scale
base: [data=digit_scenes, regularizer=sar, training.steps=30, training.eval_every=10]
ablation:
  reference: arm_0
  arms:
{arms}
search:
  parameters:
    optim.lr: {{low: 0.001, high: 0.03, log: true}}
    optim.weight_decay: {{low: 0.00001, high: 0.1, log: true}}
  trials_per_arm: {trials}
  batch: {batch}
  sampler: qmc
  scheduler: {scheduler}
  reproducible: {reproducible}
confirm: {{seeds: {seeds}}}
"""


def study_text(case: Case, trials: int) -> str:
    """Return a study of about so many trials."""
    trials = int(trials * case.trials)
    seeds = min(SEEDS, trials // (10 * ARMS))
    own = trials // ARMS - seeds
    batch = min(own, math.ceil((case.multiple or 2) * case.slots / ARMS))
    arms = "\n".join(f"    arm_{i}: {{regularizer.aux_weight: {1 + i / 100}}}" for i in range(ARMS))
    name = "asha" if case.multiple is None else "successive_halving"
    return TEXT.format(
        arms=arms,
        trials=own // batch * batch,
        batch=batch,
        scheduler=f"{{name: {name}, min_fraction: 0.33}}",
        reproducible=str(case.multiple is not None).lower(),
        seeds=seeds,
    )


def tune_seconds() -> float:
    """Return the seconds for a result through Ray Tune's controller: of real trials that train nothing."""
    script = str(Path(__file__).with_name("contenders.py"))
    command = [sys.executable, script, "sarx", "--trials", str(NO_OP_TRIALS), "--reports", str(NO_OP_REPORTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return float(json.loads(done.stdout.splitlines()[-1])["trials"]) / (NO_OP_TRIALS * NO_OP_REPORTS)


def simulate(case: Case, trials: int, tune_s: float) -> dict[str, float]:
    """Run a study on a simulated cluster and return what became of it."""
    from simulated import identify, make_study

    from sarx.search.engine import Engine
    from sarx.study.ledger import Ledger

    with tempfile.TemporaryDirectory() as name:
        study, arms = make_study(study_text(case, trials), Path(name))
        (Path(name) / "ledger").mkdir()
        with Ledger(Path(name) / "ledger") as ledger:
            engine = Engine(study, arms, ledger, identify, "simulated")
            found = Cluster(engine, case, tune_s).run()
            found["trials"] = engine.spent()[0]
        found["ledger_mb"] = sum(file.stat().st_size for file in (Path(name) / "ledger").iterdir()) / 1e6
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


class Cluster:
    """Slots that train, and one driver that serves them; all times in seconds."""

    def __init__(self, engine: Any, case: Case, tune_s: float) -> None:
        """Start with every slot free; ``tune_s`` is what Tune's controller needs for a result."""
        self.engine, self.slots, self.epoch_s, self.tune_s = engine, case.slots, case.epoch_s, tune_s
        self.free, self.count, self.draw = case.slots, 0, random.Random(0)
        self.driver, self.own, self.tune, self.trained = 0.0, 0.0, 0.0, 0.0
        self.results: list[tuple[float, int, Any, int]] = []  # when, order, segment, epoch
        self.names = [f"val/measure_{i:02d}" for i in range(METRICS - 1)]

    def run(self) -> dict[str, float]:
        """Train until nothing is left."""
        self.hand_out()
        taken = 0
        while self.results:
            at, _, segment, epoch = heapq.heappop(self.results)
            self.driver = max(self.driver, at)
            self.work(lambda s=segment, e=epoch: self.take(s, e), self.tune_s)
            taken += 1
            if epoch < segment.until:
                self.train(segment, epoch + 1, self.driver)
            else:
                self.free += 1
                self.hand_out()
        assert self.engine.done, "the engine waits for something that no slot runs"
        busy = self.own + self.tune
        return {
            "results": taken,
            "hours": self.driver / 3600,
            "utilisation": self.trained / (self.slots * self.driver),
            "driver": busy / self.driver,
            "alone_s": taken / self.own,
            "results_s": taken / busy,
        }

    def hand_out(self) -> None:
        """Give free slots what can start."""
        while self.free and (segment := self.work(self.engine.next_segment)) is not None:
            self.free -= 1
            self.train(segment, segment.start + 1, self.driver + START_S)

    def work(self, task: Any, besides: float = 0.0) -> Any:
        """Let the driver do something: the simulated clock passes by what it takes here."""
        started = time.perf_counter()
        found = task()
        took = time.perf_counter() - started
        self.own, self.tune, self.driver = self.own + took, self.tune + besides, self.driver + took + besides
        return found

    def train(self, segment: Any, epoch: int, at: float) -> None:
        """Let a slot train an epoch from a time on."""
        duration = self.epoch_s * self.draw.lognormvariate(-0.02, 0.2)
        self.trained += duration
        self.count += 1
        heapq.heappush(self.results, (at + duration, self.count, segment, epoch))

    def take(self, segment: Any, epoch: int) -> None:
        """Tell the engine what an epoch gave."""
        start = segment.config["seed"] % 1000 / 7
        values = {name: math.cos(start + 0.1 * i * epoch) for i, name in enumerate(self.names)}
        result = {"epoch": epoch, "step": 10 * epoch, "duration_s": 1.0}
        result["metrics"] = {"val/miou": math.sin(start + epoch), **values}
        if epoch == EPOCHS:
            self.engine.finished(segment, result)
        elif epoch == segment.until:
            self.engine.rung_reached(segment, result)
        else:
            self.engine.epoch_done(segment, result)


def apart(trials: int, name: str, tune_s: float) -> dict[str, float]:
    """Return what a case gives in a process of its own, so that its peak of memory is its own."""
    command = [sys.executable, __file__, "--case", name, "--trials", str(trials), "--tune", repr(tune_s)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


HEADS = {
    "trials": ("trials", "d"),
    "results": ("results", "d"),
    "hours": ("hours", ".1f"),
    "utilisation": ("utilisation", ".3f"),
    "driver": ("driver", ".3f"),
    "alone_s": ("alone/s", ".0f"),
    "results_s": ("results/s", ".0f"),
    "peak_mib": ("peak MiB", ".0f"),
    "ledger_mb": ("ledger MB", ".0f"),
}
"""Columns: their heading and how their numbers are written."""


def main() -> int:
    """Print the table and judge the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100_000, help="of the largest case; others are a share")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--tune", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(simulate(CASES[options.case], options.trials, options.tune)))
        return 0
    tune_s = tune_seconds()
    print(
        f"through Tune's controller, {NO_OP_TRIALS} real trials that train nothing: {1 / tune_s:.0f} "
        f"results/s; with 1,000 slots an epoch must take {1000 * tune_s:.0f} s or more"
    )
    print(f"{ARMS} arms, {EPOCHS} epochs of {METRICS} metrics, {START_S:g} s to start a trial")
    print(f"{'case':30}" + "".join(f"{head:>12}" for head, _ in HEADS.values()), flush=True)
    found = {}
    for name in CASES:
        found[name] = apart(options.trials, name, tune_s)
        cells = (f"{found[name][key]:12{form}}" for key, (_, form) in HEADS.items())
        print(f"{name:30}" + "".join(cells), flush=True)
    print(
        f"the first bottleneck is the driver: {found[LARGE]['results_s']:.0f} results/s, of which "
        f"{found[LARGE]['alone_s']:.0f}/s would be possible without Tune"
    )
    passed = [
        at_least("results/s without Tune", found[LARGE]["alone_s"], LEAST_ALONE),
        at_least("utilisation, asynchronous", found[LARGE]["utilisation"], LEAST_ASYNCHRONOUS),
    ]
    for name, case in CASES.items():
        if case.multiple is not None and case.multiple >= FROM_MULTIPLE:
            passed.append(at_least(f"utilisation, {name}", found[name]["utilisation"], LEAST_REPRODUCIBLE))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
