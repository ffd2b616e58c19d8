"""Designs: which arms they make, what they leave out, and where their mistakes are shown."""

import json

import pytest

from sarx.config.errors import UserError
from sarx.study.components import cells_of
from sarx.study.design import make_arms
from sarx.study.identity import Code
from sarx.study.ledger_schema import OPENED_KEYS
from sarx.study.load import load_study
from sarx.study.opening import opened_payload
from sarx.study.plan import describe_plan

TEXT = """\
# Which part matters?
study: small
base: [data=digit_scenes, training=quick]
ablation:
  design: leave_one_out
  components:
    pull: {off: {regularizer.pull_weight: 0.0}}
    ema: {on: {}, off: {regularizer.ema_decay: 0.0}}
    distance: {squared: {}, cosine: {regularizer.distance: cosine}}
  arms:
    plain: {regularizer: none}
search:
  parameters:
    optim.lr: {low: 0.001, high: 0.1, log: true}
    regularizer.pull_weight: {low: 0.01, high: 1.0, log: true}
  trials_per_arm: 8
confirm: {seeds: 3}
"""
FOUR = "    gate: {off: {regularizer.gate: always}}\n"


def with_design(name, extra=""):
    return TEXT.replace("leave_one_out", name).replace("  arms:\n", f"{extra}  arms:\n")


def names(arms):
    return [arm.name for arm in arms]


def test_leave_one_out_takes_one_away(load):
    study, arms = load(TEXT)
    assert names(arms) == ["full", "no_pull", "no_ema", "distance_cosine", "plain"]
    assert study.ablation.reference == "full"
    assert study.ablation.excluded == []
    assert [dict(arm.levels_of) for arm in arms[:2]] == [
        {"pull": "on", "ema": "on", "distance": "squared"},
        {"pull": "off", "ema": "on", "distance": "squared"},
    ]
    assert arms[-1].levels_of == {}
    assert arms[1].config.regularizer.pull_weight == 0
    assert arms[3].overrides == {"regularizer.distance": "cosine"}
    assert [p.key for p in arms[1].space] == ["optim.lr"]
    assert list(study.ablation.arms) == names(arms)


def test_one_factor_at_a_time_adds_one_alone(load):
    text = with_design("one_factor_at_a_time").replace(
        "    ema: {on: {}, off: {regularizer.ema_decay: 0.0}}\n",
        "    anchors: {simplex: {regularizer.anchor_init: simplex}, "
        "one_hot: {regularizer.anchor_init: one_hot}, gaussian: {}}\n",
    )
    text = text.replace(
        "{squared: {}, cosine: {regularizer.distance: cosine}}", "{off: {optim.momentum: 0.5}}"
    )
    study, arms = load(text)
    assert names(arms) == ["base", "pull", "anchors_simplex", "anchors_one_hot", "distance", "plain"]
    assert study.ablation.reference == "base"
    assert arms[0].overrides == {"regularizer.pull_weight": 0.0, "optim.momentum": 0.5}
    assert arms[1].overrides == {"optim.momentum": 0.5}


def test_factorial_makes_all_combinations_and_leaves_out_what_cannot_act(load):
    study, arms = load(with_design("factorial"))
    assert names(arms) == ["full", "distance_cosine", "no_ema", "no_ema-distance_cosine", "no_pull", "plain"]
    assert study.ablation.excluded == [
        "no_pull-distance_cosine: equals no_pull (regularizer.distance cannot act beside its other options)",
        "no_pull-no_ema: equals no_pull (regularizer.ema_decay cannot act beside its other options)",
        "no_pull-no_ema-distance_cosine: equals no_pull (regularizer.ema_decay, regularizer.distance "
        "cannot act beside its other options)",
    ]
    plan = "\n".join(describe_plan(study, arms))
    assert "design   factorial of 3 components: 5 of 8 cells" in plan
    assert plan.count("left out: no_pull-") == 3
    assert "cells were left out" not in plan


def test_levels_that_are_searched_are_open_and_act(load):
    """The pull of no_pull is fixed at 0; a component beside a searched weight of 0 can act."""
    text = with_design("factorial").replace("    pull: {off: {regularizer.pull_weight: 0.0}}\n", "")
    _, arms = load(text.replace("training=quick]", "training=quick, regularizer.pull_weight=0.0]"))
    assert names(arms) == ["full", "distance_cosine", "no_ema", "no_ema-distance_cosine", "plain"]


