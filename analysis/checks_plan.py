"""Lines of the checklist on the plan and how it was kept: tuning, splits, seeds, looks, budgets, code."""

from __future__ import annotations

import polars as pl

from analysis.line import NOT_APPLICABLE, NOT_KNOWN, Line, answered, between, shortened
from analysis.numbers import number
from analysis.packed import begins_with
from analysis.pairing import confirm_seeds_fresh, confirm_seeds_paired
from analysis.provenance import Starts
from analysis.sources import Sources
from analysis.table import full_name
from analysis.trials import BEFORE_CONFIRM, finished


def tuned(sources: Sources) -> Line:
    """Was every arm tuned, with as many trials as any other?"""
    question = "Is every arm tuned alike, the baselines included?"
    study = sources.study
    if not study.tuned:
        return Line(question, NOT_APPLICABLE, f"No arm is tuned: {len(study.arms)} rows use the defaults.")
    if study.search.shared:
        own = sum(arm.arm == study.search.shared for arm in study.arms)
        return answered(
            question,
            False,
            f"Only {study.search.shared} is tuned ({own} of {len(study.arms)} rows); others use its optimum.",
        )
    untuned = [full_name(arm.arm, arm.level) for arm in study.arms if not arm.parameters]
    if untuned:
        return answered(
            question, False, f"{len(untuned)} of {len(study.arms)} rows tune nothing: {shortened(untuned)}."
        )
    done, failed, short, planned = _trials_done(sources), _trials_failed(sources), [], 0
    ended = True
    for arm in study.arms:
        planned, at = study.trials_of(arm), (arm.level, arm.arm)
        if done[at] < planned:
            short.append(f"{full_name(arm.arm, arm.level)} {done[at]}")
            ended &= done[at] + failed[at] >= planned
    names = [len(arm.parameters) for arm in study.arms]
    evidence = (
        f"{len(study.arms)} rows, {planned} trials each, over {between(names)} parameters; "
        f"with all of them judged: {len(study.arms) - len(short)}"
    )
    lost = sum(failed.values())
    evidence += f"; failed for good: {lost}" if lost else ""
    good = True if not short else False if ended else None
    return answered(question, good, evidence + (f"; fewer: {shortened(short)}." if short else "."))


def _trials_failed(sources: Sources) -> dict[tuple[str, str], int]:
    """Return for each row how many of its search trials failed for good, so that nobody knows their score."""
    columns = sources.facts.searches.select("level", "arm", "failed")
    return {(level, arm): int(failed) for level, arm, failed in columns.iter_rows()}


def _trials_done(sources: Sources) -> dict[tuple[str, str], int]:
    """Return for each row how many of its search trials have been judged: by a score, or as diverged."""
    words = ("trials", "stopped", "duplicates", "diverged")
    searches = sources.facts.searches
    return {
        (row["level"], row["arm"]): sum(int(row[word]) for word in words)
        for row in searches.iter_rows(named=True)
    }


def splits(sources: Sources) -> Line:
    """Did choice and report see different images?"""
    question = "Are the splits that choose and report apart?"
    study = sources.study
    report, split = study.primary.partition("/")[0], study.objective.partition("/")[0]
    if not study.tuned:
        return Line(question, NOT_APPLICABLE, f"Nothing is chosen by a score; reported is {study.primary}.")
    if not study.objective:
        return Line(question, NOT_KNOWN, "The ledger does not record by which metric winners were chosen.")
    proposed = sources.events.select("event", "trial_id").filter(pl.col("event") == "proposed")
    trials, seen = set(proposed["trial_id"]), _search_trials_with(sources.events, report + "/")
    apart = study.selection not in ("report", report) and split != report and not seen
    held = "; the selection split is held out of the training images" if study.held_out else ""
    return answered(
        question,
        apart,
        f"Chosen on {study.objective} ({study.selection} split), reported {study.primary}{held}; "
        f"{len(seen)} of {len(trials | seen)} search trials recorded a {report}/ metric.",
    )


def _search_trials_with(events: pl.DataFrame, prefix: str) -> set[str]:
    """Return the trials before confirm that recorded a metric of the report split."""
    columns = events.select("phase", "trial_id", "metrics")
    searched = pl.col("phase").is_in(BEFORE_CONFIRM) & pl.col("trial_id").is_not_null()
    found = columns.filter(searched & begins_with(prefix))
    return set(found["trial_id"])


def last_step(sources: Sources) -> Line:
    """Is every result that of the last step?"""
    question = "Is every result that of the last step, with no best epoch picked?"
    study = sources.study
    rows = pl.DataFrame(
        [(arm.level, arm.arm) for arm in study.arms],
        schema={"level": pl.String, "arm": pl.String},
        orient="row",
    )
    done = sources.trials.filter((pl.col("index") < study.seeds) & (pl.col("status") == "finished"))
    own = done.join(rows, on=["level", "arm"], how="semi")
    steps = finished(sources.events).join(own.select("trial_id").unique(), on="trial_id", how="semi")["step"]
    if steps.is_empty():
        return Line(question, NOT_KNOWN, "No confirm trial has finished.")
    if study.steps is None or steps.null_count():
        return Line(
            question, NOT_KNOWN, f"The ledger does not record the steps of {len(steps)} finished trials."
        )
    at_end = int((steps == study.steps).sum())
    return answered(
        question,
        at_end == len(steps),
        f"{at_end} of {len(steps)} finished confirm trials are scored at step {study.steps}.",
    )


