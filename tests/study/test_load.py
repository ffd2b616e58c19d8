"""Study files: what is read, and one message with file:line:column for every mistake."""

from pathlib import Path

import pytest

from sarx.config.errors import UserError
from sarx.config.schema.regularizers import SarConfig
from sarx.models.backbone_names import backbone_names
from sarx.study.design import check_backbones, make_arms
from sarx.study.load import load_study

STUDIES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_of_the_repository_loads(file):
    study, source = load_study(file)
    arms = make_arms(study, source)
    check_backbones(arms, source, backbone_names())
    assert study.question.endswith("?")
    assert any(arm.name == study.ablation.reference for arm in arms)
    tuned = [arm for arm in arms if arm.space or arm.takes]
    assert len(tuned) == len(arms) or study.search.scope == "none"


def is_published(config):
    """Return whether nothing of SAR or the loss departs from the published run, but for the pull."""
    published = SarConfig(pull_weight=config.regularizer.pull_weight)
    return config.regularizer == published and config.loss.name == "cross_entropy"


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_but_the_demonstration_has_the_arms_that_decide(file):
    """no_pull and logit_adjusted decide what SAR's gain is made of: no study leaves them out (protocol)."""
    study, source = load_study(file)
    arms = make_arms(study, source)
    if study.budget == "demonstration budget":
        return
    plain = [arm.config for arm in arms if arm.config.regularizer.name == "none"]
    sar = [arm.config for arm in arms if arm.config.regularizer.name == "sar"]
    assert {config.loss.name for config in plain} >= {"cross_entropy", "logit_adjusted"}
    assert {config.regularizer.pull_weight for config in sar if is_published(config)} == {0.0, 0.1}


def test_every_study_of_the_repository_has_a_folder_of_its_own():
    names = [load_study(file)[0].study for file in STUDIES]
    assert len(set(names)) == len(names)


def test_a_study_is_read(load, text):
    study, arms = load(text)
    assert (study.study, study.question, study.file) == ("small", "Does it help?", text)
    assert (study.search.trials_per_arm, study.confirm.seeds, study.seed) == (8, 3, 0)
    assert [arm.key for arm in arms[:3]] == [
        "model=fcn_test_efficientnet/sar",
        "model=fcn_test_efficientnet/plain",
        "model=fcn_test_efficientnet/no_pull",
    ]
    assert len(arms) == 6
    assert [p.key for p in arms[0].space] == ["optim.lr", "regularizer.anchor_dim"]
    assert [p.key for p in arms[1].space] == ["optim.lr"]
    assert arms[3].config.model.backbone == "test_resnet"
    assert arms[2].config.regularizer.pull_weight == 0


def test_looks_are_read(load, text):
    study, _ = load(text.replace("seeds: 3", "seeds: 3, looks: [2, 3]"))
    assert study.confirm.looks == (2, 3)


