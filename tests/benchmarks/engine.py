"""What a trial costs that trains nothing: ``just bench engine [--quick]``.

Side by side in one run, each contender in a process of its own with its own local Ray, 2 trials at a time:

    sarx          the real driver, searcher, engine, ledger (fsync) and TensorBoard files; 4 arms, qmc search
                  and one confirm trial per arm; only the host is one that reports numbers without training
    ray-reuse     Ray Tune, class trainable, reuse_actors=True
    ray-default   Ray Tune, function trainable as on the first page of its documentation: an actor per trial
    ray-train     Ray's documented way to tune distributed training: a Tune function that builds a
                  TorchTrainer, here with 1 worker; each takes a CPU, so that one trial runs at a time
    optuna        Optuna in process: in memory, random sampler, 2 threads; writes nothing

Every trial reports one number R times, R = 1 and 9. ``loggers``: Ray's JSON, CSV and TensorBoard loggers, on
by default; sarx has these off and always writes its own ledger and boards. ``ms/trial`` counts from the start
of the first trial to the end of the last, ``with set-up`` from before ray.init. The slow contenders run fewer
trials, as the table says: their cost is per trial.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bars import at_least, at_most

SCRIPT = Path(__file__).with_name("contenders.py")
MOST_OVER_REUSE, LEAST_OVER_DEFAULT = 1.0, 20.0
REPORTS = (1, 9)


@dataclass(frozen=True)
class Run:
    """One line of the table."""

    contender: str
    reports: int
    trials: int
    loggers: bool

    @property
    def name(self) -> str:
        """What the table calls it."""
        if not self.contender.startswith("ray"):
            return self.contender
        return f"{self.contender}, loggers {'on' if self.loggers else 'off'}"


def runs(contenders: list[str], trials: int, quick: bool) -> list[Run]:
    """Return what is run, in order."""
    slow, slowest = (8, 1) if quick else (min(trials, 30), 2)
    plan = []
    for reports in REPORTS:
        for name in contenders:
            count = {"ray-default": slow, "ray-train": slowest}.get(name, trials)
            plan.append(Run(name, reports, count, loggers=True))
            if name in ("ray-reuse", "ray-default") and not quick:
                plan.append(Run(name, reports, count, loggers=False))
    return plan


def measure(run: Run, environment: dict[str, str]) -> dict[str, float]:
    """Return the seconds of one contender, in a process of its own."""
    own = dict(environment)
    if run.contender.startswith("ray") and not run.loggers:
        own["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    command = [sys.executable, str(SCRIPT), run.contender]
    command += ["--trials", str(run.trials), "--reports", str(run.reports)]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{run.name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    seconds = json.loads(done.stdout.splitlines()[-1])
    each = 1e3 / run.trials
    return {
        "ms": seconds["trials"] * each,
        "all_ms": (seconds["init"] + seconds["run"]) * each,
        "init": seconds["init"],
        "seconds": seconds["trials"],
    }


def main() -> int:
    """Run the contenders, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["sarx", "ray-reuse", "ray-default", "ray-train", "optuna"]
    parser.add_argument("--trials", type=int, default=200, help="of the fast contenders, a multiple of 4")
    parser.add_argument("--contenders", default=",".join(names), help="which, with commas (default: all)")
    parser.add_argument("--quick", action="store_true", help="40 trials, fewer of the slow, loggers on only")
    options = parser.parse_args()
    contenders = options.contenders.split(",")
    if unknown := set(contenders) - set(names):
        parser.error(f"unknown contenders {sorted(unknown)}; there are {', '.join(names)}")
    trials = 40 if options.quick else options.trials
    if trials < 8 or trials % 4:
        parser.error("--trials must be a multiple of 4 and at least 8")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", None)
    begun, load = time.perf_counter(), os.getloadavg()[0]
    print(f"no-op trials, 2 at a time, sarx with {trials - 4} search and 4 confirm trials; load {load:.2f}")
    heads = (
        ("reports", 8),
        ("trials", 7),
        ("ms/trial", 10),
        ("with set-up", 12),
        ("ray.init s", 11),
        ("s", 7),
    )
    print(" " * 24 + "".join(f"{head:>{width}s}" for head, width in heads))
    found: dict[tuple[str, int], float] = {}
    for run in runs(contenders, trials, options.quick):
        row = measure(run, environment)
        if run.loggers:
            found[run.contender, run.reports] = row["ms"]
        counts = f"{run.reports:8d}{run.trials:7d}{row['ms']:10.1f}{row['all_ms']:12.1f}"
        print(f"{run.name:24s}{counts}{row['init']:11.1f}{row['seconds']:7.1f}", flush=True)
    print(f"{time.perf_counter() - begun:.0f} s\n")
    return 0 if judge(found) else 1


def judge(found: dict[tuple[str, int], float]) -> bool:
    """Print ratios and bars of the contenders that ran; return whether all bars are met."""
    passed = []
    for reports in REPORTS:
        own = found.get(("sarx", reports))
        for name in ("ray-reuse", "ray-default", "ray-train"):
            other = found.get((name, reports))
            if own is None or other is None:
                continue
            if name == "ray-reuse":
                ratio = own / other
                passed.append(at_most(f"engine_over_ray_reuse_{reports}", ratio, MOST_OVER_REUSE))
            elif name == "ray-default":
                ratio = other / own
                passed.append(
                    at_least(f"engine_faster_than_ray_default_{reports}", ratio, LEAST_OVER_DEFAULT)
                )
            else:
                print(f"{name} over sarx at {reports} reports: {other / own:.0f}")
    return all(passed)


if __name__ == "__main__":
    sys.exit(main())
