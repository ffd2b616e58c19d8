"""What a trial on two workers costs that trains nothing: ``just bench session``.

Side by side in one run, each contender in a process of its own with its own local Ray of 2 CPUs, one trial at
a time, each on 2 workers that reduce a tensor together and report one number:

    documented    Ray's documented way to tune distributed training: a Tune function that builds a
                  TorchTrainer for each trial, its workers in the process group that Train forms
    cold          sarx with resources.session: cold: a Train run per trial
    warm          sarx's default: one Train run serves all trials

sarx runs with its driver, searcher, engine, ledger (fsync) and TensorBoard files. ``first`` counts from
ray.init being done to the end of the first trial, ``s/trial`` from there to the end of the last over the
trials after the first, ``ten`` what ten trials cost with the start included: ``first`` + 9 x ``s/trial``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bars import at_most

SCRIPT = Path(__file__).with_name("session_contenders.py")
MOST_AFTER_FIRST, MOST_OF_TEN = 1 / 20, 1 / 3
TRIALS = {"documented": 3, "cold": 3, "warm": 40}


def measure(name: str, trials: int) -> tuple[float, float, float]:
    """Return the seconds of the first trial, of each later one, and of ten; run in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, str(SCRIPT), name, "--trials", str(trials)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    ends = json.loads(done.stdout.splitlines()[-1])
    assert len(ends) == trials, f"{name}: {len(ends)} of {trials} trials"
    each = (ends[-1] - ends[0]) / (trials - 1)
    return ends[0], each, ends[0] + 9 * each


def main() -> int:
    """Run the contenders, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trials", type=int, default=TRIALS["warm"], help="of the warm session (default: 40)"
    )
    options = parser.parse_args()
    begun = time.perf_counter()
    print("trials that train nothing on 2 workers, one at a time")
    print(f"{'':12s}{'trials':>8s}{'first s':>10s}{'s/trial':>10s}{'ten s':>10s}{'load':>7s}")
    found = {}
    for name, trials in (TRIALS | {"warm": options.trials}).items():
        first, each, ten = found[name] = measure(name, trials)
        load = os.getloadavg()[0]
        print(f"{name:12s}{trials:8d}{first:10.1f}{each:10.3f}{ten:10.1f}{load:7.2f}", flush=True)
    print(f"{time.perf_counter() - begun:.0f} s\n")
    warm, documented = found["warm"], found["documented"]
    passed = [
        at_most("session_warm_over_documented_after_first", warm[1] / documented[1], MOST_AFTER_FIRST),
        at_most("session_warm_over_documented_ten_trials", warm[2] / documented[2], MOST_OF_TEN),
    ]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