def test_a_combination_that_cannot_be_built_is_left_out(load):
    extra = "    sar: {off: {regularizer: none}}\n"
    extra += "    loss: {plain: {}, ohem: {loss: ohem}, balanced: {loss: class_balanced}}\n"
    study, arms = load(
        with_design("factorial", extra).replace("    plain: {regularizer: none}\n", "    {}\n")
    )
    kept = {name for name in names(arms) if "no_sar" in name}
    assert kept == {"no_sar", "no_sar-loss_ohem", "no_sar-loss_balanced"}
    assert (
        "no_pull-no_sar: regularizer=none has no option 'pull_weight' (center_loss, prototype_ema, sar has)"
        in (study.ablation.excluded)
    )
    assert len(arms) + len(study.ablation.excluded) == 2 * 2 * 2 * 2 * 3
    assert any("of 48 cells were left out" in line for line in describe_plan(study, arms))


def test_two_components_that_set_one_option_differently_cannot_be_combined(load):
    extra = "    loss: {plain: {}, ohem: {loss: ohem}}\n    prior: {off: {}, on: {loss: logit_adjusted}}\n"
    text = with_design("factorial", extra)
    study, _ = load(text.replace("    pull: {off: {regularizer.pull_weight: 0.0}}\n", ""))
    left = [text for text in study.ablation.excluded if "both set loss, to ohem and logit_adjusted" in text]
    assert [text.partition(":")[0] for text in left] == [
        "loss_ohem",
        "distance_cosine-loss_ohem",
        "no_ema-loss_ohem",
        "no_ema-distance_cosine-loss_ohem",
    ]
    assert study.ablation.components["prior"] == {"on": {"loss": "logit_adjusted"}, "off": {}}


def test_fractional_runs_half_and_says_what_it_cannot_tell_apart(load):
    study, arms = load(
        with_design("fractional", FOUR).replace(
            "pull: {off: {regularizer.pull_weight: 0.0}}", "aux: {off: {regularizer.aux_weighting: uniform}}"
        )
    )
    assert names(arms) == [
        "full",
        "distance_cosine-no_gate",
        "no_ema-no_gate",
        "no_ema-distance_cosine",
        "no_aux-no_gate",
        "no_aux-distance_cosine",
        "no_aux-no_ema",
        "no_aux-no_ema-distance_cosine-no_gate",
        "plain",
    ]
    plan = "\n".join(describe_plan(study, arms))
    assert "resolution IV" in plan
    assert "two-factor interactions aliased: aux:ema = distance:gate" in plan
    assert "warning: cells" not in plan


def test_a_fraction_with_cells_left_out_is_warned_of(load):
    study, arms = load(with_design("fractional", FOUR))
    assert study.ablation.excluded
    assert any("no longer clear of each other" in line for line in describe_plan(study, arms))


def test_a_cell_that_is_equal_at_one_level_of_the_factors_alone_stays(load):
    factors = "  factors: {regularizer.pull_weight: [0.0, 0.1]}\n  arms:\n"
    text = with_design("factorial").replace("    pull: {off: {regularizer.pull_weight: 0.0}}\n", "")
    text = text.replace("    plain: {regularizer: none}\n", "    {}\n")
    text = text.replace("    regularizer.pull_weight: {low: 0.01, high: 1.0, log: true}\n", "")
    study, arms = load(text.replace("  arms:\n", factors))
    assert study.ablation.excluded == []
    assert len(arms) == 8


def test_a_cell_that_cannot_be_built_at_one_level_of_the_factors_is_left_out(load):
    factors = "  factors: {model.feature_dim: [8, 64]}\n  arms:\n"
    extra = "    dim: {same: {}, wide: {regularizer.anchor_dim: 32}}\n"
    extra += "    init: {random: {}, simplex: {regularizer.anchor_init: simplex}}\n"
    study, arms = load(with_design("factorial", extra).replace("  arms:\n", factors))
    left = [text for text in study.ablation.excluded if text.startswith("init_simplex: ")]
    assert left == [
        "init_simplex: simplex anchors of 11 classes need at least 10 dimensions; anchor_dim is 8 "
        "(at model.feature_dim=8)"
    ]
    assert names(arms).count("init_simplex") == 0
    assert names(arms).count("dim_wide-init_simplex") == 2


def test_an_error_at_one_level_is_named_with_the_level(load):
    factors = "  factors: {regularizer: [sar, prototype_ema]}\n  arms:\n"
    with pytest.raises(
        UserError,
        match=r"s\.yaml:9:\d+: ablation\.components\.distance\.cosine\.regularizer\.distance: "
        r".*\(at regularizer=prototype_ema\)",
    ):
        load(TEXT.replace("  arms:\n", factors))


