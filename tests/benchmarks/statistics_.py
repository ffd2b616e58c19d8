"""How often the table is wrong, and how often it finds what is there: ``just bench statistics``.

Simulated studies of m rows that share one reference, k paired seeds. Tests, verdicts and intervals are the
table's (``analysis.verdict.judge``, ``analysis.statistics.mean_interval``). What the seeds of a pair share
cancels out of their difference, so that only the noise of each arm is drawn, from one law per cell:

    normal         SD 1
    t3             Student's t with 3 degrees of freedom: heavy tails
    exponential    SD 1, skewed
    collapsed      normal, and in one training of ten the score is 5 SD lower
    collapsed 20   the same, 20 SD lower
    one arm x 3    normal, one row has three times the SD

The difference of two arms with the same law is symmetric whatever the law, which is why a t interval of the
difference holds where that of one skewed arm would not. First all arms are equal: whatever is called better
or worse is wrong. Columns of the first table:

    FWER       share of studies with any row "better" or "worse" (paired t, Holm); bar: <= .055 in every cell
    coverage   share of rows whose 95 % t interval of the paired difference holds 0; bar: .93 to .98 in every
               cell. "collapsed 20" has no upper bar: one wild value widens an interval by more than it moves
               it, so that with 5 seeds or more it covers in .98 to .985, too often and never too rarely
    BCa, pct   the same two numbers for bootstrap intervals of the difference: coverage, and the share of
               studies in which some interval excludes 0 (2,000 resamples, --bootstrap studies of a cell)
    flips      FWER of sign flips of each row + Holm
    best       share of studies in which "bold the best mean" makes some row bold

Then rows differ by 2 SD of the paired difference (by its law; for "one arm x 3" that of the other rows):
power is the share of such rows that are called better, in a tenth of the studies. "all": every row differs.
"one": one row does, which has to pass Holm's first step. The bar is for normal noise, m = 5, all: >= .5 at
k = 5 and >= .95 at k = 10.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from bars import at_least, at_most
from numpy.typing import NDArray
from scipy import special

from analysis.sign_flips import sign_matrix
from analysis.statistics import holm, mean_interval
from analysis.verdict import judge

Array = NDArray[np.float64]
SEEDS, ROWS = (3, 5, 8, 10), (5, 10)
EFFECT = 2.0
COLLAPSED_SHARE = 0.1
RESAMPLES = 2000
CHUNK = 250
MOST_FWER, COVERAGE = 0.055, (0.93, 0.98)
LEAST_POWER = {5: 0.5, 10: 0.95}


def collapsed(rng: np.random.Generator, shape: tuple[int, ...], depth: float) -> Array:
    """Return normal noise with rare runs that are ``depth`` SD worse."""
    return rng.standard_normal(shape) - depth * (rng.random(shape) < COLLAPSED_SHARE)


def one_wide_arm(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return normal noise, of the first row (the arm after the reference) with three times the SD."""
    noise = rng.standard_normal(shape)
    noise[:, 1] *= 3
    return noise


WILD = "collapsed 20"
NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "t3": lambda rng, shape: rng.standard_t(3, shape),
    "exponential": lambda rng, shape: rng.standard_exponential(shape),
    "collapsed": partial(collapsed, depth=5.0),
    WILD: partial(collapsed, depth=20.0),
    "one arm x 3": one_wide_arm,
}
"""Noise of S studies x arms (the reference first) x seeds."""
VARIANCES = {"normal": 1.0, "t3": 3.0, "exponential": 1.0, "one arm x 3": 1.0} | {
    "collapsed": 1.0 + 5.0**2 * COLLAPSED_SHARE * (1 - COLLAPSED_SHARE)
}
"""Of an arm's noise."""


@dataclass(frozen=True)
class Cell:
    """One line of a table.

    Attributes:
        differing: rows with an effect: 0, 1, or all.
    """

    noise: str
    seeds: int
    rows: int
    differing: int = 0


def draw(cell: Cell, studies: int, stream: int) -> Array:
    """Return paired differences (studies, rows, seeds); equal cells and streams give equal numbers."""
    rng = np.random.default_rng([[*NOISES].index(cell.noise), cell.seeds, cell.rows, cell.differing, stream])
    noise = NOISES[cell.noise](rng, (studies, 1 + cell.rows, cell.seeds))
    differences = noise[:, 1:] - noise[:, :1]
    if cell.differing:  # the last rows: "one" is an ordinary row where the first is the wide one
        differences[:, cell.rows - cell.differing :] += EFFECT * np.sqrt(2 * VARIANCES[cell.noise])
    return differences


