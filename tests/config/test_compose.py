"""Composition from groups: defaults, choices, values, and what a mistake is answered with."""

import dataclasses

import pytest

from sarx.config.compose import CONF, EXPERIMENT, compose, group_names, parse_overrides
from sarx.config.errors import UserError
from sarx.config.schema import GROUPS, as_dict, build

FILES = [(group, name) for group in GROUPS for name in group_names(group)]
VARIANTS = {"pascal_context": ("pascal_context_60",), "coco_stuff": ("coco_stuff_10k",)}


def test_defaults():
    config = compose([])
    assert config.data.name == "digit_scenes"
    assert config.regularizer.name == "sar"
    assert config.loss.name == "cross_entropy"
    assert (config.optim.name, config.optim.lr) == ("adamw", 0.003)
    assert (config.training.steps, config.training.epochs) == (400, 4)
    assert (config.seed, config.role) == (0, "search")


def test_a_choice_replaces_the_group_and_a_value_one_option():
    config = compose(["optim=sgd", "optim.weight_decay=0.5", "regularizer=none"])
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("sgd", 0.1, 0.5)
    assert dataclasses.asdict(config.regularizer) == {"name": "none"}
    assert compose({"optim": "sgd", "optim.weight_decay": 0.5, "regularizer": "none"}) == config


def test_order_does_not_matter():
    assert compose(["optim.lr=0.5", "optim=sgd"]) == compose(["optim=sgd", "optim.lr=0.5"])


@pytest.mark.parametrize(("group", "name"), FILES)
def test_every_file_composes(group, name, tmp_path):
    pairs = {group: name}
    if name.startswith("pool_"):
        pairs["data"] = "digits_lt"
    if name == "folder":
        (tmp_path / "classes.txt").write_text("road\ntree\n")
        pairs["data.root"] = str(tmp_path)
    if group == "data" and getattr(GROUPS["data"].get(name), "task", "") == "classification":
        pairs["model"] = "pool_test_efficientnet"
    if name == "protoseg":
        pairs["model.classifier"] = "prototypes"
    config = compose(pairs)
    assert build(as_dict(config)) == config
    part = getattr(config, group)
    assert name in (getattr(part, "name", name), *VARIANTS.get(getattr(part, "name", ""), ()))


