"""Every arm against the reference of its level: the tidy frame behind table, CSV and figure.

R rows (arm x level in plan order), K confirm seeds; NaN = missing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.opened import Study
from analysis.results import NO_WINNER
from analysis.statistics import Array, holm, interquartile_mean, mean_interval, pair_correlation, paired_t_p
from analysis.verdict import Verdicts, clear_best, judge

FIRST_OPEN = "train/first_open_step"
OTHER_WORKERS = "on other workers"
"""Confirm seeds that trained in part on another number of workers than planned."""
DIAGNOSTICS = ("train/gate_open_share", FIRST_OPEN, "train/aux_zero_share")
LOST = ("diverged", "failed", "not finite", NO_WINNER)
"""How a confirm seed ends without a result."""
MOST_BAD_SHARE = 0.2  # with more diverged seeds than this a row has no mark (protocol 12)


@dataclass(frozen=True)
class Row:
    """What became of the confirm seeds of one arm at one level.

    Attributes:
        identical_to: an earlier arm of the level whose report metrics are the same bit for bit, or ''.
        same_trials: that arm's trials are this arm's trials.
        counts: planned seeds by status (``finished``, ``diverged``, ``failed``, ``not finite``, ...).
        pairs: seeds that both this row and the reference finished.
        unmarked: too many seeds were lost, here or in the reference, for a mark.
        unmarked_here: too many were lost here.
    """

    arm: str
    level: str
    is_reference: bool
    identical_to: str
    same_trials: bool
    counts: Counter[str]
    pairs: int
    unmarked: bool
    unmarked_here: bool = False


@dataclass(frozen=True)
class Comparison:
    """The rows and their tests.

    Attributes:
        rows: in plan order.
        tidy: one row per level, arm and metric; see ``_tidy``.
        family: indices into ``rows`` of the tested rows.
        verdicts: of the family on the primary metric.
        best: rows that are better than every other row of their level (protocol 9).
    """

    rows: list[Row]
    tidy: pl.DataFrame
    family: list[int]
    verdicts: Verdicts
    best: frozenset[int] = frozenset()

    def verdict_of(self, row: int) -> int | None:
        """Return the position in ``verdicts`` of a row; None if it is not tested."""
        return self.family.index(row) if row in self.family else None


def compare(study: Study, trials: pl.DataFrame, metrics: pl.DataFrame) -> Comparison:
    """Compare every arm with the reference of its level, on every report metric.

    Args:
        study: the plan.
        trials: frame of ``results.confirm_trials``.
        metrics: frame of ``results.confirm_metrics``.
    """
    prefix = study.primary.partition("/")[0] + "/"
    names = [
        name for name in metrics["metric"].unique().sort() if name.startswith(prefix) or name in DIAGNOSTICS
    ]
    if study.primary in names:
        names.remove(study.primary)
    values = seed_values(study, metrics, [study.primary, *names])
    reference = _reference_rows(study)
    rows = _rows(study, trials, values, reference, prefix)
    tested = [number for number, row in enumerate(rows) if not (row.is_reference or row.identical_to)]
    family = [] if study.untested else tested
    differences = {name: _differences(array, reference) for name, array in values.items()}
    verdicts = judge(
        differences[study.primary][family], study.smallest_effect, study.higher_is_better, study.looks
    )
    tidy = _tidy(study, rows, values, differences, reference, family, verdicts)
    best = frozenset[int]() if study.untested else _best(study, rows, values[study.primary])
    return Comparison(rows, tidy, family, verdicts, best)


def _best(study: Study, rows: list[Row], primary_RK: Array) -> frozenset[int]:
    """Return of each level the row that is better than all others, of rows that are identical the first.

    A level has none while one of its rows has no value, or where one lost too many seeds for a mark.
    """
    able = [number for number, row in enumerate(rows) if not row.identical_to]
    found = set()
    for level in study.levels:
        here = [number for number in able if rows[number].level == level]
        best = clear_best(primary_RK[here], study.higher_is_better, len(able) * study.looks)
        if best is not None and not any(rows[number].unmarked for number in here):
            found.add(here[best])
    return frozenset(found)


def seed_values(study: Study, metrics: pl.DataFrame, names: list[str]) -> dict[str, Array]:
    """Return for each metric its values (R, K), rows in plan order; seeds beyond the plan are left out."""
    rows = pl.DataFrame(
        [(arm.level, arm.arm, number) for number, arm in enumerate(study.arms)],
        schema={"level": pl.String, "arm": pl.String, "row": pl.Int64},
        orient="row",
    )
    planned = (pl.col("index") >= 0) & (pl.col("index") < study.seeds) & pl.col("value").is_not_null()
    # -1: the gate never opened, so there is no first step to average
    never = (pl.col("metric") == FIRST_OPEN) & (pl.col("value") < 0)
    found = metrics.filter(planned & pl.col("metric").is_in(names) & ~never)
    values = {name: np.full((len(study.arms), study.seeds), np.nan) for name in names}
    placed = found.join(rows, on=["level", "arm"], maintain_order="left")
    for (name,), of_metric in placed.group_by("metric"):
        row, seed = of_metric["row"].to_numpy(), of_metric["index"].to_numpy()
        values[str(name)][row, seed] = of_metric["value"].to_numpy()
    return values


def _reference_rows(study: Study) -> list[int]:
    """Return for each row the row of its level's reference; its own number if the level has none."""
    found = {arm.level: number for number, arm in enumerate(study.arms) if arm.arm == study.reference}
    return [found.get(arm.level, number) for number, arm in enumerate(study.arms)]


