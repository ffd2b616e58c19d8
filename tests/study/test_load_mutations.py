"""A changed or damaged study file gives a plan or one UserError with its place, never another exception.

The files are drawn from all studies of the repository. They are changed in ways that should leave a study,
damaged at random, or given one mistake of a known class; ``CLASSES`` names every class of mistake that a
study file can have, and a message that is of none of them fails the test.
"""

import copy
import random
import re
import sys
from collections import Counter
from pathlib import Path

import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from sarx.config.errors import UserError
from sarx.models.backbone_names import backbone_names
from sarx.study.design import check_backbones, check_devices, make_arms
from sarx.study.load import load_study
from sarx.study.plan import describe_batch, describe_plan
from sarx.study.source import read_source

EVERY = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
FILES = [file for file in EVERY if "experiment=" not in file.read_text(encoding="utf-8")]
"""Studies on the embedded data: what is a mistake in them is none beside GPUs and files."""
TEXTS = [file.read_text(encoding="utf-8") for file in FILES]
STUDIES = [read_source(file).values for file in FILES]
RUNS = 500

# ---------------------------------------------------------------- damage: edits of lines and tokens

TOKEN = re.compile(r"[\w./+-]+|[^\s\w]|\n *")
VALUES = (
    """
null|~|true|no|0|-1|1.5|1e-3|1e999|.nan|.inf|-.inf|0x1F|0o7|0b_|1_000|12:30|2020-01-01|2020-99-99|''|'1'|[]|{}|[1]
{a:1}|[[1,2],[3]]|&a|*a|!!int|!!bool|!!set|!x|${x}|_target_|<<|=|?|>|-|:|#|%|@|`|'|"|\\|\t|\x00|\x7f|é|sar|none
cross_entropy|regularizer|regularizer.gate|optim.lr|low|high|log|step|choices|seed|role|question|file|search:
ablation:|arms:|factors:|{model:[x]}|seeds:|99999999999999999999999|design:|components:|off|factorial|fractional
leave_one_out|one_factor_at_a_time|grid|tpe|cmaes|asha|median|shared|scope:|repeats:|overrides:|training.steps
""".strip("\n")
    .replace("\n", "|")
    .split("|")
)


def damaged(rng):
    """Return a study after one to four edits of lines and tokens."""
    text = rng.choice(TEXTS)
    for _ in range(rng.choice((1, 1, 2, 4))):
        lines = text.splitlines(keepends=True) or [""]
        at = rng.randrange(len(lines))
        edit = rng.randrange(7)
        if edit == 0:
            del lines[at]
        elif edit == 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        elif edit == 2:
            lines[at] = " " * rng.randrange(4) + lines[at].lstrip()
        else:
            tokens = TOKEN.findall(lines[at]) or [""]
            spot = rng.randrange(len(tokens))
            other = rng.choice(TOKEN.findall(text) or [""])
            tokens[spot] = {3: "", 4: tokens[spot] * 2, 5: other}.get(edit, rng.choice([*VALUES, "|"]))
            lines[at] = rng.choice(("", " ")).join(tokens)
        text = "".join(lines)
    return text


# ---------------------------------------------------------------- changes that a study survives


def write(values):
    """Return a study as YAML; the places of its values differ from those of the file it came from."""
    return yaml.safe_dump(values, sort_keys=False, width=200, default_flow_style=None)


def changed(rng):
    """Return a study after one to three changes that make sense."""
    values = copy.deepcopy(rng.choice(STUDIES))
    for change in rng.sample(CHANGES, rng.choice((1, 2, 3))):
        change(values, rng)
    return write(values)


def change_counts(values, rng):
    values["confirm"] = {"seeds": rng.randrange(1, 30)}
    values["seed"] = rng.randrange(10**6)
    values["limits"] = {rng.choice(("max_hours", "trial_minutes")): rng.randrange(1, 9)}


def change_trials(values, rng):
    if values["search"].get("sampler") != "grid":
        values["search"]["trials_per_arm"] *= rng.randrange(1, 6)


def change_ranges(values, rng):
    for entry in values["search"]["parameters"].values():
        if "low" in entry:
            entry["low"] *= rng.choice((1.5, 2))
        elif len(entry["choices"]) > 2:
            entry["choices"].pop(rng.randrange(len(entry["choices"])))


