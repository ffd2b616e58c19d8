"""The sentences on how arms were tuned, and what follows from it for the claim."""

from __future__ import annotations

import json

import polars as pl

from analysis.agreement import Agreement
from analysis.numbers import number
from analysis.opened import Study
from analysis.search_plan import COMMON, TIMED


def search_statements(
    study: Study, searches: pl.DataFrame, rungs: Agreement | None, proxy: Agreement | None
) -> list[str]:
    """Return what a reader must know of the search (protocol 3, 5, 6, 7).

    Args:
        study: the plan.
        searches: the frame of ``results.search_summary``.
        rungs: agreement of first rung and end of search trials; None without early stopping.
        proxy: agreement of proxy and full score over finalists; None without either.
    """
    if not study.tuned:
        return [f"No arm was tuned: defaults only{_steps(study)}."]
    plan = study.search
    lines = [_claim(study)]
    if 1 < plan.repeats < study.seeds:
        lines.append(
            "Confirm seeds on the same winner are not independent searches: with fewer searches than seeds "
            "the intervals may be too narrow for a claim about the method."
        )
    if plan.sampler not in COMMON:
        lines.append(
            f"Proposals by {plan.sampler}, for each search from its own results; the points that it starts "
            "from are equal in all arms."
        )
    lines += _proxy(study, proxy)
    if plan.finalists:
        seeds = f"{plan.finalist_seeds} seed{'s' if plan.finalist_seeds > 1 else ''}"
        lines.append(
            f"The {plan.finalists} best trials of each search were trained again in full on {seeds} that "
            "search had not seen; the best mean won."
        )
    lines += _stopping(study, rungs)
    if int(searches["duplicates"].sum()):
        lines.append(
            "Duplicates are proposals equal to an earlier one of their search: they have its score and "
            "cost nothing."
        )
    return lines


def _claim(study: Study) -> str:
    """Say what the claim is about (protocol 5) and whose optimum it rests on (protocol 6)."""
    plan, trials, steps = study.search, study.trials_per_arm, _steps(study)
    arm = plan.shared
    if plan.repeats == 1 and not arm:
        return (
            f"Conditional on the tuned configurations: {trials} search trials per arm, one seed each{steps}."
        )
    if plan.repeats == 1:
        return (
            f"Conditional on the tuned configuration of {arm}, the only arm that was tuned ({trials} search "
            f"trials, one seed each{steps}): all other arms use its optimum, which may favour {arm}."
        )
    given = f"confirm seed k is trained with the winner of search k mod {plan.repeats}"
    if not arm:
        return (
            f"The claim is about the method, its tuning included: {plan.repeats} independent searches of "
            f"{trials} trials per arm, one seed each{steps}; {given}."
        )
    return (
        f"The claim is about the method, the tuning of {arm} included: {plan.repeats} independent searches "
        f"of {trials} trials, one seed each{steps}, of {arm} alone; {given}, and all other arms use its "
        f"optimum, which may favour {arm}."
    )


def _proxy(study: Study, agreement: Agreement | None) -> list[str]:
    """Say that search ran on something cheaper, and whether that ranks trials as the full training does."""
    plan = study.search
    if not plan.overrides:
        return []
    settings = ", ".join(f"{key}={_plain(value)}" for key, value in plan.overrides.items())
    full = f" ({study.steps} steps)" if study.steps else ""
    lines = [f"Search ran on a proxy: {settings}; finalists and confirm trials{full} did not."]
    if agreement is None:
        lines.append("How well the proxy ranks trials was not measured (search.finalists would).")
    else:
        lines.append(
            "Spearman rank correlation of proxy and full score over "
            f"{_measured(agreement, 'finalists of all arms')}"
        )
    return lines


def _stopping(study: Study, agreement: Agreement | None) -> list[str]:
    """Say what stopped trials early, and whether its judgement agrees with the end (protocol 7)."""
    plan = study.search
    lines = []
    if plan.scheduler != "none" and agreement is not None:
        lines.append(
            f"Search trials were stopped early by {plan.scheduler}. Kendall's tau of first rung and final "
            f"score over {_measured(agreement, 'trials that ran to the end')}"
        )
    if plan.scheduler in TIMED:
        lines.append(
            f"Not reproducible (reproducible: false): {plan.scheduler} judges a trial by those that came "
            "before it, so that the same study may stop other trials when it runs again."
        )
    elif not plan.reproducible:
        lines.append("The study allows decisions that depend on timing (reproducible: false).")
    return lines


def _measured(agreement: Agreement, what: str) -> str:
    """Return ``12 trials: .62.``, or why there is no number."""
    if agreement.value is None:
        return f"{agreement.trials} {what}: not computed, {agreement.reason}."
    return f"{agreement.trials} {what}: {number(agreement.value, 2)}."


def _steps(study: Study) -> str:
    """Return the length of a search trial; nothing for a proxy, which has its own."""
    return f", {study.steps} steps" if study.steps and not study.search.overrides else ""


def _plain(value: object) -> str:
    """Return a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