def _differences(values_RK: Array, reference: list[int]) -> Array:
    """Return arm minus reference (R, K), NaN where one of the two is missing or not finite."""
    finite = np.where(np.isfinite(values_RK), values_RK, np.nan)
    return np.asarray(finite - finite[reference], dtype=np.float64)


def _rows(
    study: Study, trials: pl.DataFrame, values: dict[str, Array], reference: list[int], prefix: str
) -> list[Row]:
    """Return what became of the seeds of each row, and which rows are the same."""
    columns = trials.select("level", "arm", "index", "trial_id", "status")
    status = {(level, arm, seed): (trial, state) for level, arm, seed, trial, state in columns.iter_rows()}
    primary = values[study.primary]
    report = np.stack([primary, *(array for name, array in values.items() if name.startswith(prefix))])
    resized = trials.filter(pl.col("workers").is_not_null() & (pl.col("index") < study.seeds))
    elsewhere = Counter(resized.select("level", "arm").iter_rows())
    counts: list[Counter[str]] = []
    for number, arm in enumerate(study.arms):
        states = [status.get((arm.level, arm.arm, seed), ("", "waiting"))[1] for seed in range(study.seeds)]
        finite = np.isfinite(primary[number])
        counts.append(
            Counter("not finite" if s == "finished" and not finite[k] else s for k, s in enumerate(states))
        )
        counts[-1][OTHER_WORKERS] = elsewhere[arm.level, arm.arm]
    ends = [
        [status.get((arm.level, arm.arm, seed), ("", ""))[1] for seed in range(study.seeds)]
        for arm in study.arms
    ]
    lost = np.isin(np.array(ends, dtype=str), LOST) | (np.array(ends) == "finished") & ~np.isfinite(primary)
    rows: list[Row] = []
    for number, arm in enumerate(study.arms):
        both = np.isfinite(primary[number]) & np.isfinite(primary[reference[number]])
        twin = _twin(study, rows, report, lost, number)
        same = bool(twin) and all(
            status[arm.level, arm.arm, seed][0] == status[arm.level, twin, seed][0]
            for seed in np.flatnonzero(np.isfinite(primary[number]))
            if (arm.level, twin, seed) in status
        )
        bad = max(_bad_share(counts[number]), _bad_share(counts[reference[number]]))
        rows.append(
            Row(
                arm=arm.arm,
                level=arm.level,
                is_reference=arm.arm == study.reference,
                identical_to=twin,
                same_trials=same,
                counts=counts[number],
                pairs=int(both.sum()),
                unmarked=bad > MOST_BAD_SHARE,
                unmarked_here=_bad_share(counts[number]) > MOST_BAD_SHARE,
            )
        )
    return rows


def _twin(
    study: Study, earlier: list[Row], report_MRK: Array, lost_RK: NDArray[np.bool_], number: int
) -> str:
    """Return the first earlier arm of the level that equals row ``number`` in every report metric.

    Not one that lost a seed which the other finished.
    """
    mine = report_MRK[:, number]
    for other, row in enumerate(earlier):
        if row.level != study.arms[number].level or row.identical_to:
            continue
        theirs = report_MRK[:, other]
        pairs = np.isfinite(mine[0]) & np.isfinite(theirs[0])
        apart = (np.isfinite(mine[0]) & lost_RK[other]) | (np.isfinite(theirs[0]) & lost_RK[number])
        if (
            pairs.any()
            and not apart.any()
            and np.array_equal(mine[:, pairs], theirs[:, pairs], equal_nan=True)
        ):
            return row.arm
    return ""