def called(differences_SMK: Array) -> NDArray[np.int64]:
    """Return 1 where a row is called better, -1 where worse, else 0 (S, M), by the table's own verdicts."""
    value = {"better": 1, "worse": -1}
    words = (judge(study, None, higher_is_better=True).words for study in differences_SMK)
    return np.array([[value.get(word, 0) for word in of_study] for of_study in words])


def flips_and_holm(differences_SMK: Array, alpha: float = 0.05) -> NDArray[np.bool_]:
    """Return which rows sign flips of each row alone, Holm-corrected, reject (S, M)."""
    studies, rows, seeds = differences_SMK.shape
    signs = sign_matrix(seeds)[: 2 ** (seeds - 1)]
    flat = differences_SMK.reshape(-1, seeds)
    extreme = np.abs(flat @ signs.T) >= np.abs(flat.sum(axis=1, keepdims=True)) * (1 - 1e-9)
    p = extreme.mean(axis=1).reshape(studies, rows)
    return np.array([holm(of_study) <= alpha for of_study in p])


def bootstrap_intervals(values_RK: Array, rng: np.random.Generator) -> dict[str, tuple[Array, Array]]:
    """Return 95 % percentile and BCa intervals of the mean of every row, each bound (R,).

    Source: Efron 1987, "Better Bootstrap Confidence Intervals", JASA 82.
    """
    seeds = values_RK.shape[1]
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    means = np.sort(values_RK @ weights.T, axis=1)
    mean = values_RK.mean(axis=1, keepdims=True)
    below = ((means < mean).sum(axis=1) + (means <= mean).sum(axis=1)) / (2 * RESAMPLES)
    centred = (values_RK - mean) / (seeds - 1)  # of the jackknife: mean minus the mean without a seed
    squares = (centred**2).sum(axis=1)
    acceleration = (centred**3).sum(axis=1) / (6 * np.maximum(squares, 1e-300) ** 1.5)
    bias = special.ndtri(np.clip(below, 1e-9, 1 - 1e-9))

    def at(level_R: Array) -> Array:
        place = np.clip(level_R, 0, 1) * (RESAMPLES - 1)
        low = np.minimum(place.astype(np.int64), RESAMPLES - 2)[:, None]
        found = np.take_along_axis(means, np.hstack([low, low + 1]), axis=1)
        return np.asarray(found[:, 0] + (place - low[:, 0]) * (found[:, 1] - found[:, 0]))

    bounds = {}
    for name, shift in (("pct", 0.0), ("BCa", 1.0)):
        ends = []
        for z in special.ndtri([0.025, 0.975]):
            moved = shift * bias + z
            ends.append(at(special.ndtr(shift * bias + moved / (1 - shift * acceleration * moved))))
        bounds[name] = (ends[0], ends[1])
    return bounds


def null_counts(cell: Cell, studies: int, stream: int, bootstrap: bool) -> dict[str, float]:
    """Return counts of one chunk of studies without any effect; ``... of`` are what they are shares of."""
    differences = draw(cell, studies, stream)
    flat = differences.reshape(-1, cell.seeds)
    found = mean_interval(flat)
    counts = {
        "FWER": float((called(differences) != 0).any(axis=1).sum()),
        "coverage": float(((found.low <= 0) & (found.high >= 0)).sum()),
        "flips": float(flips_and_holm(differences).any(axis=1).sum()),
        "best": float((differences.mean(axis=2) > 0).any(axis=1).sum()),
        "studies": float(studies),
        "rows": float(studies * cell.rows),
    }
    if bootstrap:
        rng = np.random.default_rng([99, stream])
        for name, (low, high) in bootstrap_intervals(flat, rng).items():
            holds = (low <= 0) & (high >= 0)
            counts[f"{name} coverage"] = float(holds.sum())
            counts[f"{name} FWER"] = float((~holds.reshape(studies, -1)).any(axis=1).sum())
        counts |= {"bootstrap studies": float(studies), "bootstrap rows": float(studies * cell.rows)}
    return counts


