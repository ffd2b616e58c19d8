"""How long a study takes to go on: ``just bench resume``.

A ledger is written by the real engine with a simulated host: 5 arms, 10 epochs per trial, 40 metrics per
epoch, and all trials finished but the last confirm seed of each arm, so that the engine must find what is
left. Then, each time in a process of its own, the study is loaded, its arms are made, its code is digested,
the ledger is locked, read and replayed, and the clock stops when the engine gives its next segment. What the
command line does besides (printing the plan, provenance, Ray) does not count.

    total      from the start of the process; CPU: its processor seconds until then
    imports    until the modules of sarx that this needs, Hydra and NumPy are loaded
    w/o imp.   the rest: plan (study, arms, digest), read (lock and read the ledger), engine (replay, first
               segment)
    analysis   analysis.ledger.read_ledger on the same files, imports not counted
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bars import at_most

if TYPE_CHECKING:
    from sarx.config.schema import TrainConfig
    from sarx.search.claims import Segment

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SIZES = (100, 1_000, 10_000)
MOST_SECONDS, MOST_RATIO = 5.0, 15.0
CODE = "simulated"  # not the digest of what lies there, which somebody may be editing
ARMS = 5
EPOCHS, METRICS = 10, 40
TEXT = """\
# How long does it take to go on?
study: resume
base: [data=digit_scenes, training.steps={steps}, training.eval_every=10]
ablation:
  reference: none
  arms:
    none: {{regularizer: none}}
    sar: {{regularizer: sar}}
    no_pull: {{regularizer.pull_weight: 0.0}}
    always: {{regularizer.gate: always}}
    adjusted: {{regularizer: none, loss: logit_adjusted}}
search:
  parameters:
    optim.lr: {{low: 0.001, high: 0.03, log: true}}
    optim.weight_decay: {{low: 0.00001, high: 0.1, log: true}}
  trials_per_arm: {trials}
  batch: {batch}
  sampler: qmc
