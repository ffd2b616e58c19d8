"""The checklist: every answer is computed, and each of them can be another one."""

from collections.abc import Callable
from typing import Any

import pytest

from analysis.checklist import CHECKS, checklist
from analysis.line import NO, NOT_APPLICABLE, NOT_KNOWN, YES, Line
from analysis.report import make_report
from analysis.sources import Sources
from tests.analysis.paper_study import ARMS, LEVELS, plan, write_paper_study

Begin = Callable[..., Any]


def sources_of(writer: Any, **options: Any) -> Sources:
    write_paper_study(writer, **options)
    return make_report(writer.study).sources


def line(sources: Sources, name: str) -> Line:
    return next(check(sources) for check in CHECKS if check.__name__ == name)


def arms_with(**overrides: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the plan with other overrides of some arms."""
    rows = plan()["arms"]
    for row in rows:
        row["overrides"] = overrides.get(row["arm"], row["overrides"])
    return rows


def test_answers_of_a_whole_study(new_ledger: Begin) -> None:
    table = checklist(sources_of(new_ledger()))
    assert table.columns == ["question", "answer", "evidence"]
    answers = [row[1] for row in table.rows]
    assert answers == [YES] * 12 + [NO, NOT_APPLICABLE, YES]  # one seed diverged; nothing is cited
    evidence = {check.__name__: row[2] for check, row in zip(CHECKS, table.rows, strict=True)}
    assert evidence["tuned"] == "18 rows, 8 trials each, over 2 to 5 parameters; with all of them judged: 18."
    assert evidence["last_step"] == "179 of 179 finished confirm trials are scored at step 400."
    assert evidence["failures"] == (
        "179 of 180 finished; 1 diverged; failed attempts over all starts: 2 out_of_memory."
    )
    assert evidence["rebalancing"] == (
        "4 of 18 rows set regularizer none and loss class_balanced or logit_adjusted: logit_adjusted, "
        "class_balanced."
    )
    assert all(text.endswith(".") for text in evidence.values())


def test_before_the_end_answers_are_not_known(new_ledger: Begin) -> None:
    sources = sources_of(new_ledger(), seeds_done=0, searches=3)
    for name in ("tuned", "last_step", "seeds", "tail", "distinct_rows", "failures", "one_code"):
        assert line(sources, name).answer == NOT_KNOWN, name
    assert "with all of them judged: 3" in line(sources, "tuned").evidence
    assert line(sources, "failures").evidence.startswith("0 of 180 finished; 180 to come")


def test_tuning(new_ledger: Begin) -> None:
    rows = plan()["arms"]
    for row in rows:
        if row["arm"] == "cross_entropy":
            row["parameters"] = []
    found = line(sources_of(new_ledger("a"), seeds_done=0, arms=rows), "tuned")
    assert found.answer == NO
    assert found.evidence.startswith("2 of 18 rows tune nothing: cross_entropy (model=fcn_test_efficientnet)")
    shared = plan()["plan"] | {"scope": "shared", "tune_on": "sar"}
    assert line(sources_of(new_ledger("b"), seeds_done=0, plan=shared), "tuned").answer == NO
    untuned = sources_of(new_ledger("c"), seeds_done=0, searches=0, trials_per_arm=0)
    for name in ("tuned", "splits", "proxies"):
        assert line(untuned, name).answer == NOT_APPLICABLE


@pytest.mark.parametrize(
    "changes", [{"selection": "report"}, {"objective": {"metric": "test/loss", "mode": "min"}}]
)
def test_splits_that_the_plan_joins(new_ledger: Begin, changes: dict[str, Any]) -> None:
    assert line(sources_of(new_ledger(), seeds_done=0, **changes), "splits").answer == NO


def test_a_search_trial_that_saw_the_report_split(new_ledger: Begin) -> None:
    writer = new_ledger()
    write_paper_study(writer, seeds_done=0)
    trial = "s-tnet-sar-3"
    writer.add("epoch", trial_id=trial, attempt=1, phase="search", epoch=3, metrics={"test/miou": 0.3})
    found = line(make_report(writer.study).sources, "splits")
    assert found.answer == NO
    assert "1 of 144 search trials recorded a test/ metric." in found.evidence


def test_a_result_from_an_earlier_step(new_ledger: Begin) -> None:
    writer = new_ledger()
    write_paper_study(writer, seeds_done=1)
    writer.claim("sar", LEVELS[0], 1, "early")
    end = {"trial_id": "early", "attempt": 1, "phase": "confirm", "epoch": 3, "step": 300}
    writer.add("trial_started", trial_id="early", attempt=1, phase="confirm", epoch=0)
    writer.add("trial_finished", **end, metrics={"test/miou": 0.3})
    found = line(make_report(writer.study).sources, "last_step")
    assert (found.answer, found.evidence) == (NO, "18 of 19 finished confirm trials are scored at step 400.")


def test_confirm_seeds_that_the_search_had(new_ledger: Begin) -> None:
    seeds = [*range(1000, 1009), 77]  # 77 is the seed of search trial 0
    writer = new_ledger()
    writer.confirm_seed = lambda index: seeds[index]
    found = line(sources_of(writer, confirm_seeds=seeds), "seeds")
    assert found.answer == NO
    assert "the same in every row: yes; apart from search: no; 9 to 10 pairs" in found.evidence


def test_looks_at_known_results(new_ledger: Begin) -> None:
    writer = new_ledger()
    write_paper_study(writer, seeds_done=4)
    writer.add("study_opened", payload=plan(seeds=6, confirm_seeds=[1000 + k for k in range(6)]))
    found = line(make_report(writer.study).sources, "looks")
    assert (found.answer, found.evidence) == (
        NO,
        "2 starts, 1 change of the plan; after results were known: start 2, seeds 10 -> 6; 2 looks: p values "
        "are multiplied by 2.",
    )


def test_an_arm_added_at_known_results_is_no_plan_left_alone(new_ledger: Begin) -> None:
    writer = new_ledger()
    write_paper_study(writer, seeds_done=4)
    late = [{**row, "arm": "late"} for row in plan()["arms"] if row["arm"] == "no_pull"]
    writer.add("study_opened", payload=plan(arms=[*plan()["arms"], *late]))
    report = make_report(writer.study)
    found = line(report.sources, "looks")
    assert (found.answer, report.sources.study.looks) == (
        NO,
        1,
    )  # it makes the family larger and costs nothing
    assert "after results were known: start 2, arms: added late." in found.evidence
    assert "After confirm results were known the plan changed (start 2, arms: added late)." in report.methods


def test_a_search_that_lost_trials_for_good_is_not_tuned_alike(new_ledger: Begin) -> None:
    writer = new_ledger()
    given = {**plan()["plan"], "max_failures": 0}
    writer.open(arms=("sar", "plain"), levels=("",), seeds=2, trials_per_arm=2, plan=given)
    for arm in ("sar", "plain"):
        for index in (0, 1):
            trial = f"{arm}-s{index}"
            where = {"arm": arm, "level": None, "phase": "search", "index": index, "seed": index}
            writer.add("proposed", **where, trial_id=trial, **writer.coded())
            of_trial = {"trial_id": trial, "attempt": 1, "phase": "search"}
            writer.add("trial_started", **of_trial, epoch=0)
            if (arm, index) == ("plain", 1):
                writer.add("failed", **of_trial, payload={"kind": "crashed", "reason": "no luck"})
            else:
                scores = {"val/miou": 0.5}
                writer.add("trial_finished", **of_trial, epoch=2, step=600, duration_s=1.0, metrics=scores)
    sources = make_report(writer.study).sources
    found = line(sources, "tuned")
    assert (found.answer, line(sources, "budgets").answer) == (NO, NO)
    assert "failed for good: 1; fewer: plain 1." in found.evidence


@pytest.mark.parametrize(
    ("name", "overrides", "answer", "evidence"),
    [
        ("aux_only", {"no_pull": {}}, NO, "0 of 18 rows set regularizer.pull_weight 0."),
        ("aux_only", {"no_pull": {"regularizer.pull_weight": 0}}, YES, ": no_pull."),
        ("aux_only", {"no_pull": {"regularizer.pull_weight": 0.0, "loss": "logit_adjusted"}}, NO, "0 of 18"),
        ("aux_only", {"no_pull": {"regularizer.pull_weight": 0.0, "regularizer": "car"}}, NO, "0 of 18"),
        ("aux_only", {"no_pull": {"regularizer.pull_weight": 1e-9}}, NO, "0 of 18"),
        ("pull_only", {"no_aux": {}}, NO, "0 of 18 rows set regularizer.aux_weight 0."),
        ("pull_only", {}, YES, ": no_aux."),
        ("rebalancing", {"logit_adjusted": {}, "class_balanced": {}}, NO, "0 of 18"),
        ("rebalancing", {"logit_adjusted": {"loss": "logit_adjusted"}, "class_balanced": {}}, NO, "0 of 18"),
        ("rebalancing", {"class_balanced": {}}, YES, ": logit_adjusted."),
    ],
)
def test_arms_that_must_be_there(
    new_ledger: Begin, name: str, overrides: dict[str, Any], answer: str, evidence: str
) -> None:
    found = line(sources_of(new_ledger(), seeds_done=0, searches=0, arms=arms_with(**overrides)), name)
    assert found.answer == answer
    assert evidence in found.evidence


def test_an_arm_at_one_level_and_one_that_cannot_act(new_ledger: Begin) -> None:
    rows = arms_with()
    rows = [row for row in rows if (row["arm"], row["level"]) != ("no_pull", LEVELS[1])]
    for row in rows:
        if row["arm"] == "no_aux":
            row["warnings"] = ["aux_weight is 0: the gate never opens"]
    sources = sources_of(new_ledger(), seeds_done=0, searches=0, arms=rows)
    aux, pull = line(sources, "aux_only"), line(sources, "pull_only")
    assert (aux.answer, pull.answer) == (NO, NO)
    assert aux.evidence.endswith(f": no_pull ({LEVELS[0]}); none at {LEVELS[1]}.")
    assert (
        "not counted, as the plan warns of no_aux (model=fcn_test_efficientnet): aux_weight is 0"
        in pull.evidence
    )


def test_arms_of_a_study_without_sar_and_of_one_that_does_not_say(new_ledger: Begin) -> None:
    none = arms_with(**{arm: {"regularizer": "none"} for arm in ARMS})
    sources = sources_of(new_ledger("a"), seeds_done=0, searches=0, arms=none)
    assert line(sources, "aux_only").answer == NOT_APPLICABLE
    rows = plan()["arms"]
    for row in rows:
        del row["overrides"]
    sources = sources_of(new_ledger("b"), seeds_done=0, searches=0, arms=rows)
    assert {line(sources, name).answer for name in ("aux_only", "pull_only", "rebalancing")} == {NOT_KNOWN}


def test_options_of_the_base_count_for_every_arm(new_ledger: Begin) -> None:
    based = plan()["plan"] | {"base": ["regularizer=sar", "regularizer.pull_weight=0.0"]}
    rows = arms_with(**{arm: {} for arm in ARMS if arm != "no_ema"}, no_ema={"regularizer.pull_weight": 0.1})
    found = line(sources_of(new_ledger(), seeds_done=0, searches=0, plan=based, arms=rows), "aux_only")
    assert found.evidence.startswith("16 of 18 rows set regularizer.pull_weight 0: sar, no_pull")


def scored(writer: Any, scores: dict[str, list[float]], metric: str) -> Sources:
    """Write a study whose arms have the same miou and these scores of another metric."""
    writer.open(arms=tuple(scores), levels=("",), trials_per_arm=0, seeds=3)
    for arm, values in scores.items():
        for seed, value in enumerate(values):
            writer.claim(arm, "", seed, f"{arm}-{seed}")
            writer.finish(f"{arm}-{seed}", {"test/miou": 0.25 + 0.01 * seed, metric: value})
    return make_report(writer.study).sources


def test_the_tail(new_ledger: Begin) -> None:
    good = line(
        scored(new_ledger("a"), {"sar": [0.1, 0.11, 0.12], "b": [0.2, 0.21, 0.2]}, "test/few_iou"), "tail"
    )
    # t interval of .10, .11, .12: .11 -+ 4.3027 * .01 / sqrt(3)
    assert (good.answer, good.evidence[:63]) == (
        YES,
        "Lowest 95 % bound of test/few_iou over 2 values: .085 (sar); th",
    )
    low = {"sar": [0.1, 0.11, 0.12], "b": [0.0, 0.001, 0.0]}
    bad = line(scored(new_ledger("b"), low, "test/tail_iou"), "tail")
    assert bad.answer == NO
    assert bad.evidence.endswith("; not above it: b (test/tail_iou).")
    none = line(scored(new_ledger("c"), low, "test/other"), "tail")
    assert none.answer == NOT_APPLICABLE


def test_identical_rows(new_ledger: Begin) -> None:
    scores = {"sar": [0.1, 0.2, 0.3], "b": [0.1, 0.2, 0.4], "c": [0.1, 0.2, 0.3]}
    found = line(scored(new_ledger(), scores, "test/tail_iou"), "distinct_rows")
    assert found == (found.question, NO, "1 of 3 rows are identical, not tested: c is sar.")


def test_budgets(new_ledger: Begin) -> None:
    rows = plan()["arms"]
    rows[3]["parameters"] = []
    found = line(sources_of(new_ledger("a"), seeds_done=0, arms=rows), "budgets")
    assert found.answer == NO
    assert "1 to 8 search trials planned per searched row" in found.evidence
    assert line(sources_of(new_ledger("b"), seeds_done=0, steps=None), "budgets").answer == NOT_KNOWN


def test_a_proxy(new_ledger: Begin) -> None:
    proxy = plan()["plan"] | {"overrides": {"training.steps": 100, "data.crop": 64}}
    found = line(sources_of(new_ledger(), seeds_done=0, plan=proxy), "proxies")
    assert (found.answer, found.evidence) == (
        NO,
        "2 overridden: training.steps=100, data.crop=64; how it ranks trials was not measured.",
    )


@pytest.mark.parametrize("kept", [[], ["sarx/training/step.py"]])
def test_code_versions(new_ledger: Begin, kept: list[str]) -> None:
    writer = new_ledger()
    write_paper_study(writer, seeds_done=2)
    code = {"digest": "c0de5eed0123456789abcdef", "files": {}, "kept": kept}
    writer.add("study_opened", payload=plan(code=code, versions={"torch": "2.16.0"}))
    found = line(make_report(writer.study).sources, "one_code")
    assert found.answer == (NO if kept else YES)
    assert ("changed while trials were kept: sarx/training/step.py" in found.evidence) == bool(kept)
    assert found.evidence.endswith("torch 2.15.0, 2.16.0; with uncommitted changes: 2 of 2 starts.")


def test_cited_rows(new_ledger: Begin) -> None:
    good = {"name": "SAR (paper)", "value": 0.5, "source": "arXiv 1", "setting": "Cityscapes"}
    bare = {"name": "Other", "value": 0.4, "source": "a blog"}
    answers = []
    for number, rows in enumerate(([good], [good, bare], [good | {"name": "sar"}])):
        report = {"primary": "test/miou", "cited": rows}
        sources = sources_of(new_ledger(str(number)), seeds_done=0, searches=0, report=report)
        answers.append(line(sources, "cited")[1:])
    assert answers[0] == (YES, "1 cited: SAR (paper) (arXiv 1; Cityscapes).")
    assert answers[1][0] == NO
    assert answers[1][1].endswith("without source or setting: Other.")
    assert answers[2] == (NO, answers[2][1])
    assert answers[2][1].endswith("with the name of an arm of the study: sar.")