def drop_parameter(values, rng):
    values["search"]["parameters"].pop(rng.choice(list(values["search"]["parameters"])))


def drop_arm(values, rng):
    arms = values["ablation"].get("arms", {})
    free = [name for name in arms if name not in (values["ablation"].get("reference"), "cross_entropy")]
    if free:
        del arms[rng.choice(free)]


def add_arm(values, rng):
    own = {"optim.power": rng.randrange(1, 9), **rng.choice(({}, {"regularizer": "none"}, {"loss": "ohem"}))}
    values["ablation"].setdefault("arms", {})[f"added-{rng.randrange(9)}"] = own


def add_factor(values, rng):
    key, levels = rng.choice(
        (
            ("data.imbalance", [5, 20]),
            ("optim", ["adamw", "sgd"]),
            ("model", ["fcn_test_resnet", "fcn_lcnet_050"]),
        )
    )
    values["ablation"]["factors"] = {key: levels}


def change_scheduler(values, rng):
    name = rng.choice(("none", "successive_halving", "asha", "median"))
    values["search"]["scheduler"] = {"name": name, "min_fraction": rng.choice((0.25, 0.5))}
    values["search"]["reproducible"] = name not in ("asha", "median")


def change_terms(values, rng):
    values["search"]["repeats"] = rng.randrange(1, 4)
    values["search"]["finalists"] = {"top": rng.randrange(3), "seeds": 1}


def change_proxy(values, rng):
    values["search"]["overrides"] = rng.choice(({"training.steps": 100}, {"data.num_train": 500}))


def change_scope(values, rng):
    if rng.random() < 0.3:
        values["search"] |= {"scope": "none"}
        values["search"].pop("overrides", None)
    else:
        values["search"]["scope"] = "shared"
        values["search"]["parameters"] = {"optim.lr": {"low": 0.001, "high": 0.1, "log": True}}
    values["ablation"].pop("factors", None)


def change_design(values, rng):
    if "components" in values["ablation"]:
        values["ablation"]["design"] = rng.choice(("leave_one_out", "factorial", "fractional"))
        values["ablation"].pop("reference", None)


def change_order(values, rng):
    for part in (values, values["ablation"].get("arms", {}), values["ablation"].get("components", {})):
        for key in rng.sample(list(part), len(part)):
            part[key] = part.pop(key)


CHANGES = [
    change_counts,
    change_counts,
    change_order,
    change_order,
    change_trials,
    change_ranges,
    drop_parameter,
]
CHANGES += [
    drop_arm,
    add_arm,
    add_factor,
    change_scheduler,
    change_terms,
    change_proxy,
    change_scope,
    change_design,
]

# ---------------------------------------------------------------- mistakes of a known class


def put(path, value):
    """Return a mistake: the value at a dotted path of the first keys; keys of options stand in brackets."""
    keys = [key.strip("[]") for key in re.findall(r"\[[^]]+\]|[^.\[]+", path)]

    def change(values, rng):
        for key in keys[:-1]:
            values = values.setdefault(key, {})
        values[keys[-1]] = copy.deepcopy(value)

    return change


def drop(key):
    return lambda values, rng: values.pop(key) and None


def both(*changes):
    def change(values, rng):
        for one in changes:
            one(values, rng)

    return change


def text(old, new):
    """Return a mistake in the text: a regular expression that is replaced once."""

    def change(values, rng):
        found, count = re.subn(
            old, lambda match: match.expand(new), write(values), count=1, flags=re.MULTILINE
        )
        assert count
        return found

    return change


LR = "search.parameters.[optim.lr]"
ARM = "ablation.arms.broken"
EXPLICIT = both(put("ablation", {"arms": {"sar": {}, "plain": {"regularizer": "none"}}}), put("report", {}))
SEARCHED = both(EXPLICIT, put("search", {"parameters": {"optim.lr": {"low": 0.001, "high": 0.1}}}))
PULL = {"off": {"regularizer.pull_weight": 0.0}}


def explicit(*changes):
    """Return a mistake in a study of two arms of which nothing else is wrong."""
    return both(SEARCHED, *changes)


