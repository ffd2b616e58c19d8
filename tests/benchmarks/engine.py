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
of the first trial to the end of the last, ``with set-up`` from before ray.init; Tune makes all trials of a
random search before it starts the first, which only ``with set-up`` counts. sarx and ray-reuse take turns in
rounds: the table has medians, a bar on them the median over rounds of the ratio within the round. The slow
contenders run once and fewer trials, as the table says: their cost is per trial.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bars import at_least, at_most

SCRIPT = Path(__file__).with_name("contenders.py")
MOST_OVER_REUSE, LEAST_OVER_DEFAULT = 1.0, 20.0
REPORTS = (1, 9)
HEADS = {"reports": 8, "trials": 7, "ms/trial": 10, "with set-up": 12, "ray.init s": 11, "s": 7, "load": 6}
"""Columns and their widths; the load is the machine's over the last minute, the contender's own included."""


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


def plan(contenders: list[str], trials: int, rounds: int, quick: bool) -> list[list[Run]]:
    """Return what is run: lists whose members take turns, ``rounds`` times if there are more than one."""
    slow, slowest = (8, 1) if quick else (min(trials, 30), 2)
    found = []
    for reports in REPORTS:
        turns = [Run(name, reports, trials, True) for name in ("sarx", "ray-reuse") if name in contenders]
        found += [turns] * rounds
        if "ray-reuse" in contenders and not quick:
            found.append([Run("ray-reuse", reports, trials, loggers=False)])
        for name in contenders:
            count = {"ray-default": slow, "ray-train": slowest, "optuna": trials}.get(name)
            if count is None:
                continue
            found.append([Run(name, reports, count, loggers=True)])
            if name == "ray-default" and not quick:
                found.append([Run(name, reports, count, loggers=False)])
    return found


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
        "load": os.getloadavg()[0],
    }


def main() -> int:
    """Run the contenders, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["sarx", "ray-reuse", "ray-default", "ray-train", "optuna"]
    parser.add_argument("--trials", type=int, default=200, help="of the fast contenders, a multiple of 4")
    parser.add_argument("--contenders", default=",".join(names), help="which, with commas (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="of sarx and ray-reuse (default: 5)")
    parser.add_argument(
        "--quick", action="store_true", help="40 trials, fewer of the slow, one round, loggers on only"
    )
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
    begun = time.perf_counter()
    print(f"no-op trials, 2 at a time, sarx with {trials - 4} search and 4 confirm trials")
    print(" " * 24 + "".join(f"{head:>{width}s}" for head, width in HEADS.items()))
    found: dict[Run, list[float]] = {}
    rounds = 1 if options.quick else options.rounds
    for turns in plan(contenders, trials, rounds, options.quick):
        for run in turns:
            row = measure(run, environment)
            found.setdefault(run, []).append(row["ms"])
            counts = f"{run.reports:8d}{run.trials:7d}{row['ms']:10.1f}{row['all_ms']:12.1f}"
            print(
                f"{run.name:24s}{counts}{row['init']:11.1f}{row['seconds']:7.1f}{row['load']:6.2f}",
                flush=True,
            )
    print(f"{time.perf_counter() - begun:.0f} s\n\nmedians over rounds, ms/trial")
    for run, times in found.items():
        print(f"{run.name:24s}{run.reports:8d}{run.trials:7d}{statistics.median(times):10.1f}")
    print()
    return 0 if judge({(run.contender, run.reports): ms for run, ms in found.items() if run.loggers}) else 1


def judge(found: dict[tuple[str, int], list[float]]) -> bool:
    """Print ratios and bars of the contenders that ran; return whether all bars are met."""
    passed = []
    for reports in REPORTS:
        own = found.get(("sarx", reports), [])
        reuse = found.get(("ray-reuse", reports), [])
        default, train = (found.get((name, reports), []) for name in ("ray-default", "ray-train"))
        if own and train:
            ratio = train[0] / statistics.median(own)
            print(f"sarx is {ratio:.0f} times faster than ray-train at {reports} reports")
        if own and reuse:
            ratio = statistics.median(mine / other for mine, other in zip(own, reuse, strict=True))
            passed.append(at_most(f"engine_over_ray_reuse_{reports}", ratio, MOST_OVER_REUSE))
        if own and default:
            ratio = default[0] / statistics.median(own)
            passed.append(at_least(f"engine_faster_than_ray_default_{reports}", ratio, LEAST_OVER_DEFAULT))
    return all(passed)


if __name__ == "__main__":
    sys.exit(main())