def test_files_belong_to_groups_and_every_registered_part_composes():
    assert {path.name for path in CONF.iterdir() if path.is_dir()} <= {*GROUPS, EXPERIMENT}
    for group, owners in GROUPS.items():
        names = set(group_names(group))
        assert names
        assert names == {path.stem for path in (CONF / group).glob("*.yaml")} | (owners.keys() - {"*"})


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        (["optim.lrr=1"], "optim.lrr", "unknown key; did you mean 'optim.lr'?"),
        (["optm.lr=1"], "optm.lr", "unknown key; did you mean 'optim.lr'?"),
        (["regularizer=none", "regularizer.pull_weight=1"], "regularizer.pull_weight", "sar has"),
        (["loss.tau=2"], "loss.tau", "loss=cross_entropy has no option 'tau' (logit_adjusted has)"),
        (["optim.name=sgd"], "optim.name", "unknown key"),
        (["optimizer=sgd"], "optimizer", "unknown key"),
        (["regularizer=saar"], "regularizer", "no regularizer called 'saar'; did you mean 'sar'?"),
        (["model=fcn_lcnet_50"], "model", "did you mean 'fcn_lcnet_050'?"),
        (["regularizer=../loss/none"], "regularizer", "there is no regularizer called '../loss/none'"),
        (["optim.lr=fast"], "optim.lr", "'fast' is not a float"),
        (["optim.lr=[1, 2]"], "optim.lr", "[1, 2] is not a float"),
        (["optim.lr="], "optim.lr", "'' is not a float"),
        (["optim.lr=true"], "optim.lr", "True is not a float"),
        (["optim.lr=0"], "optim.lr", "0.0 is outside the allowed range (0, 10]"),
        (["optim.lr=.nan"], "optim.lr", "nan is outside the allowed range"),
        (["optim.lr=inf"], "optim.lr", "inf is outside the allowed range"),
        (["optim.lr=1" + "0" * 400], "optim.lr", "the number is too large"),
        (["training.batch_size=0x" + "f" * 5000], "training.batch_size", "the number is too large"),
        (["training.steps=1.5"], "training.steps", "1.5 is not an int"),
        (
            ["training.precision=float8"],
            "training.precision",
            "not one of float32, bfloat16, float16, float64",
        ),
        (["training.grad_clip=-1"], "training.grad_clip", "outside the allowed range [0, "),
        (["training.accumulation=17"], "training.batch_size", "16 samples are too few for 17 micro-batches"),
        (
            ["model=deeplabv3_test_resnet", "training.accumulation=9"],
            "training.batch_size",
            "each with 2 images or more, as the decoder needs; take at least 18",
        ),
        (
            ["data=imagenet_lt", "data.root=/x", "model=pool_resnet50", "data.crop=128", "data.resize=64"],
            "data.crop",
            "128 is more than data.resize = 64",
        ),
        (["training.sync_bn=true"], "training.sync_bn", "on CUDA alone; set training.device=cuda or drop it"),
        (["training.steps=500", "training.eval_every=300"], "training.steps", "not a multiple"),
        (["model.pretrained=1"], "model.pretrained", "1 is not a bool"),
        (["regularizer.gate=some"], "regularizer.gate", "'some' is not one of all, per_class, always"),
        (["data=digits_lt"], "model.decoder", "needs pool; choose a model such as model=pool_"),
        (["optim.lr=${oc.env:HOME}"], "optim.lr", "interpolation"),
        (["optim.lr=1", "optim.lr=2"], "optim.lr", "given twice"),
        (["optim.lr"], None, "expected KEY=VALUE"),
        (["=1"], None, "expected KEY=VALUE"),
        (["optim.lr=[1"], "optim.lr", "cannot read the value"),
        (["optim.lr=2020-13-45"], "optim.lr", "cannot read the value"),
        (["optim.lr=!!bool x"], "optim.lr", "cannot read the value"),
        (["optim.lr=!!python/object:os.system x"], "optim.lr", "cannot read the value"),
        (["seed=-1"], "seed", "outside the allowed range"),
        (["role=test"], "role", "'test' is not one of search, confirm"),
    ],
)
def test_mistakes_name_the_key_and_what_is_right(overrides, key, message):
    with pytest.raises(UserError) as caught:
        compose(overrides)
    assert caught.value.key == key
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"optim": 5}, "optim"),
        ({"optimizer": {}}, "optimizer"),
        ({"regularizer": {"name": "saar"}}, "regularizer"),
        ({"optim": {"lrr": 1}}, "optim.lrr"),
    ],
)
def test_build_refuses_what_is_not_a_config(values, key):
    with pytest.raises(UserError) as caught:
        build(values)
    assert caught.value.key == key


def test_the_two_spellings_of_the_averaging_time_exclude_each_other():
    half = compose({"regularizer.ema_half_life": 0.1}).regularizer
    assert (half.ema_decay, half.ema_half_life) == (None, 0.1)
    decay = compose({"regularizer.ema_decay": 0.5}).regularizer
    assert (decay.ema_decay, decay.ema_half_life) == (0.5, None)
    for pairs in (
        {"regularizer.ema_decay": 0.5, "regularizer.ema_half_life": 0.1},
        {"regularizer.ema_decay": None},
    ):
        with pytest.raises(UserError, match="exactly one of ema_decay and ema_half_life"):
            compose(pairs)


def test_optional_keys_are_left_out_where_no_part_has_them():
    pairs = {"regularizer": "none", "regularizer.pull_weight": 1.0}
    assert compose(pairs, optional=frozenset({"regularizer.pull_weight"})) == compose({"regularizer": "none"})


@pytest.mark.parametrize("text", ["1", "1.0", "1e0", "1E0", "+1", "10e-1", "'1'"])
def test_spellings_of_one_are_equal(text):
    for key, wanted in (("optim.lr", 1.0), ("regularizer.pull_weight", 1.0), ("training.eval_every", 1)):
        group, name = key.split(".")
        value = getattr(getattr(compose([f"{key}={text}"]), group), name)
        assert value == wanted
        assert type(value) is type(wanted)


def test_numbers_that_yaml_1_1_reads_as_text():
    assert parse_overrides(["optim.lr=1e-3"]) == {"optim.lr": "1e-3"}
    assert compose(["optim.lr=1e-3"]).optim.lr == 0.001
    assert compose(["training.steps=4e2"]).training.steps == 400
    assert compose(["seed='9007199254740993'"]).seed == 9007199254740993


def test_minus_zero_is_zero():
    assert str(compose(["optim.weight_decay=-0.0"]).optim.weight_decay) == "0.0"