def seeds(sources: Sources) -> Line:
    """Are confirm seeds paired between arms and unknown to the search?"""
    question = "Are confirm seeds paired across arms and apart from the search's?"
    study = sources.study
    fresh, paired = confirm_seeds_fresh(sources), confirm_seeds_paired(sources)
    pairs = [row.pairs for row in sources.comparison.rows if not row.is_reference]
    words = {True: "yes", False: "no", None: "not known"}
    shown = f", {study.seeds} at this look" if study.seeds < study.planned_seeds else ""
    evidence = f"{study.planned_seeds} seeds planned{shown}; the same in every row: {words[paired]}"
    evidence += f"; apart from search: {words[fresh]}"
    evidence += f"; {between(pairs)} pairs with the reference per row." if pairs else "."
    good = False if False in (fresh, paired) else True if fresh and paired else None
    return answered(question, good, evidence)


def looks(sources: Sources) -> Line:
    """Was the plan left alone, or was every look paid for?"""
    question = "Was the plan left as it was once results were known?"
    study = sources.study
    starts = len(Starts(sources.events).payloads)
    count = len(study.changes)
    changes = f"{count} change{'s' if count > 1 else ''}" if count else "no change"
    evidence = f"{starts} start{'s' if starts > 1 else ''}, {changes} of the plan"
    if late := study.late_changes:
        times = f"; {study.looks} looks: p values are multiplied by {study.looks}" if study.looks > 1 else ""
        return answered(question, False, f"{evidence}; after results were known: {shortened(late)}{times}.")
    planned = len(study.planned_looks)
    if planned > 1 and study.looks == planned and not study.look_starts:
        return answered(
            question, True, f"{evidence}; {planned} looks were planned: p values are multiplied by {planned}."
        )
    if study.looks == 1:
        harmless = ", none of them a new look at known results" if study.changes else ""
        return answered(question, True, f"{evidence}{harmless}.")
    return answered(
        question, False, f"{evidence}; {study.looks} looks: p values are multiplied by {study.looks}."
    )


def budgets(sources: Sources) -> Line:
    """Are budgets given in steps, and equal?"""
    question = "Are budgets given in steps and equal for every arm?"
    study = sources.study
    if study.steps is None:
        return Line(question, NOT_KNOWN, "The ledger does not record the steps of a trial.")
    planned = {study.trials_of(arm) for arm in study.arms if not study.is_follower(arm)} or {0}
    trained = sources.facts.searches["steps"].to_list() or [0]
    proxy = "confirm trial" if study.search.overrides else "trial"
    lost = sum(_trials_failed(sources).values())
    return answered(
        question,
        len(planned) == 1 and not lost,
        f"{study.steps} steps per {proxy}, {between(planned)} search trials planned per searched row; "
        f"trained before confirm: {between(trained)} steps per row"
        + (f"; {lost} search trials failed for good." if lost else "."),
    )


def proxies(sources: Sources) -> Line:
    """Did search run on what is reported, or on something cheaper?"""
    question = "Did search run the full training, no cheaper proxy?"
    study, agreement = sources.study, sources.facts.proxy
    if not study.tuned:
        return Line(question, NOT_APPLICABLE, "There was no search.")
    if not study.search.overrides:
        return answered(question, True, "0 options are overridden during search.")
    known = agreement is not None and agreement.value is not None
    rank = (
        f"rank correlation with the full score {number(agreement.value, 2)}"
        if known and agreement
        else "how it ranks trials was not measured"
    )
    settings = ", ".join(f"{key}={value}" for key, value in study.search.overrides.items())
    return answered(question, False, f"{len(study.search.overrides)} overridden: {settings}; {rank}.")


def one_code(sources: Sources) -> Line:
    """Does one version of the training code stand behind all results?"""
    question = "Does one version of the code stand behind all results?"
    starts, versions = Starts(sources.events), sources.facts.code_versions
    kept = sorted(
        {str(path) for payload in starts.payloads for path in (payload.get("code") or {}).get("kept") or ()}
    )
    torch = sorted(
        {str(v) for payload in starts.payloads if (v := (payload.get("versions") or {}).get("torch"))}
    )
    dirty = sum((place.get("git") or {}).get("dirty") is True for place in starts.places)
    evidence = f"{len(versions)} digest{'s' if len(versions) != 1 else ''} of the training code"
    evidence += (
        f" ({', '.join(digest[:12] for digest in versions)})" if versions else " behind finished trials"
    )
    evidence += f"; changed while trials were kept: {shortened(kept)}" if kept else ""
    evidence += f"; torch {', '.join(torch)}" if torch else ""
    evidence += f"; with uncommitted changes: {dirty} of {len(starts.payloads)} starts"
    good = False if len(versions) > 1 or kept else True if versions else None
    return answered(question, good, evidence + ".")
