"""How often two equal arms come out different: ``just bench aa [--studies 1000]``.

Every study has two arms whose one difference (dropout) the simulated objective does not look at, so that
whatever is declared significant is wrong. Search and choice are the real engine on a real ledger, the
statistics those of the table (paired t test, Holm, .05). In units of the seed SD:

    value of a trial = quality(lr, weight_decay) + noise,  SD of the quality over configurations: 10
    noise            = sqrt(rho) shared(seed) + sqrt(1 - rho) own(arm, seed),  SD 1

Arms that are equal in truth would give equal numbers on equal seeds, which nothing needs to test. So the
arms differ in something that perturbs training and does not help: confirm trials have rho = .5. Search
trials have rho = 1 where a row says nothing else: equal arms see equal numbers there, and must choose alike.
The rows "own noise in search" have rho = .5 there too, as two arms have that draw other random numbers.

    independent searches   the second arm is searched under another study seed: other proposals, other seeds;
                           confirm seeds stay paired. No bar: the row is the warning.
    common proposals       sarx's default: proposal i and its seed are the same in both arms
    repeats = 10           search.repeats: confirm seed k goes to the winner of search k

Where the arms choose alike, the quality cancels out of their differences: these rows test the same numbers.
With noise of their own they choose differently, which one search per arm cannot tell from an effect.

Qualities are drawn for each configuration on its own ("rough": neighbours have nothing in common), or, in the
row that says so, from a smooth random surface (Gaussian process over log lr and log weight decay, length
scale .3 of their ranges), where good configurations are near each other and two searches differ less.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from bars import at_least, at_most
from simulated import identify, make_study, run

from analysis.verdict import judge
from sarx.search.claims import Segment
from sarx.search.engine import Engine
from sarx.study.arm import Arm
from sarx.study.ledger import Ledger
from sarx.study.schema import Study

TEXT = """\
# Do two equal arms come out different?
study: aa
base: [data=digit_scenes, training.steps=1, training.eval_every=1]
ablation:
  reference: first
  arms:
    first: {regularizer: none}
    second: {regularizer: none, model.dropout: 0.1}
search:
  parameters:
    optim.lr: {low: 0.001, high: 0.03, log: true}
    optim.weight_decay: {low: 0.00001, high: 0.1, log: true}
  trials_per_arm: 8
  sampler: qmc
confirm: {seeds: 10}
"""
RANGES = {"lr": (0.001, 0.03), "weight_decay": (1e-5, 1e-1)}
SPREAD = 10.0
RHO = 0.5
WAVES, LENGTH_SCALE = 128, 0.3
MOST_SIGNIFICANT = 0.07


@dataclass(frozen=True)
class Protocol:
    """One row of the table.

    Attributes:
        independent: Whether the second arm is searched under another study seed.
        repeats: Searches per arm.
        rho: Shared part of the noise of search trials.
        smooth: Whether near configurations have near qualities.
    """

    name: str
    independent: bool = False
    repeats: int = 1
    rho: float = 1.0
    smooth: bool = False


COMMON, REPEATS, OWN = "common proposals", "repeats = 10", "own noise in search"
PROTOCOLS = (
    Protocol("independent searches", independent=True),
    Protocol("independent searches, smooth", independent=True, smooth=True),
    Protocol(COMMON),
    Protocol(f"{COMMON}, {OWN}", rho=RHO),
    Protocol(REPEATS, repeats=10),
    Protocol(f"{REPEATS}, {OWN}", repeats=10, rho=RHO),
)


def normal(*what: object) -> float:
    """Return a standard normal number that depends on ``what`` and on nothing else."""
    return random.Random(repr(what)).gauss(0.0, 1.0)


@cache
def surface(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies (W, 2) and phases (W,) of the smooth surface of a study."""
    generator = np.random.default_rng(number)
    return generator.normal(size=(WAVES, 2)) / LENGTH_SCALE, generator.uniform(0, 2 * math.pi, WAVES)


def quality(number: int, options: Mapping[str, Any], smooth: bool) -> float:
    """Return how good a configuration is in study ``number``, in seed SDs."""
    if not smooth:
        return SPREAD * normal(number, "quality", options["lr"], options["weight_decay"])
    place = [math.log(options[key] / low) / math.log(high / low) for key, (low, high) in RANGES.items()]
    frequencies, phases = surface(number)
    return SPREAD * math.sqrt(2 / WAVES) * float(np.cos(frequencies @ place + phases).sum())