confirm: {{seeds: {seeds}}}
"""


def study_text(size: int) -> str:
    """Return a study with ``size`` trials and one confirm seed more for each arm."""
    confirm = min(10, size // (2 * ARMS))
    trials = size // ARMS - confirm
    return TEXT.format(steps=10 * EPOCHS, trials=trials, batch=math.gcd(trials, 10), seeds=confirm + 1)


def identity(code: str) -> Callable[[TrainConfig], str]:
    """Return what gives trials their identity, as a start of the driver makes it."""
    from sarx.data import fingerprint
    from sarx.study.identity import trial_id

    return lambda config: trial_id(config, data_fingerprint=fingerprint(config.data), code=code)


def write_ledger(size: int, folder: Path) -> None:
    """Write the ledger of ``size`` finished trials and the file of its study to ``folder``."""
    from simulated import make_study, run

    from sarx.search.engine import Engine
    from sarx.study.ledger import Ledger

    names = [f"val/measure_{i:02d}" for i in range(METRICS - 1)]

    def metrics(engine: Engine, segment: Segment, epoch: int) -> dict[str, float]:
        start = segment.config["seed"] % 1000 / 7
        values = {name: math.cos(start + 0.1 * i * epoch) for i, name in enumerate(names)}
        return {"val/miou": math.sin(start + segment.config["optim"]["lr"] + epoch), **values}

    study, arms = make_study(study_text(size), folder)
    (folder / "ledger").mkdir()
    with Ledger(folder / "ledger") as ledger:
        run(Engine(study, arms, ledger, identity(CODE), CODE), metrics, limit=size)


def resume(folder: Path, started: float) -> dict[str, float]:
    """Take up the study in ``folder``; return seconds and what was read. ``started``: of this process."""
    import hydra  # noqa: F401  (loaded late by sarx)
    import omegaconf  # noqa: F401

    import sarx.data  # noqa: F401
    from sarx.search.engine import Engine
    from sarx.study.design import make_arms
    from sarx.study.identity import training_code
    from sarx.study.ledger import Ledger
    from sarx.study.load import load_study

    marks = [started, time.time()]
    study, source = load_study(folder / "study.yaml")
    arms = make_arms(study, source)
    training_code()
    marks.append(time.time())
    with Ledger(folder / "ledger") as ledger:
        marks.append(time.time())
        before = len(ledger.events)
        engine = Engine(study, arms, ledger, identity(CODE), CODE)
        segment = engine.next_segment()
        marks.append(time.time())
        cpu = time.process_time()
        events = len(ledger.events)
        finished = engine.spent()[0]
    assert segment is not None
    assert events == before + 1  # nothing was proposed again, one trial started
    steps = [after - before for before, after in itertools.pairwise(marks)]
    found = dict(zip(("imports", "plan", "read", "engine"), steps, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found |= {"total": sum(steps), "cpu": cpu, "peak_mib": peak}
    return {**found, "events": events, "finished": finished}


def analyse(folder: Path, started: float) -> dict[str, float]:
    """Read the ledger as analysis does; return the seconds."""
    from analysis.ledger import read_ledger

    begun = time.time()
    events = len(read_ledger(folder).events)
    return {"analysis": time.time() - begun, "imports": begun - started, "events": events}


def apart(task: str, folder: Path) -> dict[str, float]:
    """Return what a task finds in a process of its own."""
    command = [sys.executable, __file__, "--task", task, str(folder), repr(time.time())]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{task} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(size: int, rounds: int, base: Path | None) -> dict[str, float]:
    """Return the medians over rounds for one size; each round resumes what the one before left."""
    with tempfile.TemporaryDirectory(dir=base, prefix="sarx-resume-") as name:
        folder = Path(name)
        begun = time.perf_counter()
        write_ledger(size, folder)
        os.sync()
        written = time.perf_counter() - begun
        volume = sum(file.stat().st_size for file in (folder / "ledger").glob("*.ndjson"))
        found = [apart("resume", folder) for _ in range(rounds)]
        assert all(one["finished"] == size for one in found)
        read = statistics.median(apart("analyse", folder)["analysis"] for _ in range(rounds))
    medians = {key: statistics.median(one[key] for one in found) for key in found[0]}
    own = medians["total"] - medians["imports"]
    return medians | {"own": own, "analysis": read, "written": written, "mb": volume / 1e6}


def main() -> int:
    """Write ledgers, resume them, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, help="finished trials (multiples of 10)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the ledgers lie (default: the temp folder)")
    parser.add_argument("--task", nargs=3, metavar=("TASK", "FOLDER", "STARTED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        task, folder, started = options.task
        run = {"resume": resume, "analyse": analyse}[task]
        print(json.dumps(run(Path(folder), float(started))))
        return 0
    if any(size < 10 or size % 10 for size in options.sizes):
        parser.error("sizes are multiples of 10")
    rows = {size: measure(size, options.rounds, options.folder) for size in sorted(options.sizes)}
    print(f"seconds, medians of {options.rounds}; {EPOCHS} epochs of {METRICS} metrics per trial")
    columns = ("total", "cpu", "imports", "own", "plan", "read", "engine", "analysis", "written")
    heads = ("total", "CPU", "imports", "w/o imp.", "plan", "read", "engine", "analysis", "writing it")
    print(
        f"{'trials':>7s} {'events':>8s} {'MB':>6s} {'peak MiB':>9s} " + " ".join(f"{h:>10s}" for h in heads)
    )
    for size, row in rows.items():
        seconds = " ".join(f"{row[key]:10.3f}" for key in columns)
        print(f"{size:7d} {row['events']:8.0f} {row['mb']:6.1f} {row['peak_mib']:9.0f} {seconds}")
    print()
    passed = []
    if 10_000 in rows:
        passed.append(at_most("resume_10000_s", rows[10_000]["total"], MOST_SECONDS))
    if {1_000, 10_000} <= rows.keys():
        ratio = rows[10_000]["own"] / rows[1_000]["own"]
        passed.append(at_most("resume_10000_over_1000", ratio, MOST_RATIO))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
