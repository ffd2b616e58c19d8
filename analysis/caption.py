"""The sentences under the table: what was measured, how it was searched and tested, and what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from analysis.agreement import Agreement
from analysis.comparison import LOST, Comparison
from analysis.incidents import Forgotten, counted
from analysis.numbers import number
from analysis.opened import Study
from analysis.search_caption import search_statements
from analysis.sign_flips import least_attainable_p
from analysis.verdict import ALPHA


@dataclass(frozen=True)
class Facts:
    """What the ledger says besides the numbers.

    Attributes:
        code_versions: digests of the training code behind the table's trials.
        torn: ledger files whose last line was cut off.
        winners: of each row (level, arm) how many of its searches have a winner, and of how many.
        without_winner: of each row the searches that are over and gave no winner, with the reason.
        left_out: finished confirm trials that the plan no longer holds, or of other code.
        metrics: names of the metrics of the finished confirm trials; whether any value is finite.
        searches: the frame of ``results.search_summary``.
        rungs: agreement of first rung and end of search trials; None without early stopping.
        proxy: agreement of proxy and full score over finalists; None without either.
        failures: failed attempts by kind, over all starts.
        lost: confirm trials of the plan that failed for good, by the kind of their last failure.
        forgotten: trials whose results were declared void.
        resized: confirm trials of the plan that trained in part on other workers than planned.
    """

    code_versions: list[str]
    torn: tuple[str, ...]
    winners: Mapping[tuple[str, str], tuple[int, int]]
    without_winner: Mapping[tuple[str, str], Mapping[int, str]]
    left_out: int
    metrics: Mapping[str, bool]
    searches: pl.DataFrame
    rungs: Agreement | None = None
    proxy: Agreement | None = None
    failures: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    forgotten: tuple[Forgotten, ...] = ()
    resized: int = 0


def caption(study: Study, comparison: Comparison, facts: Facts) -> list[str]:
    """Return the caption, one statement each."""
    return [
        _split_statement(study),
        *([study.scores.rstrip(".") + "."] if study.scores else []),
        *_groups(comparison),
        *search_statements(study, facts.searches, facts.rungs, facts.proxy),
        *_statistics(study, comparison),
        *_pairs(study, comparison),
        *_identical(study, comparison),
        *_incidents(facts),
        *_history(study, facts),
    ]


def _split_statement(study: Study) -> str:
    """Say which split chose and which split reports (protocol 2)."""
    report, split = study.primary.partition("/")[0], study.objective.partition("/")[0]
    direction = "higher" if study.higher_is_better else "lower"
    tail = f"reported is {study.primary} ({direction} is better) at the last step of each confirm trial"
    if study.tuned and (study.selection in ("report", report) or split == report):
        return f"Tuned on the reported split: winners chosen on {study.objective}; {tail}."
    if study.held_out:
        tail += f". {study.selection} is held out of the training images; confirm trials train on all of them"
    if not study.tuned:
        return tail[0].upper() + tail[1:] + "."
    return f"Winners chosen on {study.objective} ({study.selection} split); {tail}."


def _groups(comparison: Comparison) -> list[str]:
    """Say what the groups of classes are that have columns."""
    names = {name.rpartition("/")[2].partition("_")[0] for name in comparison.tidy["metric"].unique()}
    lines = []
    if "tail" in names:
        lines.append(
            "Head, body, tail: the classes in three parts by frequency in the training images, most frequent "
            "first. Where each seed draws anew which class is frequent they follow the trial's own training "
            "set, and mean nothing at imbalance 1."
        )
    if "few" in names:
        lines.append(
            "Many, medium, few: classes with more than 100, with 20 to 100, and with fewer than 20 training "
            "images; - where there is none."
        )
    return lines


def _statistics(study: Study, comparison: Comparison) -> list[str]:
    """Say how intervals and tests were made (protocol 8, 9)."""
    size = len(comparison.family)
    lines = [
        "Brackets: 95 % t intervals over confirm seeds; differences are paired by seed, arm minus reference."
    ]
    if not size:
        return lines
    looks = f", times {study.looks} looks" if study.looks > 1 else ""
    rows = f"{size} row{'s' if size > 1 else ''}"
    lines.append(
        f"Tests: paired t, Holm over a family of {rows} (all rows but reference and identical ones, all "
        f"levels){looks}; better or worse: corrected p <= .05."
    )
    if study.smallest_effect:
        effect = number(study.smallest_effect, 6).rstrip("0").rstrip(".")
        lines.append(
            f"Equivalent: simultaneous 90 % interval (Bonferroni over {rows}{looks}) inside +-{effect}. In "
            f"brackets after undecided: seeds for 80 % power at {effect}, at Bonferroni's level of the "
            "family (safe for Holm) and the upper 80 % limit of the SD of the row's own differences; none "
            "where the row has as many already."
        )
    else:
        lines.append("No report.smallest_effect is set: nothing can be called equivalent.")
    lines.append(_sign_flips(study, comparison))
    if comparison.best:
        lines.append(
            "A bold mean is better than that of every other row of its table that is not identical to it "
            "(paired t against each, p times the number of all rows)."
        )
    flat = [
        comparison.rows[row].arm
        for row, is_flat in zip(comparison.family, comparison.verdicts.flat, strict=True)
        if is_flat
    ]
    if flat:
        lines.append(
            f"Equal differences on every seed, so no SD: {', '.join(dict.fromkeys(flat))}. p is then that "
            "of sign flips, 2 / 2^n (1 where all are 0)."
        )
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
    if any(row.counts[word] for row in comparison.rows for word in LOST):
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


def _incidents(facts: Facts) -> list[str]:
    """Say which attempts failed (protocol 12) and which results were declared void (protocol 11)."""
    lines = []
    if facts.resized:
        lines.append(
            "Confirm trials trained in part on another number of workers than planned, which changes what a "
            f"batch is normalised over: {facts.resized}."
        )
    if facts.failures:
        lines.append(
            f"Failed attempts over all starts: {counted(facts.failures)}; a trial that was tried again "
            "successfully counts as finished."
        )
    if facts.forgotten:
        known = sum(found.results for found in facts.forgotten)
        shown = [f"{found.trial_id} ({found.reason or 'no reason given'})" for found in facts.forgotten]
        more = f", and {len(shown) - 6} more" if len(shown) > 6 else ""
        lines.append(
            f"Results declared void and trained again: {', '.join(shown[:6])}{more}. With a finished confirm "
            f"trial among them: {known}."
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
