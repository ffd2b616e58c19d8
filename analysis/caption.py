"""The sentences under the table: what was measured, how it was tested, and what is missing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.comparison import Comparison
from analysis.numbers import number
from analysis.opened import Study
from analysis.sign_flips import least_attainable_p
from analysis.verdict import ALPHA


@dataclass(frozen=True)
class Facts:
    """What the ledger says besides the numbers.

    Attributes:
        code_versions: digests of the training code behind the table's trials.
        torn: ledger files whose last line was cut off.
        winners: (level, arm) of the rows whose winner has been selected.
        left_out: finished confirm trials that the plan no longer holds, or of other code.
        metrics: names of the metrics of the finished confirm trials; whether any value is finite.
        searched: (arm, finished search trials, planned ones) of each row.
    """

    code_versions: list[str]
    torn: tuple[str, ...]
    winners: set[tuple[str, str]]
    left_out: int
    metrics: Mapping[str, bool]
    searched: tuple[tuple[str, int, int], ...] = ()


def caption(study: Study, comparison: Comparison, facts: Facts) -> list[str]:
    """Return the caption, one statement each."""
    return [
        _split_statement(study),
        *([study.scores.rstrip(".") + "."] if study.scores else []),
        _tuning_statement(study),
        *_statistics(study, comparison),
        *_pairs(study, comparison),
        *_identical(study, comparison),
        *_history(study, facts),
    ]


def missing(study: Study, comparison: Comparison, facts: Facts) -> list[str]:
    """Return what stands between the ledger and a complete table; empty for a complete one."""
    notes: list[str] = []
    to_come = failed = 0
    unfinished: list[str] = []
    unselected: list[str] = []
    for row in comparison.rows:
        ended = sum(row.counts[word] for word in ("finished", "diverged", "failed", "not finite"))
        to_come += study.seeds - ended
        failed += row.counts["failed"]
        name = f"{row.arm} ({row.level})" if row.level else row.arm
        if (row.level, row.arm) not in facts.winners:
            unselected.append(name)
        elif ended < study.seeds:
            unfinished.append(f"{name}: {study.seeds - ended}")
    if to_come:
        total = study.seeds * len(comparison.rows)
        notes.append(
            f"Interim: {total - to_come} of {total} confirm trials have ended. Whoever stops or extends "
            "the study because of these numbers must say so."
        )
    if unfinished:
        notes.append(f"Confirm trials to come: {'; '.join(unfinished)}.")
    if unselected:
        notes.append(f"No winner selected yet: {', '.join(unselected)}.")
    fewer = [f"{name}: {done} of {planned}" for name, done, planned in facts.searched if done < planned]
    if fewer and not unselected:
        notes.append(f"Search trials without a score, so a winner of fewer proposals: {'; '.join(fewer)}.")
    if failed:
        notes.append(f"{failed} confirm trials failed; raise max_failures to have them retried.")
    few = [row.arm for row in comparison.rows if row.counts["finished"] == 1]
    if few:
        notes.append(f"One finished seed, so a value without interval: {', '.join(dict.fromkeys(few))}.")
    notes += _no_primary(study, comparison, facts)
    if not any(row.is_reference for row in comparison.rows):
        notes.append(f"The plan holds no reference arm {study.reference!r}: no differences.")
    if facts.torn:
        notes.append(f"A last line cut off in the middle was ignored in: {', '.join(facts.torn)}.")
    if facts.left_out:
        notes.append(
            f"{facts.left_out} finished confirm trials of an earlier plan or other code are left out."
        )
    return notes


def _no_primary(study: Study, comparison: Comparison, facts: Facts) -> list[str]:
    """Say that no finished confirm trial has a value of the primary metric, and which names there are."""
    finished = sum(row.counts["finished"] + row.counts["not finite"] for row in comparison.rows)
    if not finished or facts.metrics.get(study.primary):
        return []
    if study.primary in facts.metrics:
        return [f"No finished trial has a finite {study.primary}."]
    prefixes = (study.primary.partition("/")[0] + "/", "test/", "")
    candidates = ([name for name in facts.metrics if name.startswith(prefix)] for prefix in prefixes)
    names = next((found for found in candidates if found), [])
    near = ", ".join(difflib.get_close_matches(study.primary, names, n=5, cutoff=0.0)) or "no metrics"
    return [f"No finished trial has a metric called {study.primary}; the ledger has: {near}."]


def _split_statement(study: Study) -> str:
    """Say which split chose and which split reports (protocol 2)."""
    report, split = study.primary.partition("/")[0], study.objective.partition("/")[0]
    direction = "higher" if study.higher_is_better else "lower"
    tail = f"reported is {study.primary} ({direction} is better) at the last step of each confirm trial"
    if study.selection in ("report", report) or split == report:
        return f"Tuned on the reported split: winners chosen on {study.objective}; {tail}."
    if not study.tuned:
        return tail[0].upper() + tail[1:] + "."
    return f"Winners chosen on {study.objective} ({study.selection} split); {tail}."


def _tuning_statement(study: Study) -> str:
    """Say what the claim is about (protocol 5)."""
    steps = f", {study.steps} steps" if study.steps else ""
    if not study.tuned:
        return f"No arm was tuned: defaults only{steps}."
    return (
        f"Conditional on the tuned configurations: {study.trials_per_arm} search trials per arm, "
        f"one seed each{steps}."
    )


def _statistics(study: Study, comparison: Comparison) -> list[str]:
    """Say how intervals and tests were made (protocol 8, 9)."""
    size = len(comparison.family)
    lines = [
        "Brackets: 95 % t intervals over confirm seeds; differences are paired by seed, arm minus reference."
    ]
    if not size:
        return lines
    looks = f", times {study.looks} looks" if study.looks > 1 else ""
    lines.append(
        f"Tests: paired t, Holm over a family of {size} rows (all rows but reference and identical ones, all "
        f"levels){looks}; better or worse: corrected p <= .05."
    )
    if study.smallest_effect:
        effect = number(study.smallest_effect, 6).rstrip("0").rstrip(".")
        lines.append(
            f"Equivalent: simultaneous 90 % interval (Bonferroni over {size} rows) inside +-{effect}. "
            f"In brackets after undecided: seeds for 80 % power at {effect}."
        )
    else:
        lines.append("No report.smallest_effect is set: nothing can be called equivalent.")
    lines.append(_sign_flips(study, comparison))
    if study.secondary:
        lines.append(
            f"* corrected p <= .05 for the difference in {', '.join(study.secondary)} (own Holm family)."
        )
    return lines


def _sign_flips(study: Study, comparison: Comparison) -> str:
    """Say what the distribution-free check adds (protocol 8)."""
    pairs = np.array([comparison.rows[row].pairs for row in comparison.family])
    could_reject = least_attainable_p(pairs) * study.looks <= ALPHA
    check = "joint sign flips (max-t, Westfall-Young)"
    if any(comparison.verdicts.doubted):
        return f"flips: {check} could reject at this number of seeds and do not; their p."
    if not could_reject.any():
        return f"No distribution-free check: {check} cannot reject with so few pairs."
    return f"{check[0].upper()}{check[1:]} contradict no verdict where they could reject."


def _pairs(study: Study, comparison: Comparison) -> list[str]:
    """Say how strongly pairs correlate (protocol 4) and how divergence was treated (protocol 12)."""
    primary = comparison.tidy.filter((pl.col("metric") == study.primary) & pl.col("p").is_not_null())
    correlations = primary["correlation"].drop_nulls().to_numpy()
    lines = []
    if len(correlations):
        low, middle, high = (number(float(np.quantile(correlations, q)), 2) for q in (0, 0.5, 1))
        lines.append(f"Correlation of the pairs: median {middle}, from {low} to {high}.")
    if any(row.counts["diverged"] + row.counts["not finite"] for row in comparison.rows):
        lines.append(
            "Given convergence: tests use the seeds that both arms finished; with more than one in five "
            "lost, in the arm or the reference, a row has no mark."
        )
    return lines


def _identical(study: Study, comparison: Comparison) -> list[str]:
    """Say which rows are the same and, where the plan knew it, why (protocol 10)."""
    warnings = {(arm.level, arm.arm): arm.warnings for arm in study.arms}
    lines = []
    for row in comparison.rows:
        if not row.identical_to:
            continue
        why = "the same trials" if row.same_trials else "every report metric of every pair agrees bit for bit"
        reasons = [why, *warnings[row.level, row.arm]]
        where = f" ({row.level})" if row.level else ""
        lines.append(
            f"{row.arm} is identical to {row.identical_to}{where}: {'; '.join(reasons)}. Not tested."
        )
    return lines


def _history(study: Study, facts: Facts) -> list[str]:
    """Say what changed on the way (protocol 11, 13)."""
    lines = []
    if len(facts.code_versions) > 1:
        digests = ", ".join(digest[:10] for digest in facts.code_versions)
        lines.append(f"Trials of {len(facts.code_versions)} code versions were kept: {digests}.")
    lines += [f"Changed at {change}." for change in study.changes]
    return lines
