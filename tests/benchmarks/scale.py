"""Where a large study first gets stuck: ``just bench scale`` (simulated time; nothing is trained).

The real engine, ledger, samplers and schedulers serve a simulated cluster. Time is simulated, but for the
driver: each of its steps (a result taken, a segment handed out) is measured on this machine and passes on the
simulated clock, and Ray Tune's own work for a result is added as ``TUNE_S``. The driver does one thing after
the other, so results queue when they come faster than it can take them.

    utilisation  share of the slots' time in which an epoch was being trained
    driver       share of the simulated time in which the driver was busy
    ms/result    of the driver's own work, without Tune's
    results/s    what the driver can take at most: 1 / (ms/result + Tune's)
    peak         memory of the driver's process; ledger: bytes of its files
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
from pathlib import Path
from typing import Any

from bars import at_least, at_most

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

TUNE_S = 1 / 116
"""Seconds of Ray Tune's controller for one result, its loggers off: measured with Ray 2.60 on one core."""
START_S = 0.08
"""Seconds until an actor that is there has begun the next trial: measured with reused actors."""
ARMS, SEEDS, EPOCHS, METRICS = 20, 100, 3, 30
CASES = {
    # name: (slots, seconds of an epoch, scheduler)
    "1,000 slots, epoch 5 min": (1000, 300.0, "none"),
    "1,000 slots, epoch 1 min": (1000, 60.0, "none"),
    "1,000 slots, epoch 15 s": (1000, 15.0, "none"),
    "1,000 slots, 5 min, halving": (1000, 300.0, "{name: successive_halving, min_fraction: 0.33}"),
}
LARGE = "1,000 slots, epoch 1 min"
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
confirm: {{seeds: {seeds}}}
"""


def study_text(trials: int, slots: int, scheduler: str) -> str:
    """Return a study of about so many trials whose open proposals are twice the slots."""
    seeds = min(SEEDS, trials // (10 * ARMS))
    own = trials // ARMS - seeds
    batch = min(own, math.ceil(2 * slots / ARMS))
    arms = "\n".join(f"    arm_{i}: {{regularizer.aux_weight: {1 + i / 100}}}" for i in range(ARMS))
    return TEXT.format(arms=arms, trials=own // batch * batch, batch=batch, scheduler=scheduler, seeds=seeds)


def simulate(trials: int, slots: int, epoch_s: float, scheduler: str) -> dict[str, float]:
    """Run a study on a simulated cluster and return what became of it."""
    from simulated import identify, make_study

    from sarx.search.engine import Engine
    from sarx.study.ledger import Ledger

    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        study, arms = make_study(study_text(trials, slots, scheduler), Path(name))
        (Path(name) / "ledger").mkdir()
        with Ledger(Path(name) / "ledger") as ledger:
            engine = Engine(study, arms, ledger, identify, "simulated")
            found = Cluster(engine, slots, epoch_s, draw).run()
            found["trials"] = engine.spent()[0]
        found["ledger_mb"] = sum(file.stat().st_size for file in (Path(name) / "ledger").iterdir()) / 1e6
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


class Cluster:
    """Slots that train, and one driver that serves them; all times in seconds."""

    def __init__(self, engine: Any, slots: int, epoch_s: float, draw: random.Random) -> None:
        """Start with every slot free."""
        self.engine, self.slots, self.epoch_s, self.draw = engine, slots, epoch_s, draw
        self.free, self.count = slots, 0
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
            self.work(lambda s=segment, e=epoch: self.take(s, e), TUNE_S)
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
            "ms_result": 1000 * self.own / taken,
            "results_s": taken / busy,
            "own_s": self.own,
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


def apart(trials: int, case: str) -> dict[str, float]:
    """Return what a case gives in a process of its own, so that its peak of memory is its own."""
    command = [sys.executable, __file__, "--case", case, "--trials", str(trials)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Print the table and judge the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--trials", type=int, default=100_000, help="of the large case; others have a tenth")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(simulate(options.trials, *CASES[options.case])))
        return 0
    print(f"Tune {1000 * TUNE_S:.1f} ms per result, {START_S:g} s per start; {EPOCHS} epochs, {ARMS} arms")
    columns = ("trials", "results", "hours", "utilisation", "driver", "ms_result", "results_s", "peak_mib")
    print(f"{'case':30}" + "".join(f"{name:>12}" for name in (*columns, "ledger_mb")))
    found = {}
    for case in CASES:
        trials = options.trials if case == LARGE else options.trials // 10
        found[case] = apart(trials, case)
        cells = [f"{found[case][name]:12.3g}" for name in ("utilisation", "driver", "ms_result")]
        whole = {
            name: f"{found[case][name]:12.0f}" for name in columns if name not in ("utilisation", "driver")
        }
        whole |= dict(zip(("utilisation", "driver", "ms_result"), cells, strict=True))
        whole["hours"] = f"{found[case]['hours']:12.1f}"
        print(f"{case:30}" + "".join(whole[name] for name in columns) + f"{found[case]['ledger_mb']:12.0f}")
    large = found[LARGE]
    epoch = CASES[LARGE][0] / large["results_s"]
    print(
        f"the first bottleneck is the driver: {large['results_s']:.0f} results/s, so it keeps up with 1,000 "
        f"slots whose epochs take {epoch:.0f} s and more"
    )
    ratio = large["ms_result"] / found["1,000 slots, epoch 5 min"]["ms_result"]
    passed = [
        at_least("utilisation at 5 min", found["1,000 slots, epoch 5 min"]["utilisation"], 0.9),
        at_least("utilisation at 1 min, large", large["utilisation"], 0.9),
        at_most("ms per result, large over a tenth", ratio, 1.5),
    ]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