def power_counts(cell: Cell, studies: int, stream: int) -> dict[str, float]:
    """Return counts of one chunk of studies in which some rows differ."""
    differences = draw(cell, studies, stream)
    differing = slice(cell.rows - cell.differing, None)
    return {
        "t": float((called(differences)[:, differing] == 1).sum()),
        "flips": float(flips_and_holm(differences)[:, differing].sum()),
        "rows": float(studies * cell.differing),
    }


def run_cell(job: tuple[Cell, int], bootstrap: int) -> dict[str, float]:
    """Return the counts of one cell."""
    cell, studies = job
    total: dict[str, float] = {}
    for stream, start in enumerate(range(0, studies, CHUNK)):
        size = min(CHUNK, studies - start)
        part = (
            power_counts(cell, size, stream)
            if cell.differing
            else null_counts(cell, size, stream, start < bootstrap)
        )
        for name, count in part.items():
            total[name] = total.get(name, 0.0) + count
    return total


def print_null(cells: list[Cell], counts: list[dict[str, float]]) -> tuple[list[float], dict[Cell, float]]:
    """Print the table of studies without effect; return all error rates and coverages."""
    print("all arms equal" + " " * 29 + "--- BCa ---  --- pct ---")
    print("noise         k   m   FWER  coverage   cov.  FWER   cov.  FWER  flips   best")
    errors, coverages = [], {}
    for cell, of in zip(cells, counts, strict=True):
        studies, rows = of["studies"], of["rows"]
        errors.append(of["FWER"] / studies)
        coverages[cell] = of["coverage"] / rows
        boot = [
            of[f"{name} {what}"] / of[f"bootstrap {unit}"]
            for name in ("BCa", "pct")
            for what, unit in (("coverage", "rows"), ("FWER", "studies"))
        ]
        print(
            f"{cell.noise:12s} {cell.seeds:2d}  {cell.rows:2d}  {errors[-1]:.4f}   {coverages[cell]:.4f}   "
            f"{boot[0]:.3f}  {boot[1]:.3f}  {boot[2]:.3f}  {boot[3]:.3f}  {of['flips'] / studies:.3f}  "
            f"{of['best'] / studies:.3f}"
        )
    return errors, coverages


def print_power(cells: list[Cell], counts: list[dict[str, float]]) -> dict[Cell, float]:
    """Print the power of paired t + Holm and of sign flips + Holm; return that of the first."""
    print(f"\npower per row at {EFFECT:g} SD of the paired difference")
    print("noise         k   m  differ   t + Holm  flips + Holm")
    found = {}
    for cell, of in zip(cells, counts, strict=True):
        found[cell] = of["t"] / of["rows"]
        differ = "one" if cell.differing == 1 else "all"
        print(
            f"{cell.noise:12s} {cell.seeds:2d}  {cell.rows:2d}  {differ:6s}   {found[cell]:.3f}     "
            f"{of['flips'] / of['rows']:.3f}"
        )
    return found


def main() -> int:
    """Simulate, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=10_000, help="studies per cell (default: 10000)")
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="of them with bootstrap intervals (default: 1000)"
    )
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    null = [Cell(noise, k, m) for noise in NOISES for k in SEEDS for m in ROWS]
    power = [Cell(noise, k, m, n) for noise in VARIANCES for m in ROWS for k in SEEDS for n in (m, 1)]
    jobs = [(cell, options.studies) for cell in null]
    jobs += [(cell, max(1, options.studies // 10)) for cell in power]
    started = time.perf_counter()
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        counts = list(pool.map(partial(run_cell, bootstrap=max(1, options.bootstrap)), jobs))
    print(f"{options.studies} studies per cell, {max(1, options.studies // 10)} per cell of power\n")
    errors, coverages = print_null(null, counts[: len(null)])
    powers = print_power(power, counts[len(null) :])
    print(f"{time.perf_counter() - started:.0f} s\n")
    passed = [
        at_most("statistics_fwer", max(errors), MOST_FWER),
        at_least("statistics_coverage_least", min(coverages.values()), COVERAGE[0]),
        at_most(
            "statistics_coverage_most",
            max(share for cell, share in coverages.items() if cell.noise != WILD),
            COVERAGE[1],
        ),
    ]
    passed += [
        at_least(f"statistics_power_k{k}", powers[Cell("normal", k, 5, 5)], bound)
        for k, bound in LEAST_POWER.items()
    ]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
