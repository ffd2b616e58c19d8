"""The methods paragraph: every clause follows from the ledger, and what it does not say is left out."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from analysis.methods import methods
from analysis.report import Report, make_report
from tests.analysis.paper_study import LEVELS, SEEDS, plan, write_paper_study

Begin = Callable[..., Any]
WHOLE = (
    "9 arms were compared at each of 2 levels (model=fcn_test_efficientnet, model=fcn_test_convnext): "
    "sar, no_pull, no_aux, no_ema, own_classifier, prototypes, cross_entropy, logit_adjusted, "
    "class_balanced; the reference is sar; base configuration: data=digit_scenes, regularizer=sar, "
    "training=quick. Each of the 9 arms was tuned on val with 8 trials of 400 steps (quasi-random, common "
    "proposals, trial i on the same seed in every arm) over optim.lr in 0.001 to 0.03 (log), "
    "optim.weight_decay in 1e-05 to 0.1 (log), loss.tau in 0.1 to 10 (log), regularizer.anchor_dim in "
    "{32, 128, feature_dim}, regularizer.aux_weight in 0.1 to 10 (log), regularizer.pull_weight in 0.01 "
    "to 1 (log); each arm those that act in it, 2 to 5 of them. The winner of a search is the trial with "
    "the highest val/miou at its last step. Winners were retrained from scratch on 10 fresh paired seeds "
    "for 400 steps. Claims are conditional on the tuned configurations. Reported is test/miou (higher is "
    "better) at the last step: the mean over seeds with its 95 % t interval, and the mean difference to "
    "sar, paired by seed. Differences are tested by two-sided paired t tests with Holm's correction over "
    "the family of 16 rows (corrected p <= .05), with joint sign flips as a distribution-free check. "
    "Equivalent means that the simultaneous 90 % t interval (Bonferroni over the family) lies within "
    "+-.005. Of 180 confirm results 179 finished and 1 diverged. Software: Python 3.11.9, PyTorch 2.15.0, "
    "Ray 2.60.0, Optuna 5.0.0. Digest of the sarx training code: c0de5eed0123. Git commit: 3f2a91c07be5 "
    "with uncommitted changes. The driver ran on a machine with 16 CPUs (Xeon 8480), 2 x NVIDIA H200."
)


def paper(writer: Any, **options: Any) -> Report:
    write_paper_study(writer, **options)
    return make_report(writer.study)


def test_the_paragraph_of_a_whole_study(new_ledger: Begin) -> None:
    assert paper(new_ledger()).methods == WHOLE


def test_an_interim_study_says_so_first_and_claims_no_end(new_ledger: Begin) -> None:
    text = paper(new_ledger(), seeds_done=4).methods
    assert text.startswith(
        "Interim report of a running or unfinished study (72 of 180 confirm trials have ended). "
        "9 arms are compared"
    )
    assert "Of 180 confirm results so far 72 finished." in text
    assert "Winners are retrained" in text
    assert " was tuned" not in text
    assert " were " not in text


def test_before_any_confirm_trial_nothing_is_said_of_its_seeds(new_ledger: Begin) -> None:
    text = paper(new_ledger(), seeds_done=0, searches=3).methods
    assert "Of 144 search trials: 24 ran to the end." in text
    assert "Winners are retrained on 10 seeds for 400 steps." in text  # neither fresh nor paired nor scratch
    assert "Digest" not in text


def test_a_ledger_that_says_little_is_left_at_that(new_ledger: Begin) -> None:
    writer = new_ledger(old=True)
    writer.open(levels=("",), versions={}, code={"digest": ""})
    text = make_report(writer.study).methods
    for word in ("common proposals", "same seed", "base configuration", "Software", "commit", "driver ran"):
        assert word not in text
    assert "over optim.lr." in text


def test_untuned_and_shared_studies(new_ledger: Begin) -> None:
    writer = new_ledger("untuned")
    writer.open(levels=("",), trials_per_arm=0)
    text = make_report(writer.study).methods
    assert "No arm was tuned: all use the default settings. All arms are trained on 8 seeds" in text
    shared = plan()
    shared["plan"] |= {"scope": "shared", "tune_on": "sar"}
    text = paper(new_ledger("shared"), plan=shared["plan"]).methods
    assert "Of all arms only sar was tuned on val with 8 trials of 400 steps (quasi-random)" in text
    assert "All other arms use the optimum of sar." in text


def test_seeds_that_the_search_used_are_not_called_fresh(new_ledger: Begin) -> None:
    writer = new_ledger()
    write_paper_study(writer, seeds_done=2)
    where = {"arm": "sar", "level": LEVELS[0], "phase": "search", "index": 7, "trial_id": "again"}
    writer.add("proposed", **where, seed=1001, **writer.coded())  # the seed of confirm index 1
    text = make_report(writer.study).methods
    assert "on 10 paired seeds" in text
    assert "Some of these seeds were used by the search too." in text


def test_proposals_that_differ_are_not_called_common(new_ledger: Begin) -> None:
    writer = new_ledger()
    write_paper_study(writer, seeds_done=0)
    where = {"arm": "sar", "level": LEVELS[0], "phase": "search", "index": 7, "trial_id": "again"}
    other = [{"name": "optim.lr", "value": "0.5"}]
    writer.add("proposed", **where, seed=84, parameters=other, **writer.coded())
    text = make_report(writer.study).methods
    assert "(quasi-random, trial i on the same seed in every arm)" in text


def test_versions_and_commits_of_all_starts_and_the_devices_of_trials(new_ledger: Begin) -> None:
    writer = new_ledger()
    write_paper_study(writer)
    second = plan(versions={"torch": "2.16.0"})
    second["provenance"] = {"git": {"commit": "f" * 40, "dirty": None}}
    writer.add("study_opened", payload=second)
    folder = writer.study / "trials" / "c-next-sar-0"
    folder.mkdir(parents=True)
    attempt = {"attempt": 1, "host": "gpu-3", "devices": ["Xeon 8480", "NVIDIA H200"]}
    (folder / "attempts.ndjson").write_text(json.dumps(attempt) + '\n{"attempt": 2, "ho', encoding="utf-8")
    text = make_report(writer.study).methods
    assert "PyTorch 2.15.0 and 2.16.0" in text
    assert (
        f"Git commit: 3f2a91c07be5 with uncommitted changes and {'f' * 12} (whether changed is not known)."
        in text
    )
    assert text.endswith("Confirm trials ran on NVIDIA H200.")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"repeats": 5}, "5 independent searches of 8 trials of 400 steps"),
        ({"repeats": 5}, "Confirm seed k uses the winner of search k mod 5."),
        (
            {"finalists": {"top": 3, "seeds": 2}},
            "The 3 best trials of each search were trained again in full",
        ),
        ({"overrides": {"training.steps": 50}}, "Search ran on a proxy: training.steps=50;"),
        ({"sampler": {"name": "tpe"}}, "(TPE, "),
    ],
)
def test_terms_of_the_search(new_ledger: Begin, changes: dict[str, Any], expected: str) -> None:
    payload = plan()
    assert expected in paper(new_ledger(), plan=payload["plan"] | changes, seeds_done=0).methods


def test_methods_is_what_the_report_holds(new_ledger: Begin) -> None:
    report = paper(new_ledger(), seeds_done=SEEDS)
    assert methods(report.sources) == report.methods