class Objective:
    """What the simulated trials of one study give; remembers the values of confirm trials by identity."""

    def __init__(self, number: int, protocol: Protocol) -> None:
        """Take up one study."""
        self.number, self.protocol = number, protocol
        self.confirmed: dict[str, float] = {}

    def __call__(self, engine: Engine, segment: Segment, epoch: int) -> dict[str, float]:
        """Return the metrics of a trial."""
        confirm = segment.phase == "confirm"
        # Independent searches run under two study seeds; their confirm seeds are paired by number.
        seed = ("confirm", segment.index) if confirm else ("search", segment.config["seed"])
        rho = RHO if confirm else self.protocol.rho
        arm = engine.claim_of(segment).arm.name
        shared, own = normal(self.number, *seed), normal(self.number, *seed, arm)
        value = quality(self.number, segment.config["optim"], self.protocol.smooth)
        value += math.sqrt(rho) * shared + math.sqrt(1 - rho) * own
        if confirm:
            self.confirmed[segment.trial_id] = value
        return {"val/miou": value, "test/miou": value}


def run_study(
    number: int, protocol: Protocol, study: Study, arms: list[Arm], folder: Path
) -> tuple[bool, bool]:
    """Run one study; return whether its arms are significantly different, and whether all winners agree."""
    objective = Objective(number, protocol)
    search = replace(study.search, repeats=protocol.repeats)
    starts: list[tuple[int, frozenset[str] | None]] = [(number, None)]
    if protocol.independent:
        starts = [(number, frozenset({"first"})), (number + 10**9, frozenset({"second"}))]
    values, winners, seeds = {}, {}, {}
    for seed, only in starts:
        ledger_folder = folder / f"{seed}"
        ledger_folder.mkdir()
        with Ledger(ledger_folder) as ledger:
            engine = Engine(replace(study, seed=seed, search=search), arms, ledger, identify, only_arms=only)
            run(engine, objective)
            for arm in arms:
                if only is None or arm.name in only:
                    claims = [seat.claim for seat in engine.confirm[arm.key]]
                    values[arm.name] = [objective.confirmed[claim.trial_id] for claim in claims]
                    seeds[arm.name] = [claim.seed for claim in claims]
                    chosen = [engine.winners[arm.key, repeat] for repeat in range(protocol.repeats)]
                    winners[arm.name] = [dict(claim.parameters) for claim in chosen if claim is not None]
        shutil.rmtree(ledger_folder)
    assert protocol.independent or seeds["first"] == seeds["second"]
    differences = np.array([values["second"]]) - np.array([values["first"]])
    verdicts = judge(differences, None, higher_is_better=True)
    return verdicts.words[0] in ("better", "worse"), winners["first"] == winners["second"]


def run_studies(numbers: range, folder: Path) -> dict[str, tuple[int, int, float]]:
    """Return for each protocol the significant studies, those with equal winners, and the seconds."""
    own = Path(tempfile.mkdtemp(dir=folder))
    study, arms = make_study(TEXT, own)
    found = {protocol.name: (0, 0, 0.0) for protocol in PROTOCOLS}
    for number in numbers:
        for protocol in PROTOCOLS:
            started = time.perf_counter()
            significant, same = run_study(number, protocol, study, arms, own)
            before = found[protocol.name]
            seconds = before[2] + time.perf_counter() - started
            found[protocol.name] = (before[0] + significant, before[1] + same, seconds)
    return found


def wilson(count: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    share, weight = count / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return centre - half, centre + half


def main() -> int:
    """Simulate, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000, help="studies per protocol (default: 1000)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--folder", type=Path, help="where the ledgers lie (default: /dev/shm, else a temp folder)"
    )
    options = parser.parse_args()
    shm = Path("/dev/shm")
    base = options.folder or (shm if shm.is_dir() else None)
    parts = [range(i, options.studies, options.processes) for i in range(options.processes)]
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(dir=base, prefix="sarx-aa-") as folder,
        ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool,
    ):
        found = list(pool.map(partial(run_studies, folder=Path(folder)), parts))
    counts = {
        protocol.name: tuple(sum(part[protocol.name][i] for part in found) for i in range(3))
        for protocol in PROTOCOLS
    }
    print(
        f"{options.studies} studies of 2 equal arms, 8 search trials, 10 confirm seeds, quality SD {SPREAD:g}"
    )
    print(
        f"{'':38s} {'significant':>11s} {'share':>6s} {'95 % interval':>14s} {'same winners':>13s} {'ms':>6s}"
    )
    for name, (significant, same, seconds) in counts.items():
        low, high = wilson(significant, options.studies)
        share, each = significant / options.studies, 1e3 * seconds / options.studies
        interval = f"{low:.3f} - {high:.3f}"
        print(f"{name:38s} {significant:11d} {share:6.3f} {interval:>14s} {same:13d} {each:6.0f}")
    print("the first two rows are a warning, not a bar: equal arms, tuned each on its own")
    print(f"{time.perf_counter() - started:.0f} s\n")
    share_of = {name: count[0] / options.studies for name, count in counts.items()}
    passed = [
        at_most("aa_repeats_significant", share_of[REPEATS], MOST_SIGNIFICANT),
        at_most("aa_repeats_own_noise_significant", share_of[f"{REPEATS}, {OWN}"], MOST_SIGNIFICANT),
        at_least("aa_common_same_winner", counts[COMMON][1] / options.studies, 1.0),
    ]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
