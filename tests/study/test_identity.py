"""Trial identities: a golden list, what counts and what does not."""

import dataclasses
import json
from pathlib import Path

import pytest

from sarx.config.compose import compose
from sarx.study.identity import changed_files, source_digest, training_code, trial_id

GOLDEN = json.loads((Path(__file__).parent / "golden_ids.json").read_text())
FIXED = {"data_fingerprint": "digits:1", "code": "c0de"}


def identity(*overrides, **changes):
    return trial_id(compose(overrides), **{**FIXED, **changes})


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: " ".join(row["overrides"]) or "default")
def test_golden(row):
    assert identity(*row["overrides"]) == row["trial_id"]


def test_golden_ids_are_sixteen_hex_digits_and_differ():
    ids = [row["trial_id"] for row in GOLDEN]
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in ids)
    assert len(set(ids)) == len(ids) > 8


@pytest.mark.parametrize(
    "same",
    [
        ["optim.lr=1", "regularizer.pull_weight=2"],
        ["regularizer.pull_weight=2", "optim.lr=1"],
        ["optim.lr=1.0", "regularizer.pull_weight=2.0"],
        ["optim.lr=1e0", "regularizer.pull_weight=20e-1"],
        ["optim.lr=1", "regularizer.pull_weight=2", "regularizer=sar", "loss=cross_entropy"],
        ["optim.lr=1", "regularizer.pull_weight=2", "regularizer.aux_weight=1.0", "optim.momentum=0.9"],
        ["optim.lr=1", "regularizer.pull_weight=2", "training.images_logged=0"],
        [
            "optim.lr=1",
            "regularizer.pull_weight=2",
            "training=full",
            "training.steps=400",
            "training.eval_every=100",
        ],
    ],
)
def test_spelling_does_not_count(same):
    assert identity(*same) == identity("optim.lr=1", "regularizer.pull_weight=2")


def test_the_label_of_a_model_does_not_count():
    parts = ["model=fcn_lcnet_050", "model.backbone=test_efficientnet"]
    assert compose(parts).model.name != compose([]).model.name
    assert identity(*parts) == identity()


def test_minus_zero_is_zero():
    assert identity("optim.weight_decay=-0.0") == identity("optim.weight_decay=0")


DIFFERENT = [
    ["seed=1"],
    ["role=confirm"],
    ["data.imbalance=100"],
    ["data.eval_imbalance=5"],
    ["data.num_train=100"],
    ["data.selection=report"],
    ["data=digits_lt", "model=pool_test_efficientnet"],
    ["model.backbone=test_resnet"],
    ["model.feature_dim=32"],
    ["model.dropout=0.1"],
    ["model.output_stride=8"],
    ["model.auxiliary_weight=0.1"],
    ["model.classifier=simplex_etf"],
    ["model.prototypes_per_class=5"],
    ["model.pretrained=true"],
    ["regularizer=none"],
    ["regularizer=prototype_ema"],
    ["regularizer.anchor_dim=64"],
    ["regularizer.anchor_init=simplex"],
    ["regularizer.projector_depth=2"],
    ["regularizer.aux_weighting=detached"],
    ["regularizer.pull_target=current"],
    ["regularizer.distance=cosine"],
    ["regularizer.pull_reduction=class_balanced"],
    ["regularizer.feature_norm=l2"],
    ["regularizer.anchor_classifier=separate"],
    ["regularizer.gate=always"],
    ["regularizer.aux_weight=0.5"],
    ["regularizer.pull_weight=0.5"],
    ["regularizer.ema_decay=0.5"],
    ["regularizer.ema_half_life=0.5"],
    ["regularizer.filter_confidence=0.5"],
    ["regularizer.update_confidence=0.5"],
    ["loss=logit_adjusted"],
    ["loss=class_balanced"],
    ["optim=sgd"],
    ["optim.lr=0.5"],
    ["optim.weight_decay=0.5"],
    ["optim.momentum=0.5"],
    ["optim.power=0.5"],
    ["optim.floor=0.5"],
    ["training.steps=800"],
    ["training.eval_every=200"],
    ["training.batch_size=8"],
    ["training.device=cuda"],
    ["training.accumulation=2"],
    ["training.precision=bfloat16"],
    ["training.channels_last=false"],
    ["training.compile=true"],
    ["training.grad_clip=1"],
    ["training.sync_bn=true", "training.device=cuda"],
    ["training.unlabelled_weight=1"],
    ["training.teacher_decay=0.5"],
    ["training.pseudo_confidence=0.5"],
    ["data.labelled_share=0.5"],
    ["data.num_eval=100"],
]


def test_everything_that_changes_numbers_counts():
    ids = {identity(*overrides) for overrides in DIFFERENT} | {identity()}
    ids |= {identity(data_fingerprint="digits:2"), identity(code="c0d3")}
    ids |= {identity(threads=2)}
    assert identity(threads=1) == identity()
    assert len(ids) == len(DIFFERENT) + 4


def test_no_option_is_forgotten_above():
    """A new option must be added to the list above, or say that it is no part of the identity."""
    config = compose([])
    options = {
        f"{group.name}.{item.name}"
        for group in dataclasses.fields(config)
        if dataclasses.is_dataclass(part := getattr(config, group.name))
        for item in dataclasses.fields(part)
        if item.metadata.get("identity", True) and item.name not in ("name", "decoder")
    }
    assert options <= {overrides[0].partition("=")[0] for overrides in DIFFERENT}


CODE = '''\
"""About this."""

import math  # needed


class Area:
    """Of a circle."""

    def __call__(self, radius):
        """Return it."""
        # the formula
        return "# not a comment", math.pi * radius**2
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("About this.", "About something\n\nelse."),
        ("  # needed", ""),
        ("# the formula", "# a formula, # twice"),
        ('        """Return it."""\n', ""),
        ("\n\n\nclass", "\n\nclass"),
        ("Of a circle.", "Of a disc."),
        ("radius**2\n", "radius**2   \n"),
    ],
)
def test_comments_docstrings_and_blank_lines_do_not_count(old, new):
    assert CODE.count(old) == 1
    assert source_digest(CODE.replace(old, new)) == source_digest(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("radius**2", "radius**3"), ("# not a", "# no"), ("Area", "Disc"), ("import math", "import cmath")],
)
def test_code_counts(old, new):
    assert source_digest(CODE.replace(old, new)) != source_digest(CODE)


def test_code_beside_a_docstring_counts():
    assert source_digest('class A(B): """A."""\n') != source_digest('class A(C): """A."""\n')
    assert source_digest('"""A."""; x = 1\n') != source_digest('"""A."""; x = 2\n')


def test_training_code_covers_what_trains_and_nothing_else():
    files = training_code().files
    folders = {path.split("/")[0] for path in files if path.endswith(".py")}
    assert folders == {"training", "models", "regularizers", "losses", "data", "study"}
    assert [path for path in files if path.startswith("study/")] == ["study/seeds.py"]
    assert {name for name in files if not name.endswith(".py")} == {
        f"version of {package}"
        for package in (
            *("sarx", "torch", "torchvision", "timm", "segmentation_models_pytorch"),
            *("numpy", "pillow"),
        )
    }
    assert "training/loop.py" in files
    assert changed_files(files, {**files, "training/loop.py": "x", "new.py": "y"}) == [
        "new.py",
        "training/loop.py",
    ]