def design(name, components, *changes):
    return both(SEARCHED, put("ablation", {"design": name, "components": components}), *changes)


def off(**options):
    return {"off": {key.replace("__", "."): value for key, value in options.items()}}


FLOORS = {f"c{i}": off(optim__floor=i / 100) for i in range(1, 18)}
SWITCHES = {"pull": PULL, "ema": off(regularizer__ema_decay=0.0)}

# Each class: what the message says, and a mistake that makes it.
CLASSES = {
    "not YAML": (r"is not valid YAML", text(r"\Z", "x: [")),
    "not YAML: characters": (r"special characters are not allowed", text(r"\Z", "x: \0")),
    "nested": (r"nested too deeply", text(r"\Z", "x: " + "[" * 30 + "]" * 30)),
    "not keys at the top": (r"1:1: expected keys such as", text(r"(?s)\A.*\Z", "- a")),
    "duplicate": (r"given twice", text(r"\Z", "study: x")),
    "key that is not text": (r"a key must be plain text", text(r"\Z", "? [a]\n: b")),
    "merge": (r"merge keys are not allowed", text(r"\Z", "<<: {}")),
    "_target_": (r"_target_ is not allowed", put("_target_", "os.system")),
    "tag": (r"tags \(.*\) are not allowed", text(r"^study: .*", "study: !!python/name:os.system x")),
    "interpolation": (r"interpolation .*is not allowed", put("budget", "${oc.env:HOME}")),
    "interpolated key": (r"interpolation is not allowed", put("${x}", 1)),
    "unreadable": (r"cannot be read", text(r"^study: .*", "study: 2020-99-99")),
    "too large a number": (r"the number is too large", put("seed", 2**70)),
    "unknown key": (r"unknown key; ", put("confrim", {})),
    "missing": (r": is missing; ", drop("base")),
    "no section": (r"expected keys \(", put("confirm", 5)),
    "no list": (r"expected a list", put("base", "data=digit_scenes")),
    "wrong type": (r"is not an? (int|float|bool|text)", put("confirm.seeds", "many")),
    "out of range": (r"is outside the allowed range", put("confirm.seeds", 0)),
    "name": (r"is not a name", put("study", "../up")),
    "reserved name": (r"is the folder of single trainings", put("study", "train")),
    "no KEY=VALUE": (r"expected KEY=VALUE", put("base", ["quick"])),
    "value of base": (r"cannot read the value", put("base", ["optim.lr=!!bool x"])),
    "unknown part": (r"there is no (?!backbone)\w+ called", put("base", ["regularizer=nnoe"])),
    "option of another part": (
        r"has no option",
        explicit(put(ARM, {"regularizer": "none", "regularizer.gate": "all"})),
    ),
    "not a choice": (r"is not one of", put("search.scope", "some")),
    "objective": (r"is not a metric of the selection split", put("objective.metric", "test/miou")),
    "goal": (r"nor a cost", put("objective.also", [{"metric": "test/miou"}])),
    "goal without a metric": (r"metric is missing", put("objective.also", [{"mode": "min"}])),
    "goal twice": (
        r"a metric stands twice",
        put("objective", {"metric": "val/miou", "also": [{"metric": "val/miou"}]}),
    ),
    "orientation": (r"there is no such arm", explicit(put("report.orientation", {"nobody": 0.5}))),
    "orientation and factors": (
        r"one value for all levels",
        explicit(
            put("ablation.factors", {"optim.power": [0.5, 0.9]}), put("report.orientation", {"sar": 0.5})
        ),
    ),
    "orientation, a list": (r"expected arms with values", put("report.orientation", [1])),
    "cited row without a source": (r"a cited row has", put("report.cited", [{"name": "x", "value": 1}])),
    "cited, a year": (r"is not text; ", put("report.cited", [{"name": "x", "value": 1, "source": 2018}])),
    "cited, empty": (r"source: is empty", put("report.cited", [{"name": "x", "value": 1, "source": ""}])),
    "cited, too long": (
        r"characters are more than allowed",
        put("report.cited", [{"name": "x" * 81, "value": 1, "source": "y"}]),
    ),
    "cited, a control character": (
        r"does not print",
        put("report.cited", [{"name": "x\n", "value": 1, "source": "y"}]),
    ),
    "cited twice": (
        r"stands twice with this setting",
        put("report.cited", [{"name": "x", "value": 1, "source": "y"}] * 2),
    ),
    "too many cited rows": (
        r"more than a report may cite",
        put("report.cited", [{"name": "x", "value": 1, "source": "y"}] * 101),
    ),
    "report": (r"is not a metric of the report split", put("report.primary", "val/miou")),
    "report, a number": (r"is not the name of a metric", put("report.primary", 5)),
    "parameters": (r"expected entries such as", put("search.parameters", 5)),
    "nothing to search": (r"nothing to search", explicit(put("search", {"parameters": {}}))),
    "searched length": (
        r"a search may not change",
        put("search.parameters.[training.steps]", {"low": 1, "high": 2}),
    ),
    "low missing": (r"low is missing", put(LR, {"high": 0.1})),
    "low above high": (r"must be below", put(LR, {"low": 0.2, "high": 0.1})),
    "log from zero": (
        r"a log range needs",
        put("search.parameters.[optim.floor]", {"low": 0, "high": 1, "log": True}),
    ),
    "step with log": (r"does not go with log", put(LR, {"low": 0.1, "high": 1, "log": True, "step": 0.1})),
    "step too large": (r"must be above 0 and at most", put(LR, {"low": 0.1, "high": 1, "step": 5})),
    "step that does not divide": (r"is not a multiple of it", put(LR, {"low": 0.1, "high": 1, "step": 0.4})),
    "range and choices": (r"does not go with choices", put(LR, {"low": 0.1, "choices": [0.1, 1]})),
    "one choice": (r"at least two values", put(LR, {"choices": [0.1]})),
    "twice": (r"(a value|a level) stands twice", put(LR, {"choices": [0.1, 0.1]})),
    "range of words": (
        r"is not a number; give choices",
        put("search.parameters.[loss.when]", {"low": 1, "high": 2}),
    ),
    "two spellings": (
        r"is the same quantity as",
        explicit(
            put("search.parameters.[regularizer.ema_decay]", {"low": 0, "high": 0.9}),
            put("search.parameters.[regularizer.ema_half_life]", {"low": 0.1, "high": 0.9}),
        ),
    ),
    "inert parameter": (
        r"no arm has this option free and able to act",
        explicit(
            put("base", ["regularizer.pull_weight=0.0"]),
            put("search.parameters.[regularizer.update_confidence]", {"low": 0.1, "high": 0.9}),
        ),
    ),
    "batch": (r"is not a multiple of search.batch", explicit(put("search.trials_per_arm", 7))),
    "sampler": (r"'bayes' is not one of", put("search.sampler", "bayes")),
    "random search": (r"this is random search", explicit(put("search.sampler", "tpe"))),
    "start-up": (
        r"startup = \d+ is not a multiple",
        explicit(put("search.sampler", {"name": "gp", "startup": 3})),
    ),
    "cmaes with choices": (
        r"cmaes moves along numbers",
        explicit(put("search.sampler", {"name": "cmaes", "startup": 4}), put(LR, {"choices": [0.1, 0.2]})),
    ),
    "infinite grid": (r"a grid needs finitely many", explicit(put("search.sampler", "grid"))),
    "trials of a grid": (
        r"as many trials as it has cells",
        put("search", {"parameters": {}, "sampler": "grid", "trials_per_arm": 4, "scope": "none"}),
    ),
    "huge grid": (
        r"the grid has \d+ cells",
        explicit(
            put("search.sampler", "grid"),
            put(LR, {"low": 0.0001, "high": 1, "step": 0.0001}),
            put("search.parameters.[optim.floor]", {"low": 0, "high": 1, "step": 0.01}),
        ),
    ),
    "scheduler": (r"'hyperband' is not one of", put("search.scheduler", "hyperband")),
    "option of another scheduler": (
        r"has no such option; remove it",
        explicit(put("search.scheduler", {"name": "median", "reduction_factor": 2})),
    ),
    "term without a search": (
        r"has no effect where nothing is searched",
        explicit(put("search", {"scope": "none", "repeats": 2})),
    ),
    "timed scheduler": (r"which is timing", explicit(put("search.scheduler", "median"))),
    "finalists": (r"\d+ finalists of \d+ trials", explicit(put("search.finalists", {"top": 99}))),
    "tuned arm without shared": (r"goes with 'scope: shared' only", explicit(put("search.tune_on", "sar"))),
    "unknown tuned arm": (
        r"tune_on: no arm is called",
        explicit(put("search.scope", "shared"), put("search.tune_on", "sra")),
    ),
    "untuned parameter": (
        r"nobody would tune it",
        explicit(
            put("search.scope", "shared"),
            put("search.tune_on", "plain"),
            put("search.parameters.[regularizer.pull_weight]", {"low": 0.1, "high": 1}),
        ),
    ),
    "overrides": (r"expected options such as", put("search.overrides", 5)),
    "override of the method": (
        r"a proxy may change",
        explicit(put("search.overrides", {"regularizer.pull_weight": 1})),
    ),
    "override that does not build": (
        r"cannot be built with it",
        explicit(put("search.overrides", {"training.steps": 7})),
    ),
    "override of what is searched": (
        r"is searched; remove it",
        explicit(
            put("search.parameters.[training.batch_size]", {"choices": [8, 16]}),
            put("search.overrides", {"training.batch_size": 8}),
        ),
    ),
    "idle override": (
        r"changes nothing in any arm",
        explicit(put("search.overrides", {"training.grad_clip": 0.0})),
    ),
    "overrides without a search": (
        r"nothing is searched, so",
        explicit(put("search", {"scope": "none", "overrides": {"training.steps": 8}})),
    ),
    "no arms": (r"expected arms such as", put("ablation", {})),
    "no overrides": (r"expected overrides such as", put(ARM, 5)),
    "list in an arm": (r"expected one value", put(ARM, {"optim.lr": [1]})),
    "reference": (r"reference: no arm is called", put("ablation.reference", "nobody")),
    "factors": (r"expected factors such as", put("ablation.factors", 5)),
    "levels of a factor": (r"expected a list of levels", put("ablation.factors", {"model": 5})),
    "seed of an arm": (r"seeds and roles are the study's", explicit(put(ARM, {"seed": 1}))),
    "too many arms": (
        r"\d+ arms are more than a study may have",
        explicit(put("ablation.factors", {f"optim.k{i}": [*range(40)] for i in range(3)})),
    ),
    "equal arms": (r"are equal \(same options", explicit(put(ARM, {"regularizer": "sar"}))),
    "idle arm": (r"has nothing to tune while others tune", explicit(put(ARM, {"optim.lr": 0.1}))),
    "unequal terms": (r"compared on equal terms", explicit(put(ARM, {"data.imbalance": 7}))),
    "unbuildable arm": (
        r"needs anchor_dim = feature_dim",
        explicit(put(ARM, {"regularizer.projector_depth": 0, "regularizer.anchor_dim": 32})),
    ),
    "parts that do not fit": (
        r"does not fit data|does not go with|classifies with|simplex_etf needs",
        explicit(put("base", ["data=digits_lt", "model=fcn_lcnet_050"])),
    ),
    "anchors that do not fit": (
        r"need at least \d+ dimensions",
        explicit(put(ARM, {"regularizer.anchor_init": "simplex", "regularizer.anchor_dim": 4})),
    ),
    "two averaging times": (r"give exactly one of", explicit(put(ARM, {"regularizer.ema_decay": None}))),
    "steps": (r"is not a multiple of training.eval_every", explicit(put("base", ["training.steps=7"]))),
    "unbuildable search": (
        r"cannot be built with regularizer",
        explicit(
            put("base", ["regularizer.projector_depth=0"]),
            put("search.parameters.[regularizer.anchor_dim]", {"choices": [32, 48]}),
        ),
    ),
    "backbone": (r"there is no backbone called", explicit(put(ARM, {"model.backbone": "resnet_of_tests"}))),
    "devices": (r"GPUs do not go with", explicit(put("resources", {"gpus_per_worker": 1}))),
    "design": (r"'leave_two_out' is not one of explicit", put("ablation.design", "leave_two_out")),
    "explicit with components": (
        r"components go with a design",
        explicit(put("ablation.components", SWITCHES)),
    ),
    "no components": (r"needs components such as", explicit(put("ablation.design", "factorial"))),
    "no levels": (r"expected levels such as", design("factorial", {"pull": 5})),
    "one level": (r"needs two levels or more", design("factorial", {"pull": {"on": {}}})),
    "first level": (
        r"components.a.on.optim.lr",
        design("factorial", {"a": {"on": {"optim.lr": -1}, "off": {}}}),
    ),
    "component that cannot act": (r"no arm is left with it", design("leave_one_out", {"pull": {"off": {}}})),
    "components that collide": (
        r"both set optim.floor",
        design(
            "leave_one_out",
            {"a": {"x": {"optim.floor": 0.1}, "y": {}}, "b": {"x": {"optim.floor": 0.2}, "y": {}}},
        ),
    ),
    "reference left out": (
        r"the reference cannot be left out",
        design("factorial", SWITCHES, put("ablation.reference", "no_pull-no_ema")),
    ),
    "arm with a cell's name": (
        r"the design has an arm of this name",
        design("factorial", SWITCHES, put("ablation.arms", {"full": {}})),
    ),
    "two cells of one name": (
        r"two cells of the design would be called",
        design("factorial", {"no_a": {"x": {}, "b": {}, "off": {}}, "a": off(), "no": {"x": {}, "a_b": {}}}),
    ),
    "long names": (
        r"would be called .* more than 64",
        design("factorial", {"a" * 60: PULL, "b" * 9: off(optim__floor=0.1)}),
    ),
    "too many cells": (r"\d+ cells are more than", design("factorial", FLOORS)),
    "few components": (r"have no fraction of resolution IV", design("fractional", SWITCHES)),
    "levels of a fraction": (
        r"fractional needs components of two levels",
        design("fractional", {"a": {"x": {}, "y": {}, "z": {}}}),
    ),
    "many components": (r"are more than fractions are made for", design("fractional", FLOORS)),
}