def _bad_share(counts: Counter[str]) -> float:
    """Return the share of the seeds that came to an end without a result, or whose search gave no winner."""
    bad = sum(counts[word] for word in LOST)
    ended = bad + counts["finished"]
    return bad / ended if ended else 0.0


def _tidy(
    study: Study,
    rows: list[Row],
    values: dict[str, Array],
    differences: dict[str, Array],
    reference: list[int],
    family: list[int],
    verdicts: Verdicts,
) -> pl.DataFrame:
    """Return one row per level, arm and metric, in plan order, numbers in full precision.

    Columns: level, arm, metric, mean, sd, n, lo, hi (95 %), iqm, diff, diff_lo, diff_hi (95 %), n_pairs,
    correlation, p, p_holm, p_flip, verdict. Tests stand with primary and secondary metrics only;
    the reference and identical rows have none.
    """
    tests = _tests(study, differences, family, verdicts)
    frames = []
    for name, array in values.items():
        of_arm, of_pair = mean_interval(array), mean_interval(differences[name])
        compared = np.array([not row.is_reference and name not in DIAGNOSTICS for row in rows])
        p, p_holm, p_flip = tests.get(name, (np.full(len(rows), np.nan),) * 3)
        finite = np.where(np.isfinite(array), array, np.nan)
        columns = {
            "mean": of_arm.mean,
            "sd": of_arm.sd,
            "n": of_arm.n,
            "lo": of_arm.low,
            "hi": of_arm.high,
            "iqm": interquartile_mean(array),
            "diff": np.where(compared, of_pair.mean, np.nan),
            "diff_lo": np.where(compared, of_pair.low, np.nan),
            "diff_hi": np.where(compared, of_pair.high, np.nan),
            "n_pairs": of_pair.n,
            "correlation": np.where(compared, pair_correlation(finite, finite[reference]), np.nan),
            "p": p,
            "p_holm": p_holm,
            "p_flip": p_flip,
        }
        words = _words(rows, family, verdicts) if name == study.primary else [None] * len(rows)
        names = {
            "order": np.arange(len(rows)),
            "level": [row.level for row in rows],
            "arm": [row.arm for row in rows],
            "metric": [name] * len(rows),
        }
        frames.append(pl.DataFrame({**names, **columns, "verdict": pl.Series(words, dtype=pl.String)}))
    return (
        pl.concat(frames)
        .sort("order", maintain_order=True)
        .drop("order")
        .with_columns(pl.col("n", "n_pairs").cast(pl.Int64))
        .fill_nan(None)
    )


def _tests(
    study: Study, differences: dict[str, Array], family: list[int], verdicts: Verdicts
) -> dict[str, tuple[Array, Array, Array]]:
    """Return p, Holm p and sign-flip p (R,) per tested metric; secondary metrics are one family.

    A row that lacks a secondary metric on more than one in five of its pairs is not tested in it, and stays
    a member of the family.
    """
    rows = len(next(iter(differences.values())))

    def spread(p_M: Array) -> Array:
        full = np.full(rows, np.nan)
        full[family] = p_M
        return full

    tests = {study.primary: (spread(verdicts.p), spread(verdicts.p_holm), spread(verdicts.p_flip))}
    secondary = [name for name in study.secondary if name in differences and name != study.primary]
    if secondary and family:
        pairs = np.isfinite(differences[study.primary][family]).sum(axis=1)
        p = np.concatenate([_secondary_p(differences[name][family], pairs) for name in secondary])
        adjusted = np.minimum(1.0, holm(p) * study.looks).reshape(len(secondary), -1)
        for name, raw, corrected in zip(secondary, p.reshape(len(secondary), -1), adjusted, strict=True):
            tests[name] = (spread(raw), spread(corrected), np.full(rows, np.nan))
    return tests


def _secondary_p(differences_MK: Array, pairs_M: NDArray[np.int64]) -> Array:
    """Return the p value of the paired t test (M,), NaN where too many of the primary metric's pairs lack."""
    enough = np.isfinite(differences_MK).sum(axis=1) >= (1 - MOST_BAD_SHARE) * pairs_M
    return np.where(enough, paired_t_p(differences_MK), np.nan)


def _words(rows: list[Row], family: list[int], verdicts: Verdicts) -> list[str]:
    """Return the verdict of each row as one word, or ``reference`` or ``identical to X``."""
    tested = dict(zip(family, verdicts.words, strict=True))
    words = []
    for number, row in enumerate(rows):
        if row.is_reference:
            words.append("reference")
        elif row.identical_to:
            words.append(f"identical to {row.identical_to}")
        else:
            words.append("unmarked" if row.unmarked and number in tested else tested.get(number, ""))
    return words