# Each case: the text that is replaced, by what, the place of the mistake, and what the message says.
MISTAKES = {
    "top key": ("confirm:", "confrim:", "21:1", ["confrim", "did you mean 'confirm'?"]),
    "key in search": ("  batch: 4", "  batchs: 4", "19:3", ["search.batchs", "did you mean 'batch'?"]),
    "parameter key": ("optim.lr: {", "optim.lrr: {", "16:5", ["optim.lrr", "did you mean 'optim.lr'?"]),
    "key of a parameter": ("low: 0.001,", "lo: 0.001,", "16:16", ["optim.lr.lo", "did you mean 'low'?"]),
    "wrong type": ("seeds: 3", "seeds: many", "21:11", ["confirm.seeds", "'many' is not an int"]),
    "wrong type, top": ("study: small", "study: small\nseed: [1]", "3:1", ["seed", "[1] is not an int"]),
    "bound outside": ("low: 0.001", "low: 0.0", "16:16", ["optim.lr.low", "0.0", "(0, 10]"]),
    "low above high": ("low: 0.001", "low: 0.2", "16:16", ["low = 0.2 must be below high = 0.1"]),
    "log from zero": (
        "optim.lr: {low: 0.001",
        "optim.weight_decay: {low: 0",
        "16:26",
        ["optim.weight_decay.low", "a log range needs low > 0"],
    ),
    "step of nan": ("log: true", "step: .nan", "16:39", ["optim.lr.step", "nan must be above 0"]),
    "low missing": ("low: 0.001, ", "", "16:5", ["low is missing"]),
    "one choice": ("[32, feature_dim]", "[32]", "17:30", ["choices", "at least two"]),
    "choice twice": ("[32, feature_dim]", "[32, 32.0]", "17:30", ["a value stands twice"]),
    "unknown choice": ("feature_dim]", "feature_dm]", "17:30", ["'feature_dm' is not one of feature_dim"]),
    "searched data": (
        "optim.lr: {low: 0.001, high: 0.1",
        "data.imbalance: {low: 1, high: 2",
        "16:5",
        ["data"],
    ),
    "searched length": ("optim.lr: {low: 0.001, high: 0.1", "training.steps: {low: 1, high: 2", "16:5", []),
    "anchors that do not fit, searched": (
        "regularizer.anchor_dim: {choices: [32, feature_dim]}",
        "regularizer.anchor_dim: {choices: [4, 32]}\n"
        "    regularizer.anchor_init: {choices: [gaussian, simplex]}",
        "18:5",
        ["anchor_init = simplex", "anchor_dim = 4", "simplex anchors of 11 classes need at least 10"],
    ),
    "no projector, searched": (
        "regularizer.anchor_dim: {choices: [32, feature_dim]}",
        "regularizer.projector_depth: {low: 0, high: 3}\n    regularizer.anchor_dim: {choices: [32, 48]}",
        "17:5",
        ["projector_depth = 0", "needs anchor_dim = feature_dim; they are 32 and 64"],
    ),
    "both averaging times": (
        "  trials_per_arm",
        "    regularizer.ema_decay: {low: 0, high: 0.9}\n"
        "    regularizer.ema_half_life: {low: 0.1, high: 0.9}\n  trials_per_arm",
        "19:5",
        ["ema_half_life", "the same quantity as regularizer.ema_decay"],
    ),
    "parameter without an arm": (
        "optim.lr: {low: 0.001, high: 0.1",
        "loss.tau: {low: 0.001, high: 0.1",
        "16:5",
        ["search.parameters.loss.tau", "no arm has this option"],
    ),
    "reference": ("reference: sar", "reference: sra", "8:3", ["ablation.reference", "did you mean 'sar'?"]),
    "reference, a list": ("reference: sar", "reference: [sar]", "8:3", ["ablation.reference"]),
    "regularizer of an arm": ("regularizer: none", "regularizer: nnoe", "11:13", ["did you mean 'none'?"]),
    "model of an arm": (
        "regularizer: none",
        "model: fcn_lcnet_05",
        "11:13",
        ["ablation.arms.plain.model", "did you mean 'fcn_lcnet_050'?"],
    ),
    "level": ("fcn_test_resnet]", "fcn_test_resnt]", "7:44", ["did you mean 'fcn_test_resnet'?"]),
    "backbone of an arm": (
        "regularizer: none",
        "model.backbone: test_resnt",
        "11:13",
        ["ablation.arms.plain.model.backbone", "did you mean 'test_resnet'?"],
    ),
    "backbone of base": (
        "training=quick]",
        "model.backbone=test_resnt]",
        "3:27",
        ["base.1", "did you mean 'test_resnet'?"],
    ),
    "backbone of a factor": ("{model: [", "{model.backbone: [x, ", "7:13", ["no backbone called 'x'"]),
    "backbone that is searched": (
        "regularizer.anchor_dim: {choices: [32, feature_dim]}",
        "model.backbone: {choices: [test_resnet, x]}",
        "17:22",
        ["search.parameters.model.backbone.choices", "no backbone called 'x'"],
    ),
    "option of an arm": (
        "regularizer.pull_weight: 0.0",
        "regularizer.pul_weight: 0.0",
        "13:7",
        ["did you mean 'regularizer.pull_weight'?"],
    ),
    "option of another part": (
        "regularizer: none",
        "regularizer: none, regularizer.gate: all",
        "11:32",
        ["regularizer=none has no option 'gate'"],
    ),
    "value of an arm": ("pull_weight: 0.0", "pull_weight: -1", "13:7", ["-1.0", "[0, 1000]"]),
    "list in an arm": ("pull_weight: 0.0", "pull_weight: [0]", "13:7", ["expected one value"]),
    "seed of an arm": ("sar: {}", "sar: {seed: 3}", "10:11", ["seeds and roles are the study's"]),
    "arm without overrides": ("sar: {}", "sar: 5", "10:5", ["expected overrides"]),
    "nothing to tune": (
        "regularizer: none",
        "regularizer: none, optim.lr: 0.1",
        "11:5",
        ["plain", "nothing to tune while others tune"],
    ),
    "equal arms": ("sar: {}", "sar: {}\n    twin: {regularizer: sar}", "11:5", ["/sar'", "/twin'", "equal"]),
    "arms that differ in a label": (
        "sar: {}",
        "sar: {}\n    twin: {training.images_logged: 1}",
        "11:5",
        ["/sar'", "/twin'", "equal"],
    ),
    "part of base": ("training=quick]", "training=quik]", "3:27", ["base.1", "did you mean 'quick'?"]),
    "option of base": ("training=quick]", "optim.rl=1]", "3:27", ["optim.rl", "did you mean 'optim.lr'?"]),
    "base twice": ("training=quick]", "data=digits_lt]", "3:27", ["base.1", "data: given twice"]),
    "base without a value": ("training=quick]", "training]", "3:27", ["expected KEY=VALUE"]),
    "base of bad text": ("training=quick]", "'optim.lr=!!bool x']", "3:27", ["cannot read the value"]),
    "base is text": ("base: [", "base: quick #", "3:1", ["base", "expected a list"]),
    "base missing": ("base: [", "#", "1:1", ["base: is missing"]),
    "duplicate key": ("  batch: 4", "  batch: 4\n  batch: 8", "20:3", ["batch: given twice"]),
    "interpolation": ("seeds: 3", "seeds: '${oc.env:X}'", "21:18", ["interpolation (${oc.env:X})"]),
    "interpolated key": ("sar: {}", "'${oc.env:X}': {}", "10:5", ["interpolation"]),
    "interpolation in base": ("training=quick]", "'optim.lr=${x}']", "3:27", ["interpolation"]),
    "_target_": ("sar: {}", "sar: {_target_: os.system}", "10:11", ["_target_ is not allowed"]),
    "tag": ("seeds: 3", "seeds: !!python/name:os.system x", "21:18", ["tags", "not allowed"]),
    "tag that does not fit": ("seeds: 3", "seeds: !!bool x", "21:18", ["tags", "not allowed"]),
    "tag of a mapping": ("sar: {}", "sar: !!set {}", "10:10", ["tags", "not allowed"]),
    "merge key": ("sar: {}", "sar: {<<: {}}", "10:11", ["merge keys"]),
    "impossible date": ("study: small", "study: 2020-13-45", "2:8", ["cannot be read"]),
    "number too large": ("seeds: 3", "seeds: 0x" + "f" * 5000, "21:18", ["too large"]),
    "study name": ("study: small", "study: ../up", "2:1", ["study", "'../up' is not a name"]),
    "study name, a number": ("study: small", "study: 5", "2:1", ["study", "5 is not a name"]),
    "arm name": ("    plain:", "    Plain arm:", "11:5", ["'Plain arm' is not a name"]),
    "long arm name": ("    plain:", f"    {'a' * 65}:", "11:5", ["at most 64 characters"]),
    "batch": ("trials_per_arm: 8", "trials_per_arm: 6", "18:3", ["6 is not a multiple", "batch = 4"]),
    "sampler": ("sampler: qmc", "sampler: bayes", "20:3", ["'bayes' is not one of qmc, random"]),
    "objective": ("val/miou", "test/miou", "4:13", ["objective.metric", "val/miou"]),
    "report": ("test/miou", "val/miou", "5:10", ["report.primary", "test/miou"]),
    "secondary": ("test/miou,", "test/miou, secondary: [val/x],", "5:30", ["report.secondary", "'val/x'"]),
    "cited, no list": (
        "test/miou,",
        "test/miou, cited: {name: x},",
        "5:30",
        ["report.cited", "expected a list"],
    ),
    "cited without a source": (
        "test/miou,",
        "test/miou, cited: [{name: x, value: 0.5}],",
        "5:38",
        ["report.cited.0", "source is missing"],
    ),
    "key of a cited row": (
        "test/miou,",
        "test/miou, cited: [{name: x, valeu: 0.5}],",
        "5:48",
        ["report.cited.0.valeu", "did you mean 'value'?"],
    ),
    "value of a cited row": (
        "test/miou,",
        "test/miou, cited: [{name: x, source: y, value: high}],",
        "5:59",
        ["report.cited.0.value", "'high' is not a float"],
    ),
    "value of a cited row, not finite": (
        "test/miou,",
        "test/miou, cited: [{name: x, source: y, value: .inf}],",
        "5:59",
        ["report.cited.0.value", "inf is outside"],
    ),
    "name of a cited row": (
        "test/miou,",
        'test/miou, cited: [{name: "a\\nb", source: y, value: 1}],',
        "5:39",
        ["report.cited.0.name", "does not print ('\\n')"],
    ),
    "long name of a cited row": (
        "test/miou,",
        f"test/miou, cited: [{{name: {'x' * 81}, source: y, value: 1}}],",
        "5:39",
        ["report.cited.0.name", "81 characters are more than allowed (80)"],
    ),
    "empty source of a cited row": (
        "test/miou,",
        "test/miou, cited: [{name: x, source: '  ', value: 1}],",
        "5:48",
        ["report.cited.0.source", "is empty"],
    ),
    "source that is a year": (
        "test/miou,",
        "test/miou, cited: [{name: x, source: 2018, value: 1}],",
        "5:48",
        ["report.cited.0.source", "2018 is not text; put it into quotes"],
    ),
    "cited row twice": (
        "test/miou,",
        "test/miou, cited: [{name: x, source: y, value: 1}, {name: x, source: z, value: 2}],",
        "5:71",
        ["report.cited.1.name", "'x' stands twice"],
    ),
    "empty section": ("confirm: {seeds: 3}", "confirm:", "21:1", ["confirm", "expected keys (seeds, looks)"]),
    "looks beyond": ("seeds: 3", "seeds: 3, looks: [2, 5]", "21:21", ["confirm.looks", "confirm.seeds=3"]),
    "looks that fall": ("seeds: 3", "seeds: 3, looks: [3, 2]", "21:21", ["confirm.looks", "rising"]),
    "looks at one seed": ("seeds: 3", "seeds: 3, looks: [1, 3]", "21:21", ["confirm.looks", "from 2 on"]),
    "looks are no list": ("seeds: 3", "seeds: 3, looks: 3", "21:21", ["confirm.looks", "such as [5, 10]"]),
    "nothing to search": ("search:\n  parameters:", "search:\n  x:", "15:3", ["search.x", "unknown key"]),
    "too many arms": (
        "{model: [fcn_test_efficientnet, fcn_test_resnet]}",
        "{" + ", ".join(f"optim.k{i}: [{', '.join(map(str, range(50)))}]" for i in range(30)) + "}",
        "7:3",
        ["ablation.factors", "more than a study may have"],
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_message_with_its_place(load, text, case):
    old, new, place, said = MISTAKES[case]
    if case in ("backbone of an arm", "backbone of base"):  # one level: two would be equal
        text = text.replace("fcn_test_efficientnet, fcn_test_resnet", "fcn_test_efficientnet")
    assert text.count(old) == 1
    with pytest.raises(UserError) as caught:
        load(text.replace(old, new))
    message = str(caught.value)
    assert message.startswith(f"s.yaml:{place}: ")
    assert [part for part in said if part not in message] == []
    assert "\n" not in message


@pytest.mark.parametrize(
    ("raw", "start", "said"),
    [
        ("study: [a\nb: c", "s.yaml:2:2: ", "is not valid YAML"),
        ("a: b: c", "s.yaml:1:5: ", "is not valid YAML"),
        ("a: b\nc: \0", "s.yaml:2:4: ", "special characters are not allowed"),
        ("a: 1\n---\na: 2", "s.yaml:2:1: ", "is not valid YAML"),
        ("a: *x", "s.yaml:1:4: ", "undefined alias"),
        ("[" * 100_000, "s.yaml:1:1: ", "nested too deeply"),
        ("a: " + "[" * 30 + "]" * 30, "s.yaml:1:24: ", "nested too deeply"),
        ("a: &x [*x]", "s.yaml:1:4: ", "nested too deeply"),
        ("- a\n- b", "s.yaml:1:1: ", "expected keys"),
        ("just text", "s.yaml:1:1: ", "expected keys"),
        ("? [a]\n: b", "s.yaml:1:3: ", "a key must be plain text"),
        ("", "s.yaml: ", "the file is empty"),
        ("# only a comment", "s.yaml: ", "the file is empty"),
        (b"study: \xff", "s.yaml: ", "is not UTF-8 text (byte 7)"),
        ("#" * 1_000_001, "s.yaml: ", "1000001 bytes are more than"),
    ],
)
def test_what_is_not_a_study_at_all(load, raw, start, said):
    with pytest.raises(UserError) as caught:
        load(raw)
    assert str(caught.value).startswith(start)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_alias_bomb_is_refused_before_it_grows(load):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(UserError, match=r"^s\.yaml:\d+:\d+: too many values"):
        load("\n".join(lines))


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "there.yaml").write_text("a: b")
    with pytest.raises(UserError, match=r"gone\.yaml: there is no such file; in that folder: .*there\.yaml"):
        load_study(tmp_path / "gone.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        load_study(tmp_path)


def test_an_arm_may_spell_what_base_spells_otherwise(load, text):
    text = text.replace("training=quick]", "regularizer.ema_half_life=0.1]")
    _, arms = load(text.replace("regularizer.pull_weight: 0.0", "regularizer.ema_decay: 0.5"))
    chosen = {arm.name: arm.config.regularizer for arm in arms}
    assert (chosen["no_pull"].ema_decay, chosen["no_pull"].ema_half_life) == (0.5, None)
    assert (chosen["sar"].ema_decay, chosen["sar"].ema_half_life) == (None, 0.1)


def test_one_fixed_spelling_closes_both(load, text):
    extra = "    regularizer.ema_half_life: {low: 0.01, high: 0.5}\n  trials_per_arm"
    text = text.replace("  trials_per_arm", extra).replace("pull_weight: 0.0", "ema_decay: 0.0")
    spaces = {arm.name: [p.key for p in arm.space] for arm in load(text)[1]}
    assert "regularizer.ema_half_life" in spaces["sar"]
    assert "regularizer.ema_half_life" not in spaces["no_pull"]


@pytest.mark.parametrize("off", ["search: none", "search: {scope: none}", "# no search"])
def test_without_a_search_every_arm_runs_its_default(load, text, off):
    study, arms = load(text[: text.index("search:")] + off + "\nconfirm: {seeds: 2}\n")
    assert study.search.scope == "none"
    assert all(arm.space == () for arm in arms)


def test_settings_replace_values(load, text):
    study, _ = load(text, ["confirm.seeds=2", "search.trials_per_arm=1e1", "search.batch=5", "seed=7"])
    assert (study.confirm.seeds, study.search.trials_per_arm, study.seed) == (2, 10, 7)
    study, arms = load(text, ["base=[training.steps=4, training.eval_every=2]", "search=none"])
    assert arms[0].config.training.steps == 4
    assert study.search.scope == "none"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("confirm.seeds", "--set: 'confirm.seeds': expected KEY=VALUE"),
        ("confirms.seeds=2", "--set: confirms.seeds: unknown key; did you mean 'confirm'?"),
        ("confirm.seed=2", "--set: confirm.seed: unknown key; did you mean 'seeds'?"),
        ("study.x=2", "--set: study.x: study has no parts"),
        ("confirm.seeds=0", "--set: confirm.seeds: 0 is outside the allowed range [1, 1000]"),
        ("confirm={seeds: 0}", "--set: confirm.seeds: 0 is outside"),
        ("confirm.seeds=[1", "--set confirm.seeds:1:3: is not valid YAML"),
        ("confirm.seeds=${oc.env:X}", "--set confirm.seeds:1:1: interpolation"),
        ("confirm.seeds=2020-13-45", "--set confirm.seeds:1:1: cannot be read"),
        ("ablation={arms: {a: {1: 2}}}", "--set: ablation.arms.a.1: unknown key"),
        ("question=x", "--set: question: unknown key"),
        ("file=x", "--set: file: unknown key"),
        ("=x", "--set: unknown key"),
        ("search.trials_per_arm=6", "--set: search.trials_per_arm: 6 is not a multiple"),
        ("search.batch=3", "s.yaml:18:3: search.trials_per_arm: 8 is not a multiple of search.batch = 3"),
    ],
)
def test_mistakes_in_settings(load, text, setting, said):
    with pytest.raises(UserError) as caught:
        load(text, [setting])
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_arms_of_one_level_are_compared_on_equal_terms(tmp_path):
    text = Path("search_spaces/demo.yaml").read_text(encoding="utf-8")
    file = tmp_path / "unequal.yaml"
    file.write_text(text.replace("{regularizer: none}", "{regularizer: none, training.steps: 400}"))
    study, source = load_study(file)
    with pytest.raises(UserError, match=r"unequal.yaml:\d+:\d+: .*training.steps: .*equal terms"):
        make_arms(study, source)


def test_cited_rows_hold_any_printable_text(load, text):
    row = "{name: 'DeepLabV3+ [3] \\input{x} \u4e2d', value: 0.785, source: 'Chen et al. 2018, table 5'}"
    study, _ = load(
        text.replace("test/miou,", f"test/miou, cited: [{row}, {{name: b, source: c, value: 1}}],")
    )
    first, second = study.report.cited
    assert (first.name, first.value) == ("DeepLabV3+ [3] \\input{x} \u4e2d", 0.785)
    assert (first.source, first.setting) == ("Chen et al. 2018, table 5", "")
    assert (second.value, type(second.value)) == (1.0, float)
