"""What the configurations of the regularizers say about options that cannot act."""

import pytest

from sarx.config.schema.regularizers import REGULARIZERS, PrototypeEmaConfig, SarConfig

NOTHING: frozenset[str] = frozenset()
EMA = {"ema_decay", "ema_half_life"}
PULL = EMA | {"gate", "update_confidence", "pull_target", "distance", "pull_reduction", "feature_norm"}
AUX = {"filter_confidence", "aux_weighting"}
ANCHORS = {"anchor_dim", "anchor_init", "projector_depth", "anchor_classifier"}


@pytest.mark.parametrize(
    ("options", "searched", "inert"),
    [
        ({}, NOTHING, set()),
        ({"pull_weight": 0}, NOTHING, PULL),
        ({"pull_weight": 0}, frozenset({"regularizer.pull_weight"}), set()),
        ({"gate": "always"}, NOTHING, {"update_confidence"}),
        ({"gate": "always"}, frozenset({"regularizer.gate"}), set()),
        ({"aux_weight": 0}, NOTHING, AUX),
        ({"pull_target": "current"}, NOTHING, EMA),
        ({"pull_target": "current"}, frozenset({"regularizer.pull_target"}), set()),
        ({"aux_weight": 0}, frozenset({"regularizer.aux_weight"}), set()),
        ({"aux_weight": 0, "pull_weight": 0}, NOTHING, PULL | AUX | ANCHORS),
        (
            {"anchor_classifier": "separate", "pull_weight": 0},
            NOTHING,
            (PULL | AUX | ANCHORS | {"aux_weight"}) - {"anchor_classifier"},
        ),
        ({"projector_depth": 0}, NOTHING, EMA | {"pull_target"}),
        (
            {"projector_depth": 0, "anchor_classifier": "shared_frozen"},
            NOTHING,
            EMA | AUX | {"pull_target", "aux_weight"},
        ),
    ],
)
def test_sar_inert(options, searched, inert):
    assert SarConfig(**options).inert(searched) == inert


def test_prototype_inert():
    assert PrototypeEmaConfig().inert(NOTHING) == {"update_confidence"}
    assert PrototypeEmaConfig(pull_weight=0).inert(NOTHING) == EMA | {"gate", "update_confidence"}
    searched = frozenset({"regularizer.pull_weight", "regularizer.gate"})
    assert PrototypeEmaConfig(pull_weight=0).inert(searched) == set()
    assert PrototypeEmaConfig(gate="per_class").inert(NOTHING) == set()
    assert REGULARIZERS["none"]().inert(NOTHING) == set()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (SarConfig(), None),
        (SarConfig(pull_weight=0), None),
        (SarConfig(aux_weight=0, gate="always"), None),
        (SarConfig(aux_weight=0, gate="per_class"), "gates open by chance"),
        (SarConfig(anchor_classifier="separate", pull_weight=0), "remove the arm"),
        (SarConfig(anchor_classifier="shared_frozen", pull_weight=0), "bit for bit"),
        (SarConfig(filter_confidence=0.5), "which may then stay shut"),
        (SarConfig(filter_confidence=0.5, gate="always"), None),
        (SarConfig(ema_decay=0), "pull_target ema is the same as current"),
        (SarConfig(ema_decay=0, pull_target="ema_undetached"), "is the same as current_undetached"),
        (SarConfig(distance="cosine", feature_norm="l2"), "leave it none"),
        (SarConfig(distance="cosine", feature_norm="layer"), None),
        (SarConfig(projector_depth=0, anchor_classifier="shared_frozen"), "nothing learns from the aux loss"),
        (SarConfig(aux_weight=0), "give it gate: always or a positive aux_weight"),
        (SarConfig(aux_weight=0, pull_weight=0, gate="always"), "remove the arm"),
        (PrototypeEmaConfig(), None),
        (PrototypeEmaConfig(pull_weight=0), "computes exactly what regularizer=none computes"),
        (REGULARIZERS["none"](), None),
    ],
)
def test_warnings(config, said):
    warnings = config.warnings()
    assert (said is None) == (warnings == ())
    assert all(said in text for text in warnings)


@pytest.mark.parametrize(
    ("name", "weight", "inert"),
    [
        ("center_loss", "pull_weight", {"alpha"}),
        ("pixel_prototype_contrast", "contrast_weight", EMA | {"temperature"}),
        ("car", "intra_weight", set()),
    ],
)
def test_baselines_inert(name, weight, inert):
    assert REGULARIZERS[name]().inert(NOTHING) == set()
    switched_off = REGULARIZERS[name](**{weight: 0})
    assert switched_off.inert(NOTHING) == inert
    assert switched_off.inert(frozenset({f"regularizer.{weight}"})) == set()


CAR_WEIGHTS = ("intra_weight", "inter_centre_weight", "inter_pixel_weight")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("car", {}, None),
        ("car", dict.fromkeys(CAR_WEIGHTS[:2], 0), None),
        ("car", dict.fromkeys(CAR_WEIGHTS, 0), "all three weights are 0: computes exactly what"),
        ("center_loss", {}, None),
        ("center_loss", {"pull_weight": 0}, "computes exactly what regularizer=none computes"),
        ("center_loss", {"alpha": 0}, "the centres stay at the origin"),
        ("pixel_prototype_contrast", {}, None),
        ("pixel_prototype_contrast", {"contrast_weight": 0}, "computes exactly what regularizer=none"),
    ],
)
def test_baselines_warn(name, options, said):
    warnings = REGULARIZERS[name](**options).warnings()
    assert (said is None) == (warnings == ())
    assert all(said in text for text in warnings)


def test_published_values():
    """Where the numbers come from stands in the docstring of each implementation."""
    assert REGULARIZERS["center_loss"]().pull_weight == 0.003 * 512
    assert {getattr(REGULARIZERS["car"](), weight) for weight in CAR_WEIGHTS} == {1.0}
    contrast = REGULARIZERS["pixel_prototype_contrast"]()
    assert (contrast.contrast_weight, contrast.temperature, contrast.ema_decay) == (0.1, 0.1, 0.999)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("car", {"intra_weight": -1}, "regularizer.intra_weight"),
        ("center_loss", {"alpha": 1.1}, "regularizer.alpha"),
        ("pixel_prototype_contrast", {"temperature": 0}, "regularizer.temperature"),
        ("pixel_prototype_contrast", {"ema_decay": None}, "exactly one of ema_decay and ema_half_life"),
        ("prototype_ema", {"gate": "always"}, "is not one of none, all, per_class"),
        ("prototype_ema", {"update_confidence": 1}, "regularizer.update_confidence"),
    ],
)
def test_baselines_out_of_range(name, options, said):
    with pytest.raises(ValueError, match=said):
        REGULARIZERS[name](**options)
