"""The plan in words, and what the search options need of the arms."""

import re
from pathlib import Path

import pytest

from sarx.config.errors import UserError
from sarx.study.design import make_arms
from sarx.study.load import load_study
from sarx.study.plan import (
    Timing,
    describe_batch,
    describe_cost,
    describe_plan,
    describe_scheduler,
    trials_of,
)
from sarx.study.search_checks import search_config

STUDIES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
TEXT = """\
# Does it help?
study: small
base: [data=digit_scenes, training=quick]
ablation:
  arms:
    sar: {}
    no_pull: {regularizer.pull_weight: 0.0}
    plain: {regularizer: none}
search:
  parameters:
    optim.lr: {low: 0.001, high: 0.1, log: true}
    regularizer.pull_weight: {low: 0.01, high: 1.0, log: true}
  trials_per_arm: 8
  batch: 4
confirm: {seeds: 3}
"""


def searching(*lines, trials=8, batch=4):
    """Return the study with further lines in its search section."""
    more = "".join(f"  {line}\n" for line in lines)
    text = TEXT.replace("confirm:", f"{more}confirm:")
    return text.replace("trials_per_arm: 8", f"trials_per_arm: {trials}").replace(
        "batch: 4", f"batch: {batch}"
    )


def plan(load, text):
    return "\n".join(describe_plan(*load(text)))


def test_the_plan_of_a_plain_study(load):
    lines = describe_plan(*load(TEXT))
    assert lines[:3] == [
        "study small: Does it help?",
        "  search     24 trials: 3 arms, sampler qmc in batches of 4, scored on val/miou, winner = max at "
        "the last epoch",
        "  confirm     9 trials: the winner of each arm on 3 fresh seeds that all arms share, reported on "
        "test/miou",
    ]
    assert "    sar      8 + 3 trials of 4 epochs (400 steps), 2 parameters searched  (reference)" in lines
    assert not any("limits" in line or "finalist" in line or "scheduler" in line for line in lines)


def test_finalists_and_repeats_are_counted(load):
    text = searching("repeats: 3", "finalists: {top: 2, seeds: 4}")
    study, arms = load(text)
    assert [trials_of(study, arm) for arm in arms] == [(24, 24, 3)] * 3
    lines = describe_plan(study, arms)
    assert "  finalist   72 trials: the best 2 of each search on 4 seeds before one is chosen" in lines
    assert any(
        "3 independent searches per arm; confirm seed k goes to the winner of search k % 3" in x
        for x in lines
    )
    assert any("24 + 24 + 3 trials of 4 epochs" in line for line in lines)


def test_without_a_search_every_arm_runs_its_default_once(load):
    study, arms = load(TEXT[: TEXT.index("search:")] + "search: none\n")
    assert [trials_of(study, arm) for arm in arms] == [(1, 0, 5)] * 3
    assert "sampler none (every arm runs its default)" in describe_plan(study, arms)[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("none", ""),
        ("successive_halving", "successive_halving: one of 3 goes on, first judged after 1/3 of training"),
        (
            "{name: successive_halving, min_fraction: 0.33, reduction_factor: 2}",
            "successive_halving: one of 2 goes on, first judged after 33 % of training",
        ),
        (
            "{name: asha, min_fraction: 0.25}\n  reproducible: false",
            "asha: one of 3 goes on, first judged after 1/4 of training, by what reached the rung before it",
        ),
        (
            "{name: median, min_trials: 5}\n  reproducible: false",
            "median: what is below the median ends, once 5 have reached the rung, first judged after 1/3 of "
            "training, by what reached the rung before it",
        ),
    ],
)
def test_a_scheduler_in_words(load, given, said):
    study, arms = load(searching(f"scheduler: {given}", trials=12))
    assert describe_scheduler(study) == said
    assert said in "\n".join(describe_plan(study, arms))
    assert ("reproducible: false" in "\n".join(describe_plan(study, arms))) == (not study.search.reproducible)


def test_samplers_in_words(load):
    assert "sampler tpe after 4 common points in batches of 4" in plan(
        load, searching("sampler: {name: tpe, startup: 4}")
    )
    grid = TEXT.replace("  trials_per_arm: 8\n", "  sampler: grid\n")
    grid = re.sub(r"\{low: 0.001.*", "{choices: [0.001, 0.003]}", grid)
    grid = re.sub(r"\{low: 0.01,.*", "{low: 0.1, high: 0.5, step: 0.2}", grid)
    said = plan(load, grid)
    assert "sampler grid of 6 cells in batches of 4" in said
    assert "note: no_pull, plain: 2 different cells of 6; the others repeat them" in said
    assert "does not contain" not in said
    assert "the grid does not contain the default of sar, no_pull, plain, which" in plan(
        load, grid.replace("0.003]", "0.03]")
    )
    assert "the grid does not contain the default of sar, which" in plan(
        load, grid.replace("low: 0.1", "low: 0.3")
    )