def mistaken(name, rng):
    """Return a study with one mistake of a class."""
    values = copy.deepcopy(rng.choice(STUDIES))
    return CLASSES[name][1](values, rng) or write(values)


# ---------------------------------------------------------------- the test

# Hypothesis draws numbers that stand in the modules loaded so far, so what is drawn depends on earlier tests:
# studies that make sense are half of all, to be well above the share that must be plans whatever is drawn.
OTHERS = ["changed"] * (4 * len(CLASSES) // 3) + ["damaged"] * (len(CLASSES) // 3)


def outcome(file, raw):
    """Load a study as the command does; return None for a plan, or the one UserError."""
    file.write_text(raw, encoding="utf-8")
    try:
        study, source = load_study(file)
        arms = make_arms(study, source)
        check_backbones(arms, source, backbone_names())
        check_devices(study, arms, source)
    except UserError as error:
        return error
    assert arms
    assert describe_plan(study, arms) + describe_batch(study, arms, 8)
    return None


def test_a_plan_or_one_user_error(tmp_path, monkeypatch):
    for name in ("ray", "torch", "optuna"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it is an error
    file, seen, outcomes = tmp_path / "s.yaml", Counter(), Counter()

    @settings(
        max_examples=RUNS,
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(kind=st.sampled_from([*CLASSES, *OTHERS]), seed=st.integers(0, 2**32))
    def check(kind, seed):
        rng = random.Random(seed)
        raw = {"changed": changed, "damaged": damaged}[kind](rng) if kind in OTHERS else mistaken(kind, rng)
        error = outcome(file, raw)
        outcomes["plan" if error is None else "error"] += 1
        if error is None:
            assert kind in OTHERS
            return
        assert re.match(rf"{re.escape(str(file))}:\d+:\d+: ", str(error))
        assert "\n" not in str(error)
        classes = [name for name, (said, _) in CLASSES.items() if re.search(said, str(error))]
        assert classes, f"a message of no known class: {error}"
        assert kind in OTHERS or kind in classes, (kind, str(error))
        seen.update(classes)

    for name in CLASSES:
        check = example(kind=name, seed=0)(check)
    check()
    assert set(seen) == set(CLASSES)
    assert sum(outcomes.values()) >= RUNS
    assert outcomes["plan"] >= 0.3 * sum(outcomes.values())