def test_making_the_arms_twice_gives_the_same(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(with_design("factorial"))
    study, source = load_study(file)
    first = make_arms(study, source)
    again = list(study.ablation.excluded)
    assert names(make_arms(study, source)) == names(first)
    assert study.ablation.excluded == again


def test_the_payload_records_design_and_levels(load, text):
    study, arms = load(TEXT)
    payload = json.loads(json.dumps(opened_payload(study, arms, Code("c", {}), [])))
    assert set(payload) <= set(OPENED_KEYS)
    assert payload["plan"]["design"] == "leave_one_out"
    assert payload["arms"][1]["components"] == {"pull": "off", "ema": "on", "distance": "squared"}
    assert "components" not in payload["arms"][-1]
    study, arms = load(text)
    plain = opened_payload(study, arms, Code("c", {}), [])
    assert "design" not in plain["plan"]
    assert not any("components" in arm for arm in plain["arms"])


def test_the_design_can_be_set_on_the_command_line(load):
    assert len(load(TEXT, ["ablation.design=factorial"])[1]) == 6


PULL = "pull: {off: {regularizer.pull_weight: 0.0}}"
# Each case: design, the text that is replaced, by what, the place of the mistake, and what the message says.
MISTAKES = {
    "unknown design": (
        "leave_two_out",
        "",
        "",
        "5:3",
        ["ablation.design", "'leave_two_out' is not one of explicit"],
    ),
    "explicit with components": ("explicit", "", "", "6:3", ["ablation.components", "go with a design"]),
    "no components": (
        "factorial",
        "  components:",
        "  factors:",
        "5:3",
        ["ablation.design", "needs components"],
    ),
    "components are a list": (
        "factorial",
        "  components:\n",
        "  components: []\n  factors:\n",
        "6:3",
        ["needs components"],
    ),
    "component name": ("factorial", "    pull:", "    Pull:", "7:5", ["'Pull' is not a name"]),
    "level name": ("factorial", "cosine:", "Cosine:", "9:29", ["'Cosine' is not a name"]),
    "levels are a list": ("factorial", PULL, "pull: [off]", "7:5", ["expected levels"]),
    "one level": ("factorial", PULL, "pull: {on: {}}", "7:5", ["needs two levels or more"]),
    "level without overrides": ("factorial", PULL, "pull: {off: 0}", "7:12", ["expected overrides"]),
    "list in a level": ("factorial", "pull_weight: 0.0", "pull_weight: [0]", "7:18", ["expected one value"]),
    "seed of a level": ("factorial", "regularizer.pull_weight: 0.0", "seed: 1", "7:18", ["seeds and roles"]),
    "option of a level": (
        "leave_one_out",
        "pull_weight: 0.0",
        "pul_weight: 0.0",
        "7:18",
        ["ablation.components.pull.off.regularizer.pul_weight", "did you mean 'regularizer.pull_weight'?"],
    ),
    "value of a level": (
        "factorial",
        "pull_weight: 0.0",
        "pull_weight: -1",
        "7:18",
        ["ablation.components.pull.off.regularizer.pull_weight", "[0, 1000]"],
    ),
    "value of the first level": (
        "factorial",
        "squared: {}",
        "squared: {optim.lr: 0}",
        "9:26",
        ["distance.squared.optim.lr", "(0, 10]"],
    ),
    "group of a level": (
        "leave_one_out",
        "{regularizer.pull_weight: 0.0}",
        "{regularizer: nnoe}",
        "7:18",
        ["did you mean 'none'?"],
    ),
    "inert beside the others": (
        "leave_one_out",
        "pull: {off: {regularizer.pull_weight: 0.0}}",
        "gate: {free: {regularizer.gate: always}, shut: {regularizer.gate: always, "
        "regularizer.update_confidence: 0.5}}",
        "7:46",
        ["gate_shut: equals full (regularizer.update_confidence cannot act"],
    ),
    "inert component": (
        "leave_one_out",
        "{on: {}, off: {regularizer.ema_decay: 0.0}}",
        "{on: {}, off: {training.images_logged: 1}}",
        "8:19",
        ["ablation.components.ema.off", "no arm is left with it: no_ema: equals full"],
    ),
    "inert alone": (
        "one_factor_at_a_time",
        "",
        "",
        "8:11",
        ["ablation.components.ema.on", "no arm is left with it: ema: equals base", "it, or mend it"],
    ),
    "two levels alike": (
        "factorial",
        "cosine: {regularizer.distance: cosine}",
        "same: {}",
        "9:29",
        ["ablation.components.distance.same", "no arm is left with it: distance_same: equals full"],
    ),
    "reference": (
        "leave_one_out",
        "  design",
        "  reference: base\n  design",
        "5:3",
        ["no arm is called 'base'"],
    ),
    "reference that is left out": (
        "factorial",
        "  design",
        "  reference: no_pull-no_ema\n  design",
        "5:3",
        ["ablation.reference", "cannot be left out", "no_pull-no_ema: equals no_pull"],
    ),
    "an arm with the name of a cell": (
        "leave_one_out",
        "    plain:",
        "    no_pull:",
        "11:5",
        ["the design has an arm of this name"],
    ),
    "an arm equal to a cell": (
        "leave_one_out",
        "{regularizer: none}",
        "{regularizer.distance: cosine}",
        "11:5",
        ["'distance_cosine' and 'plain' are equal"],
    ),
    "two cells of one name": (
        "leave_one_out",
        "    pull:",
        "    no_distance: {b: {optim.floor: 0.1}, off: {}, on: {}}\n"
        "    no: {a: {}, distance_off: {optim.floor: 0.2}}\n    pull:",
        "6:3",
        ["two cells of the design would be called 'no_distance_off'"],
    ),
    "names too long": (
        "factorial",
        "    ema:",
        f"    {'a' * 58}:",
        "6:3",
        ["would be called", "more than 64", "shorten the names"],
    ),
    "too many cells": (
        "factorial",
        "    pull:",
        "".join(f"    c{i}: {{off: {{optim.floor: 0.{i}}}}}\n" for i in range(10)) + "    pull:",
        "6:3",
        ["8192 cells are more than a study may have (1000)"],
    ),
    "few components of a fraction": (
        "fractional",
        "",
        "",
        "6:3",
        ["3 components", "only 8 cells", "design: factorial"],
    ),
    "three levels in a fraction": (
        "fractional",
        "cosine:",
        "third: {}, cosine:",
        "9:5",
        ["two levels, found 3"],
    ),
    "many components of a fraction": (
        "fractional",
        "    pull:",
        "".join(f"    c{i}: {{off: {{optim.floor: 0.{i}}}}}\n" for i in range(14)) + "    pull:",
        "6:3",
        ["17 components are more than fractions are made for (16)"],
    ),
    "unequal terms": (
        "leave_one_out",
        "{regularizer.pull_weight: 0.0}",
        "{training.steps: 800}",
        "7:18",
        ["800 here, 400 in arm 'full'"],
    ),
    "nothing to tune": (
        "leave_one_out",
        "{regularizer.pull_weight: 0.0}",
        "{regularizer.pull_weight: 0.0, optim.lr: 0.1}",
        "7:12",
        ["'no_pull' has nothing to tune"],
    ),
    "backbone": (
        "leave_one_out",
        "{regularizer.pull_weight: 0.0}",
        "{model.backbone: test_resnt}",
        "7:18",
        ["ablation.components.pull.off.model.backbone", "did you mean 'test_resnet'?"],
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_message_with_its_place(load, case):
    design, old, new, place, said = MISTAKES[case]
    text = TEXT.replace("leave_one_out", design)
    assert not old or text.count(old) == 1
    with pytest.raises(UserError) as caught:
        load(text.replace(old, new) if old else text)
    message = str(caught.value)
    assert message.startswith(f"s.yaml:{place}: ")
    assert [part for part in said if part not in message] == []
    assert "\n" not in message


def test_all_components_at_their_first_level_must_build(load):
    text = TEXT.replace(
        "squared: {}", "squared: {regularizer.projector_depth: 0, regularizer.anchor_dim: 32}"
    )
    with pytest.raises(
        UserError,
        match=r"s\.yaml:9:26: ablation\.components\.distance\.squared\.regularizer\.projector_depth: "
        "0 is the identity",
    ):
        load(text)


def test_names_of_cells_do_not_depend_on_what_cannot_be_built():
    components = {"a": {"on": {}, "off": {}}, "b": {"x": {}, "y": {}, "z": {}}}
    assert list(cells_of("factorial", components)) == ["full", "b_y", "b_z", "no_a", "no_a-b_y", "no_a-b_z"]
    assert list(cells_of("one_factor_at_a_time", components)) == ["base", "a", "b_x", "b_y"]
    assert list(cells_of("leave_one_out", components)) == ["full", "no_a", "b_y", "b_z"]
    assert cells_of("explicit", {}) == {}