def test_few_trials_under_a_scheduler_are_warned_of(load):
    halving = "scheduler: successive_halving"
    assert "warning: successive_halving under 12 trials per arm" in plan(load, searching(halving))
    assert "under 12 trials" not in plan(load, searching(halving, trials=12))
    assert "judges nothing" not in plan(load, searching(halving))
    late = plan(load, searching("scheduler: {name: successive_halving, min_fraction: 0.9}"))
    assert "the scheduler judges nothing in sar, no_pull, plain: " in late
    short = searching(halving, "overrides: {training.steps: 100}")
    assert "the scheduler judges nothing in sar, no_pull, plain: " in plan(load, short)


def test_searches_that_no_seed_confirms_are_warned_of(load):
    assert "4 searches and 3 confirm seeds: the winners of 1 searches are never" in plan(
        load, searching("repeats: 4")
    )
    assert "never confirmed" not in plan(load, searching("repeats: 3"))


def test_limits_and_further_goals_are_said(load):
    text = TEXT + "limits: {max_hours: 1.5, trial_minutes: 20}\n"
    assert "limits: 1.5 hours of one start, 20 minutes for one attempt at a trial" in plan(load, text)
    goals = "objective: {also: [{metric: time/train_s, mode: min}]}\nablation:"
    assert "trade-offs shows beside the score: time/train_s (min)" in plan(
        load, TEXT.replace("ablation:", goals)
    )


# ---------------------------------------------------------------- one arm tunes for all


def test_under_shared_one_arm_tunes_and_the_others_take(load):
    text = searching("scope: shared")
    study, arms = load(text)
    assert study.search.tune_on == "sar"
    assert [[p.key for p in arm.space] for arm in arms] == [["optim.lr", "regularizer.pull_weight"], [], []]
    assert [arm.takes for arm in arms] == [(), ("optim.lr",), ("optim.lr",)]
    assert [trials_of(study, arm) for arm in arms] == [(8, 0, 3), (0, 0, 3), (0, 0, 3)]
    said = "\n".join(describe_plan(study, arms))
    assert "search      8 trials: 1 arm," in said
    assert "the search tunes sar; all other arms use its winner's values" in said
    assert "0 + 3 trials of 4 epochs (400 steps), takes its 1 shared parameters from sar" in said
    assert "optim.lr                 [0.001, 0.1] log  in 3 of 3 arms" in said


def test_under_shared_an_arm_may_fix_everything(load):
    text = searching("scope: shared", "tune_on: no_pull").replace("none}", "none, optim.lr: 0.01}")
    text = text.replace("    regularizer.pull_weight: {low: 0.01, high: 1.0, log: true}\n", "")
    study, arms = load(text)
    assert study.search.tune_on == "no_pull"
    assert [arm.takes for arm in arms] == [("optim.lr",), (), ()]


def test_a_parameter_that_the_tuned_arm_lacks_is_refused(load):
    with pytest.raises(
        UserError,
        match=r"s\.yaml:12:5: search\.parameters\.regularizer\.pull_weight: arm 'plain', .* for 'sar'",
    ):
        load(searching("scope: shared", "tune_on: plain"))


def test_an_unknown_tuned_arm_is_refused(load):
    with pytest.raises(
        UserError, match=r"s\.yaml:16:3: search\.tune_on: no arm is called 'plian'; did you mean 'plain'"
    ):
        load(searching("scope: shared", "tune_on: plian"))


def test_arms_that_differ_only_in_what_they_take_are_not_equal(load):
    text = searching("scope: shared").replace(
        "    plain: {regularizer: none}\n", "    fixed: {optim.lr: 0.003}\n"
    )
    assert len(load(text)[1]) == 3


def test_shared_values_must_build_in_every_arm(load):
    text = searching("scope: shared").replace(
        "regularizer.pull_weight: {low: 0.01, high: 1.0, log: true}",
        "regularizer.anchor_dim: {choices: [8, 32]}",
    )
    assert load(text)
    with pytest.raises(UserError, match=r"arm 'no_pull' cannot be built with regularizer.anchor_dim = 8"):
        load(text.replace("pull_weight: 0.0", "anchor_init: one_hot"))


# ---------------------------------------------------------------- a proxy for the search


