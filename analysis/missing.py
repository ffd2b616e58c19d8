"""What stands between the ledger and a complete table, in sentences."""

from __future__ import annotations

import difflib

from analysis.caption import Facts
from analysis.comparison import Comparison, Row
from analysis.incidents import UNNAMED, counted
from analysis.opened import Study
from analysis.results import NO_WINNER
from analysis.table import full_name

_ENDED = ("finished", "diverged", "failed", "not finite")


def missing(study: Study, comparison: Comparison, facts: Facts) -> list[str]:
    """Return what is not there yet; empty for a complete table."""
    notes = _progress(study, comparison, facts)
    if study.seeds < study.planned_seeds:
        notes.append(
            f"Interim: a planned look at {study.seeds} of {study.planned_seeds} confirm seeds; the others "
            "are to come, or held back until the next look."
        )
    notes += _without_winner(study, facts)
    unselected = [row for row in comparison.rows if _waits_for_winner(row, facts)]
    if unselected:
        names = [_with_searches(row, facts) for row in unselected]
        notes.append(f"No winner selected yet: {', '.join(names)}.")
        notes += _search_progress(study, facts)
    else:
        notes += _fewer_proposals(study, facts)
    failed = sum(row.counts["failed"] for row in comparison.rows)
    if failed:
        known = any(kind != UNNAMED for kind in facts.lost)
        kinds = f" ({counted(facts.lost)})" if known else ""
        notes.append(f"{failed} confirm trials failed{kinds}; raise max_failures to have them retried.")
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


def _progress(study: Study, comparison: Comparison, facts: Facts) -> list[str]:
    """Say how many confirm trials have ended, and which are to come."""
    ended, able = confirm_progress(study, comparison)
    if sum(ended) >= sum(able):
        return []
    notes = [
        f"Interim: {sum(ended)} of {sum(able)} confirm trials have ended. Whoever stops or extends "
        "the study because of these numbers must say so."
    ]
    if not any(row.counts["finished"] for row in comparison.rows):
        notes.append("No confirm trial has finished: the table has no values yet.")
    unfinished = [
        f"{full_name(row.arm, row.level)}: {all_of_it - done}"
        for row, all_of_it, done in zip(comparison.rows, able, ended, strict=True)
        if done < all_of_it and not _waits_for_winner(row, facts)
    ]
    return notes + ([f"Confirm trials to come: {'; '.join(unfinished)}."] if unfinished else [])


def confirm_progress(study: Study, comparison: Comparison) -> tuple[list[int], list[int]]:
    """Return for each row how many confirm seeds have come to an end, and how many can."""
    able = [study.seeds - row.counts[NO_WINNER] for row in comparison.rows]
    return [sum(row.counts[word] for word in _ENDED) for row in comparison.rows], able


def _waits_for_winner(row: Row, facts: Facts) -> bool:
    """Return whether a search that chooses for a row may still have a winner and has none yet."""
    at = (row.level, row.arm)
    found, needed = facts.winners.get(at, (0, 1))
    return found + len(facts.without_winner.get(at, ())) < needed


def _with_searches(row: Row, facts: Facts) -> str:
    """Return the name of a row; of one with several searches, how many have a winner."""
    found, needed = facts.winners.get((row.level, row.arm), (0, 1))
    return full_name(row.arm, row.level) + (f" ({found} of {needed} searches)" if needed > 1 else "")


def _without_winner(study: Study, facts: Facts) -> list[str]:
    """Name the searches that are over and gave no winner, so that their confirm seeds never run."""
    reasons: dict[str, list[str]] = {}
    for arm in study.arms:
        lost = facts.without_winner.get((arm.level, arm.arm), {})
        for repeat, reason in lost.items():
            which = f", search {repeat}" if study.searches_of(arm) > 1 else ""
            reasons.setdefault(reason, []).append(full_name(arm.arm, arm.level) + which)
    return [f"No winner, because {reason}: {'; '.join(names)}." for reason, names in reasons.items()]


def _search_progress(study: Study, facts: Facts) -> list[str]:
    """Say how many search trials have ended, and how many finalist runs."""
    planned = sum(study.trials_of(arm) for arm in study.arms)
    if not planned:
        return []
    columns = ("trials", "stopped", "diverged", "failed", "duplicates")
    ended, claimed, runs = (
        sum(int(facts.searches[name].sum()) for name in names)
        for names in (columns, ("claimed",), ("runs", "lost"))
    )
    finalists = f", and {runs} of the {claimed} finalist runs claimed so far" if claimed else ""
    return [f"Search: {ended} of {planned} trials have ended{finalists}."]


def _fewer_proposals(study: Study, facts: Facts) -> list[str]:
    """Name the rows whose winner was chosen among fewer trials than planned."""
    fewer = []
    for arm, row in zip(study.arms, facts.searches.iter_rows(named=True), strict=True):
        done, planned = row["trials"] + row["stopped"] + row["duplicates"], study.trials_of(arm)
        if done < planned and (arm.level, arm.arm) not in facts.without_winner:
            fewer.append(f"{full_name(arm.arm, arm.level)}: {done} of {planned}")
    if not fewer:
        return []
    return [f"Search trials without a score, so a winner of fewer proposals: {'; '.join(fewer)}."]


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