def test_overrides_are_for_search_trials_alone(load):
    study, arms = load(searching("overrides: {training.steps: 200, data.num_train: 500}"))
    assert [arm.config.training.steps for arm in arms] == [400] * 3
    config = search_config(study, arms[0])
    assert (config.training.steps, config.data.num_train, config.role) == (200, 500, "search")
    assert "search trials differ from confirm trials: training.steps=200, data.num_train=500" in "\n".join(
        describe_plan(study, arms)
    )


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("{training.stepz: 200}", "15:15: search.overrides.training.stepz: unknown key"),
        ("{training.steps: [200]}", "15:15: search.overrides.training.steps: expected one value"),
        ("{training.steps: many}", "15:15: search.overrides.training.steps: arm 'sar' cannot be built"),
        (
            "{training.steps: 250}",
            "15:15: search.overrides.training.steps: arm 'sar' cannot be built with it: ",
        ),
        ("{training.batch_size: 8, training.steps: 0}", "15:39: search.overrides.training.steps: arm 'sar'"),
        ("{training.steps: 400}", "15:15: search.overrides.training.steps: changes nothing in any arm"),
        ("{training.images_logged: 0}", "15:15: search.overrides.training.images_logged: changes nothing"),
        ("{training.device: cuda}", "15:15: search.overrides.training.device: a proxy may change"),
        ("{data.imbalance: 5}", "15:15: search.overrides.data.imbalance: a proxy may change"),
        ("{data.selection: report}", "15:15: search.overrides.data.selection: a proxy may change"),
        (
            "{regularizer.pull_weight: 1}",
            "15:15: search.overrides.regularizer.pull_weight: a proxy may change",
        ),
        ("{model.feature_dim: 8}", "15:15: search.overrides.model.feature_dim: a proxy may change"),
        ("{loss.tau: 8}", "15:15: search.overrides.loss.tau: a proxy may change"),
        ("{optim.power: 8}", "15:15: search.overrides.optim.power: a proxy may change"),
        ("{data: digits_lt}", "15:15: search.overrides.data: unknown key"),
        ("5", "15:3: search.overrides: expected options such as"),
    ],
)
def test_overrides_that_are_refused(load, overrides, said):
    with pytest.raises(UserError) as caught:
        load(searching(f"overrides: {overrides}"))
    assert str(caught.value).startswith(f"s.yaml:{said}")


def test_an_override_of_what_is_searched_is_refused(load):
    text = searching("overrides: {training.batch_size: 8}")
    text = text.replace("    optim.lr:", "    training.batch_size: {choices: [8, 16]}\n    optim.lr:")
    with pytest.raises(
        UserError, match=r"s\.yaml:16:15: search\.overrides\.training\.batch_size: is searched"
    ):
        load(text)


def test_overrides_without_a_search_are_refused(load):
    text = searching("scope: none", "overrides: {training.steps: 200}")
    with pytest.raises(UserError, match=r"s\.yaml:16:3: search\.overrides: nothing is searched"):
        load(text)


# ---------------------------------------------------------------- cost and batches


def test_the_cost_counts_proxies_finalists_and_repeats(load):
    text = searching("overrides: {training.steps: 100}", "repeats: 2", "finalists: {top: 1, seeds: 1}")
    study, arms = load(text)
    timings = {arm.key: Timing(0.0, 1.0, 0.0) for arm in arms}
    (line,) = [line for line in describe_cost(study, arms, timings, 2) if "estimated" in line]
    hours = 3 * (2 * 8 * 100 + (2 + 3) * 400) / 3600
    assert line == f"  estimated: {hours:.2f} trial-hours, {hours / 2:.2f} hours with 2 at a time"
    study, arms = load(searching("scheduler: successive_halving"))
    timings = {arm.key: Timing(0.0, 1.0, 0.0) for arm in arms}
    assert "estimated: at most " in describe_cost(study, arms, timings, 2)[-1]


@pytest.mark.parametrize(
    ("lines", "trials", "slots", "cure"),
    [
        (["sampler: qmc"], 24, 100, None),  # its proposals never wait
        (["sampler: {name: tpe, startup: 12}"], 24, 6, None),  # 12 proposals for 6 slots
        (
            ["sampler: {name: tpe, startup: 12}"],
            24,
            7,
            "12 proposals are live at a time for 7 slots; batch: 6 would",
        ),
        (
            ["scheduler: successive_halving"],
            24,
            16,
            "12 proposals are live at a time for 16 slots; batch: 12 would",
        ),
        (["sampler: {name: tpe, startup: 12}", "repeats: 2"], 24, 12, None),
        (["sampler: {name: tpe, startup: 12}"], 24, 100, "for 100 slots; more trials_per_arm would allow"),
        (
            ["sampler: {name: tpe, startup: 12}", "scope: shared"],
            24,
            4,
            "only 4 proposals are live at a time for 4 slots; batch: 12",
        ),
    ],
)
def test_a_batch_that_leaves_slots_idle_is_warned_of(load, lines, trials, slots, cure):
    study, arms = load(searching(*lines, trials=trials))
    said = describe_batch(study, arms, slots)
    if cure is None:
        assert said == []
        return
    assert len(said) == 1
    assert cure in said[0]
    if suggested := re.search(r"batch: (\d+) would keep", said[0]):
        again = searching(*lines, trials=trials, batch=int(suggested[1]))
        assert describe_batch(*load(again), slots) == []


def test_without_a_search_no_batch_waits(load):
    study, arms = load(TEXT[: TEXT.index("search:")])
    assert describe_batch(study, arms, 64) == []


# ---------------------------------------------------------------- the studies of the repository


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_cost_that_a_study_states_is_that_of_its_plan(file):
    study, source = load_study(file)
    arms = make_arms(study, source)
    total = sum(sum(trials_of(study, arm)) for arm in arms)
    (stated,) = re.findall(r"cost: (?:at most )?(\d+) trials", study.file)
    assert int(stated) == total
    steps = {config.training.steps for arm in arms for config in (arm.config, search_config(study, arm))}
    assert all(f"{count}" in study.file.split("study:")[0] for count in steps)
